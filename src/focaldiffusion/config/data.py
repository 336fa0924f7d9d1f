"""The `data` block: which samples are read from where, and how stacks are simulated from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from focaldiffusion.config.section import (
    Ascending,
    NonNegative,
    PathText,
    Range,
    Section,
    Share,
)
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts, implausible

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


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


DepthScale = Annotated[PositiveFloat, AfterValidator(_of_metres)]
DepthRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_near_to_far)]
Exponent = Annotated[float, Field(ge=2, le=32)]
JpegQuality = Annotated[int, Field(ge=1, le=100)]
WindowSide = Annotated[float, Field(gt=0, le=1)]
FrameCount = Annotated[int | tuple[int, int], AfterValidator(_fewest_to_most)]
RootKind = Literal["default", "all_in_focus", "focal_stack", "depth"]
DataRoot = PathText | list[PathText] | dict[RootKind, PathText | list[PathText]]
ImageSize = tuple[PositiveInt, PositiveInt]


class CameraDefaults(Section):
    """The lens of samples that name none; what a sample or its data set knows comes first."""

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
    """Diameter of the entrance pupil [m], in place of the f-number."""

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
    """How frames are photographed from an image and its depth; ranges are drawn from per stack."""

    psf: Literal["disc", "gaussian", "power_exponential"] = "disc"
    """Shape of the blur."""
    psf_exponent_range: Annotated[tuple[Exponent, Exponent], Ascending] = (2.0, 32.0)
    """Of `power_exponential`, drawn log-uniformly: 2 is a Gaussian, 32 nearly a disc."""
    aperture_stops: NonNegative = 0.0
    """The aperture is opened or closed by up to so many stops."""
    focus_spacing: Literal["dioptre", "log", "random"] = "dioptre"
    """Focus distances over `focal_range`: even in 1/s, even in log s, or a random warp of both."""
    focus_range_jitter: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Each end of `focal_range` moves by up to this share of the range, in dioptres."""
    focus_jitter_dpt: NonNegative = 0.0
    """The lens focuses beside the reported distance by up to so many dioptres."""
    noise_std_lsb_range: Range = (0.0, 0.0)
    """Sensor noise in sRGB, in steps of an 8-bit file."""
    exposure_jitter: Share = 0.0
    """Each frame's light is scaled by up to 1 ± this."""
    breathing: Annotated[float, Field(ge=0, lt=0.1)] = 0.0
    """What alignment left of focus breathing: scale per dioptre, drawn up to ± this."""
    shift_px: NonNegative = 0.0
    """What alignment left of hand shake: each frame moves by up to so many pixels."""
    bit_depth: Literal[8, 16] | None = 8
    """Of the simulated files; null does not quantise."""
    jpeg_quality_range: Annotated[tuple[JpegQuality, JpegQuality], Ascending] | None = None
    """Of JPEG files, 1 to 100, in place of `bit_depth`; null compresses nothing."""


class Transforms(Section):
    """How an image and all that belongs to it is varied before it is photographed."""

    random_crop: bool = False
    """Crop a random window of the wanted aspect; the centre one otherwise."""
    scale_range: Annotated[tuple[WindowSide, WindowSide], Ascending] = (1.0, 1.0)
    """The window's side, as a share of the largest that fits."""
    flip: bool = False
    """Mirror left to right, every second time."""
    brightness: Share = 0.0
    """Light is scaled by up to 1 ± this."""
    contrast: Share = 0.0
    """The sRGB image is stretched about its mean by up to 1 ± this."""
    saturation: Share = 0.0
    """Colours are stretched about their grey by up to 1 ± this."""


class DatasetOptions(Section):
    """What is known of the samples of a source beyond what their files say."""

    camera_defaults: CameraDefaults = CameraDefaults()
    """The lens of samples that name none."""
    simulator_kwargs: SimulatorKwargs = SimulatorKwargs()
    """How frames are photographed."""
    transforms: Transforms = Transforms()
    """How images are varied before."""
    depth_scale: DepthScale | None = None
    """Metres per unit of the depth files."""
    depth_shift: float = 0.0
    """Metres added to the scaled depth."""
    depth_kind: Literal["planar", "ray"] | None = None
    """Along the optical axis, or along each pixel's ray."""
    depth_bounds: DepthRange | None = None
    """Nearest and farthest depth [m] to believe; what lies outside is invalid."""
    generate_focal_stack: bool | None = None
    """Simulate the stack from image and depth, or read a pre-rendered one."""
    layout: str | None = None
    """Which of its published arrangements the files of a data set have, see docs/data.md."""


class DatasetKwargs(DatasetOptions):
    """`DatasetOptions`, with overrides per split."""

    train: DatasetOptions = DatasetOptions()
    """What differs in training, such as the randomness of the simulator."""
    val: DatasetOptions = DatasetOptions()
    """What differs in validation."""
    test: DatasetOptions = DatasetOptions()
    """What differs in the test."""


class SourceConfig(Section):
    """One source of a mixture; what it leaves out it takes from the `data` block."""

    name: str
    """What messages and reports call it."""
    dataset_type: str | None = None
    """Name of a data set, see docs/data.md."""
    data_root: DataRoot | None = None
    """As in `data`, which it takes the place of."""
    filelist: PathText | None = None
    """File list of this split, a path from the current folder."""
    focal_range: DepthRange | None = None
    """As in `data`, which it takes the place of."""
    focal_stack_size: FrameCount | None = None
    """As in `data`, which it takes the place of."""
    image_size: PositiveInt | ImageSize | None = None
    """As in `data`, which it takes the place of."""
    max_samples: PositiveInt | None = None
    """So many samples at most are used."""
    weight: PositiveFloat = 1.0
    """Share of the samples drawn from this source, relative to the other weights."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()
    """What is said here goes before what the `data` block says."""


Sources = Annotated[tuple[SourceConfig, ...], Field(min_length=1)]


class DataConfig(Section):
    """Sources of samples, for one data set (`dataset_type`) or a mixture (`*_sources`)."""

    dataset_type: str | None = None
    """Name of a data set, see docs/data.md."""
    data_root: DataRoot | None = None
    """Folder, list of folders tried in turn, or a folder per kind of file."""
    train_filelist: PathText | None = None
    """File list of the training samples, a path from the current folder."""
    val_filelist: PathText | None = None
    """File list for validation."""
    test_filelist: PathText | None = None
    """File list of the test."""
    train_sources: Sources | None = None
    """The mixture to train on."""
    val_sources: Sources | None = None
    """The sources to validate on."""
    test_sources: Sources | None = None
    """The sources to test on."""
    image_size: PositiveInt | ImageSize | None = None
    """Size of the samples [px]: [height, width], or both at once; null keeps that on disk."""
    focal_stack_size: FrameCount = 5
    """Frames of a simulated stack, or [fewest, most]."""
    focal_range: DepthRange | None = None
    """Nearest and farthest focus of simulated stacks [m]."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and simulate beside the main one."""
    max_train_samples: PositiveInt | None = None
    """So many samples at most are used of each source that has no max_samples."""
    max_val_samples: PositiveInt | None = None
    """The same for validation."""
    max_test_samples: PositiveInt | None = None
    """The same for the test."""
    allow_missing: bool = False
    """Leave out listed samples whose files are missing, counted, instead of refusing to start."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()
    """What is known of the samples beyond what their files say."""

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
    image_size: ImageSize | None = None
    max_samples: int | None = None
    weight: float = 1.0
    allow_missing: bool = False
    options: DatasetOptions = DatasetOptions()
