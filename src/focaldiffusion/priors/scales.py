"""The scale that a depth network speaks, from its configuration; never from its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focaldiffusion.errors import InputError
from focaldiffusion.prior import PriorKind

DEPTH, INVERSE = PriorKind.AFFINE_DEPTH, PriorKind.AFFINE_INVERSE_DEPTH
METRIC = PriorKind.METRIC_DEPTH


@dataclass(frozen=True)
class Scale:
    """The scale of a network.

    Attributes:
        kind: the scale; None if the configuration leaves it open.
        stated_by: the entry that states it, such as "depth_estimation_type: relative"; None if it
            is merely usual for this family.
    """

    kind: PriorKind | None
    stated_by: str | None = None


_OF_FAMILY = {
    "glpn": METRIC,
    "tipsv2_dpt": METRIC,
    "zoedepth": METRIC,
}
"""Families all of whose networks speak one scale."""

_OF_TYPE = {"relative": INVERSE, "metric": METRIC}
"""Scales by the entry `depth_estimation_type` of Depth Anything."""

_OF_PREDICTION = {"depth": DEPTH, "disparity": INVERSE}
"""Scales by the entry `prediction_type` of Marigold."""


def scale_of_transformer(config: Mapping[str, Any]) -> Scale:
    """The scale of a network of transformers.

    Depth Anything states it. Depth Pro speaks metres with its field of view, and without it depth
    up to a factor. DPT is MiDaS, except on DINOv2, where it was trained for metres and for other
    scales.

    Args:
        config: content of its config.json.
    """
    family = config.get("model_type")
    if family == "depth_anything":
        stated = config.get("depth_estimation_type", "relative")  # the class's default
        return Scale(_OF_TYPE.get(stated), f"depth_estimation_type: {stated}")
    if family == "depth_pro":
        has_view = bool(config.get("use_fov_model", False))
        return Scale(METRIC if has_view else DEPTH, f"use_fov_model: {str(has_view).lower()}")
    if family == "dpt":
        backbone = config.get("backbone_config") or {}
        is_midas = "dinov2" not in str(backbone.get("model_type"))
        return Scale(INVERSE if is_midas else None)
    return Scale(_OF_FAMILY.get(str(family)))


def scale_of_marigold(index: Mapping[str, Any]) -> Scale:
    """The scale of a Marigold pipeline.

    Args:
        index: content of its model_index.json.
    """
    stated = index.get("prediction_type")
    return Scale(_OF_PREDICTION.get(str(stated)), f"prediction_type: {stated}")


def settled(name: str, scale: Scale, given: PriorKind | None) -> PriorKind:
    """The scale to use.

    A given kind decides where the configuration leaves the scale open, or where it is merely usual
    for the family. Metric depth may be given as affine depth, which it is too.

    Args:
        name: of the network, for messages.
        scale: what its configuration says.
        given: kind that the user gave; None for none.

    Raises:
        InputError: neither says it, or they contradict each other.
    """
    kinds = ", ".join(PriorKind)
    if given is None:
        if scale.kind is None:
            raise InputError(
                f"{name}: its configuration leaves open whether it gives depth or inverse depth. "
                f"Give its kind with --prior-kind (kind= in Python): one of {kinds}."
            )
        return scale.kind
    weaker = scale.kind is METRIC and given is DEPTH
    if scale.stated_by and scale.kind not in (None, given) and not weaker:
        raise InputError(
            f"{name}: its configuration has {scale.stated_by}, which is {scale.kind}, but the "
            f"kind given is {given}. Leave out --prior-kind (kind= in Python)."
        )
    return given
