"""Encodings unlike sRGB's: PNG gamma, ICC curves, and profiles that differ within a stack."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from focaldiffusion.io.encoding import profile_curves, profile_name, with_srgb_curves
from focaldiffusion.io.images import read_image, read_metadata
from focaldiffusion.io.png import write_png
from focaldiffusion.io.stacks import open_stack

RAMP = np.tile(np.arange(256, dtype=np.uint8)[:, None], (4, 1, 3))
UNIT = RAMP.astype(np.float32) / np.float32(255)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LINEAR_CURVE = b"curv" + bytes(8)


def with_curve(curve: bytes, name: str = "", red: float | None = None) -> bytes:
    """The sRGB profile with another curve, and optionally another red."""
    profile = bytearray(SRGB + bytes(-len(SRGB) % 4))
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        tag = bytes(profile[entry : entry + 4])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            struct.pack_into(">II", profile, entry + 4, len(profile), len(curve))
        if tag == b"rXYZ" and red is not None:
            (place,) = struct.unpack_from(">I", profile, entry + 4)
            struct.pack_into(">i", profile, place + 8, round(red * 65536))
    profile += curve
    struct.pack_into(">I", profile, 0, len(profile))
    return bytes(profile)


def gamma_of(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"


def parametric(kind: int, *numbers: float) -> bytes:
    fixed = [round(one * 65536) for one in numbers]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)


def encoded(light: NDArray[Any]) -> NDArray[Any]:
    """sRGB of linear light, written out again here (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def png_with(path: Path, *chunks: tuple[bytes, bytes], deep: bool = False) -> Path:
    pixels = RAMP.astype(np.uint16) * 257 if deep else RAMP
    png = imagecodecs.png_encode(pixels)
    extra = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    path.write_bytes(png[:33] + extra + png[33:])
    return path


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 1e5))


def icc(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"x\0\0" + zlib.compress(profile)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("value", [1.0, 1 / 1.8, 1 / 1.5, 1 / 3])
def test_png_gamma_becomes_srgb(tmp_path: Path, value: float, deep: bool) -> None:
    read = read_image(png_with(tmp_path / "a.png", gamma(value), deep=deep))
    np.testing.assert_allclose(read, encoded(UNIT.astype(float) ** (1 / value)), atol=2e-4)


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma(0.45455)],
        [gamma(1 / 2.4)],
        [gamma(1.0), (b"sRGB", b"\0")],
        [gamma(1.0), icc(SRGB)],
        [icc(with_curve(gamma_of(2.2)))],
        [icc(with_curve(parametric(0, 2.2)))],
        [icc(with_curve(b"oops" + bytes(8)))],
    ],
    ids=["gamma 2.2", "gamma 2.4", "sRGB wins", "profile wins", "curve 2.2", "para 2.2", "broken"],
)
def test_values_like_srgb_keep_every_bit(tmp_path: Path, chunks: list[tuple[bytes, bytes]]) -> None:
    read = read_image(png_with(tmp_path / "a.png", *chunks))
    np.testing.assert_array_equal(read, UNIT)


@pytest.mark.parametrize(
    ("curve", "exponent"),
    [
        (LINEAR_CURVE, 1.0),
        (gamma_of(1.8), 1.8),
        (parametric(0, 1.0), 1.0),
        (parametric(1, 1.8, 1, 0), 1.8),
    ],
)
@pytest.mark.parametrize("kind", ["jpg", "png", "png16", "tif"])
def test_profile_curves_become_srgb(
    tmp_path: Path, curve: bytes, exponent: float, kind: str
) -> None:
    profile, path = with_curve(curve), tmp_path / f"a.{kind}"
    expected = encoded(UNIT.astype(float) ** exponent)
    if kind.startswith("png"):
        png_with(path, icc(profile), gamma(0.45455), deep=kind == "png16")
    elif kind == "tif":
        tifffile.imwrite(path, RAMP, photometric="rgb", iccprofile=profile)
    else:
        grey = np.kron(RAMP, np.ones((8, 8, 1), np.uint8))
        Image.fromarray(grey).save(path, quality=100, subsampling=0, icc_profile=profile)
    read = read_image(path)
    if kind == "jpg":
        read = read[4::8, 4::8]
    # JPEG is off by up to two levels, and linear light is steep at black.
    np.testing.assert_allclose(read[:, 16:], expected[:, 16:], atol=0.02 if kind == "jpg" else 2e-3)


