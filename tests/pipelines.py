"""Stacks with their physical estimates, and small pipelines to complete them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from conftest import TOLERANCE
from sample_stacks import FOCUS_M, SIZE, photograph, texture
from torch import nn

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.convolutional import ConvolutionalDenoiser
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depth
from focaldiffusion.stack import FocalStack

INVERSE_DEPTH_DPT = torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE)
EXACT = TOLERANCE[torch.float32]


def slanted_plane(seed: int = 0, focus_m: Sequence[float] = FOCUS_M) -> FocalStack:
    return photograph(texture(seed=seed), 1 / INVERSE_DEPTH_DPT, focus_m)


def of_grade(grade: str) -> FocalStack:
    stack = slanted_plane()
    if grade == "calibrated":
        return stack
    if grade == "stage positions":
        # A millimetre of travel a dioptre.
        return FocalStack(stack.images, focus_positions_m=1e-3 / torch.tensor(FOCUS_M))
    return FocalStack(stack.images)


@cache
def physical(grade: str = "calibrated") -> tuple[FocalStack, Estimate]:
    stack = of_grade(grade)
    return stack, estimate_depth(stack, PSF())


def quiet(model: FocalDiffusionPipeline) -> FocalDiffusionPipeline:
    model.set_progress_bar_config(disable=True)
    return model


@cache
def untrained(name: str = "compact", start: str = "estimate") -> FocalDiffusionPipeline:
    return quiet(FocalDiffusionPipeline.from_preset(name, start))


@cache
def trained(name: str = "compact") -> FocalDiffusionPipeline:
    """A model from the estimate whose output is not zero, as after training."""
    model = quiet(FocalDiffusionPipeline.from_preset(name))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        last_layer(model).weight.normal_(std=0.02, generator=generator)
        for name, weight in model.denoiser.named_parameters():
            if name.endswith("second.weight"):  # blocks start as the identity
                weight.normal_(std=0.2, generator=generator)
    return model


def last_layer(model: FocalDiffusionPipeline) -> nn.Module:
    """The layer that is zero in an untrained model from the estimate."""
    denoiser = model.denoiser
    return denoiser.conv_out if isinstance(denoiser, ConvolutionalDenoiser) else denoiser.proj_out


each_start = pytest.mark.parametrize("start", ["estimate", "noise"])
each_preset = pytest.mark.parametrize("name", ["compact", "tiny"])


def model_of(name: str, start: str) -> FocalDiffusionPipeline:
    return trained(name) if start == "estimate" else untrained(name, "noise")
