"""Single images: exact values, headers, orientation, broken files, PNG with ICC and EXIF."""

from __future__ import annotations

import builtins
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from focaldiffusion.errors import InputError
from focaldiffusion.io.images import (
    ImageMetadata,
    natural_key,
    probe_image,
    read_image,
    read_metadata,
)
from focaldiffusion.io.png import write_png

RNG = np.random.default_rng(7)
RGB8 = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def write_dng(path: Path, cfa: np.ndarray, orientation: int = 1) -> None:
    """The tags that DNG 1.4 requires, for an RGGB mosaic in linear sRGB primaries."""
    xyz_to_srgb = (3.2405, -1.5371, -0.4985, -0.9693, 1.876, 0.0416, 0.0556, -0.204, 1.0572)
    matrix = tuple(part for value in xyz_to_srgb for part in (round(value * 10000), 10000))
    tags = [
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "Test", True),  # UniqueCameraModel
        (50717, "I", 1, 65535, True),  # WhiteLevel
        (50721, "2i", 9, matrix, True),  # ColorMatrix1
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1, D65
    ]
    tifffile.imwrite(path, cfa, photometric=32803, extratags=tags, metadata=None)


class TestValues:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1"])
    def test_8_bit_png_is_exact_and_alpha_dropped(self, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(RGB8).convert(mode)
        if "A" in mode:
            image.putalpha(Image.fromarray(RGB8[..., 0]))
        image.save(tmp_path / "a.png")
        opaque = np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
        read = read_image(tmp_path / "a.png")
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, opaque)
        header = probe_image(tmp_path / "a.png")
        assert (header.size(), header.bit_depth, header.is_grey) == ((5, 7), 8, "RGB" not in mode)

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_16_bit_png_is_exact(self, tmp_path: Path, channels: int) -> None:
        values = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
        (tmp_path / "a.png").write_bytes(
            imagecodecs.png_encode(values if channels > 1 else np.ascontiguousarray(values[..., 0]))
        )
        header = probe_image(tmp_path / "a.png")
        assert (header.size(), header.bit_depth, header.is_grey) == ((5, 7), 16, channels < 3)
        colour = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, axis=2)
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.png"), colour.astype(np.float32) / np.float32(65535)
        )

    @pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
    @pytest.mark.parametrize("planar", ["contig", "separate"])
    @pytest.mark.parametrize("array", [RGB8, RGB16], ids=["8", "16"])
    def test_tiff_is_exact(
        self, tmp_path: Path, array: np.ndarray, planar: str, compression: str | None
    ) -> None:
        stored = array if planar == "contig" else np.ascontiguousarray(array.transpose(2, 0, 1))
        tifffile.imwrite(
            tmp_path / "a.tif",
            stored,
            photometric="rgb",
            planarconfig=planar,
            compression=compression,
            predictor=compression is not None,
        )
        white = np.float32(np.iinfo(array.dtype).max)
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.tif"), array.astype(np.float32) / white
        )
        header = probe_image(tmp_path / "a.tif")
        assert header.bit_depth == array.dtype.itemsize * 8
        assert not header.is_grey

    def test_tiff_alpha_12_bit_and_white_is_zero(self, tmp_path: Path) -> None:
        rgba = np.dstack([RGB8, RGB8[..., :1]])
        tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=[2])
        np.testing.assert_array_equal(
            read_image(tmp_path / "rgba.tif"), RGB8.astype(np.float32) / np.float32(255)
        )
        grey = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
        tifffile.imwrite(tmp_path / "negative.tif", 255 - grey, photometric="miniswhite")
        np.testing.assert_array_equal(
            read_image(tmp_path / "negative.tif")[..., 1], grey.astype(np.float32) / np.float32(255)
        )
        packed = RNG.integers(0, 4096, (5, 8), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "12.tif", packed, photometric="minisblack", bitspersample=12)
        np.testing.assert_array_equal(
            read_image(tmp_path / "12.tif")[..., 0], packed.astype(np.float32) / np.float32(4095)
        )
        assert probe_image(tmp_path / "12.tif").bit_depth == 16

    def test_suffix_may_lie(self, tmp_path: Path) -> None:
        Image.fromarray(RGB8).save(tmp_path / "a.jpg", quality=95)
        (tmp_path / "a.jpg").rename(tmp_path / "really_jpeg.png")
        assert read_image(tmp_path / "really_jpeg.png").shape == (5, 7, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "png16", "tif"])
