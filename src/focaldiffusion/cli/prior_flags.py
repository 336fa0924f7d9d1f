"""Flags that choose a prior, and the chosen prior: found first, loaded when needed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.prior import PriorKind
    from focaldiffusion.priors.given import GivenPrior
    from focaldiffusion.priors.shelf import FoundNetwork

_KINDS = ("metric-depth", "affine-depth", "affine-inverse-depth")


def add_prior(parser: argparse.ArgumentParser, **prior: Any) -> None:
    """Add the flags that `chosen_kind` and `chosen_prior` read.

    Args:
        parser: of a command.
        prior: further settings of --prior, such as how often it may be given.
    """
    group = parser.add_argument_group(
        "prior", "Depth from elsewhere, joined where defocus shows nothing; see docs/priors.md."
    )
    group.add_argument(
        "--prior",
        metavar="NAME",
        help="folder or hub id of a depth network of transformers or diffusers, such as "
        "depth-anything/Depth-Anything-V2-Small-hf, or a file: .npy, .png, .exr ...",
        **prior,
    )
    group.add_argument(
        "--prior-kind",
        choices=_KINDS,
        help="scale of the prior; files need it (default: as the network's configuration has it)",
    )


def chosen_kind(options: argparse.Namespace, *, has_files: bool = False) -> PriorKind | None:
    """The scale that the flags give.

    Args:
        options: the flags.
        has_files: whether a manifest names files that are priors.

    Raises:
        InputError: it has no effect without a prior.
    """
    if options.prior_kind is None:
        return None
    if not (options.prior or has_files):
        raise InputError("--prior-kind: no effect without --prior. Give both, or neither.")
    from focaldiffusion.prior import PriorKind

    return PriorKind.of(options.prior_kind)


def chosen_prior(options: argparse.Namespace, stack_count: int) -> FoundNetwork | GivenPrior | None:
    """The prior that the flags choose; None for none.

    Args:
        options: the flags.
        stack_count: number of stacks that it is for.

    Raises:
        InputError: no such prior, its scale is unknown, or one file for several stacks.
    """
    kind = chosen_kind(options)
    if options.prior is None:
        return None
    from focaldiffusion.priors.given import GivenPrior
    from focaldiffusion.priors.shelf import find_prior

    found = find_prior(options.prior, kind)
    if isinstance(found, GivenPrior) and stack_count > 1:
        raise InputError(
            f"--prior {options.prior}: one file for {stack_count} stacks; expected one stack. Run "
            "them separately, or give a depth network."
        )
    return found


def chosen_network(options: argparse.Namespace, *, has_files: bool) -> FoundNetwork | None:
    """The depth network that the flags choose for all rows of a manifest; None for none.

    Args:
        options: the flags.
        has_files: whether some rows name files that are their priors.

    Raises:
        InputError: no such network, its scale is unknown, or that of the files.
    """
    kind = chosen_kind(options, has_files=has_files)
    if has_files and kind is None:
        raise InputError(
            f"{options.manifest}: its column prior names files, which do not say whether they hold "
            f"depth or inverse depth. Give their --prior-kind: one of {', '.join(_KINDS)}."
        )
    if options.prior is None:
        return None
    from focaldiffusion.priors.given import GivenPrior
    from focaldiffusion.priors.shelf import find_prior

    found = find_prior(options.prior, kind)
    if isinstance(found, GivenPrior):
        raise InputError(
            f"--prior {options.prior}: one file for all rows; expected a depth network. Name the "
            "file of each stack in the column prior of the manifest."
        )
    return found
