"""The `data` block: sources of samples, and the simulation of stacks from them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from focaldiffusion.config.section import NonNegative, PathText, Section, Share
from focaldiffusion.errors import InputError
from focaldiffusion.focus import check_focus
from focaldiffusion.lens import LensFacts, implausible
from focaldiffusion.prior import PriorKind

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SIMULATED_PRIOR = "simulated"
"""Word of `DatasetOptions.prior` for one made from the truth."""

_LONGEST_NAME_BYTES = 100


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected [low, high] with low <= high, got {list(bounds)}")
    return bounds


def _near_to_far(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"expected [near, far] in metres, near < far, got {list(bounds)}")
    return bounds


def _fewest_to_most(count: int | tuple[int, int]) -> int | tuple[int, int]:
    fewest, most = count if isinstance(count, tuple) else (count, count)
    if not 2 <= fewest <= most:
        raise ValueError(
            "expected a number of frames of at least 2, or [fewest, most], "
            f"got {list(count) if isinstance(count, tuple) else count}"
        )
    return count


def _of_metres(scale_m: float) -> float:
    if scale_m >= 10:
        raise ValueError(
            f"{scale_m:g} looks like units per metre; in metres per unit that is {1 / scale_m:g}"
        )
    return scale_m


def _null_is_infinity(distances: Any) -> Any:
    if isinstance(distances, list):
        return [math.inf if one is None else one for one in distances]
    return distances


def _infinity_as_null(distance_m: float) -> float | None:
    return distance_m if math.isfinite(distance_m) else None


def _of_a_stack(distances_m: tuple[float, ...]) -> tuple[float, ...]:
    if len(distances_m) < 2:
        raise ValueError(f"expected the focus of at least 2 frames, got {list(distances_m)}")
    try:
        check_focus("focus_distances_m", list(distances_m), len(distances_m))
    except InputError as error:
        raise ValueError(str(error).removesuffix(".")) from None
    return distances_m


_Ascending = AfterValidator(_ascending)
_Range = Annotated[tuple[NonNegative, NonNegative], _Ascending]
DepthScale = Annotated[PositiveFloat, AfterValidator(_of_metres)]
DepthRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_near_to_far)]
FocusDistance = Annotated[
    float,
    Field(gt=0, allow_inf_nan=True),
    PlainSerializer(_infinity_as_null, when_used="json"),
]
_FocusDistances = Annotated[
    tuple[FocusDistance, ...],
    BeforeValidator(_null_is_infinity),
    AfterValidator(_of_a_stack),
]
_Exponent = Annotated[float, Field(ge=2, le=32)]
_JpegQuality = Annotated[int, Field(ge=1, le=100)]
_WindowSide = Annotated[float, Field(gt=0, le=1)]
_FrameCount = Annotated[int | tuple[int, int], AfterValidator(_fewest_to_most)]
RootKind = Literal["default", "all_in_focus", "focal_stack", "depth"]
DataRoot = PathText | list[PathText] | dict[RootKind, PathText | list[PathText]]
_ImageSize = tuple[PositiveInt, PositiveInt]


class CameraDefaults(Section):
    """The lens of samples that name none; the facts of a sample or its data set come first."""

    f_number: PositiveFloat | None = None
    """Focal length divided by the aperture diameter."""
    focal_length_m: PositiveFloat | None = None
    """Focal length [m]; 0.05 is 50 mm."""
    pixel_pitch_m: PositiveFloat | None = None
    """Metres of sensor per pixel of the image on disk."""
    sensor_width_m: PositiveFloat | None = None
    """Long side of the sensor [m], another way to give the pitch."""
    focal_length_px: PositiveFloat | None = None
    """Image distance / pixel pitch [px of the image on disk]."""
    aperture_diameter_m: PositiveFloat | None = None
    """Diameter of the entrance pupil [m], another way to give the f-number."""

    @field_validator("*")
    @classmethod
    def _in_metres(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and (problem := implausible(info.field_name or "", value)):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _one_form_each(self) -> CameraDefaults:
        try:
            self.facts()
        except InputError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return self

    def facts(self) -> LensFacts:
        """The same values as `LensFacts`."""
        return LensFacts(**self.model_dump(exclude_none=True))


class SimulatorKwargs(Section):
    """Simulation of frames from an image and its depth; ranges are drawn from per stack."""

    psf: Literal["disc", "gaussian", "power_exponential"] = "disc"
    """Shape of the blur."""
    psf_exponent_range: Annotated[tuple[_Exponent, _Exponent], _Ascending] = (2.0, 32.0)
    """Exponent of `power_exponential`, drawn log-uniformly: 2 is a Gaussian, 32 nearly a disc."""
    aperture_stops: NonNegative = 0.0
    """Largest change of the aperture [stops], open or closed."""
    focus_spacing: Literal["dioptre", "log", "random"] = "dioptre"
    """Focus distances over `focal_range`: even in 1/s, even in log s, or a random warp of both."""
    focus_range_jitter: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Each end of `focal_range` moves by up to this share of the range, in dioptres."""
    focus_jitter_dpt: NonNegative = 0.0
    """Largest difference between actual and reported focus [dpt]."""
    noise_std_lsb_range: _Range = (0.0, 0.0)
    """Sensor noise in sRGB, in steps of an 8-bit file."""
    exposure_jitter: Share = 0.0
    """Each frame's light is scaled by up to 1 ± this."""
    breathing: Annotated[float, Field(ge=0, lt=0.1)] = 0.0
    """Focus breathing that alignment leaves: scale per dioptre, drawn up to ± this."""
    shift_px: NonNegative = 0.0
    """Hand shake that alignment leaves: largest shift of a frame [px]."""
    ideal_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of stacks with none of the faults above: a disc, exact focus, no noise, no motion."""
    bit_depth: Literal[8, 16] | None = 8
    """Bit depth of the simulated files; null does not quantise."""
    jpeg_quality_range: Annotated[tuple[_JpegQuality, _JpegQuality], _Ascending] | None = None
    """JPEG quality, 1 to 100, instead of `bit_depth`; null does not compress."""


class Transforms(Section):
    """Augmentation of an image, with its depth and camera, before it is photographed."""

    random_crop: bool = False
    """Crop a random window of the wanted aspect ratio instead of the central one."""
    scale_range: Annotated[tuple[_WindowSide, _WindowSide], _Ascending] = (1.0, 1.0)
    """Side of the window relative to the largest that fits."""
    flip: bool = False
    """Mirror half of the samples left to right."""
    brightness: Share = 0.0
    """Light is scaled by up to 1 ± this."""
    contrast: Share = 0.0
    """The sRGB image is stretched about its mean by up to 1 ± this."""
    saturation: Share = 0.0
    """Colours are stretched about their grey by up to 1 ± this."""


class DatasetOptions(Section):
    """Facts about the samples of a source that their files do not contain."""

    camera_defaults: CameraDefaults = CameraDefaults()
    """Lens of samples without lens data."""
    simulator_kwargs: SimulatorKwargs = SimulatorKwargs()
    """Simulation of frames."""
    transforms: Transforms = Transforms()
    """Augmentation of images."""
    depth_scale: DepthScale | None = None
    """Metres per unit of the depth files."""
    depth_shift: float = 0.0
    """Metres added to the scaled depth."""
    depth_kind: Literal["planar", "ray"] | None = None
    """Depth along the optical axis, or along each pixel's ray."""
    depth_bounds: DepthRange | None = None
    """Nearest and farthest valid depth [m]."""
    generate_focal_stack: bool | None = None
    """Simulate the stack from image and depth, or read a pre-rendered one."""
    focus_distances_m: _FocusDistances | None = None
    """Focus of each frame [m], shared by all stacks that the list gives none; null is infinity."""
    prior: PathText | None = None
    """Depth from elsewhere, joined with physics: folder or hub id of a network; files, such as
    `priors/{name}.npy` with the name of a sample; or `simulated`, from the truth, to train on."""
    prior_kind: PriorKind | None = None
    """Scale of the prior: `metric-depth`, `affine-depth` or `affine-inverse-depth`; files need it,
    networks state their own."""
    layout: str | None = None
    """Published arrangement of the data set's files, see docs/data.md."""


