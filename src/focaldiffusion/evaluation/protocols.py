"""The protocols by name: the published ones and ours."""

from __future__ import annotations

from focaldiffusion.config.data import CameraDefaults
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.evaluation.protocol import OraclePlanes, Photography, Protocol, WorkingRange
from focaldiffusion.psf import PSF

_FULL_FRAME_M = 0.036
_QUANTILE_PLANES = OraclePlanes(5, (0.05, 0.95))
_FOSSA_PHOTOGRAPHY = Photography(
    _QUANTILE_PLANES,
    lens=CameraDefaults(f_number=1.4, sensor_width_m=_FULL_FRAME_M),
    psf=PSF("gaussian"),
    blur_of="srgb",
    bit_depth=None,
)
_FOSSA_FRAMES = (0, 2, 4, 6, 8)
_FOSSA_ABOUT = (
    "The published stacks were blurred by another renderer, in floating point, over depth whose "
    "holes were filled in; here the depth of the nearest pixel fills them, and only measured depth "
    "counts. Planes taken from the truth tell a model the range of the scene."
)
_NYU_ABOUT = (
    "The published blur is that of a 50 mm f/8 lens on pixels of 12 um, which is not the lens of "
    "the images: here the aperture makes blur of the same diameter. Published kernels are cut at "
    "7 px and have twice the standard deviation of a disc of that diameter."
)


def _nyu_lens(width_px: int) -> CameraDefaults:
    """The aperture that blurs images of this width as 50 mm at f/8 blurs pixels of 12 um.

    That lens has A F = 0.05 / 8 * 0.05 / 12e-6 = 26 px m; the focal length F of the images is
    519.16 px at their full width of 561 px.
    """
    blur_scale_px_m = 0.05 / 8 * 0.05 / 12e-6
    return CameraDefaults(aperture_diameter_m=blur_scale_px_m / (519.16 * width_px / 561))


_ALL = (
    Protocol(
        name="rendered",
        dataset_type="stacks",
        split="test",
        oracle_frames=True,
        about="Path-traced rooms, hard on purpose. Their focus planes were set at the 3 and 97 % "
        "quantiles of the true inverse depth before rendering.",
    ),
    Protocol(
        name="rgbd",
        dataset_type="rgbd",
        split="test",
        photography=Photography(
            (0.8, 1.7, 3.0, 4.7, 8.0),
            lens=CameraDefaults(f_number=2.8, sensor_width_m=_FULL_FRAME_M),
            noise_std_lsb=1.0,
            long_side_px=768,
        ),
        counted_prefixes=("icl_", "midd_"),
        about="Our own renderer makes the frames, with the blur model of our own sweep, which "
        "flatters our models. Only scenes whose truth has no sensor noise and no glass enter the "
        "mean.",
    ),
    Protocol(
        name="examples",
        dataset_type="stacks",
        split="test",
        about="Two path-traced scenes; focus planes chosen from the set-up before rendering. Two "
        "scenes are no sample: read each by itself.",
    ),
    Protocol(
        name="procedural",
        dataset_type="procedural",
        split="test",
        photography=Photography(WorkingRange(5), noise_std_lsb=1.0),
        samples=48,
        about="Scenes made from seeds that no training sees, of the kind that the compact model is "
        "trained on, photographed by our own renderer: both flatter it.",
    ),
    Protocol(
        name="stacks",
        dataset_type="stacks",
        split="test",
        about="Any folder of stacks with their truth. Who chose their focus planes, and how, is "
        "not known here.",
    ),
    Protocol(
        name="zedd",
        dataset_type="zedd",
        split="val",
        layout="F2.8",
        frames=_FOSSA_FRAMES,
        image_size=(480, 640),
        depth_range_m=(0.01, 1000.0),
        about="The server's figures are those of the test split, which no one can score at home.",
    ),
    Protocol(
        name="infinigen_defocus",
        dataset_type="infinigen_defocus",
        split="test",
        layout="F1.4",
        frames=_FOSSA_FRAMES,
        depth_range_m=(0.01, 1000.0),
        about="Every view of the archive, or those that a val.json of the authors lists.",
    ),
    Protocol(
        name="ibims1",
        dataset_type="ibims1",
        split="test",
        photography=_FOSSA_PHOTOGRAPHY,
        about=_FOSSA_ABOUT,
    ),
    Protocol(
        name="diode",
        dataset_type="diode",
        split="val",
        photography=_FOSSA_PHOTOGRAPHY,
        image_size=(480, 640),
        about=f"{_FOSSA_ABOUT} Indoors and outdoors together.",
    ),
    Protocol(
        name="hammer",
        dataset_type="hammer",
        split="test",
        photography=_FOSSA_PHOTOGRAPHY,
        about=f"{_FOSSA_ABOUT} Every frame of the test scenes; the published ones are a choice of "
        "MoGe's authors.",
    ),
    Protocol(
        name="ddff12",
        dataset_type="ddff12",
        split="val",
        frames=(0, 2, 4, 6, 9),
        domain="disparity",
        about="DFV's split. Stacks are refocused light fields of an effective f/15, averaged over "
        "encoded pixels; their truth is that of an RGB-D sensor.",
    ),
    Protocol(
        name="nyuv2",
        dataset_type="nyuv2",
        split="test",
        layout="labeled_filled",
        photography=Photography(
            (1.0, 1.5, 2.5, 4.0, 6.0), lens=_nyu_lens(320), psf=PSF("gaussian"), blur_of="srgb"
        ),
        image_size=(240, 320),
        depth_range_m=(0.1, 10.0),
        about=f"DEReD's stacks. {_NYU_ABOUT} Depth in holes is the authors' colourisation and "
        "counts, as published.",
    ),
    Protocol(
        name="nyuv2_oracle",
        dataset_type="nyuv2",
        split="test",
        layout="labeled_filled",
        photography=Photography(
            OraclePlanes(10, (0.0, 1.0), "depth_m"),
            lens=_nyu_lens(512),
            psf=PSF("gaussian"),
            blur_of="srgb",
            bit_depth=None,
        ),
        image_size=(384, 512),
        depth_range_m=(0.001, 10.0),
        about=f"HybridDepth's stacks: the focus distances give the true depth range away. "
        f"{_NYU_ABOUT}",
    ),
    Protocol(
        name="fod500",
        dataset_type="fod500",
        split="test",
        depth_range_m=(0.01, 1.5),
        about="The sensor of the renderer is not published, so the blur scale is searched for. "
        "DFV's code clips prediction and truth at 1.5 m, so that all background is right; here "
        "truth beyond 1.5 m does not count.",
    ),
    Protocol(
        name="hci",
        dataset_type="hci",
        split="test",
        photography=Photography(
            _QUANTILE_PLANES, lens=CameraDefaults(f_number=1.4), noise_std_lsb=1.0
        ),
        counted_prefixes=("training/boxes", "training/cotton", "training/dino"),
        about="Ours: centre views, photographed by our own renderer, which flatters our models. No "
        "fixed planes suit scenes from 1 to 26 m. training/sideboard, 19 m away, is blurred by a "
        "pixel and only reported.",
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
"""Protocols by name, which users pass as --dataset."""


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        InputError: an unknown name; the message names the nearest one.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} {unknown_name(name, PROTOCOLS)}")
    return PROTOCOLS[name]
