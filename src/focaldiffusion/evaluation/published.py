"""Published figures to compare with ours, by protocol, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class PublishedRow:
    """Figures of one model, measured by others.

    Attributes:
        model: as its authors call it.
        figures: means by the names and in the units of `scoring.METRICS`; shares in [0, 1].
        source: publication of the figures.
        differs: difference of the measurement from the protocol; empty where there is none.
        oracle: the focus planes were taken from the truth.
        second_hand: quoted in notes on the source; not checked in the source itself.
    """

    model: str
    figures: Mapping[str, float]
    source: str
    differs: str = ""
    oracle: bool = False
    second_hand: bool = False


def _table(
    source: str,
    metrics: Sequence[str],
    rows: Mapping[str, Sequence[float | None]],
    *,
    differs: str = "",
    oracle: bool = False,
    second_hand: bool = False,
) -> tuple[PublishedRow, ...]:
    """Rows of one published table; None for figures that it lacks."""
    return tuple(
        PublishedRow(
            model,
            {name: value for name, value in zip(metrics, values, strict=True) if value is not None},
            source,
            differs,
            oracle,
            second_hand,
        )
        for model, values in rows.items()
    )


_quoted = partial(_table, second_hand=True)

_FOSSA = "README of https://github.com/princeton-vl/FOSSA (2026)"
_FOSSA_PAPER = "Zuo et al. 2026, arXiv 2603.26658"
_DDFT = "README of the code of Chen et al., Deep Depth from Focus with Transformer"
_DUALFOCUS = "the DualFocus paper"
_AIFDEPTHNET = "Wang et al. 2021, arXiv 2108.10843"

_DISPARITY_METRICS = "disparity:mse", "disparity:rmse", "disparity:abs_rel", "disparity:delta_1.25"

_SERVER = "test split, scored by the authors' server"
_ONE_IMAGE = "one sharp image, no stack"
_FOSSA_BLUR = "their simulator: nearer surfaces hide nothing, kernels end at 15 px"
_NYU_BLUR = "their simulator: twice the blur of the lens, kernels end at 7 px; another crop"
_TUNED = "trained on DDFF-12; number of frames not stated"
_CLIPPED = "depth beyond 1.5 m perhaps clipped, not left out"
_LIGHT_FIELDS = "refocused light fields (HCI_FS), the baseline of each for its disparity"


def _fossa(
    small: Sequence[float], base: Sequence[float], *, differs: str = ""
) -> tuple[PublishedRow, ...]:
    """FOSSA's two models; it takes focus planes from the truth where it simulates frames."""
    return _table(
        _FOSSA,
        ("delta_1.05", "delta_1.15", "delta_1.25", "abs_rel"),
        {"FOSSA ViT-S": small, "FOSSA ViT-B": base},
        differs=differs,
        oracle=bool(differs),
    )


