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


def chosen_kind(options: argparse.Namespace) -> PriorKind | None:
    """The scale that the flags give.

    Raises:
        InputError: it has no effect without a prior.
    """
    if options.prior_kind is None:
        return None
    if not options.prior:
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
