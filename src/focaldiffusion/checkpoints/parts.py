"""Whether the parts of a pipeline fit each other, and a model its inputs."""

from __future__ import annotations

from typing import Any, get_args

from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import condition_channels
from focaldiffusion.models.flow import Start


def without_prior(model: str) -> InputError:
    """The error for a model that sees a prior, where there is none."""
    return InputError(
        f"{model}: was trained with a prior (model.with_prior) and cannot run without one. Give "
        "--prior (prior= in Python), or another model."
    )


def check_parts(pipeline: Any) -> None:
    """Check that codec, network and prompt of a pipeline belong together.

    Args:
        pipeline: a `FocalDiffusionPipeline`.

    Raises:
        InputError: they do not.
    """
    config = pipeline.config
    start, patch_factor = config["start"], config["patch_factor"]
    if start not in get_args(Start):
        raise InputError(f"start {start!r} is unknown; expected {', '.join(get_args(Start))}.")
    if (pipeline.vae is None) == (patch_factor is None):
        raise InputError(
            f"vae is {'missing' if pipeline.vae is None else 'given'} and patch_factor is "
            f"{patch_factor}; expected one of the two."
        )
    if pipeline.vae is None and config["depth_in_pixels"]:
        raise InputError(
            "depth_in_pixels: a network without an autoencoder has its depth in pixels anyway. "
            "Leave it out."
        )
    codec, keep_pixels = pipeline.codec, pipeline.vae is None
    state = codec.channels + codec.depth_channels
    shown = {key: config[key] for key in ("with_prior", "with_wide")}
    condition = codec.channels + condition_channels(codec.factor, keep_pixels, **shown)
    read, given = pipeline.denoiser.config, pipeline.prompt.config
    got = read.in_channels, read.out_channels
    if got != (state + condition, state):
        raise InputError(
            f"the denoiser has {got[0]} input and {got[1]} output channels; expected "
            f"{state + condition} and {state} with this codec. Widen it first, or take all parts "
            "from one checkpoint."
        )
    # A convolutional network reads no prompt, so any one fits.
    widths = read.get("joint_attention_dim"), read.get("pooled_projection_dim")
    if widths not in ((None, None), (given["channels"], given["pooled_channels"])):
        raise InputError(
            f"the prompt has {given['channels']} channels, and {given['pooled_channels']} pooled; "
            f"the denoiser reads {widths[0]} and {widths[1]}. Take both from one model."
        )
