"""Depth networks of transformers: whatever `AutoModelForDepthEstimation` knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.packages import OPTIONAL
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.priors.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG = "config.json"
"""File that describes a network of transformers."""

DESCRIPTIONS = (CONFIG, "preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")

_NOT_DEPTH = {"chmv2": "the height of trees seen from the air"}
"""Families of the registry that estimate something else."""

_NEEDS_TORCHVISION = ("depth_pro", "tipsv2_dpt", "zoedepth")
"""Families whose preprocessing or postprocessing runs with torchvision alone."""

_LONGEST_PX = {"glpn": 640}
"""Long side of the image in training, for families whose preprocessing keeps any size."""

_NEVER_USED = "fusion_stage.layers.0.residual_layer1."
"""Weights that the first fusion of DPT declares and never uses; older files leave them out."""

_REMEDY = "Get the folder again, or give another network."


def families() -> dict[str, str]:
    """The classes of the installed transformers by the family of their configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

    return {
        family: name
        for family, name in MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES.items()
        if family not in _NOT_DEPTH
    }


def missing_package(family: str) -> str | None:
    """Name of the package that a family needs and that is not installed; None if it may run."""
    package = OPTIONAL["torchvision"]
    needed = family in _NEEDS_TORCHVISION and not package.is_installed
    return package.name if needed else None


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """The configuration of a depth network.

    Args:
        name: of the network, for messages.
        folder: with its config.json.

    Raises:
        InputError: it describes no depth network, or one that cannot run here.
    """
    config = read_json(folder / CONFIG, "cannot be read", _REMEDY)
    family = config.get("model_type") if isinstance(config, dict) else None
    if family in _NOT_DEPTH:
        raise InputError(
            f"{name}: estimates {_NOT_DEPTH[family]}, not depth. Give a depth network, such as "
            "depth-anything/Depth-Anything-V2-Small-hf."
        )
    known = families()
    if family not in known:
        raise InputError(
            f"{name}: its {CONFIG} describes {family or 'no model of transformers'}; expected a "
            f"depth network: {', '.join(known)}. On the hub, ids of these often end in -hf."
        )
    if missing := missing_package(family):
        raise InputError(
            f"{name}: {family} needs the package {missing}, which is not installed. Run "
            f"`{OPTIONAL[missing].install}`."
        )
    return config


@dataclass(frozen=True, eq=False)
class TransformerNetwork:
    """A depth network of transformers, ready to run.

    Attributes:
        name: folder or hub id, as given.
        kind: the scale that it speaks.
        family: `model_type` of its configuration.
        model: the network.
        processor: its preprocessing and postprocessing.
    """

    name: str
    kind: PriorKind
    family: str
    model: PreTrainedModel
    processor: Any

    @classmethod
    def load(cls, name: str, folder: Path, kind: PriorKind, device: str) -> TransformerNetwork:
        """Load a network from safetensors, in float32.

        Raises:
            InputError: files are missing, or the weights do not fit the configuration.
        """
        config = read_config(name, folder)
        fault = "expected a depth network of transformers, with weights in safetensors"
        with reading(folder, fault, _REMEDY), quiet():
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation

            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model, report = AutoModelForDepthEstimation.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        # Otherwise random: such as the head of a network that was trained for another task.
        missing = sorted(key for key in report["missing_keys"] if _NEVER_USED not in key)
        if missing:
            raise InputError(
                f"{name}: the weights lack {', '.join(missing[:3])}"
                f"{' and more' if len(missing) > 3 else ''}, so they are not those of a depth "
                f"network. {_REMEDY}"
            )
        return cls(name, kind, config["model_type"], model.to(device).eval(), processor)

    def __call__(self, image: Tensor) -> Prior:
        """See `PriorSource`. The network sees the image at its own working size."""
        size = image.shape[-2], image.shape[-1]
        seen = _shrunk(image, _LONGEST_PX.get(self.family))
        pixels = (seen * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        inputs = self.processor(
            images=pixels, return_tensors="pt", input_data_format="channels_last"
        )
        sizes: Mapping[str, Any] = {"target_sizes": [size]}
        if self.family == "zoedepth":  # to remove the border that it adds
            sizes = {**sizes, "source_sizes": [pixels.shape[:2]]}
        with torch.inference_mode():
            outputs = self.model(**inputs.to(self.model.device))
            values = self.processor.post_process_depth_estimation(outputs, **sizes)[0][
                "predicted_depth"
            ].float()
        if self.family != "depth_pro":  # which is inverted there
            # Cubic interpolation overshoots at steps.
            raw = outputs.predicted_depth
            values = values.clamp(raw.min(), raw.max())
        return Prior(values.clone().to(image.device), self.kind, self.name)


def _shrunk(image: Tensor, longest_px: int | None) -> Tensor:
    """An image (3, H, W) whose long side is at most so long."""
    longest = max(image.shape[1:])
    if longest_px is None or longest <= longest_px:
        return image
    size = [max(1, round(side * longest_px / longest)) for side in image.shape[1:]]
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