PUBLISHED: dict[str, tuple[PublishedRow, ...]] = {
    "zedd": (
        *_fossa((0.4450, 0.7866, 0.8858, 0.0985), (0.4317, 0.8101, 0.9194, 0.0957)),
        *_quoted(
            _FOSSA_PAPER,
            ("delta_1.25", "abs_rel"),
            {"FOSSA ViT-B": (0.918, 0.089), "DFV": (0.576, None)},
            differs=_SERVER,
        ),
        *_quoted(
            _FOSSA_PAPER,
            ("delta_1.25", "abs_rel"),
            {"Depth Pro": (None, 0.201), "MoGe-2": (0.580, None)},
            differs="test split; the F16 image and its focal length, no stack",
        ),
    ),
    "infinigen_defocus": (
        *_fossa((0.5201, 0.8635, 0.9400, 0.0847), (0.4199, 0.8199, 0.9355, 0.0908)),
        *_quoted(_FOSSA_PAPER, ("abs_rel",), {"Depth Pro": (0.176,)}, differs=_ONE_IMAGE),
    ),
    "ibims1": (
        *_fossa(
            (0.5193, 0.8502, 0.9540, 0.0745),
            (0.5548, 0.8719, 0.9633, 0.0701),
            differs=_FOSSA_BLUR,
        ),
        *_quoted(
            "the papers of these models",
            ("delta_1.25",),
            {
                "Depth Pro": (0.823,),
                "MoGe-2": (0.924,),
                "UniDepthV2": (0.945,),
                "Metric3Dv2": (0.684,),
            },
            differs=_ONE_IMAGE,
        ),
    ),
    "diode": (
        *_fossa(
            (0.4105, 0.6649, 0.7661, 0.1778),
            (0.4127, 0.6692, 0.7786, 0.1601),
            differs=_FOSSA_BLUR,
        ),
        *_quoted(_FOSSA_PAPER, ("abs_rel",), {"Depth Pro": (0.289,)}, differs=_ONE_IMAGE),
    ),
    "hammer": _fossa(
        (0.6006, 0.9889, 0.9987, 0.0440),
        (0.9377, 0.9974, 0.9993, 0.0172),
        differs=f"{_FOSSA_BLUR}; frames chosen and resized by MoGe's authors",
    ),
    "ddff12": (
        *_table(
            _FOSSA,
            (*_DISPARITY_METRICS, "disparity:delta_1.25^2", "disparity:delta_1.25^3"),
            {
                "FOSSA ViT-S": (0.0015, 0.0352, 0.2676, 0.3462, 0.8119, 0.9544),
                "FOSSA ViT-S, tuned": (0.0004, 0.0183, 0.1076, 0.9363, 0.9829, 0.9908),
                "FOSSA ViT-B": (0.0013, 0.0324, 0.2105, 0.6075, 0.9206, 0.9679),
                "FOSSA ViT-B, tuned": (0.0003, 0.0148, 0.1088, 0.9322, 0.9866, 0.9939),
            },
        ),
        *_table(
            _DDFT,
            _DISPARITY_METRICS,
            {
                "DFV": (5.70e-4, 0.0213, 0.17, 0.7674),
                "FocDepthFormer": (None, 0.0196, 0.16, 0.7906),
                "HybridDepth": (3.26e-4, 0.0159, 0.15, 0.7719),
                "DfF in the Wild": (2.23e-4, 0.0135, 0.15, 0.7992),
            },
            differs=_TUNED,
        ),
        *_quoted(
            _DUALFOCUS,
            _DISPARITY_METRICS,
            {"DualFocus": (4.7e-4, 0.0194, None, 0.800)},
            differs=_TUNED,
        ),
        *_quoted(
            _AIFDEPTHNET,
            _DISPARITY_METRICS,
            {
                "AiFDepthNet": (8.6e-4, None, 0.25, 0.683),
                "DefocusNet": (9.1e-4, None, None, None),
                "DDFF": (9.7e-4, None, None, None),
                "VDFF": (7.3e-3, None, None, None),
            },
            differs=_SERVER,
        ),
    ),
    "nyuv2": _table(
        "https://ehzoahis.github.io/DEReD (2023)",
        ("delta_1.25", "rmse", "abs_rel"),
        {
            "DFV": (0.967, 0.232, 0.445),
            "DEReD (self-supervised)": (0.950, 0.325, 0.170),
            "Suwajanakorn et al.": (0.688, 0.950, 0.250),
            "Moeller et al.": (0.670, 0.985, 0.263),
        },
        differs=f"{_NYU_BLUR}; their loader tells models 1, 3, 5, 7, 9 m",
    ),
    "nyuv2_oracle": (
        *_quoted(
            "the HybridDepth and DualFocus papers",
            ("rmse", "abs_rel", "delta_1.25"),
            {
                "DualFocus": (0.075, 0.013, 0.999),
                "DFV": (0.094, 0.020, 0.998),
                "HybridDepth": (0.128, 0.026, 0.995),
            },
            differs=f"{_NYU_BLUR}; the sharp image is given too",
            oracle=True,
        ),
        *_quoted(
            "the HybridDepth and DualFocus papers",
            ("rmse", "abs_rel", "delta_1.25"),
            {"Metric3Dv2-L": (0.183, 0.047, 0.989), "UniDepth": (0.201, 0.057, 0.984)},
            differs=_ONE_IMAGE,
        ),
    ),
    "fod500": (
        *_table(
            _DDFT,
            ("mse",),
            {"DDFT": (0.0084,), "DfF in the Wild": (0.0087,), "AiFDepthNet": (0.0127,)},
            differs=_CLIPPED,
        ),
        *_quoted(
            _DUALFOCUS,
            ("mse",),
            {"DualFocus": (0.015,), "DefocusNet": (0.0175,), "DFV": (0.020,)},
            differs=_CLIPPED,
        ),
    ),
    "hci": (
        *_table(_DDFT, ("disparity:mse",), {"DDFT": (0.021,)}, differs=_LIGHT_FIELDS),
        *_quoted(
            _AIFDEPTHNET,
            ("disparity:mse", "disparity:rmse"),
            {
                "AiFDepthNet": (0.047, 0.201),
                "AiFDepthNet (unsupervised)": (0.075, 0.240),
                "DefocusNet": (0.059, 0.236),
                "DDFF": (0.19, 0.42),
                "VDFF": (1.3, 1.15),
            },
            differs=_LIGHT_FIELDS,
        ),
    ),
}
"""Rows by protocol; rows with the protocol's own setting come first."""
