"""TIFF of many kinds: pixels, sets of OME-TIFFs, and files that are broken."""

from __future__ import annotations

import io
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from stack_folders import refusal

from focaldiffusion.errors import InputError
from focaldiffusion.io.images import read_image
from focaldiffusion.io.stacks import open_stack

RNG = np.random.default_rng(7)
VOLUME = RNG.integers(0, 65536, (4, 24, 32), dtype=np.uint16)
GREY: dict[str, Any] = {"photometric": "minisblack"}
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def frames_of(path: Path) -> NDArray[np.float32]:
    stack = open_stack(path)
    return np.stack([stack.frames.read(index)[..., 0] for index in range(len(stack))])


class TestPixels:
    @pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
    def test_packed_bits(self, tmp_path: Path, bits: int) -> None:
        path, values = tmp_path / "a.tif", VOLUME >> (16 - bits)
        options = {} if bits == 1 else {"bitspersample": bits}
        kind = bool if bits == 1 else np.uint8 if bits < 8 else np.uint16
        tifffile.imwrite(path, values.astype(kind), **GREY, **options)
        np.testing.assert_allclose(frames_of(path), values / (2**bits - 1), rtol=1e-6)

    def test_signed_counts_keep_their_values(self, tmp_path: Path) -> None:
        path, counts = tmp_path / "a.tif", (VOLUME // 2).astype(np.int16)
        tifffile.imwrite(path, counts, **GREY)
        np.testing.assert_array_equal(np.rint(frames_of(path) * 65535), counts)
        counts[0, 0, 0] = -5
        tifffile.imwrite(path, counts, **GREY)
        with pytest.raises(InputError, match=r"signed pixels from -5 to .* counts from 0 on"):
            frames_of(path)

    @pytest.mark.parametrize(("kind", "code"), [(np.float32, 11), (np.uint32, 4), (np.int32, 9)])
    def test_a_declared_range_defines_white(self, tmp_path: Path, kind: Any, code: int) -> None:
        path, values = tmp_path / "a.tif", VOLUME.astype(kind)
        assert "white level is not defined" in refusal_of(path, values, [])
        tags = [(340, code, 1, kind(0).item(), True), (341, code, 1, kind(80000).item(), True)]
        tifffile.imwrite(path, values, extratags=tags, **GREY)
        np.testing.assert_allclose(frames_of(path), VOLUME / 80000, atol=1e-6)
        tags[1] = (341, code, 1, kind(900).item(), True)
        tifffile.imwrite(path, values, extratags=tags, **GREY)
        with pytest.raises(InputError, match=r"but the file declares 0 to 900"):
            frames_of(path)

    def test_palette(self, tmp_path: Path) -> None:
        pictures = [
            Image.fromarray(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)).quantize(60)
            for _ in range(3)
        ]
        path = tmp_path / "a.tif"
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
        stack = open_stack(path)
        assert (len(stack), stack.frames.is_grey, stack.frames.bit_depth) == (3, False, 8)
        for index, picture in enumerate(pictures):
            expected = np.asarray(picture.convert("RGB"), np.float32) / np.float32(255)
            np.testing.assert_array_equal(stack.frames.read(index), expected)

    def test_a_palette_of_16_bits_or_8(self, tmp_path: Path) -> None:
        colours = RNG.integers(0, 256, (3, 256), dtype=np.uint16)
        colours[:, 0] = 255
        indices = (VOLUME >> 8).astype(np.uint8)
        for factor in (257, 1):
            tifffile.imwrite(
                tmp_path / "a.tif", indices, photometric="palette", colormap=colours * factor
            )
            np.testing.assert_array_equal(
                open_stack(tmp_path / "a.tif").frames.read(1),
                np.moveaxis(colours[:, indices[1]], 0, -1).astype(np.float32) / np.float32(255),
            )


def refusal_of(path: Path, values: NDArray[Any], tags: list[Any]) -> str:
    tifffile.imwrite(path, values, extratags=tags, **GREY)
    return refusal(path)


def ome_xml(size_z: int, blocks: str, identity: str, more: str = "", planes: str = "") -> bytes:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" UUID="{identity}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" '
        f'SizeY="24" SizeZ="{size_z}" SizeC="1" SizeT="1" {more}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}{planes}</Pixels></Image></OME>'
    )
    return text.encode()


def write_set(folder: Path, names: Sequence[str]) -> None:
    """A set of OME-TIFFs: plane z in the file names[z]."""
    folder.mkdir(exist_ok=True)
    identities = [f"urn:uuid:{uuid.UUID(int=index)}" for index in range(len(names))]
    blocks = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{identity}</UUID>'
        "</TiffData>"
        for z, (name, identity) in enumerate(zip(names, identities, strict=True))
    )
    planes = "".join(
        f'<Plane TheZ="{z}" TheC="0" TheT="0" PositionZ="{2 * z * z}" PositionZUnit="µm"/>'
        for z in range(len(names))
    )
    for z, (name, identity) in enumerate(zip(names, identities, strict=True)):
        xml = ome_xml(len(names), blocks, identity, planes=planes)
        tifffile.imwrite(folder / name, VOLUME[z], description=xml, metadata=None, **GREY)


