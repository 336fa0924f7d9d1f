"""Formats: what is read, what is refused or named, and data that end early or declare too much."""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, features
from stack_folders import frame, refusal

from focaldiffusion.errors import InputError
from focaldiffusion.io.images import probe_image, read_image, read_metadata
from focaldiffusion.io.jpeg import ends_early
from focaldiffusion.io.png import write_png
from focaldiffusion.io.stacks import open_stack

SMOOTH = np.dstack(np.meshgrid(*[np.linspace(0, 250, side) for side in (96, 64, 1)]))
SMOOTH = np.ascontiguousarray(SMOOTH.reshape(64, 96, 3)[..., [0, 1, 0]]).astype(np.uint8)
TEXTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png_of(rows: bytes, height: int, width: int, *, colour_type: int = 2, depth: int = 8) -> bytes:
    """A PNG that declares a size, whatever its rows."""
    header = struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


class TestRead:
    @pytest.mark.parametrize("kind", ["avif", "jpeg2000", "ppm", "gif", "bmp"])
    def test_what_pillow_reads(self, tmp_path: Path, kind: str) -> None:
        if kind == "avif" and not features.check("avif"):
            pytest.skip("Pillow without AVIF")
        level = np.full((40, 48, 3), 90, np.uint8)
        Image.fromarray(level).save(tmp_path / "a", kind)
        assert probe_image(tmp_path / "a").bit_depth == 8
        np.testing.assert_allclose(read_image(tmp_path / "a") * 255, level, atol=1)

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_ten_bit_heic_keeps_its_depth(self, tmp_path: Path, orientation: int) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        ramp = np.linspace(0, 65535, 96).astype(np.uint16)
        ramp = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (64, 96, 3)))
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = pillow_heif.from_bytes("RGB;16", (96, 64), ramp.tobytes())
        file.info["exif"] = exif.tobytes()
        file.save(tmp_path / "a.heic", quality=-1)
        header = probe_image(tmp_path / "a.heic")
        read = read_image(tmp_path / "a.heic")
        assert header.bit_depth == 16
        assert read.shape == (*header.size(), 3)
        values = np.sort(np.unique(read[..., 1]))
        np.testing.assert_allclose(values * 1023, np.rint(values * 1023), atol=1e-3)
        assert (values[0], values[-1]) == (0, 1)
        assert len(values) > 64  # 8 bits leave steps of four

    def test_ten_bit_avif_keeps_its_depth(self, tmp_path: Path) -> None:
        if not features.check("avif") or not imagecodecs.AVIF.available:
            pytest.skip("no AVIF")
        ramp = np.linspace(0, 1023, 96).astype(np.uint16)
        ramp = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (64, 96, 3)))
        data = imagecodecs.avif_encode(ramp, level=100, bitspersample=10)
        (tmp_path / "a.avif").write_bytes(data)
        assert probe_image(tmp_path / "a.avif").bit_depth == 16
        np.testing.assert_allclose(read_image(tmp_path / "a.avif") * 1023, ramp, atol=2)

    @pytest.mark.parametrize(("transfer", "white"), [(13, 1.0), (8, 1.0), (18, 1.0)])
    def test_heic_without_profile_by_its_transfer(
        self, tmp_path: Path, transfer: int, white: float
    ) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        levels = np.repeat(np.array([0, 64, 128, 192, 255], np.uint8), 32)
        image = np.ascontiguousarray(np.broadcast_to(levels[None, :, None], (64, 160, 3)))
        file = pillow_heif.from_bytes("RGB", (160, 64), image.tobytes())
        options = {"color_primaries": 9, "transfer_characteristics": transfer}
        file.save(tmp_path / "a.heic", quality=95, full_range_flag=1, **options)
        read = read_image(tmp_path / "a.heic")[32, 16::32, 1]
        if transfer == 13:
            np.testing.assert_allclose(read, levels[::32] / 255, atol=0.02)
        else:
            # Half of the code range is much brighter in linear light, and darker in a log curve.
            expected = {8: 0.735, 18: 0.315}[transfer]
            np.testing.assert_allclose(read[[0, 2, 4]], [0, expected, white], atol=0.03)
        chromaticities = read_metadata(tmp_path / "a.heic").chromaticities
        assert chromaticities == pytest.approx(
            (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046), abs=1e-4
        )

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
    def test_low_and_palette_png(self, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(TEXTURE).convert(mode)
        image.save(tmp_path / "a.png")
        expected = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


class TestNamed:
    @pytest.mark.parametrize(
        ("name", "head", "message"),
        [
            ("a.jxl", b"\xff\x0a", "JPEG XL needs pillow-jxl-plugin. Install it with: pip"),
            ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL needs pillow-jxl-plugin"),
            ("a.jpg", b"v/1\x01", "OpenEXR holds light without a white level; expected a picture"),
            ("a.png", b"#?RADIANCE\n", "Radiance HDR holds light without a white level"),
            ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "cannot be read as an image"),
            ("a.JXL", b"nothing", "its image format is unknown"),
        ],
    )
    def test_photographs_that_cannot_be_read(
        self, tmp_path: Path, name: str, head: bytes, message: str
    ) -> None:
        if "JPEG XL" in message and find_spec("pillow_jxl") is not None:
            pytest.skip("the plugin is there")
        for other in ("0.jpg", "b.jpg", "c.jpg"):
            frame(tmp_path / other, 30)
        (tmp_path / name).write_bytes(head + bytes(64))
        sentence = refusal(tmp_path)
        assert f"{name}: " in sentence
        assert message in sentence

    def test_other_pictures_beside_the_frames(self, tmp_path: Path) -> None:
        for name in ("a.jpg", "b.jpg", "c.png"):
            frame(tmp_path / name, 30)
        assert open_stack(tmp_path).findings == ()
        (tmp_path / "a.JPG").write_bytes((tmp_path / "a.jpg").read_bytes())
        (tmp_path / "a.JPG").rename(tmp_path / "IMG_1")  # no suffix
        frame(tmp_path / "view.gif", 40)
        for name in (".b.jpg_original", "notes.txt", "a.thm"):
            (tmp_path / name).write_bytes(b"\xff\xd8\xff" if name != "notes.txt" else b"text")
        (finding,) = open_stack(tmp_path).findings
        assert finding.startswith("not read as frames: IMG_1 and 1 more, by suffix no photograph")
        (tmp_path / "stack.json").write_text('{"files": ["a.jpg", "b.jpg"]}')
        assert open_stack(tmp_path).findings == ()

    def test_a_folder_of_other_pictures(self, tmp_path: Path) -> None:
        frame(tmp_path / "a.gif", 30)
        assert "no images." in refusal(tmp_path)
        assert "Found not read as frames: a.gif" in refusal(tmp_path)

    @pytest.mark.parametrize("kind", ["gif", "png", "webp"])
    def test_animations(self, tmp_path: Path, kind: str) -> None:
        first, *others = (Image.new("RGB", (8, 8), (level, 0, 9)) for level in (0, 99, 200))
        first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others, duration=100)
        with pytest.raises(InputError, match=r"a\.\w+: 3 pictures in one file, where one is exp"):
            probe_image(tmp_path / f"a.{kind}")

    def test_the_odd_size_is_named_also_if_it_is_the_first(self, tmp_path: Path) -> None:
        for index in range(4):
            frame(tmp_path / f"{index}.png", 30, size=(29 if index == 0 else 30, 40))
        expected = (
            "0.png: 40x29, but the other frames, such as 1.png, are 40x30. All frames need one size"
        )
        assert expected in refusal(tmp_path)


