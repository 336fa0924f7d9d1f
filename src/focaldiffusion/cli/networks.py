"""The networks of a run of `infer`, loaded once for all of its stacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from focaldiffusion.allocation import is_out_of_memory
from focaldiffusion.cli.memory import lighter_model
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.cli.model_flags import ChosenModel
    from focaldiffusion.prior import PriorSource
    from focaldiffusion.priors.given import GivenPrior
    from focaldiffusion.priors.shelf import FoundNetwork


@dataclass(frozen=True)
class Networks:
    """The networks of a run.

    Attributes:
        chosen: the model that the flags choose; None for the physical estimate.
        pipeline: that model; None if no stack needs it.
        prior: gives the prior of each stack; None for none.
    """

    chosen: ChosenModel | None = None
    pipeline: FocalDiffusionPipeline | None = None
    prior: PriorSource | None = None


def load_networks(
    chosen: ChosenModel | None,
    prior: FoundNetwork | GivenPrior | None,
    device: str,
    *,
    quiet: bool,
) -> Networks:
    """Load what the flags chose.

    Args:
        chosen: the model.
        prior: the prior.
        device: torch device of the prior.
        quiet: show no progress.

    Raises:
        InputError: it cannot be loaded.
    """
    if chosen is None and prior is None:
        return Networks()
    from focaldiffusion.priors.shelf import FoundNetwork

    pipeline = None
    source: PriorSource | None = None if isinstance(prior, FoundNetwork) else prior
    if chosen is not None:
        try:
            with progress_bars(chosen.checkpoint.name, quiet=quiet) as progress:
                progress("loading the model", 0, 0)
                pipeline = chosen.load()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"{chosen.checkpoint.name}: not enough memory on {chosen.device} to load the "
                f"model. {lighter_model(chosen)}"
            ) from error
    if isinstance(prior, FoundNetwork):
        try:
            with progress_bars(prior.name, quiet=quiet) as progress:
                progress("loading the prior", 0, 0)
                source = prior.load(device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"{prior.name}: not enough memory on {device} to load the prior. Use --device "
                "cpu, or a smaller network."
            ) from error
    return Networks(chosen, pipeline, source)
