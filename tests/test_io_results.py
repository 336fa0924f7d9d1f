from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_depth_mm, read_npy
from focaldiffusion.io.images import ImageMetadata, read_image, read_metadata
from focaldiffusion.io.results import check_output, has_results
from focaldiffusion.optics import Camera
from focaldiffusion.result import Result
from focaldiffusion.solve.calibrate import Calibration
from focaldiffusion.stack import FocalStack, Grade

SIZE = (48, 64)
ALWAYS = {
    "all_in_focus.png",
    "confidence.png",
    "depth_colored.png",
    "metadata.json",
    "overview.png",
    "source_index.png",
}


@dataclass(frozen=True)
class Frames:
    """Native frames in memory."""

    bit_depth: int = 8
    is_grey: bool = False
    names: tuple[str, ...] = ("a.png", "b.png", "c.png")
    size: tuple[int, int] = SIZE

    def read(self, index: int) -> np.ndarray:
        return np.full((*SIZE, 3), index / 4, np.float32)


def make_stack(**fields) -> FocalStack:
    frames = torch.linspace(0.1, 0.9, 3)[:, None, None, None].expand(3, 3, *SIZE)
    focus_m = torch.tensor([0.5, 1.0, 1.5])
    return FocalStack(frames, **{"frames": Frames(), "focus_distances_m": focus_m, **fields})


def make_result(stack: FocalStack | None = None, **fields) -> Result:
    rng = np.random.default_rng(0)
    depth_m = 0.5 + rng.random(SIZE, np.float32)
    depth_m[:4, :4] = np.nan
    focus = {}
    if "height_m" in fields:
        focus = {"focus_distances_m": None, "focus_positions_m": torch.tensor([0.0, 0.1, 0.2])}
    if "depth_relative" in fields:
        focus = {"focus_distances_m": None}
    defaults = {
        "all_in_focus": rng.random((*SIZE, 3), np.float32),
        "confidence": rng.random(SIZE, np.float32),
        "stack": stack or make_stack(**focus),
        "calibration": Calibration(Grade.CALIBRATED, 0.7),
        "source_index": np.arange(SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8) % 3,
        "camera": Camera(70.0, 0.01, SIZE),
        "provenance": {"version": "0.1.0"},
    }
    if not {"height_m", "depth_relative"} & fields.keys():
        defaults["depth_m"] = depth_m
    return Result(**{**defaults, **fields})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def metadata(folder: Path) -> dict:
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads((folder / "metadata.json").read_text("utf-8"), parse_constant=refuse)


def test_a_metric_result_has_every_file(tmp_path: Path):
    result, folder = make_result(), tmp_path / "new" / "out"
    left_out = result.save(folder)

    assert left_out == {}
    assert names(folder) == ALWAYS | {"depth.npy", "depth_mm.png", "point_cloud.ply"}
    assert names(tmp_path / "new") == {"out"}
    depth_m = read_npy(folder / "depth.npy")
    np.testing.assert_array_equal(depth_m, result.depth_m)
    torch.testing.assert_close(
        read_depth_mm(folder / "depth_mm.png"), depth_m, rtol=0, atol=5.1e-4, equal_nan=True
    )
    np.testing.assert_allclose(
        read_image(folder / "all_in_focus.png"), result.all_in_focus, atol=0.5001 / 255
    )
    confidence = np.asarray(Image.open(folder / "confidence.png"))
    assert confidence.dtype == np.uint8
    np.testing.assert_allclose(confidence / 255, result.confidence, atol=0.5001 / 255)
    assert np.array_equal(np.asarray(Image.open(folder / "source_index.png")), result.source_index)
    assert len(trimesh.load(folder / "point_cloud.ply").vertices) == 48 * 64 - 16
    assert Image.open(folder / "overview.png").mode == "RGB"
    assert Image.open(folder / "depth_colored.png").mode == "RGB"
    assert metadata(folder)["version"] == "0.1.0"
    assert set(metadata(folder)["results"]["files"]) == names(folder)


@pytest.mark.parametrize("field", ["height_m", "depth_relative"])
def test_non_metric_depth_has_its_own_file_name(tmp_path: Path, field: str):
    values = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(SIZE)
    left_out = make_result(**{field: values}).save(tmp_path)

    assert left_out == {}
    assert names(tmp_path) == ALWAYS | {field.removesuffix("_m") + ".npy"}
    np.testing.assert_array_equal(read_npy(tmp_path / (field.removesuffix("_m") + ".npy")), values)


