"""Examples: inputs of the network for a batch of stacks, and the truth to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from focaldiffusion.data.batch import StackBatch
from focaldiffusion.data.dataset import StackSample, check_metric, check_wide
from focaldiffusion.data.draws import integer
from focaldiffusion.data.priors import check_prior
from focaldiffusion.errors import InputError
from focaldiffusion.models.codecs import PatchCodec, pad
from focaldiffusion.models.completer import Completer
from focaldiffusion.models.conditioning import Proposal, latent_condition, proposal_of
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.optics import inverse_m, linear_to_srgb
from focaldiffusion.progress import Stages
from focaldiffusion.recovery import joined_with
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of B results of one size, in the network's units.

    Attributes:
        image: (B, 3, H, W) true all-in-focus image, sRGB in [-1, 1]; the proposal's where unknown.
        has_image: (B,) bool.
        depth_code: (B, 1, H, W) true depth in the code of its stack; the proposal's where invalid.
        valid: (B, 1, H, W) bool, True where the true depth is known.
        codes: surface code of each stack.
        stacks: frames of each stack, for the re-render loss; empty without it.
        blur_scales_px_m: blur scale of each estimate.
        sources: origin of each sample, for messages.
    """

    image: Tensor
    has_image: Tensor
    depth_code: Tensor
    valid: Tensor
    codes: tuple[SurfaceCode, ...]
    stacks: tuple[FocalStack, ...]
    blur_scales_px_m: tuple[float | None, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all of them."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Grid:
    """The grid of a network with an autoencoder.

    Attributes:
        factor: pixels of a side of a latent cell.
        multiple_px: pixels of a side of a token, which images are padded to.
    """

    factor: int
    multiple_px: int

    @classmethod
    def of(cls, completer: Completer) -> Grid | None:
        """The grid of a model; None for the patch codec, whose maps keep their pixels."""
        if isinstance(completer.codec, PatchCodec):
            return None
        return cls(completer.codec.factor, completer.multiple_px)


@dataclass(frozen=True, eq=False)
class Shown:
    """A proposal as a network with an autoencoder reads it: only two planes keep their pixels.

    Attributes:
        all_in_focus: (B, 3, H, W) sRGB in [-1, 1].
        depth_code: (B, 1, H, W) in [-1, 1].
        maps: (B, C, h, w), `latent_condition` of the padded proposal.
    """

    all_in_focus: Tensor
    depth_code: Tensor
    maps: Tensor

    @classmethod
    def on_grid(cls, proposal: Proposal, grid: Grid) -> Shown:
        """A proposal, reduced to what the network reads."""
        padded = proposal.map(lambda maps: pad(maps, grid.multiple_px))
        maps = latent_condition(padded, grid.factor, keep_pixels=False)
        return cls(proposal.all_in_focus, proposal.depth_code, maps)

    def map(self, change: Callable[[Tensor], Tensor]) -> Shown:
        """With one change to each of its tensors."""
        return Shown(*map(change, vars(self).values()))

    @classmethod
    def batched(cls, parts: Sequence[Shown]) -> Shown:
        """One of several of the same size."""
        return cls(*map(torch.cat, zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class Examples:
    """B proposals of one size, made from physical estimates, and the truth to compare with."""

    proposal: Proposal | Shown
    truth: Truth

    @classmethod
    def batched(cls, parts: Sequence[Examples]) -> Examples:
        """One batch of several of the same size."""
        joined: dict[str, Any] = {}
        for field in fields(Truth):
            values = [getattr(part.truth, field.name) for part in parts]
            is_map = isinstance(values[0], Tensor)
            joined[field.name] = torch.cat(values) if is_map else sum(values, ())
        proposals: Any = [part.proposal for part in parts]
        return cls(type(proposals[0]).batched(proposals), Truth(**joined))

    def to(self, device: torch.device | str) -> Examples:
        """The examples on a device. Frames stay where they are: their batch moves them."""
        # An asynchronous copy to the CPU would return memory that is still being written.
        waits = torch.device(device).type == "cpu"
        return self._map(lambda maps: maps.to(device, non_blocking=not waits))

    def pin_memory(self) -> Examples:
        """The examples in memory that a GPU copies from while it computes."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Examples:
        truth: dict[str, Any] = {
            name: change(value) if isinstance(value, Tensor) else value
            for name, value in vars(self.truth).items()
        }
        return Examples(self.proposal.map(change), Truth(**truth))


def examples_of(
    batch: StackBatch,
    depth_code: Literal["log", "inverse"],
    *,
    with_stacks: bool,
    with_image: bool = True,
    with_prior: bool = False,
    with_wide: bool = False,
) -> Examples:
    """The examples of a batch with physical estimates, joined with their priors where there are.

    Args:
        batch: with an estimate for each of its stacks.
        depth_code: `model.depth_code`.
        with_stacks: keep the frames, which only the re-render loss reads.
        with_image: `model.with_image`; without, the true images count as unknown.
        with_prior: `model.with_prior`; whether the network sees the priors, too.
        with_wide: `model.with_wide`; whether it sees the evidence of wide windows.

    Raises:
        InputError: a stack without focus distances, so that its depth in metres has no code, or
            without a prior or wide windows that the network sees.
    """
    parts = []
    for index in range(len(batch)):
        stack, estimate = batch.stack(index), batch.estimates[index]
        if estimate is None:
            raise ValueError("the batch has no physical estimates: read it with_estimates")
        check_metric(stack, batch.sources[index])
        shown = None
        check_shown(batch.sample(index), with_prior=with_prior, with_wide=with_wide)
        if (prior := batch.priors[index]) is not None:
            estimate = joined_with(stack, estimate, prior, Stages())
            assert estimate.joined is not None
            shown = estimate.joined.maps() if with_prior else None
        scale = estimate.calibration.blur_scale
        whole = SurfaceCode.from_stack(stack, estimate.evidence, scale, depth_code)
        code = whole.around(estimate.coordinate, estimate.confidence)
        proposal = proposal_of(
            estimate.evidence,
            estimate.coordinate,
            estimate.agreement,
            estimate.confidence,
            code,
            shown,
            with_wide,
        )
        one = slice(index, index + 1)
        has_image = batch.has_all_in_focus[one] & with_image
        true_image = 2 * linear_to_srgb(batch.all_in_focus[one].clamp(0, 1)) - 1
        true_code = code.encode(inverse_m(batch.depth_m[index]))
        valid = batch.valid[one, None]
        truth = Truth(
            image=true_image if bool(has_image) else proposal.all_in_focus,
            has_image=has_image,
            depth_code=torch.where(valid, true_code, proposal.depth_code),
            valid=valid,
            codes=(code,),
            stacks=(stack,) if with_stacks else (),
            blur_scales_px_m=(scale,),
            sources=(batch.sources[index],),
        )
        parts.append(Examples(proposal, truth))
    return Examples.batched(parts)


def check_shown(sample: StackSample, *, with_prior: bool, with_wide: bool) -> None:
    """Refuse a sample without what a network sees, see `ModelConfig.shown`.

    Raises:
        InputError: it has no prior, or no wide windows.
    """
    if with_prior:
        check_prior(sample)
    if with_wide:
        check_wide(sample)


def patches_of(
    examples: Examples,
    side_px: int,
    count: int,
    multiple_px: int,
    generators: Sequence[torch.Generator],
) -> Examples:
    """Square patches of examples, each mirrored and transposed at random.

    Their proposals are cut from those of whole stacks, so a patch has means of the surroundings
    beyond its borders. No map depends on the orientation, so turning is as good as more scenes.

    Args:
        examples: B of them, without frames.
        side_px: side of a patch.
        count: patches of each example.
        multiple_px: grid of the network, on which corners lie.
        generators: on the CPU, one for the random numbers of each example.

    Returns:
        B `count` patches, example by example.

    Raises:
        InputError: the images are smaller than the patches, or these do not fit the grid.
    """
    height, width = examples.truth.valid.shape[-2:]
    if side_px % multiple_px or side_px > min(height, width):
        raise InputError(
            f"training.patch_px: got {side_px}, for images of {width}x{height}; expected a "
            f"multiple of {multiple_px}, and at most {min(height, width)}."
        )
    cuts = [
        _random_cut((height, width), side_px, multiple_px, generator)
        for generator in generators
        for _ in range(count)
    ]

    def cut(maps: Tensor) -> Tensor:
        cell_px = 1 if maps.shape[-2] == height else _cell_px(height, maps, multiple_px)
        parts = [one(maps[index // count], cell_px) for index, one in enumerate(cuts)]
        return torch.stack(parts)

    def of_patches(values: Any) -> Any:
        if isinstance(values, tuple):
            return tuple(value for value in values for _ in range(count))
        return cut(values) if values.ndim == 4 else values.repeat_interleave(count)

    truth = {name: of_patches(values) for name, values in vars(examples.truth).items()}
    return Examples(examples.proposal.map(cut), Truth(**truth))


def _random_cut(
    size: tuple[int, int], side_px: int, multiple_px: int, generator: torch.Generator
) -> Callable[[Tensor, int], Tensor]:
    """A function that cuts a patch out of maps (C, H, W) of cells of some pixels, and turns it."""
    top, left = (
        multiple_px * integer(0, (side - side_px) // multiple_px, generator) for side in size
    )
    turns = integer(0, 7, generator)

    def cut(maps: Tensor, cell_px: int) -> Tensor:
        rows, columns = (
            slice(first // cell_px, (first + side_px) // cell_px) for first in (top, left)
        )
        part = maps[:, rows, columns]
        part = part.flip([dim for dim in (1, 2) if turns & dim])
        return part.mT if turns & 4 else part

    return cut


def _cell_px(height: int, maps: Tensor, multiple_px: int) -> int:
    """Pixels of a side of a cell of maps of an image, padded, of some height."""
    return (height + -height % multiple_px) // maps.shape[-2]
