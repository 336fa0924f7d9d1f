"""One entry of a file list: the fields that every form of list has, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from focaldiffusion.config.data import CameraDefaults, DepthRange, DepthScale, FocusDistance
from focaldiffusion.config.section import Section
from focaldiffusion.data.rasters import Turn
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.focus import check_focus


def _several(value: Any) -> Any:
    """Items of a text, separated by semicolons; null in a list is infinity."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(";") if item.strip()]
    if isinstance(value, list):
        return [math.inf if item is None else item for item in value]
    return value


_Several = BeforeValidator(_several)
_Span = Annotated[DepthRange, _Several]
_Turns = Annotated[tuple[Turn, ...], _Several]


class Entry(Section):
    """A sample of a file list; data/filelists/README.md explains the fields to users."""

    depth: str
    """Path of the depth map."""
    all_in_focus: str | None = None
    """Path of the image that is sharp everywhere."""
    focal_stack: str | None = None
    """Path of the folder of frames, or of one multi-page TIFF."""
    image_glob: Annotated[str, Field(min_length=1)] | None = None
    """Which files of the folder are frames."""
    generate_focal_stack: bool | None = None
    """Simulate the stack from image and depth, or read the frames."""
    num_images: Annotated[int, Field(ge=2)] | None = None
    """Number of frames expected in the folder, or to simulate."""
    focus_distances_m: Annotated[tuple[FocusDistance, ...], _Several] | None = None
    """Lens to plane of sharp focus of each frame [m]."""
    focal_range: _Span | None = None
    """Nearest and farthest focus of a simulated stack [m]."""
    camera: CameraDefaults = CameraDefaults()
    depth_dataset: str | None = None
    """Name of the array in an HDF5 file."""
    depth_scale: DepthScale | None = None
    """Metres per unit of the depth map."""
    depth_shift: float | None = None
    """Metres added to the scaled depth."""
    depth_kind: Literal["planar", "ray"] | None = None
    """Along the optical axis, or along each pixel's ray."""
    depth_bounds: _Span | None = None
    """Nearest and farthest depth to believe [m]."""
    depth_orientation: _Turns = ()
    """How the depth map is turned, step by step."""
    image_orientation: _Turns = ()
    """How the image and the frames are turned, step by step."""
    name: str | None = None
    """Unique name of the sample in the list."""
    scene: str | None = None
    """The physical scene that the sample shows."""

    @model_validator(mode="after")
    def _agrees(self) -> Entry:
        if self.focus_distances_m is not None:
            distances = list(self.focus_distances_m)
            check_focus("focus_distances_m", distances, self.num_images or len(distances))
        contradiction = next((text for holds, text in self._contradictions() if holds), None)
        if contradiction is not None:
            raise ValueError(contradiction)
        return self

    def _contradictions(self) -> Iterable[tuple[bool, str]]:
        """Conditions that must not hold, each with its error text."""
        photographed = self.all_in_focus is None or self.generate_focal_stack is False
        hdf5 = self.depth.lower().endswith((".hdf5", ".h5"))
        return (
            (
                self.all_in_focus is None and self.focal_stack is None,
                "names neither an image (all_in_focus) nor frames (focal_stack); expected one",
            ),
            (
                self.generate_focal_stack is True and self.all_in_focus is None,
                "generate_focal_stack is true, but no image is given to simulate from; name it "
                "under all_in_focus",
            ),
            (
                self.generate_focal_stack is False and self.focal_stack is None,
                "generate_focal_stack is false, but there are no frames to read; name their "
                "folder under focal_stack",
            ),
            (
                self.image_glob is not None and self.focal_stack is None,
                "image_glob chooses the frames of a focal_stack, and there is none",
            ),
            (
                self.focal_range is not None and photographed,
                "focal_range governs simulated stacks only; give focus_distances_m, or a "
                "stack.json beside the frames, or leave the stack without distances",
            ),
            (
                self.focal_range is not None and self.focus_distances_m is not None,
                "focal_range and focus_distances_m exclude each other; give one",
            ),
            (
                self.depth_dataset is not None and not hdf5,
                f"depth_dataset names an array of an HDF5 file, and {self.depth} is none",
            ),
        )

    def simulated(self, default: bool | None, place: str) -> bool:
        """Whether to simulate the stack: the entry's option, the default, or what files it names.

        Args:
            default: `data.dataset_kwargs.generate_focal_stack`.
            place: file and line, for messages.

        Raises:
            InputError: the entry lacks the files that the default asks for.
        """
        chosen = default if self.generate_focal_stack is None else self.generate_focal_stack
        if chosen is None:
            return self.focal_stack is None
        lacking = "all_in_focus" if chosen else "focal_stack"
        if getattr(self, lacking) is None:
            raise InputError(
                f"{place}: names no {lacking}, and data.dataset_kwargs.generate_focal_stack is "
                f"{str(chosen).lower()}. List it, or change the option."
            )
        return chosen