@pytest.mark.parametrize(("is_grey", "mode"), [(True, "I;16"), (False, "RGB")])
def test_sixteen_bit_input_gives_sixteen_bit_output(tmp_path: Path, is_grey, mode):
    image = np.repeat(np.random.default_rng(0).random((*SIZE, 1), np.float32), 3, axis=2)
    stack = make_stack(frames=Frames(bit_depth=16, is_grey=is_grey))
    make_result(stack=stack, all_in_focus=image).save(tmp_path)

    path = tmp_path / "all_in_focus.png"
    np.testing.assert_allclose(read_image(path), image, atol=0.501 / 65535)
    assert Image.open(path).mode == mode  # Pillow shows 16-bit colour as 8-bit


def test_icc_and_exif_of_the_reference_frame_are_kept(tmp_path: Path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    kept = ImageMetadata(b"\0" * 16 + b"RGB " + b"profile" * 20, exif.tobytes()[6:])
    make_result(image_metadata=kept).save(tmp_path)

    assert read_metadata(tmp_path / "all_in_focus.png").icc_profile == kept.icc_profile
    with Image.open(tmp_path / "all_in_focus.png") as image:
        assert image.getexif()[0x010F] == "Maker"


def test_more_than_256_frames_need_a_sixteen_bit_index(tmp_path: Path):
    index = np.full(SIZE, 299, np.uint16)
    stack = FocalStack(torch.full((300, 3, 6, 8), 0.5))
    depth_relative = np.full(SIZE, 0.5, np.float32)
    make_result(stack=stack, source_index=index, depth_relative=depth_relative).save(tmp_path)

    with Image.open(tmp_path / "source_index.png") as image:
        assert image.mode == "I;16"
        assert np.asarray(image).max() == 299


def test_files_left_out_are_reported_and_recorded(tmp_path: Path):
    far = make_result(depth_m=np.full(SIZE, 80.0, np.float32), camera=None)
    left_out = far.save(tmp_path)

    assert names(tmp_path) == ALWAYS | {"depth.npy"}
    assert left_out == {
        "depth_mm.png": "the depth reaches 80 m, and 16-bit millimetres end at 65.535 m; "
        "use depth.npy or .exr",
        "point_cloud.ply": "the focal length is unknown; give the camera to get points",
    }
    assert metadata(tmp_path)["results"]["left_out"] == left_out

    unknown = make_result(depth_m=np.full(SIZE, np.nan, np.float32))
    left_out = unknown.save(tmp_path, overwrite=True)
    assert left_out == {"point_cloud.ply": "no pixel has a known depth"}


def test_a_focal_length_alone_is_enough_for_points(tmp_path: Path):
    depth_m = np.full(SIZE, 2.0, np.float32)
    result = make_result(depth_m=depth_m, camera=Camera(50.0, None, SIZE))
    result.save(tmp_path / "with")
    result.save(tmp_path / "without", point_cloud="off")

    corner = trimesh.load(tmp_path / "with/point_cloud.ply").vertices[0]
    assert corner == pytest.approx([-31.5 / 50 * 2, -23.5 / 50 * 2, 2.0])
    assert not (tmp_path / "without/point_cloud.ply").exists()


def test_large_images_get_points_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("focaldiffusion.io.results.MAX_POINTS", SIZE[0] * SIZE[1] - 1)
    assert make_result().save(tmp_path / "auto") == {
        "point_cloud.ply": "more than 0 megapixels; write it with --point-cloud on "
        '(point_cloud="on")'
    }
    assert make_result().save(tmp_path / "on", point_cloud="on") == {}
    assert (tmp_path / "on" / "point_cloud.ply").exists()
    with pytest.raises(InputError, match="point_cloud True is unknown"):
        make_result().save(tmp_path / "bool", point_cloud=True)


def test_an_image_alone_has_no_files_of_depth(tmp_path: Path):
    result = make_result(depth_m=None, confidence=None)
    assert result.save(tmp_path) == {}
    assert names(tmp_path) == {"all_in_focus.png", "metadata.json", "source_index.png"}
    assert repr(result) == "<Result stack: calibrated, 64x48 px, image only>"
    with pytest.raises(InputError, match="stack: has no depth, because image_only was set"):
        _ = result.depth
    with pytest.raises(ValueError, match="expected depth_m and confidence, or neither"):
        make_result(confidence=None)


def test_points_use_the_principal_point_of_the_camera(tmp_path: Path):
    result = make_result(
        depth_m=np.full(SIZE, 2.0, np.float32), camera=Camera(70.0, 0.01, SIZE, (0.5, 0.5))
    )
    result.save(tmp_path)
    assert trimesh.load(tmp_path / "point_cloud.ply").vertices[0].tolist() == [0, 0, 2]


def test_metadata_is_strict_json(tmp_path: Path):
    provenance = {
        "focus_distances_m": [0.5, float("inf")],
        "residuals": (np.float32(0.25), np.int64(3), float("nan")),
        "path": Path("a") / "b",
        "name": "Fokus äöü",
    }
    make_result(provenance=provenance).save(tmp_path)

    found = metadata(tmp_path)
    del found["results"]
    assert found == {
        "focus_distances_m": [0.5, None],
        "residuals": [0.25, 3, None],
        "path": str(Path("a") / "b"),
        "name": "Fokus äöü",
    }


class TestExistingFolders:
    def test_results_are_not_overwritten_unasked(self, tmp_path: Path):
        make_result().save(tmp_path)
        before = contents(tmp_path)

        with pytest.raises(InputError) as error:
            make_result().save(tmp_path)
        assert str(error.value) == (
            f"{tmp_path}: already holds all_in_focus.png, depth.npy, depth_mm.png and 6 more "
            "results. Choose another output, or overwrite them with --overwrite (overwrite=True)."
        )
        assert contents(tmp_path) == before

    def test_overwriting_replaces_our_files_and_no_others(self, tmp_path: Path):
        (tmp_path / "notes.txt").write_text("mine")
        make_result().save(tmp_path)
        relative = make_result(depth_relative=np.zeros(SIZE, np.float32))
        relative.save(tmp_path, overwrite=True)

        # No metric file of the earlier result stays beside the new one.
        assert names(tmp_path) == ALWAYS | {"depth_relative.npy", "notes.txt"}
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_foreign_file_with_our_name_is_not_touched_unasked(self, tmp_path: Path):
        (tmp_path / "overview.png").write_text("a user's")
        with pytest.raises(InputError, match=r"already holds overview\.png\. Choose"):
            check_output(tmp_path)
        check_output(tmp_path, overwrite=True)

    def test_metadata_marks_completeness(self, tmp_path: Path):
        assert not has_results(tmp_path / "absent")
        make_result().save(tmp_path)
        assert has_results(tmp_path)
        (tmp_path / "metadata.json").unlink()
        assert not has_results(tmp_path)


class TestCheckOutput:
    def test_leaves_nothing_behind(self, tmp_path: Path):
        check_output(tmp_path / "a" / "b")
        check_output(tmp_path)
        assert names(tmp_path) == set()

    @pytest.mark.parametrize("below", ["", "sub", "sub/deeper"])
    def test_an_output_below_a_file_is_refused(self, tmp_path: Path, below: str):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"file: is a file; expected a folder"):
            check_output(tmp_path / "file" / below)

    def test_a_folder_with_the_name_of_a_result_is_refused(self, tmp_path: Path):
        (tmp_path / "depth.npy").mkdir()
        with pytest.raises(InputError, match=r"depth\.npy: is a folder, but a file of the resu"):
            check_output(tmp_path, overwrite=True)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
    def test_an_unwritable_folder_is_named_in_one_sentence(self):
        # Not even the superuser may write there.
        with pytest.raises(InputError, match=r"^/proc/out: cannot write results \(.+\)\. Choose"):
            check_output(Path("/proc/out"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the kernel refuse any larger file, as a full disk would."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class InterruptedFrames(Frames):
    @property
    def is_grey(self) -> bool:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    @is_grey.setter
    def is_grey(self, value: bool) -> None: ...


class TestInterruption:
    """A failure at any time leaves everything unchanged."""

    @pytest.fixture(params=["new", "existing"])
    def folder(self, request, tmp_path: Path) -> Path:
        folder = tmp_path / "parent" / "out"
        if request.param == "existing":
            height = make_result(height_m=np.zeros(SIZE, np.float32))
            height.save(folder)
            (folder / "notes.txt").write_text("mine")
        return folder

    def state(self, folder: Path) -> dict[Path, bytes]:
        return {
            path: path.read_bytes() if path.is_file() else b""
            for path in folder.parents[1].rglob("*")
        }

    def test_an_error_while_writing(self, folder: Path):
        before = self.state(folder)
        result = make_result(provenance={"what": object()})
        with pytest.raises(TypeError, match="not JSON serializable"):
            result.save(folder, overwrite=True)
        assert self.state(folder) == before

    @pytest.mark.parametrize("size", [100, 20_000])
    def test_a_full_file_system(self, folder: Path, size: int):
        before = self.state(folder)
        result, stack = make_result(), make_stack()
        with pytest.raises(InputError) as error, largest_file(size):
            replace(result, stack=stack).save(folder, overwrite=True)
        assert str(error.value) == (
            f"{folder}: cannot write results (File too large). "
            "Choose a folder that you may write to."
        )
        assert self.state(folder) == before

    def test_ctrl_c_while_writing(self, folder: Path):
        before = self.state(folder)
        stack = make_stack(frames=InterruptedFrames())
        with pytest.raises(KeyboardInterrupt):
            make_result(stack=stack).save(folder, overwrite=True)
        assert self.state(folder) == before
