"""The `data` block: which samples are read from where, and how stacks are simulated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from focaldiffusion.config.section import Section

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Range = Annotated[tuple[float, float], Field(description="(low, high), low <= high")]
NonNegative = Annotated[float, Field(ge=0)]


class CameraDefaults(Section):
    """The lens of samples that name none; what a sample or its data set knows comes first."""

    f_number: PositiveFloat | None = None
    """Focal length divided by the aperture diameter."""
    focal_length_m: Annotated[float, Field(gt=0, lt=2)] | None = None
    """Focal length [m]; 0.05 is 50 mm."""
    pixel_pitch_m: Annotated[float, Field(gt=0, lt=1e-3)] | None = None
    """Metres of sensor per pixel of the image on disk."""
    sensor_width_m: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Long side of the sensor [m], another way to give the pitch."""
    focal_length_px: PositiveFloat | None = None
    """Image distance / pixel pitch [px of the image on disk]."""
    aperture_diameter_m: PositiveFloat | None = None
    """Diameter of the entrance pupil [m], in place of the f-number."""

    @model_validator(mode="after")
    def _one_form_each(self) -> CameraDefaults:
        for rivals in (
            ("f_number", "aperture_diameter_m"),
            ("pixel_pitch_m", "sensor_width_m"),
        ):
            given = [name for name in rivals if getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} exclude each other; give one")
        return self


class SimulatorKwargs(Section):
    """How frames are photographed from an image and its depth; ranges are drawn from per stack."""

    psf: Literal["disc", "gaussian", "power_exponential"] = "disc"
    """Shape of the blur."""
    psf_exponent_range: Range = (2.0, 32.0)
    """Of `power_exponential`, drawn log-uniformly: 2 is a Gaussian, 32 nearly a disc."""
    aperture_stops: NonNegative = 0.0
    """The aperture is opened or closed by up to so many stops."""
    focus_spacing: Literal["dioptre", "log", "random"] = "dioptre"
    """Focus distances over `focal_range`: even in 1/s, even in log s, or a random warp of both."""
    focus_range_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Each end of `focal_range` moves by up to this share of the range, in dioptres."""
    focus_jitter_dpt: NonNegative = 0.0
    """The lens focuses beside the reported distance by up to so many dioptres."""
    noise_std_lsb_range: Range = (0.0, 0.0)
    """Sensor noise in sRGB, in steps of an 8-bit file."""
    exposure_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Each frame's light is scaled by up to 1 ± this."""
    breathing: Annotated[float, Field(ge=0, lt=0.1)] = 0.0
    """What alignment left of focus breathing: scale per dioptre, drawn up to ± this."""
    shift_px: NonNegative = 0.0
    """What alignment left of hand shake: each frame moves by up to so many pixels."""
    bit_depth: Literal[8, 16] | None = 8
    """Of the simulated files; null does not quantise."""


class Transforms(Section):
    """How an image and all that belongs to it is varied before it is photographed."""

    random_crop: bool = False
    """Crop a random window of the wanted aspect; the centre one otherwise."""
    scale_range: Range = (1.0, 1.0)
    """The window's side, as a share of the largest that fits."""
    flip: bool = False
    """Mirror left to right, every second time."""
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Light is scaled by up to 1 ± this."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The sRGB image is stretched about its mean by up to 1 ± this."""
    saturation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Colours are stretched about their grey by up to 1 ± this."""


class DatasetOptions(Section):
    """What is known of the samples of a source beyond what their files say."""

    camera_defaults: CameraDefaults = CameraDefaults()
    simulator_kwargs: SimulatorKwargs = SimulatorKwargs()
    transforms: Transforms = Transforms()
    depth_scale: PositiveFloat | None = None
    """Metres per unit of the depth files."""
    depth_shift: float = 0.0
    """Metres added to the scaled depth."""
    depth_kind: Literal["planar", "ray"] | None = None
    """Along the optical axis, or along each pixel's ray."""
    depth_bounds: tuple[PositiveFloat, PositiveFloat] | None = None
    """Nearest and farthest depth [m] to believe; what lies outside is invalid."""
    generate_focal_stack: bool | None = None
    """Simulate the stack from image and depth, or read a pre-rendered one."""
    layout: str | None = None
    """Which of the published arrangements of its files a data set has; see docs/data.md."""


class DatasetKwargs(DatasetOptions):
    """`DatasetOptions`, with overrides per split."""

    train: DatasetOptions = DatasetOptions()
    val: DatasetOptions = DatasetOptions()
    test: DatasetOptions = DatasetOptions()


RootKind = Literal["default", "all_in_focus", "focal_stack", "depth"]
DataRoot = str | list[str] | dict[RootKind, str | list[str]]
ImageSize = tuple[PositiveInt, PositiveInt]


class SourceConfig(Section):
    """One source of a mixture; what it leaves out it takes from the `data` block."""

    name: str
    dataset_type: str | None = None
    data_root: DataRoot | None = None
    filelist: str | None = None
    focal_range: Range | None = None
    focal_stack_size: int | tuple[int, int] | None = None
    image_size: PositiveInt | ImageSize | None = None
    max_samples: PositiveInt | None = None
    weight: PositiveFloat = 1.0
    """Share of the samples drawn from this source, relative to the other weights."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()


class DataConfig(Section):
    """Sources of samples, for one data set (`dataset_type`) or a mixture (`*_sources`)."""

    dataset_type: str | None = None
    """A name of `focaldiffusion.data.registry`."""
    data_root: DataRoot | None = None
    """Folder, list of folders tried in turn, or a folder per kind of file."""
    train_filelist: str | None = None
    val_filelist: str | None = None
    test_filelist: str | None = None
    train_sources: list[SourceConfig] | None = None
    val_sources: list[SourceConfig] | None = None
    test_sources: list[SourceConfig] | None = None
    image_size: PositiveInt | ImageSize | None = None
    """Size of the samples: (height, width), or both at once; null keeps that on disk."""
    focal_stack_size: int | tuple[int, int] = 5
    """Frames of a simulated stack, or the fewest and the most."""
    focal_range: Range | None = None
    """Nearest and farthest focus of simulated stacks [m]."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    max_train_samples: PositiveInt | None = None
    max_val_samples: PositiveInt | None = None
    max_test_samples: PositiveInt | None = None
    allow_missing: bool = False
    """Leave out listed samples whose files are missing, counted, instead of refusing to start."""
    dataset_kwargs: DatasetKwargs = DatasetKwargs()

    @field_validator("focal_range")
    @classmethod
    def _ascending(cls, value: Any) -> Any:
        if value is not None and not 0 < value[0] < value[1]:
            raise ValueError(f"expected [near, far] in metres, 0 < near < far, got {list(value)}")
        return value


class Source(Section):
    """One source of one split with everything resolved: what a data set is built from.

    Attributes are those of `SourceConfig`, none left to be taken from elsewhere.
    """

    name: str
    split: Split
    dataset_type: str
    data_root: DataRoot
    filelist: str | None
    focal_range: Range | None
    focal_stack_size: tuple[int, int]
    """The fewest and the most frames of a simulated stack."""
    image_size: ImageSize | None
    max_samples: int | None
    weight: float
    allow_missing: bool
    options: DatasetOptions