class TestSizes:
    @pytest.mark.parametrize("side", [13300, 40000, 2**31 - 1])
    def test_declared_sizes_are_checked_before_decoding(self, tmp_path: Path, side: int) -> None:
        (tmp_path / "a.png").write_bytes(png_of(bytes(1000), side, side))
        with pytest.raises(InputError, match=rf"a\.png: declares {side}x{side}") as caught:
            read_image(tmp_path / "a.png")
        expected = "no photograph is as empty" if side == 13300 else "megapixels"
        assert expected in str(caught.value) or "cannot be read" in str(caught.value)

    @pytest.mark.filterwarnings("error")
    def test_large_photographs_are_opened_without_a_warning(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(png_of(bytes(1000), 12000, 9000) + bytes(600_000))
        assert probe_image(path).size() == (12000, 9000)


class TestDataThatEndEarly:
    @pytest.mark.parametrize(("colour_type", "depth"), [(2, 8), (0, 8), (6, 8), (2, 16), (3, 8)])
    def test_png(self, tmp_path: Path, colour_type: int, depth: int) -> None:
        samples = {0: 1, 2: 3, 3: 1, 6: 4}[colour_type] * depth // 8
        rows = (b"\0" + bytes(20 * samples)) * 10
        png = png_of(rows, 30, 20, colour_type=colour_type, depth=depth)
        if colour_type == 3:
            png = png[:33] + chunk(b"PLTE", bytes(range(30))) + png[33:]
        (tmp_path / "a.png").write_bytes(png)
        with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
            read_image(tmp_path / "a.png")

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_jpeg_with_its_end_marker(
        self, tmp_path: Path, mode: str, options: dict[str, int]
    ) -> None:
        path = tmp_path / "a.jpg"
        Image.fromarray(TEXTURE).convert(mode).save(path, quality=80, **options)
        whole = path.read_bytes()
        assert read_image(path).shape == (48, 64, 3)
        path.write_bytes(whole[: len(whole) * 2 // 3] + b"\xff\xd9")
        with pytest.raises(InputError, match=r"a\.jpg: cannot be read as an image"):
            read_image(path)

    def test_flat_jpeg_is_whole(self) -> None:
        for image in (Image.new("RGB", (50, 40), (9, 9, 9)), Image.fromarray(SMOOTH)):
            buffer = io.BytesIO()
            image.save(buffer, "JPEG")
            pixels = np.asarray(Image.open(buffer))
            assert not ends_early(buffer.getvalue(), pixels)

    @pytest.mark.parametrize("kind", ["webp", "bmp", "heif", "gif", "ppm", "avif"])
    def test_other_formats(self, tmp_path: Path, kind: str) -> None:
        if kind == "heif":
            pytest.importorskip("pillow_heif").register_heif_opener()
        if kind == "avif" and not features.check("avif"):
            pytest.skip("Pillow without AVIF")
        Image.fromarray(TEXTURE).save(tmp_path / "a", kind)
        data = (tmp_path / "a").read_bytes()
        for share in (0.3, 0.6, 0.9):
            (tmp_path / "a").write_bytes(data[: int(len(data) * share)])
            with pytest.raises(InputError, match="a: cannot be read as an image"):
                read_image(tmp_path / "a")


def test_sixteen_bit_alpha_is_written(tmp_path: Path) -> None:
    image = np.full((4, 5, 3), 0.25, np.float32)
    alpha = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    write_png(tmp_path / "a.png", image, bit_depth=16, alpha=alpha)
    stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(stored[..., 3], np.rint(alpha * 65535))