def test_the_output_looks_like_the_input(tmp_path: Path) -> None:
    """A colour management system shows both alike."""
    profile = with_curve(LINEAR_CURVE, red=0.6)
    png_with(tmp_path / "a.png", icc(profile))
    metadata = read_metadata(tmp_path / "a.png")
    assert metadata.icc_profile is not None
    assert not profile_curves(metadata.icc_profile)
    write_png(tmp_path / "b.png", read_image(tmp_path / "a.png"), metadata=metadata)
    shown = []
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            own = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            target = ImageCms.createProfile("sRGB")
            shown.append(np.asarray(ImageCms.profileToProfile(image, own, target), float))
    assert np.abs(shown[0] - shown[1])[:, 8:].max() <= 3
    assert np.abs(shown[0] - shown[1]).mean() < 0.6


def test_a_profile_of_srgb_curves_has_no_others() -> None:
    assert not profile_curves(SRGB)
    assert not profile_curves(None)
    assert len(profile_curves(with_curve(LINEAR_CURVE))) == 3
    assert not profile_curves(with_srgb_curves(with_curve(LINEAR_CURVE)))
    assert profile_name(SRGB) == "sRGB built-in"


@pytest.mark.parametrize("cut", [0, 64, 131, 140, 300])
def test_a_broken_profile_has_no_curves(cut: int) -> None:
    assert profile_curves(with_curve(LINEAR_CURVE)[:cut]) == ()
    assert profile_name(with_curve(LINEAR_CURVE)[:cut])


def test_primaries_of_a_png_are_carried_over(tmp_path: Path) -> None:
    numbers = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)  # Display P3
    chunk = b"cHRM", struct.pack(">8I", *(round(one * 1e5) for one in numbers))
    metadata = read_metadata(png_with(tmp_path / "a.png", gamma(1.0), chunk))
    write_png(tmp_path / "b.png", read_image(tmp_path / "a.png"), metadata=metadata)
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["chromaticity"] == pytest.approx(numbers)
        assert image.info["gamma"] == pytest.approx(0.45455)
    assert read_metadata(png_with(tmp_path / "c.png", gamma(1.0))).chromaticities is None


class TestFindings:
    def write(self, folder: Path, *profiles: bytes | None, grey: int | None = None) -> Any:
        for index, profile in enumerate(profiles):
            image = Image.fromarray(RAMP)
            image = image.convert("L") if index == grey else image
            image.save(folder / f"{index}.png", icc_profile=profile)
        return open_stack(folder).findings

    def test_profiles_that_differ_are_named(self, tmp_path: Path) -> None:
        wide = with_curve(gamma_of(2.2), red=0.6)
        (finding,) = self.write(tmp_path, None, wide, SRGB, wide)
        assert finding.startswith("the colour profile of 1.png and 1 more is sRGB built-in, that")
        assert "that of 0.png sRGB: their colours differ. Export all frames with one" in finding

    def test_profiles_of_the_same_colours_are_not(self, tmp_path: Path) -> None:
        assert self.write(tmp_path, None, SRGB, with_curve(gamma_of(2.2))) == ()

    def test_grey_among_colour_is_named(self, tmp_path: Path) -> None:
        (finding,) = self.write(tmp_path, None, None, None, grey=1)
        assert finding == ("grey among frames in colour: 1.png (1 of 3). Export all frames alike.")