def test_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind[:3]}"
    if kind == "png16":
        write_png(path, RGB16 / np.float32(65535), bit_depth=16, metadata=ImageMetadata())
        png = path.read_bytes()
        block = exif.tobytes().removeprefix(b"Exif\0\0")
        checksum = zlib.crc32(b"eXIf" + block).to_bytes(4, "big")
        chunk = len(block).to_bytes(4, "big") + b"eXIf" + block + checksum
        path.write_bytes(png[:33] + chunk + png[33:])
        array = RGB16.astype(np.float32) / np.float32(65535)
        by_pillow = {
            1: array,
            2: array[:, ::-1],
            3: array[::-1, ::-1],
            4: array[::-1],
            5: array.transpose(1, 0, 2),
            6: np.rot90(array, -1),
            7: array[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(array),
        }[orientation]
    else:
        Image.fromarray(RGB8).save(path, exif=exif)
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            by_pillow = np.asarray(upright.convert("RGB"), np.float32) / np.float32(255)
    read = read_image(path)
    np.testing.assert_array_equal(read, by_pillow)
    header = probe_image(path)
    assert header.orientation == orientation
    assert header.size() == read.shape[:2]
    assert header.stored_size == (5, 7)


@pytest.mark.parametrize("code", ["b", "B", "h", "H", "i", "I"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_of_any_integer_type_is_written_back_upright(
    tmp_path: Path, code: str, order: str
) -> None:
    kind = {"b": 6, "B": 1, "h": 8, "H": 3, "i": 9, "I": 4}[code]
    value = struct.pack(f"{order}{code}", 6).ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    block = mark + struct.pack(f"{order}HIHHHI", 42, 8, 1, 0x0112, kind, 1) + value + bytes(4)
    Image.fromarray(RGB8).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    exif = read_metadata(tmp_path / "a.jpg").exif
    assert exif is not None
    stored = Image.Exif()
    stored.load(exif)
    assert stored[0x0112] == 1
    turned = probe_image(tmp_path / "a.jpg").orientation
    assert turned == (1 if code == "b" else 6)  # signed bytes hold no orientation


class TestOptionalKinds:
    def test_heic(self, tmp_path: Path) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
        ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 96, 3))
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(ramp).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
        (tmp_path / "a.heic").rename(tmp_path / "exported.jpg")  # phones' sharing menus do this
        header = probe_image(tmp_path / "exported.jpg")
        assert header.size() == (96, 64)
        read = read_image(tmp_path / "exported.jpg")
        # Turned by 90 degrees: the ramp runs from right to left; 3 levels for lossy coding.
        np.testing.assert_allclose(read[40, ::-1, 1] * 255, ramp[:, 0, 1], atol=3)

    def test_heic_without_exif(self, tmp_path: Path) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
        Image.new("RGB", (96, 64), (90, 120, 150)).save(tmp_path / "a.heic", quality=95)
        assert probe_image(tmp_path / "a.heic").size() == (64, 96)
        assert read_metadata(tmp_path / "a.heic").exif is None

    def test_raw_is_developed_to_srgb_without_auto_brightness(self, tmp_path: Path) -> None:
        pytest.importorskip("rawpy")
        # 20 % linear grey: 0.4845 in sRGB; BT.709's curve would give 0.433.
        write_dng(tmp_path / "a.dng", np.full((64, 96), 13107, np.uint16), orientation=6)
        header = probe_image(tmp_path / "a.dng")
        assert (header.size(), header.bit_depth, header.is_grey) == ((96, 64), 16, False)
        read = read_image(tmp_path / "a.dng")
        assert read.shape == (96, 64, 3)
        np.testing.assert_allclose(read[8:-8, 8:-8], 0.4845, atol=0.003)

    def test_broken_raw(self, tmp_path: Path) -> None:
        pytest.importorskip("rawpy")
        (tmp_path / "a.nef").write_bytes(b"II*\0" + bytes(200))
        with pytest.raises(InputError, match=r"a\.nef: cannot be read as camera RAW"):
            probe_image(tmp_path / "a.nef")

    @pytest.mark.parametrize(
        ("name", "head", "module"),
        [("a.heic", b"\0\0\0\x1cftypheic", "pillow_heif"), ("a.nef", b"II*\0", "rawpy")],
    )
    def test_missing_extra_names_the_command(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, head: bytes, module: str
    ) -> None:
        (tmp_path / name).write_bytes(head + bytes(64))
        real_import = builtins.__import__

        def without(wanted: str, *args: Any, **kwargs: Any) -> Any:
            if wanted == module:
                raise ImportError(wanted)
            return real_import(wanted, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(InputError, match=r"optional; .*pip install 'focaldiffusion\[raw\]'"):
            probe_image(tmp_path / name)


class TestBrokenFiles:
    @pytest.mark.parametrize("kind", ["jpg", "png", "png16", "tif"])
    def test_truncated_is_named_at_reading(self, tmp_path: Path, kind: str) -> None:
        noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path = tmp_path / f"cut.{kind[:3]}"
        if kind == "png16":
            write_png(path, noise / np.float32(255), bit_depth=16)
        elif kind == "tif":
            tifffile.imwrite(path, noise, photometric="rgb")
        else:
            Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(InputError, match=r"cut\.\w+: cannot be read as an image \(.+\)"):
            read_image(path)

    @pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"II*\0\x08\0\0\0"])
    def test_not_an_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.jpg: cannot be read as an image"):
            probe_image(tmp_path / "a.jpg")

    def test_unknown_format_is_said_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"<html>")
        with pytest.raises(InputError, match="its image format is unknown"):
            read_image(tmp_path / "a.png")

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a\.jpg: no such file"):
            read_image(tmp_path / "a.jpg")

    def test_cmyk(self, tmp_path: Path) -> None:
        Image.fromarray(RGB8).convert("CMYK").save(tmp_path / "a.jpg")
        with pytest.raises(InputError, match=r"CMYK pixels; expected 8-bit grey or RGB"):
            probe_image(tmp_path / "a.jpg")

    @pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint32])
    def test_tiff_without_a_white_level(self, tmp_path: Path, dtype: type) -> None:
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), dtype), photometric="minisblack")
        with pytest.raises(InputError, match=r"white level is not defined.*Save it as 16-bit"):
            read_image(tmp_path / "a.tif")

    def test_multi_page_tiff_is_not_one_image(self, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack"
        )
        with pytest.raises(InputError, match=r"a\.tif: 3 pages, where one frame is expected"):
            read_image(tmp_path / "a.tif")

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow, while it opens the file
    def test_broken_exif_leaves_the_pixels(self, tmp_path: Path) -> None:
        Image.fromarray(RGB8).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        assert probe_image(tmp_path / "a.jpg").orientation == 1
        assert read_image(tmp_path / "a.jpg").shape == (5, 7, 3)
        assert read_metadata(tmp_path / "a.jpg").exif is None