class DatasetKwargs(DatasetOptions):
    """`DatasetOptions`, with overrides per split."""

    train: DatasetOptions = DatasetOptions()
    """Overrides for training, such as the randomness of the simulator."""
    val: DatasetOptions = DatasetOptions()
    """Overrides for validation."""
    test: DatasetOptions = DatasetOptions()
    """Overrides for the test."""


class SourceConfig(Section):
    """One source of a mixture; it inherits from the `data` block."""

    name: str
    """Name in messages, reports and folders: 1 to 100 bytes, no slashes or control characters."""
    dataset_type: str | None = None
    """Name of a data set, see docs/data.md."""
    data_root: DataRoot | None = None
    """Overrides the value in `data`."""
    filelist: PathText | None = None
    """File list of this split, a path from the current folder."""
    focal_range: DepthRange | None = None
    """Overrides the value in `data`."""
    focal_stack_size: _FrameCount | None = None
    """Overrides the value in `data`."""
    image_size: PositiveInt | _ImageSize | None = None
    """Overrides the value in `data`."""
    max_samples: PositiveInt | None = None
    """Largest number of samples to use."""
    weight: PositiveFloat = 1.0
    """Share of the drawn samples, relative to the other weights."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()
    """Overrides for this source."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        # Pictures and predictions lie in folders of this name, and figures in charts of it.
        long = len(name.encode(errors="replace")) > _LONGEST_NAME_BYTES
        if not name.isprintable() or not name.strip(" .") or long or set(name) & set("/\\"):
            raise ValueError(
                f"expected a name of 1 to {_LONGEST_NAME_BYTES} bytes without slashes and control "
                f"characters, and not of dots alone, got {name!r}"
            )
        return name