_CAMERA = "camera."
FIELDS = tuple(name for name in Entry.model_fields if name != "camera") + tuple(
    _CAMERA + name for name in CameraDefaults.model_fields
)
"""Every field; fields of the camera have a dot."""

ORIGINALS = {
    "depth_path": "depth",
    "depth_map_path": "depth",
    "focal_stack_dir": "focal_stack",
    "scene_path": "focal_stack",
    "stack_directory": "focal_stack",
    "aif": "all_in_focus",
    "aif_path": "all_in_focus",
    "focus_distances": "focus_distances_m",
    "focus_range": "focal_range",
    "depth_range": "depth_bounds",
    "transpose_depth": "depth_orientation",
    "camera.focal_length": "camera.focal_length_m",
    "camera.pixel_size": "camera.pixel_pitch_m",
}
"""Field names of the original's lists that differ from ours, with our names."""

_DIFFERENCES = {
    "depth_range": "; depth outside is invalid, where the original clipped it",
    "transpose_depth": "; true is transpose",
    "camera.focal_length": ", in metres",
    "camera.pixel_size": ", in metres",
}

REFUSED = {
    "camera.aperture": "the original read it as a diameter in metres in one place and as an "
    "f-number in another. Give camera.aperture_diameter_m, or camera.f_number",
}
"""Ambiguous field names of the original's lists, with the reason why they are refused."""


def known_field(name: str) -> bool:
    """Whether a list may have a field of this name."""
    return name == "camera" or name in (*FIELDS, *ORIGINALS, *REFUSED)


def entry_of(fields: dict[str, Any], place: str, notices: dict[str, str]) -> Entry:
    """Check the fields of one line.

    Args:
        fields: numbers, lists or text by name; the camera as a mapping or with dotted names.
        place: file and line, for messages.
        notices: receives a sentence for each new name of the original.

    Raises:
        InputError: an unknown or refused name (with the nearest one), a value of the wrong kind,
            or fields that contradict each other.
    """
    flat = {name: value for name, value in fields.items() if name != "camera"}
    camera = fields.get("camera") or {}
    if not isinstance(camera, dict):
        raise InputError(f"{place}: camera is {camera!r}; expected its values by name.")
    flat |= {_CAMERA + name: value for name, value in camera.items()}
    ours: dict[str, Any] = {}
    for given, value in flat.items():
        name = our_name(given, place)
        if name in ours:
            raise InputError(f"{place}: {name} is given twice, once under an older name.")
        if given != name:
            notices.setdefault(
                given, f"{place}: {given} is called {name} here{_DIFFERENCES.get(given, '')}."
            )
        ours[name] = _transposed(value, place) if given == "transpose_depth" else value
    nested = {name: value for name, value in ours.items() if not name.startswith(_CAMERA)}
    nested["camera"] = {
        name.removeprefix(_CAMERA): value
        for name, value in ours.items()
        if name.startswith(_CAMERA)
    }
    try:
        return Entry.model_validate(nested)
    except ValidationError as error:
        raise InputError(f"{place}: {first_problem(error)}") from None


def our_name(name: str, place: str) -> str:
    """Our name of a field.

    Raises:
        InputError: an unknown name (with the nearest one) or a refused one.
    """
    if name in REFUSED:
        raise InputError(f"{place}: {name} is refused: {REFUSED[name]}.")
    if name not in FIELDS and name not in ORIGINALS:
        raise InputError(f"{place}: field {name!r} {unknown_name(name, FIELDS)}")
    return ORIGINALS.get(name, name)


def _transposed(value: Any, place: str) -> list[Turn]:
    """Turns equivalent to the original's `transpose_depth`."""
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise InputError(f"{place}: transpose_depth is {value!r}; expected true or false.")
    return ["transpose"] if text in ("true", "1") else []


def first_problem(error: ValidationError) -> str:
    """The first problem of a failed validation, as one sentence."""
    problem = error.errors()[0]
    # A position in a list is named after the list.
    name = ".".join(part for part in problem["loc"] if isinstance(part, str))
    if problem["type"] == "missing":
        return f"{name} is missing."
    if problem["type"] == "value_error":
        return f"{name} {problem['ctx']['error']}".strip().removesuffix(".") + "."
    expected = problem["msg"].removeprefix("Input should be ").partition(", unable to parse")[0]
    return f"{name} is {problem['input']!r}; expected {expected}."
