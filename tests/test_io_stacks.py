"""Opening stacks: folders, lists, multi-page TIFF, clear refusals."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from stack_folders import exif, folder_of, frame, refusal

from focaldiffusion.errors import InputError
from focaldiffusion.io.png import write_png
from focaldiffusion.io.stacks import open_stack


def levels(stack: Any) -> list[int]:
    return [round(float(stack.frames.read(i)[0, 0, 0]) * 255) for i in range(len(stack))]


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
                "b.png: 30x40, but the other frames, such as a.png, are 40x30. All frames need",
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
        assert "a stack of 3 pages and 1 other pages" in refusal(tmp_path / "d.tif")

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