class TestWritePng:
    @pytest.mark.parametrize("bit_depth", [8, 16])
    @pytest.mark.parametrize("grey", [False, True])
    def test_round_trip_is_exact(self, tmp_path: Path, bit_depth: Any, grey: bool) -> None:
        source = RGB8 if bit_depth == 8 else RGB16
        image = source.astype(np.float32) / np.float32(2**bit_depth - 1)
        image = image[..., 0] if grey else image
        write_png(tmp_path / "a.png", image, bit_depth=bit_depth)
        stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
        np.testing.assert_array_equal(stored, source[..., 0] if grey else source)

    def test_rounds_and_clips(self, tmp_path: Path) -> None:
        row = np.array([[-0.1, 1.2, 100.4 / 255, 100.6 / 255]], np.float32)
        write_png(tmp_path / "a.png", row)
        stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
        assert stored.tolist() == [[0, 255, 100, 101]]

    @pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
    @pytest.mark.parametrize("bit_depth", [8, 16])
    def test_keeps_icc_and_exif_but_not_the_orientation(
        self, tmp_path: Path, kind: str, bit_depth: Any
    ) -> None:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "Maker"
        exif[0x8769] = {0x920A: 6.81}
        source = tmp_path / f"a.{kind}"
        # Pillow writes the Exif directory of a TIFF only when it was read from a block.
        block = Image.Exif()
        block.load(exif.tobytes())
        Image.fromarray(RGB8).save(source, exif=block, icc_profile=SRGB_PROFILE)
        write_png(
            tmp_path / "out.png",
            read_image(source),
            bit_depth=bit_depth,
            metadata=read_metadata(source),
        )
        with Image.open(tmp_path / "out.png") as image:
            image.load()
            kept = image.getexif()
            assert image.size == (5, 7)
            assert image.info["icc_profile"] == SRGB_PROFILE
            assert kept[0x010F] == "Maker"
            assert float(kept.get_ifd(0x8769)[0x920A]) == pytest.approx(6.81)
            assert kept.get(0x0112, 1) == 1

    def test_maker_notes_keep_their_place(self, tmp_path: Path) -> None:
        """Offsets in maker notes count from the block's start, so no byte of it may move."""
        exif = Image.Exif()
        exif[0x0112] = 8
        exif[0x8769] = {0x927C: b"Canon-like note " * 20}
        Image.fromarray(RGB8).save(tmp_path / "a.jpg", exif=exif)
        with Image.open(tmp_path / "a.jpg") as image:
            before = image.info["exif"].removeprefix(b"Exif\0\0")
        after = read_metadata(tmp_path / "a.jpg").exif
        assert after is not None
        assert len(after) == len(before)
        assert sum(a != b for a, b in zip(after, before, strict=True)) == 1

    def test_grey_profile_does_not_reach_a_colour_image(self, tmp_path: Path) -> None:
        grey_profile = SRGB_PROFILE[:16] + b"GRAY" + SRGB_PROFILE[20:]
        write_png(
            tmp_path / "a.png",
            RGB8 / np.float32(255),
            metadata=ImageMetadata(icc_profile=grey_profile),
        )
        with Image.open(tmp_path / "a.png") as image:
            assert "icc_profile" not in image.info


class TestNaturalKey:
    def test_digits_count_as_numbers(self) -> None:
        names = ["img10.jpg", "img2.jpg", "IMG1.jpg", "a.jpg", "img2b.jpg"]
        assert sorted(names, key=natural_key) == [
            "a.jpg",
            "IMG1.jpg",
            "img2.jpg",
            "img2b.jpg",
            "img10.jpg",
        ]

    @given(st.lists(st.text(max_size=8)))
    def test_orders_any_names(self, names: list[str]) -> None:
        """Letters and digits never meet in a comparison, which would raise."""
        assert sorted(sorted(names, key=natural_key)) == sorted(names)

    @given(st.lists(st.integers(0, 10**6), unique=True))
    def test_numbered_files_come_in_order(self, numbers: list[int]) -> None:
        names = [f"frame_{number}.png" for number in numbers]
        expected = [f"frame_{number}.png" for number in sorted(numbers)]
        assert sorted(names, key=natural_key) == expected
