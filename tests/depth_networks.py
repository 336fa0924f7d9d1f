"""Depth networks of every family in miniature: the real classes, random weights, saved folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from random_base import clip_tokenizer

METRES = 10.0
"""Depth of `constant` networks that speak metres."""

_VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
_NECK: dict[str, Any] = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
_DPT_SIZES = {"size": {"height": 28, "width": 28}, "keep_aspect_ratio": True}


def _dinov2() -> hf.Dinov2Config:
    return hf.Dinov2Config(
        **_VIT,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )


def _depth_anything(kind: str) -> tuple[nn.Module, Any]:
    config = hf.DepthAnythingConfig(
        backbone_config=_dinov2(),
        reassemble_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
        **_NECK,
    )
    return hf.DepthAnythingForDepthEstimation(config), hf.DPTImageProcessor(
        **_DPT_SIZES, ensure_multiple_of=14
    )


def _prompted() -> tuple[nn.Module, Any]:
    config = hf.PromptDepthAnythingConfig(
        backbone_config=_dinov2(), reassemble_hidden_size=16, head_hidden_size=8, **_NECK
    )
    return hf.PromptDepthAnythingForDepthEstimation(config), hf.PromptDepthAnythingImageProcessor(
        **_DPT_SIZES, ensure_multiple_of=14
    )


def _dpt(on_dinov2: bool = False) -> tuple[nn.Module, Any]:
    if on_dinov2:
        config = hf.DPTConfig(backbone_config=_dinov2(), hidden_size=16, **_NECK)
        return hf.DPTForDepthEstimation(config), hf.DPTImageProcessor(
            **_DPT_SIZES, ensure_multiple_of=14
        )
    config = hf.DPTConfig(**_VIT, image_size=32, backbone_out_indices=[0, 1, 2, 3], **_NECK)
    return hf.DPTForDepthEstimation(config), hf.DPTImageProcessor(size={"height": 32, "width": 32})


def _glpn() -> tuple[nn.Module, Any]:
    config = hf.GLPNConfig(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        mlp_ratios=[1, 1, 1, 1],
        decoder_hidden_size=8,
        max_depth=20,
    )
    return hf.GLPNForDepthEstimation(config), hf.GLPNImageProcessor()


def _zoedepth() -> tuple[nn.Module, Any]:
    backbone = hf.BeitConfig(
        **_VIT, image_size=32, patch_size=16, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    config = hf.ZoeDepthConfig(
        backbone_config=backbone,
        bottleneck_features=8,
        num_relative_features=8,
        bin_embedding_dim=8,
        num_attractors=[2, 2, 2, 2],
        bin_centers_type="normed",  # all bins lie between these two
        bin_configurations=[{"n_bins": 4, "min_depth": METRES - 0.01, "max_depth": METRES + 0.01}],
        **_NECK,
    )
    return hf.ZoeDepthForDepthEstimation(config), hf.ZoeDepthImageProcessor(
        size={"height": 32, "width": 32}, ensure_multiple_of=16
    )


def _depth_pro(with_view: bool) -> tuple[nn.Module, Any]:
    vit = hf.Dinov2Config(**_VIT, image_size=16, patch_size=8)
    config = hf.DepthProConfig(
        patch_size=16,
        fusion_hidden_size=8,
        intermediate_hook_ids=[2, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[8, 8],
        use_fov_model=with_view,
        num_fov_head_layers=1,
        image_model_config=vit,
        patch_model_config=vit,
        fov_model_config=vit,
    )
    return hf.DepthProForDepthEstimation(config), hf.DepthProImageProcessor(
        size={"height": 32, "width": 32}
    )


def _tipsv2() -> tuple[nn.Module, Any]:
    backbone = hf.AutoConfig.for_model(
        "tipsv2_vision_model",
        **_VIT,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = hf.Tipsv2DptConfig(
        backbone_config=backbone,
        num_depth_bins=4,
        min_depth=METRES - 0.01,
        max_depth=METRES + 0.01,
        **_NECK,
    )
    return hf.Tipsv2DptForDepthEstimation(config), hf.Tipsv2DptImageProcessor(
        size={"height": 28, "width": 28}
    )


NETWORKS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "depth_anything relative": lambda: _depth_anything("relative"),
    "depth_anything metric": lambda: _depth_anything("metric"),
    "prompt_depth_anything": _prompted,
    "dpt": _dpt,
    "dpt on dinov2": lambda: _dpt(on_dinov2=True),
    "glpn": _glpn,
    "zoedepth": _zoedepth,
    "depth_pro": lambda: _depth_pro(with_view=True),
    "depth_pro without view": lambda: _depth_pro(with_view=False),
    "tipsv2_dpt": _tipsv2,
}
"""Makers of a network of random weights with its preprocessing, by name."""


def save_network(name: str, folder: Path) -> Path:
    """A network of random weights, saved as published ones are."""
    torch.manual_seed(0)
    model, processor = NETWORKS[name]()
    for weight in model.parameters():
        if weight.ndim > 1:  # as they start, they hardly change from picture to picture
            nn.init.kaiming_normal_(weight)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_constant(name: str, folder: Path, value: float) -> Path:
    """A network whose last layer gives this number everywhere."""
    torch.manual_seed(0)
    model, processor = NETWORKS[name]()
    _make_constant(_last_convolution(model.head), value)
    if getattr(model, "fov_model", None) is not None:
        _make_constant(_last_convolution(model.fov_model.head), 90.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _last_convolution(module: nn.Module) -> nn.Conv2d:
    return [one for one in module.modules() if isinstance(one, nn.Conv2d)][-1]


def _make_constant(layer: nn.Conv2d, value: float) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.fill_(value)


def save_marigold(folder: Path, prediction: str = "depth", value: float | None = None) -> Path:
    """A Marigold pipeline of random weights; with a value, its decoder gives that everywhere."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    if value is not None:
        _make_constant(vae.decoder.conv_out, value)
    unet = UNet2DConditionModel(
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    text = hf.CLIPTextConfig(
        vocab_size=5,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    MarigoldDepthPipeline(
        unet=unet,
        vae=vae,
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        text_encoder=hf.CLIPTextModel(text),
        tokenizer=clip_tokenizer(),
        prediction_type=prediction,
        default_denoising_steps=2,
        default_processing_resolution=32,
    ).save_pretrained(folder)
    return folder


def change_json(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **entries}), encoding="utf-8")