class TestOmeSets:
    names = ("d.ome.tif", "b.ome.tif", "c.ome.tif", "a.ome.tif")

    def test_planes_in_files_of_their_own_are_joined_in_z_order(self, tmp_path: Path) -> None:
        write_set(tmp_path / "s", self.names)
        for source in (tmp_path / "s", tmp_path / "s" / "c.ome.tif"):
            stack = open_stack(source)
            assert stack.frames.names == self.names
            assert [path.name for path in stack.files] == list(self.names)
            np.testing.assert_array_equal(frames_of(source), VOLUME / np.float32(65535))
            assert stack.focus_positions_m == pytest.approx((0, 2e-6, 8e-6, 18e-6))

    def test_a_part_of_the_set(self, tmp_path: Path) -> None:
        write_set(tmp_path / "s", self.names)
        stack = open_stack([tmp_path / "s" / self.names[index] for index in (2, 1)])
        assert stack.frames.names == (self.names[1], self.names[2])
        assert stack.focus_positions_m == pytest.approx((2e-6, 8e-6))

    def test_a_missing_member_and_a_stray_are_named(self, tmp_path: Path) -> None:
        write_set(tmp_path / "s", self.names)
        tifffile.imwrite(tmp_path / "s" / "z.tif", VOLUME[0], **GREY)
        assert "z.tif: is not of the OME-TIFF set of a.ome.tif" in refusal(tmp_path / "s")
        (tmp_path / "s" / "z.tif").unlink()
        (tmp_path / "s" / "b.ome.tif").unlink()
        for source in (tmp_path / "s", tmp_path / "s" / "c.ome.tif"):
            assert "b.ome.tif is absent. Put all files of the set" in refusal(source)

    def test_other_folders_are_not_opened(self, tmp_path: Path) -> None:
        write_set(tmp_path / "s", self.names)
        content = (tmp_path / "s" / "a.ome.tif").read_bytes()
        (tmp_path / "s" / "a.ome.tif").write_bytes(content.replace(b'"d.ome.tif"', b'"/dev/zer0"'))
        assert "zer0 is absent" in refusal(tmp_path / "s" / "a.ome.tif")

    def test_a_renamed_file_is_its_own(self, tmp_path: Path) -> None:
        blocks = '<TiffData IFD="0" PlaneCount="3"><UUID FileName="old.ome.tif">u</UUID></TiffData>'
        tifffile.imwrite(
            tmp_path / "new.ome.tif",
            VOLUME[:3],
            description=ome_xml(3, blocks, "other"),
            metadata=None,
            **GREY,
        )
        np.testing.assert_array_equal(
            frames_of(tmp_path / "new.ome.tif"), VOLUME[:3] / np.float32(65535)
        )

    def test_metadata_in_a_companion_file(self, tmp_path: Path) -> None:
        names = ("x.ome.tif", "y.ome.tif")
        blocks = "".join(
            f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{z}</UUID>'
            "</TiffData>"
            for z, name in enumerate(names)
        )
        for z, name in enumerate(names):
            reference = (
                f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_SCHEMA}" UUID="{z}">'
                '<BinaryOnly MetadataFile="s.companion.ome" UUID="c"/></OME>'
            )
            tifffile.imwrite(
                tmp_path / name, VOLUME[z], description=reference, metadata=None, **GREY
            )
        assert "its OME-XML is in s.companion.ome, which is absent" in refusal(tmp_path)
        (tmp_path / "s.companion.ome").write_bytes(
            ome_xml(2, blocks, "c", 'PhysicalSizeZ="3" PhysicalSizeZUnit="nm"')
        )
        stack = open_stack(tmp_path)
        assert stack.frames.names == names
        assert stack.focus_positions_m == pytest.approx((0, 3e-9))

    @pytest.mark.parametrize("size_z", [5, 10**9])
    def test_planes_that_are_not_there(self, tmp_path: Path, size_z: int) -> None:
        xml = ome_xml(size_z, "<TiffData/>", "u")
        tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, description=xml, metadata=None, **GREY)
        expected = "declares 1000000000 planes" if size_z > 5 else "the page of frame 5 is missing"
        assert expected in refusal(tmp_path / "a.ome.tif")

    def test_z_stored_as_channels(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, metadata={"axes": "CYX"}, **GREY)
        told = "4 channels; expected 1 (grey) or 3 (red, green, blue)"
        assert told in refusal(tmp_path / "a.ome.tif")
        assert "if z was stored as channels, re-order it" in refusal(tmp_path / "a.ome.tif")

    def test_contradiction_is_a_finding_of_the_stack(self, tmp_path: Path) -> None:
        metadata = {
            "axes": "ZYX",
            "PhysicalSizeZ": 5,
            "Plane": {"PositionZ": [0, 1, 2, 3], "PositionZUnit": ["µm"] * 4},
        }
        tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, metadata=metadata, **GREY)
        stack = open_stack(tmp_path / "a.ome.tif")
        assert stack.focus_positions_m == pytest.approx((0, 1e-6, 2e-6, 3e-6))
        assert "5 µm by PhysicalSizeZ" in stack.findings[0]
        told = open_stack(tmp_path / "a.ome.tif", focus_positions_m=[0, 1e-3, 2e-3, 3e-3])
        assert told.findings == ()


