"""Validation during training: the real pipeline, on a fixed set of stacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.run import Config
from focaldiffusion.data.check import BadSample, names_of
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.data.mixture import spread
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.image_metrics import psnr
from focaldiffusion.evaluation.metrics import depth_metrics
from focaldiffusion.io.colour_scales import ColourScale, DepthRange
from focaldiffusion.io.panels import Panel, Strip, page, srgb_pixels
from focaldiffusion.models.completer import Sampling
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.recovery import recover
from focaldiffusion.result import Result
from focaldiffusion.training.examples import check_shown

if TYPE_CHECKING:
    from accelerate import Accelerator

METRIC = "abs_rel"
"""Metric that selects the best checkpoint: lowest is best."""

_DEPTH_METRICS = ("abs_rel", "rmse", "delta_1.05", "delta_1.25")


class _Validated(NamedTuple):
    """Score and picture of one sample, by its place."""

    place: int
    score: dict[str, float]
    picture: NDArray[np.uint8] | None


class Validation:
    """A fixed part of the val split, and the score of the physical estimate on it.

    Attributes:
        mixture: the whole split.
    """

    def __init__(self, config: Config, bad: Sequence[BadSample] = ()) -> None:
        """Open the split but for its bad samples, without reading any.

        Raises:
            InputError: its data are missing.
        """
        mixture = open_split(config.data, "val", config.training.seed, names_of(bad, "val"))
        self._config, self.mixture = config, mixture
        self._positions = spread(len(mixture), config.validation.max_samples).tolist()
        self._physical: dict[int, dict[str, float]] = {}  # score of each sample, once known

    def __call__(
        self, pipeline: FocalDiffusionPipeline, accelerator: Accelerator, *, shared: bool
    ) -> tuple[dict[str, float], list[NDArray[np.uint8]]]:
        """Mean metrics of a model and of physics alone, and pictures of the first samples.

        They are equal in all processes, which all have to call this: `val/abs_rel` and so on and,
        if several sources are validated on, `val/SOURCE/abs_rel` of each.

        Args:
            pipeline: pipeline with the weights to validate.
            accelerator: of the processes.
            shared: whether each process takes a share of the samples. Without, as shards of one
                model have to, each takes them all.

        Raises:
            InputError: a sample cannot be read.
        """
        share = slice(None)
        if shared:
            share = slice(accelerator.process_index, None, accelerator.num_processes)
        own = range(len(self._positions))[share]
        found: list[_Validated | InputError] = []
        try:
            found += self._validated(pipeline, own)
        except InputError as error:
            found = [error]  # else the other processes would wait for it
        if shared and accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            found = gather_object(found)
        for one in found:
            if isinstance(one, InputError):
                raise one
        good = [one for one in found if not isinstance(one, InputError)]
        good.sort(key=lambda one: one.place)
        pictures = [one.picture for one in good if one.picture is not None]
        return self._values([one.score for one in good]), pictures

    def _validated(self, pipeline: FocalDiffusionPipeline, indices: range) -> Iterator[_Validated]:
        samples = self._samples([self._positions[index] for index in indices], pipeline.device)
        for index, sample in zip(indices, samples, strict=True):
            learned = self._recovered(sample, pipeline)
            drawn = index < self._config.validation.num_pictures
            picture = None
            if index not in self._physical or drawn:
                physics = self._recovered(sample, None)
                scored = _score(sample, physics)
                self._physical[index] = {f"physics_{name}": scored[name] for name in scored}
                if drawn:
                    picture = _picture(sample, physics, learned)
            yield _Validated(index, _score(sample, learned) | self._physical[index], picture)

    def _values(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Means over all samples and, of several sources, over those of each."""
        values = {f"val/{name}": value for name, value in _means(scores).items()}
        sources = [self.mixture.draw(position).source for position in self._positions]
        if len(set(sources)) > 1:
            for source in sorted(set(sources)):
                own = [score for score, of in zip(scores, sources, strict=True) if of == source]
                name = self.mixture.sources[source].name
                values |= {f"val/{name}/{key}": value for key, value in _means(own).items()}
        return values

    def _samples(self, positions: Sequence[int], device: torch.device) -> Iterator[StackSample]:
        found = batches(
            self.mixture,
            positions,
            1,
            num_workers=min(1, self._config.data.num_workers),
            device=device,
            with_estimates=True,
        )
        return (batch.sample(0) for batch in found)

    def _recovered(self, sample: StackSample, pipeline: FocalDiffusionPipeline | None) -> Result:
        """The result of `focaldiffusion infer`, reusing the sample's physical estimate."""
        check_shown(sample, **self._config.model.shown)
        working = sample.stack.at_working_size()
        # An estimate at another size is computed again.
        physical = sample.estimate if working.size == sample.stack.size else None
        refine = None
        if pipeline is not None:
            sampling = Sampling(steps=self._config.validation.num_inference_steps)
            refine = partial(pipeline.refine, sampling=sampling)
        prior = None if sample.prior is None else GivenPrior(sample.prior)
        found = recover(working, check_lens=False, prior=prior, refine=refine, physical=physical)
        if found.depth_m is None:
            raise InputError(
                f"{sample.source}: has no focus distances, so its depth is not in metres and "
                "cannot be validated. Leave it out of val."
            )
        return found


def _score(sample: StackSample, found: Result) -> dict[str, float]:
    """Metrics of one sample, by their names in the evaluation."""
    assert found.depth_m is not None
    depth = depth_metrics(torch.from_numpy(found.depth_m), sample.depth_m.cpu(), sample.valid.cpu())
    score = {name: depth[name] for name in _DEPTH_METRICS}
    if sample.all_in_focus is not None:
        image = torch.from_numpy(found.all_in_focus).permute(2, 0, 1)
        score["aif_psnr"] = psnr(image, linear_to_srgb(sample.all_in_focus.cpu().clamp(0, 1)))
    return score


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for score in scores for name in score)
    return {name: mean(score[name] for score in scores if name in score) for name in names}


def _picture(sample: StackSample, physics: Result, learned: Result) -> NDArray[np.uint8]:
    """Image, true depth, and the depths of physics and of the model on the same scale."""
    assert physics.depth_m is not None
    assert learned.depth_m is not None
    true_m = sample.depth_m.where(sample.valid, torch.nan).cpu().numpy()
    known = DepthRange.of(true_m, "depth_m")
    scale = ColourScale.of_depth(known) if known is not None else None
    title = scale.title if scale is not None else "Depth"
    panels = [
        Panel("All in focus", srgb_pixels(learned.all_in_focus)),
        Panel.of_map(f"{title}: truth", true_m, scale),
        Panel.of_map(f"{title}: physics", physics.depth_m, scale),
        Panel.of_map(f"{title}: model", learned.depth_m, scale),
    ]
    return page([Strip("", panels, tallest_px=480)])
