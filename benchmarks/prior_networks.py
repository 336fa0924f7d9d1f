"""Time and memory of depth networks for --prior, at the sizes of published ones, random weights.

python -m benchmarks.prior_networks
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from focaldiffusion.priors.shelf import load_prior
from focaldiffusion.progress import peak_memory_mib

_SIZE = (768, 1024)
_WIDTHS = {"Small": (384, 12, 6, 64), "Base": (768, 12, 12, 128), "Large": (1024, 24, 16, 256)}
"""Sizes of Depth Anything V2: width, layers and heads of the encoder, width of the decoder."""

_NECKS = {
    "Small": [48, 96, 192, 384],
    "Base": [96, 192, 384, 768],
    "Large": [256, 512, 1024, 1024],
}


def main() -> None:
    """Measure each size in a process of its own."""
    if len(sys.argv) > 1:
        print(_measured(sys.argv[1]))
        return
    print("network, parameters, CPU seconds an image of 1024x768, peak memory of the process")
    for name in _WIDTHS:
        command = [sys.executable, "-m", "benchmarks.prior_networks", name]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def _measured(name: str) -> str:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = _save(name, Path(folder))
        network = load_prior(folder, device="cpu")
    image = torch.rand(3, *_SIZE)
    network(image)
    started = time.process_time()
    network(image)
    seconds = time.process_time() - started
    return f"{name}, {model / 1e6:.1f} M, {seconds:.1f} s, {peak_memory_mib()} MiB"


def _save(name: str, folder: Path) -> int:
    """Save Depth Anything V2 with random weights and return the number of its parameters."""
    import transformers as hf

    width, layers, heads, fusion = _WIDTHS[name]
    taps = {12: [3, 6, 9, 12], 24: [5, 12, 18, 24]}[layers]
    backbone = hf.Dinov2Config(
        image_size=518,
        patch_size=14,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        out_indices=taps,
        reshape_hidden_states=False,
    )
    config = hf.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=_NECKS[name],
        fusion_hidden_size=fusion,
    )
    model = hf.DepthAnythingForDepthEstimation(config)
    model.save_pretrained(folder)
    processor: Any = hf.DPTImageProcessor(
        size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14
    )
    processor.save_pretrained(folder)
    return sum(one.numel() for one in model.parameters())


if __name__ == "__main__":
    main()