_Sources = Annotated[tuple[SourceConfig, ...], Field(min_length=1)]


class DataConfig(Section):
    """Sources of samples: one data set (`dataset_type`) or a mixture (`*_sources`)."""

    dataset_type: str | None = None
    """Name of a data set, see docs/data.md."""
    data_root: DataRoot | None = None
    """A folder, a list of folders tried in turn, or a folder per kind of file."""
    train_filelist: PathText | None = None
    """File list of the training samples, a path from the current folder."""
    val_filelist: PathText | None = None
    """File list for validation."""
    test_filelist: PathText | None = None
    """File list for the test."""
    train_sources: _Sources | None = None
    """The mixture to train on."""
    val_sources: _Sources | None = None
    """The sources to validate on."""
    test_sources: _Sources | None = None
    """The sources to test on."""
    image_size: PositiveInt | _ImageSize | None = None
    """Size of the samples [px]: [height, width], or one for both; null keeps the original."""
    focal_stack_size: _FrameCount = 5
    """Number of frames of a simulated stack, or [fewest, most]."""
    focal_range: DepthRange | None = None
    """Nearest and farthest focus of simulated stacks [m]."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes that read and simulate; 0 does it in the main process."""
    max_train_samples: PositiveInt | None = None
    """Largest number of training samples per source without its own `max_samples`."""
    max_val_samples: PositiveInt | None = None
    """`max_train_samples` for validation."""
    max_test_samples: PositiveInt | None = None
    """`max_train_samples` for the test."""
    allow_missing: bool = False
    """Skip and count listed samples whose files are missing, instead of refusing to start."""
    skip_bad_samples: Annotated[int, Field(ge=0)] = 0
    """Read every sample once at the start of training, and leave up to N bad ones out, by name."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()
    """Facts about the samples that their files do not contain."""

    @model_validator(mode="after")
    def _one_origin_each(self) -> DataConfig:
        for split in SPLITS:
            names = f"{split}_filelist", f"{split}_sources"
            if all(getattr(self, name) is not None for name in names):
                raise ValueError(f"{' and '.join(names)} exclude each other; give one")
            called = [source.name for source in getattr(self, f"{split}_sources") or ()]
            twice = next((name for name in called if called.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"two {split}_sources are called {twice}; give each its own name")
        return self


class Source(Section):
    """One source of one split with everything resolved, from which a data set is built.

    The fields of `SourceConfig`, nothing left to inherit.
    """

    name: str
    split: Split
    dataset_type: str
    data_root: DataRoot = Field(default_factory=list)
    filelist: str | None = None
    focal_range: DepthRange | None = None
    focal_stack_size: tuple[int, int] = (5, 5)
    """Fewest and most frames of a simulated stack."""
    image_size: _ImageSize | None = None
    max_samples: int | None = None
    weight: float = 1.0
    allow_missing: bool = False
    options: DatasetOptions = DatasetOptions()