class TestBroken:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"photometric": "miniswhite"}, "MINISBLACK and MINISWHITE"),
            ({"bitspersample": 12}, "16 bits and 12 bits"),
        ],
    )
    def test_pages_of_different_kinds(
        self, tmp_path: Path, change: dict[str, Any], told: str
    ) -> None:
        path = tmp_path / "a.tif"
        with tifffile.TiffWriter(path) as tif:
            for options in ({}, {}, change):
                tif.write(VOLUME[0] >> 4, contiguous=False, metadata=None, **{**GREY, **options})
        assert f"pages of different sizes or kinds ({told})" in refusal(path)

    @pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "jpeg", "zstd"])
    @pytest.mark.parametrize("tile", [None, (16, 16)])
    @pytest.mark.parametrize("share", [0, 0.5])
    def test_missing_pixels_are_never_black(
        self, tmp_path: Path, compression: str | None, tile: Any, share: float
    ) -> None:
        path = tmp_path / "a.tif"
        options = {"tile": tile} if tile else {"rowsperstrip": 8}
        image = (VOLUME[0] >> 8).astype(np.uint8)
        tifffile.imwrite(path, image, compression=compression, **options, **GREY)
        read_image(path)
        with tifffile.TiffFile(path) as tif:
            tag = tif.pages[0].tags[325 if tile else 279]
            width, counts = {3: 2, 4: 4}[int(tag.dtype)], tag.value
        content = bytearray(path.read_bytes())
        place = tag.valueoffset + width
        content[place : place + width] = int(counts[1] * share).to_bytes(width, "little")
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_image(path)

    def test_sizes_that_no_memory_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, VOLUME[0], compression="zlib", **GREY)
        content = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tif:
            for code in (256, 257, 278):  # width, length, rows of a strip
                place = tif.pages[0].tags[code].valueoffset
                content[place : place + 2] = b"\xff\xff"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"declares 65535x65535 pixels, 8\.6 GB, in a file of"):
            read_image(path)

    def test_mutated_files_are_read_or_refused(self, tmp_path: Path) -> None:
        chance = random.Random(3)
        path, seeds = tmp_path / "a.tif", list(_seeds())
        for _ in range(400):
            path.write_bytes(_mutated(chance.choice(seeds), chance))
            try:
                stack = open_stack(path)
                frames = [stack.frames.read(index) for index in range(min(3, len(stack)))]
            except InputError:
                continue
            for frame in frames:
                assert frame.shape == (*stack.frames.size, 3)
                assert 0 <= frame.min() <= frame.max() <= 1  # also false for NaN


def _seeds() -> Iterator[bytes]:
    """Small stacks of many kinds."""
    grey, colour = (
        (VOLUME >> 8).astype(np.uint8),
        np.stack([(VOLUME >> 8).astype(np.uint8)] * 3, -1),
    )
    ome = {"axes": "ZYX", "PhysicalSizeZ": 1, "SignificantBits": 12}
    kinds: list[tuple[NDArray[Any], dict[str, Any]]] = [
        *((grey, {"compression": name, **GREY}) for name in (None, "lzw", "zlib", "jpeg")),
        (VOLUME, {"tile": (16, 16), "compression": "zstd", "predictor": True, **GREY}),
        (VOLUME, {"bigtiff": True, **GREY}),
        (VOLUME, {"byteorder": ">", "rowsperstrip": 5, "compression": "packbits", **GREY}),
        (VOLUME >> 4, {"bitspersample": 12, **GREY}),
        (VOLUME, {"ome": True, "metadata": ome, **GREY}),
        (VOLUME, {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 1, "unit": "um"}, **GREY}),
        (colour, {"photometric": "rgb"}),
        (colour.transpose(0, 3, 1, 2).copy(), {"photometric": "rgb", "planarconfig": "separate"}),
        (
            grey,
            {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, -1)},
        ),
    ]
    for array, options in kinds:
        file = io.BytesIO()
        tifffile.imwrite(file, array, **options)
        yield file.getvalue()


def _mutated(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes changed, most of them in its tags, or an end cut off."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = int.from_bytes(content[4:8], "little")
        near_tags = chance.random() < 0.7 and start + 160 < len(changed)
        place = start + chance.randrange(160) if near_tags else chance.randrange(len(changed))
        if chance.random() < 0.1:
            del changed[max(place, 8) :]
            break
        width = chance.choice((1, 2, 4))
        value = chance.choice((0, 1, 2, 3, 16, 255, 65535, 2**31, 2**32 - 1)) % 256**width
        changed[place : place + width] = value.to_bytes(width, "little")
    return bytes(changed)
