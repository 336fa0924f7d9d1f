"""Opening stacks: folders, lists, multi-page TIFF, stack.json, trust order, clear refusals."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.io.facts import EXIF_UNCERTAINTY_DPT, Origin
from focaldiffusion.io.images import write_png
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera, lens_distance_m

HEIGHT, WIDTH = 30, 40


def exif(
    focus_m: float | None = None,
    focal_mm: float | None = None,
    f_number: float | None = None,
    f35_mm: int | None = None,
    make: str = "Maker",
    orientation: int = 1,
) -> bytes:
    block = Image.Exif()
    block[0x010F], block[0x0112] = make, orientation
    values = {0x9206: focus_m, 0x920A: focal_mm, 0x829D: f_number, 0xA405: f35_mm}
    block[0x8769] = {tag: value for tag, value in values.items() if value is not None}
    return block.tobytes()


def frame(
    path: Path, level: int, exif_block: bytes = b"", size: tuple[int, int] = (30, 40)
) -> Path:
    """A flat grey frame whose level tells which it is."""
    Image.new("RGB", size[::-1], (level, level, level)).save(path, exif=exif_block)
    return path


def folder_of(
    folder: Path, exif_blocks: Sequence[bytes] = (b"",) * 3, sidecar: dict[str, Any] | None = None
) -> Path:
    """Frames frame_0.png, frame_1.png ... of level 20, 40 ..."""
    folder.mkdir(exist_ok=True)
    for index, block in enumerate(exif_blocks):
        frame(folder / f"frame_{index}.png", 20 * (index + 1), block)
    if sidecar is not None:
        (folder / "stack.json").write_text(json.dumps(sidecar))
    return folder


def levels(stack: Any) -> list[int]:
    return [round(float(stack.frames.read(i)[0, 0, 0]) * 255) for i in range(len(stack))]


def refusal(source: Any, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_stack(source, **given)
    return str(caught.value)


class TestWhichFrames:
    def test_folder_in_natural_order_without_what_is_no_image(self, tmp_path: Path) -> None:
        for number in (10, 2, 1):
            frame(tmp_path / f"img{number}.png", number)
        for name in ("notes.txt", "Thumbs.db", "img1.xmp", "source.json", "._img1.png"):
            (tmp_path / name).write_bytes(b"not an image")
        (tmp_path / "sub.png").mkdir()
        stack = open_stack(tmp_path)
        assert stack.frames.names == ("img1.png", "img2.png", "img10.png")
        assert levels(stack) == [1, 2, 10]
        assert (stack.name, len(stack), stack.frames.size) == (tmp_path.name, 3, (30, 40))

    def test_explicit_list_keeps_its_order(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        stack = open_stack([tmp_path / "frame_2.png", str(tmp_path / "frame_0.png")])
        assert levels(stack) == [60, 20]

    @pytest.mark.parametrize("seed", range(5))
    def test_shuffled_files_with_shuffled_distances_are_the_same_pairs(
        self, tmp_path: Path, seed: int
    ) -> None:
        pairs = [("frame_0.png", 0.5), ("frame_1.png", 1.0), ("frame_2.png", 2.0)]
        random.Random(seed).shuffle(pairs)
        sidecar = {"files": [n for n, _ in pairs], "focus_distances_m": [d for _, d in pairs]}
        stack = open_stack(folder_of(tmp_path, sidecar=sidecar))
        assert stack.focus_distances_m is not None
        found = sorted(zip(levels(stack), stack.focus_distances_m, strict=True))
        assert found == [(20, 0.5), (40, 1.0), (60, 2.0)]

    def test_listed_files_take_their_own_distances(self, tmp_path: Path) -> None:
        folder_of(tmp_path, sidecar={"focus_distances_m": [0.5, 1, None]})
        stack = open_stack([tmp_path / "frame_2.png", tmp_path / "frame_1.png"])
        assert stack.focus_distances_m == (math.inf, 1.0)
        assert str(stack.origins["focus_distances_m"]) == "stack.json"

    def test_listed_file_that_the_sidecar_does_not_know(self, tmp_path: Path) -> None:
        sidecar = {"files": ["frame_0.png", "frame_1.png"], "focus_distances_m": [0.5, 1]}
        folder_of(tmp_path, sidecar=sidecar)
        message = refusal([tmp_path / "frame_0.png", tmp_path / "frame_2.png"])
        assert "frame_2.png: not among the files whose focus" in message

    @pytest.mark.parametrize(
        ("prepare", "expected"),
        [
            (lambda folder: None, "no images. Expected the frames of a stack"),
            (lambda folder: frame(folder / "a.png", 1), "a.png: the only frame; a focal stack"),
            (
                lambda folder: (
                    frame(folder / "a.png", 1),
                    frame(folder / "b.png", 1, size=(40, 30)),
                ),
                "b.png: 30x40, but the first frame, a.png, is 40x30. All frames need one size",
            ),
            (
                lambda folder: (
                    frame(folder / "a.jpg", 1),
                    (folder / "A.NEF").write_bytes(b"II*\0"),
                ),
                "a.jpg and A.NEF, the same frame twice. Move one kind away",
            ),
            (
                lambda folder: (frame(folder / "a.png", 1), (folder / "b.png").write_bytes(b"")),
                "b.png: cannot be read as an image",
            ),
        ],
        ids=["empty", "one", "sizes", "raw-and-jpeg", "unreadable"],
    )
    def test_refusals(self, tmp_path: Path, prepare: Any, expected: str) -> None:
        prepare(tmp_path)
        assert expected in refusal(tmp_path)

    def test_absent_single_and_repeated(self, tmp_path: Path) -> None:
        path = frame(tmp_path / "a.png", 1)
        assert refusal(tmp_path / "none").endswith("none: no such file or folder.")
        assert "a.png: one file, but not a multi-page TIFF" in refusal(path)
        assert "listed more than once" in refusal([path, tmp_path / "." / "a.png"])
        assert "no files given" in refusal([])
        assert "b.png: no such file" in refusal([path, tmp_path / "b.png"])

    def test_truncated_frame_is_named_when_read(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "frame_1.png")
        data = (tmp_path / "frame_1.png").read_bytes()
        (tmp_path / "frame_1.png").write_bytes(data[: len(data) // 2])
        stack = open_stack(tmp_path)
        with pytest.raises(InputError, match=r"frame_1\.png: cannot be read as an image"):
            stack.frames.read(1)

    def test_mixed_depth_and_grey(self, tmp_path: Path) -> None:
        grey = np.full((30, 40), 0.5, np.float32)
        write_png(tmp_path / "a.png", grey)
        write_png(tmp_path / "b.png", grey, bit_depth=16)
        stack = open_stack(tmp_path)
        assert (stack.frames.bit_depth, stack.frames.is_grey) == (16, True)
        frame(tmp_path / "c.png", 9)
        assert not open_stack(tmp_path).frames.is_grey

    def test_first_orientation_serves_all(self, tmp_path: Path) -> None:
        """A camera looking down flips the tag at random; the pixels still belong together."""
        stored = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
        for index, orientation in enumerate((6, 8, 1)):
            Image.fromarray(stored).save(
                tmp_path / f"{index}.png", exif=exif(orientation=orientation)
            )
        stack = open_stack(tmp_path)
        assert stack.frames.size == (40, 30)
        for index in range(3):
            np.testing.assert_array_equal(
                stack.frames.read(index), np.rot90(stored, -1).astype(np.float32) / np.float32(255)
            )


class TestMultiPageTiff:
    volume = np.random.default_rng(1).integers(0, 65536, (4, 30, 40), dtype=np.uint16)

    @pytest.mark.parametrize(
        ("name", "options", "step_m", "origin"),
        [
            ("z.tif", {"compression": "lzw"}, None, "unknown: no z step"),
            (
                "z.ome.tif",
                {"metadata": {"axes": "ZYX", "PhysicalSizeZ": 2.5}},
                2.5e-6,
                "OME PhysicalSizeZ",
            ),
            (
                "z.ome.tif",
                {"metadata": {"axes": "ZYX", "PhysicalSizeZ": 0.01, "PhysicalSizeZUnit": "mm"}},
                1e-5,
                "OME PhysicalSizeZ",
            ),
            (
                "z.tif",
                {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.5, "unit": "um"}},
                5e-7,
                "ImageJ spacing",
            ),
        ],
        ids=["plain", "ome-default-unit", "ome-mm", "imagej"],
    )
    def test_pages_are_frames(
        self, tmp_path: Path, name: str, options: dict[str, Any], step_m: float, origin: str
    ) -> None:
        path = tmp_path / name
        tifffile.imwrite(path, self.volume, photometric="minisblack", **options)
        stack = open_stack(path)
        assert stack.name == "z"
        assert stack.frames.names[1] == f"{name} page 2"
        assert (stack.frames.bit_depth, stack.frames.is_grey) == (16, True)
        np.testing.assert_array_equal(
            stack.frames.read(2)[..., 1], self.volume[2].astype(np.float32) / np.float32(65535)
        )
        if step_m is None:
            assert stack.focus_positions_m is None
            assert str(stack.origins["focus_distances_m"]).startswith(origin)
        else:
            assert stack.focus_positions_m == pytest.approx([0, step_m, 2 * step_m, 3 * step_m])
            assert str(stack.origins["focus_positions_m"]) == origin

    def test_a_file_that_is_cut_off_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.tif"
        first, *others = (Image.fromarray((page // 257).astype(np.uint8)) for page in self.volume)
        first.save(path, save_all=True, append_images=others, compression="tiff_lzw")
        assert len(open_stack(path)) == 4
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
        with pytest.raises(InputError, match=r"is cut off: page 4 should follow, but is not in"):
            open_stack(path)

    @pytest.mark.parametrize("axes", ["ZCYX", "CZYX"])
    def test_ome_channels_become_colour(self, tmp_path: Path, axes: str) -> None:
        volume = np.random.default_rng(2).integers(0, 256, (4, 3, 30, 40), dtype=np.uint8)
        stored = volume if axes == "ZCYX" else volume.transpose(1, 0, 2, 3)
        path = tmp_path / "z.ome.tif"
        tifffile.imwrite(path, stored, photometric="minisblack", metadata={"axes": axes})
        stack = open_stack(path)
        assert (len(stack), stack.frames.is_grey) == (4, False)
        np.testing.assert_array_equal(
            stack.frames.read(3),
            volume[3].transpose(1, 2, 0).astype(np.float32) / np.float32(255),
        )

    @pytest.mark.parametrize(
        ("shape", "axes", "expected"),
        [
            ((5, 30, 40), "TYX", r"axes other than z and colour (T = 5)"),
            ((2, 5, 30, 40), "TZYX", r"axes other than z and colour (T = 2)"),
            ((4, 2, 30, 40), "ZCYX", "2 channels; expected 1 (grey) or 3"),
        ],
    )
    def test_other_axes_are_refused(
        self, tmp_path: Path, shape: tuple[int, ...], axes: str, expected: str
    ) -> None:
        path = tmp_path / "z.ome.tif"
        tifffile.imwrite(
            path, np.zeros(shape, np.uint8), photometric="minisblack", metadata={"axes": axes}
        )
        assert expected in refusal(path)

    def test_pages_of_two_sizes_and_one_page(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
            for size in ((30, 40), (30, 40), (20, 40)):
                tif.write(np.zeros(size, np.uint8), contiguous=False, metadata=None)
        assert "pages of different sizes or kinds ((30, 40) uint8 and (20, 40) uint8)" in refusal(
            tmp_path / "a.tif"
        )
        grey, colour = ((30, 40), (30, 40, 3))
        with tifffile.TiffWriter(tmp_path / "c.tif") as tif:
            for size in (colour, colour, grey, colour):  # each page a series of its own
                tif.write(np.zeros(size, np.uint8), contiguous=False)
        told = "pages of different sizes or kinds ((30, 40, 3) uint8 and (30, 40) uint8)"
        assert told in refusal(tmp_path / "c.tif")
        tifffile.imwrite(tmp_path / "b.tif", np.zeros((30, 40), np.uint8))
        assert "b.tif: the only frame" in refusal(tmp_path / "b.tif")
        with tifffile.TiffWriter(tmp_path / "d.tif") as tif:
            for shape in ((3, 30, 40), (30, 40)):
                tif.write(np.zeros(shape, np.uint8), photometric="minisblack", contiguous=False)
        assert "a stack of 3 pages and 1 pages besides" in refusal(tmp_path / "d.tif")

    @pytest.mark.parametrize("colour", [False, True])
    def test_pages_that_were_written_one_by_one(self, colour: bool, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        pages = np.random.default_rng(3).integers(0, 256, (4, 30, 40, 3), dtype=np.uint8)
        with tifffile.TiffWriter(path) as tif:
            for page in pages:  # a series each, of which the next page would not be a part
                tif.write(page if colour else page[..., 0], compression="zlib")
        with tifffile.TiffFile(path) as written:
            assert len(written.series) == 4
        stack = open_stack(path)
        assert (len(stack), stack.frames.is_grey) == (4, not colour)
        for index, page in enumerate(pages):
            expected = page if colour else page[..., :1].repeat(3, axis=-1)
            np.testing.assert_array_equal(
                stack.frames.read(index), expected.astype(np.float32) / np.float32(255)
            )

    def test_volume_tiles(self, tmp_path: Path) -> None:
        volume = np.zeros((16, 32, 48), np.uint8)
        path = tmp_path / "z.tif"
        tifffile.imwrite(path, volume, photometric="minisblack", volumetric=True, tile=(16, 16, 16))
        assert "axes ZYX are stored in blocks; save one page for each plane" in refusal(path)

    def test_thumbnail_is_no_frame(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
            for level in (1, 2):
                tif.write(np.full((30, 40), level, np.uint8), contiguous=False, metadata=None)
            tif.write(np.zeros((3, 4), np.uint8), subfiletype=1, contiguous=False, metadata=None)
        assert levels(open_stack(tmp_path / "a.tif")) == [1, 2]

    def test_folder_of_one_multi_page_tiff_and_its_sidecar(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "z.tif", self.volume, photometric="minisblack")
        (tmp_path / "stack.json").write_text('{"focus_positions_m": [0, 1e-6, 2e-6, 3e-6]}')
        for source in (tmp_path, tmp_path / "z.tif"):
            stack = open_stack(source)
            assert stack.focus_positions_m == (0, 1e-6, 2e-6, 3e-6)
            assert str(stack.origins["focus_positions_m"]) == "stack.json"

    def test_folder_of_several_multi_page_tiffs(self, tmp_path: Path) -> None:
        for name in ("a.tif", "b.tif"):
            tifffile.imwrite(tmp_path / name, self.volume, photometric="minisblack")
        assert "a.tif: 4 pages, where one frame is expected" in refusal(tmp_path)


class TestSidecar:
    def test_a_link_to_nothing_is_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        (tmp_path / "stack.json").symlink_to(tmp_path / "moved.json")
        assert "stack.json: cannot be read (" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"files": [}', "stack.json: not JSON: Expecting value at line 1, column 12."),
            ("[1]", "stack.json: holds a list; expected an object in braces."),
            (
                '{"camera": {"focal_length_px": 9, "focal_length_px": 8}}',
                "stack.json: cannot be read (key 'focal_length_px' is there twice; keep one).",
            ),
            (
                '{"focus_distance_m": [1]}',
                "stack.json: key 'focus_distance_m' is unknown; did you mean focus_distances_m?",
            ),
            (
                '{"camera": {"focal_lenght_m": 0.05}}',
                "stack.json: camera key 'focal_lenght_m' is unknown; did you mean focal_length_m?",
            ),
            ('{"camera": 50}', "stack.json: camera is 50.0; expected an object."),
            (
                '{"camera": {"focal_length_px": "9"}}',
                'stack.json: camera focal_length_px is "9"; expected a number.',
            ),
            (
                '{"camera": {"focal_length_px": 0, "aperture_diameter_m": 1}}',
                "stack.json: camera focal_length_px is 0.0; expected a positive number.",
            ),
            (
                '{"camera": {"focal_length_m": 50}}',
                "camera focal_length_m 50 looks like millimetres; in metres that is 0.05.",
            ),
            (
                '{"camera": {"focal_length_px": 900, "f_number": 2, "aperture_diameter_m": 1}}',
                "camera f_number and aperture_diameter_m exclude each other; give one.",
            ),
            (
                '{"camera": {"focal_length_px": 1e8, "aperture_diameter_m": 1}}',
                "focal_length_px is 1e+08; no camera has more than 1e+07",
            ),
            (
                '{"focus_distances_m": [1, "2 m", 3]}',
                'focus_distances_m[1] is "2 m"; expected a valid number.',
            ),
            ('{"focus_positions_m": [1, null, 3]}', "focus_positions_m[1] is null; expected"),
            (
                '{"focus_positions_m": [0, 1, 2], "focus_distances_m": [1, 2, 3]}',
                "focus_distances_m and focus_positions_m exclude each other",
            ),
            ('{"files": ["frame_0.png", "frame_9.png"]}', "files lists 'frame_9.png', which is ab"),
            ('{"files": ["frame_0.png", "frame_0.png"]}', "lists 'frame_0.png' more than once"),
            (
                '{"focus_distances_m": [1, 2]}',
                "stack.json: focus_distances_m: 2 values for 3 frames",
            ),
            ('{"focus_distances_m": [1, 0, 2]}', "are not all positive"),
            ('{"focus_distances_m": [1, NaN, 2]}', "stack.json: focus_distances_m: contains NaN"),
            ('{"focus_distances_m": [1, 1, 2]}', "1.0 appears more than once"),
            ('{"focus_distances_m": [300, 400, 500]}', "these look like millimetres"),
            (
                '{"focus_distances_m": [0.04, 1, 2], "camera": {"focal_length_m": 0.05, '
                '"f_number": 2, "pixel_pitch_m": 1e-5}}',
                "focus distance 0.04 m lies within the focal length 0.05 m",
            ),
        ],
    )
    def test_refusals(self, tmp_path: Path, text: str, expected: str) -> None:
        folder_of(tmp_path)
        (tmp_path / "stack.json").write_text(text)
        message = refusal(tmp_path)
        assert expected in message
        assert "\n" not in message

    def test_both_forms_of_a_camera_and_a_note(self, tmp_path: Path) -> None:
        lens = {"focal_length_m": 0.05, "f_number": 2.0, "pixel_pitch_m": 1e-5}
        sidecar = {"camera": lens, "focus_distances_m": [1, 2, None], "note": {"any": "thing"}}
        stack = open_stack(folder_of(tmp_path, sidecar=sidecar))
        for index, focus_m in enumerate((1.0, 2.0, math.inf)):
            expected = LensFacts(0.05, 2.0, 1e-5).camera((30, 40), focus_m)
            assert stack.camera_for(index) == expected
        pixels = {"focal_length_px": 5000.0, "aperture_diameter_m": 0.025}
        stack = open_stack(folder_of(tmp_path, sidecar={"camera": pixels}))
        assert stack.camera_for(1) == Camera(5000.0, 0.025, (30, 40))
        assert str(stack.origins["camera"]) == "stack.json"

    def test_a_camera_in_part(self, tmp_path: Path) -> None:
        folder_of(tmp_path, sidecar={"camera": {"focal_length_m": 0.05, "pixel_pitch_m": 1e-5}})
        stack = open_stack(tmp_path)
        assert stack.camera_for() == Camera(0.05 / 1e-5, None, (30, 40))
        assert str(stack.origins["camera"]).startswith("unknown: no f-number")
        stack = open_stack(tmp_path, lens=LensFacts(f_number=2.0))
        assert stack.camera_for() == Camera(0.05 / 1e-5, 0.025, (30, 40))
        assert stack.origins["camera"] == Origin("several", "stack.json, given")


class TestTrustOrder:
    sidecar: dict[str, Any] = {  # noqa: RUF012
        "focus_distances_m": [0.5, 1, 2],
        "camera": {"focal_length_m": 0.05, "f_number": 2.0, "pixel_pitch_m": 1e-5},
    }
    blocks = tuple(exif(d, 25.0, 4.0, 50) for d in (0.6, 1.2, 2.4))

    def test_given_over_sidecar_over_exif(self, tmp_path: Path) -> None:
        folder_of(tmp_path, self.blocks, self.sidecar)
        stack = open_stack(
            tmp_path, focus_distances_m=[0.7, 1.4, 2.8], lens=LensFacts(f_number=8.0)
        )
        assert stack.focus_distances_m == (0.7, 1.4, 2.8)
        assert stack.focus_uncertainty_dpt is None
        assert stack.lens.f_number == 8.0
        assert stack.lens.focal_length_m == 0.05
        assert str(stack.origins["f_number"]) == "given"
        assert str(stack.origins["focal_length_m"]) == "stack.json"
        stack = open_stack(tmp_path)
        assert stack.focus_distances_m == (0.5, 1.0, 2.0)
        (tmp_path / "stack.json").unlink()
        stack = open_stack(tmp_path)
        assert stack.focus_distances_m == pytest.approx((0.6, 1.2, 2.4))
        assert stack.focus_uncertainty_dpt == (EXIF_UNCERTAINTY_DPT,) * 3
        assert str(stack.origins["focus_distances_m"]) == "EXIF SubjectDistance"
        # f = 25 mm called 50 mm: the 50 px diagonal is 43.2666 / 2 mm of sensor.
        pitch_m = 43.2666e-3 / 2 / 50
        expected = LensFacts(0.025, 4.0, pitch_m).camera((30, 40), 0.6)
        camera = stack.camera_for(0)
        assert expected is not None
        assert camera is not None
        assert camera.focal_length_px == pytest.approx(expected.focal_length_px, rel=1e-6)
        assert camera.aperture_diameter_m == pytest.approx(0.00625)

    def test_given_positions_replace_the_distances_of_the_sidecar(self, tmp_path: Path) -> None:
        folder_of(tmp_path, sidecar=self.sidecar)
        stack = open_stack(tmp_path, focus_positions_m=[0, 1e-5, 2e-5])
        assert stack.focus_positions_m == (0, 1e-5, 2e-5)
        assert stack.focus_distances_m is None

    def test_stripping_exif_removes_only_what_exif_gave(self, tmp_path: Path) -> None:
        sidecar = {"focus_distances_m": [0.5, 1, 2]}
        with_exif = open_stack(folder_of(tmp_path / "with", self.blocks, sidecar))
        without = open_stack(folder_of(tmp_path / "without", sidecar=sidecar))
        for index in range(3):
            np.testing.assert_array_equal(with_exif.frames.read(index), without.frames.read(index))
        assert with_exif.focus_distances_m == without.focus_distances_m
        assert with_exif.camera_for() is not None
        assert without.camera_for() is None
        assert str(without.origins["camera"]) == (
            "unknown: no focal length, pixel pitch, f-number (frame_0.png: no EXIF of a camera)"
        )

    def test_calibrated_pixels_replace_the_pitch(self, tmp_path: Path) -> None:
        stack = open_stack(folder_of(tmp_path, self.blocks), lens=LensFacts(focal_length_px=900.0))
        assert stack.camera_for() == Camera(900.0, 0.025 / 4, (30, 40))
        assert stack.lens.pixel_pitch_m is None

    def test_camera_names_only_what_it_is_made_of(self, tmp_path: Path) -> None:
        pixels = {"focal_length_px": 900.0, "aperture_diameter_m": 0.01}
        stack = open_stack(folder_of(tmp_path, self.blocks, {"camera": pixels}))
        assert stack.camera_for() == Camera(900.0, 0.01, (30, 40))
        assert str(stack.origins["camera"]) == "stack.json"
        assert str(stack.origins["focus_distances_m"]) == "EXIF SubjectDistance"

    def test_sensor_width_is_the_long_side(self, tmp_path: Path) -> None:
        folder_of(tmp_path, [exif(None, 50.0, 2.0, orientation=6)] * 2)
        stack = open_stack(tmp_path, lens=LensFacts(sensor_width_m=0.036))
        assert stack.frames.size == (40, 30)
        camera = stack.camera_for()
        assert camera is not None
        assert camera.focal_length_px == pytest.approx(50 / (36 / 40))

    def test_given_distances_are_checked(self, tmp_path: Path) -> None:
        message = refusal(folder_of(tmp_path), focus_distances_m=[1.0, 2.0])
        assert message.startswith("given: focus_distances_m: 2 values for 3 frames")
        both = {"focus_distances_m": [1.0, 2.0, 3.0], "focus_positions_m": [1.0, 2.0, 3.0]}
        message = refusal(tmp_path, **both)
        assert message.startswith("given: focus_distances_m and focus_positions_m exclude each")


class TestPartialKnowledge:
    def test_focal_length_without_pitch(self, tmp_path: Path) -> None:
        stack = open_stack(folder_of(tmp_path, [exif(None, 6.81, 1.85)] * 2))
        assert stack.camera_for() is None
        assert str(stack.origins["camera"]) == (
            "unknown: no pixel pitch (frame_0.png: EXIF has neither FocalPlaneXResolution nor "
            "FocalLengthIn35mmFilm)"
        )
        assert str(stack.origins["focal_length_m"]) == "EXIF FocalLength"

    def test_focal_length_in_pixels_makes_a_camera_without_an_aperture(
        self, tmp_path: Path
    ) -> None:
        stack = open_stack(folder_of(tmp_path), lens=LensFacts(focal_length_px=800.0))
        assert stack.camera_for() == Camera(800.0, None, (30, 40))
        assert str(stack.origins["camera"]).startswith("unknown: no focal length, f-number")

    def test_aperture_that_changed_is_not_used(self, tmp_path: Path) -> None:
        blocks = [exif(None, 50.0, 2.8, 50), exif(None, 50.0, 4.0, 50)]
        stack = open_stack(folder_of(tmp_path, blocks))
        assert stack.lens.f_number is None
        assert stack.lens.focal_length_m == 0.05
        assert "EXIF FNumber differs between frames: frame_0.png gives 2.8, frame_1.png 4" in str(
            stack.origins["camera"]
        )


class TestRecordedFocus:
    def distances(self, folder: Path, values: Sequence[float | None], **lens: Any) -> Any:
        return open_stack(folder_of(folder, [exif(value, **lens) for value in values]))

    def test_one_frame_without(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [1.0, None, 2.0])
        assert stack.focus_distances_m is None
        assert str(stack.origins["focus_distances_m"]) == (
            "unknown: frame_1.png: the EXIF of this Maker has no focus distance"
        )

    def test_equal_distances_are_as_uncertain_as_the_next_is_far(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0, 1.0])
        assert stack.focus_distances_m == (0.5, 1.0, 1.0)
        assert stack.focus_uncertainty_dpt == (EXIF_UNCERTAINTY_DPT, 1.0, 1.0)

    def test_the_same_distance_everywhere_says_nothing(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [1.0, 1.0, 1.0])
        assert stack.focus_distances_m is None
        assert "is 1 m in every frame" in str(stack.origins["focus_distances_m"])

    def test_canon_counts_from_the_sensor(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0], make="Canon", focal_mm=50.0)
        assert stack.focus_distances_m == pytest.approx(
            [lens_distance_m(0.5, 0.05), lens_distance_m(1.0, 0.05)]
        )
        assert "converted to the lens" in str(stack.origins["focus_distances_m"])

    def test_canon_without_its_focal_length(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0], make="Canon")
        assert stack.focus_distances_m is None
        assert "the focal length, which leads from there" in str(stack.origins["focus_distances_m"])

    def test_impossible_record_is_left_out_not_fatal(self, tmp_path: Path) -> None:
        """Macro lenses shorten their focal length, so the recorded one does not fit."""
        stack = self.distances(tmp_path, [0.3, 0.31], make="Canon", focal_mm=100.0)
        assert stack.focus_distances_m is None
        assert "nearer than four focal lengths" in str(stack.origins["focus_distances_m"])


def test_all_real_stacks_open(shared_data: Path) -> None:
    folders = [*shared_data.glob("stacks/*"), *shared_data.glob("rendered/*/stack")]
    assert len(folders) >= 19
    for folder in folders:
        stack = open_stack(folder)
        written = folder / "stack.json"
        expected = json.loads(written.read_text()) if written.exists() else {}
        image = stack.frames.read(len(stack) - 1)
        assert image.shape == (*stack.frames.size, 3)
        assert list(stack.focus_distances_m or []) == expected.get("focus_distances_m", [])
        assert list(stack.focus_positions_m or []) == expected.get("focus_positions_m", [])
        assert stack.camera_for() is not None or "camera" not in expected
