"""EXIF: lens data in metres, focus distances by maker, and ExifTool as the second opinion.

Maker notes are built here byte by byte from the published layouts
(https://exiftool.org/TagNames/Apple.html, Canon.html#FileInfo, Nikon.html#LensData01,
Olympus.html#FocusInfo).
"""

from __future__ import annotations

import math
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.io.exif import FrameRecord, read_exif
from focaldiffusion.io.makernotes import FocusReading
from focaldiffusion.optics import lens_distance_m

SIZE = (300, 400)
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED_RATIONAL, IFD = 2, 3, 4, 5, 7, 10, 13
NOTE_AT = 512  # where the maker note starts, counted from the TIFF header

Entries = list[tuple[int, int, int, bytes]]


def directory(entries: Entries, at: int, order: str = "<", base: int = 0) -> bytes:
    """A TIFF 6.0 directory of (tag, type, count, data), and after it the data over 4 bytes."""
    head = struct.pack(f"{order}H", len(entries))
    tail, tail_at = b"", at + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in sorted(entries):
        if len(data) > 4:
            value = struct.pack(f"{order}I", tail_at + len(tail) - base)
            tail += data + b"\0" * (len(data) % 2)
        else:
            value = data.ljust(4, b"\0")
        head += struct.pack(f"{order}HHI", tag, kind, count) + value
    return head + bytes(4) + tail


def rational(numerator: int, denominator: int = 1) -> bytes:
    return struct.pack("<2I", numerator, denominator)


def exif_block(
    make: str = "Test", photo: Entries | None = None, note: bytes | None = None
) -> bytes:
    """A little-endian EXIF block: make and model, the Exif directory, a maker note at NOTE_AT."""
    photo = list(photo or [])
    if note is not None:
        photo.append((0x927C, UNDEFINED, len(note), note.ljust(5, b"\0")))
    name = make.encode() + b"\0"
    main: Entries = [(0x010F, ASCII, len(name), name), (0x0110, ASCII, 6, b"Model\0")]
    main.append((0x8769, LONG, 1, struct.pack("<I", 128)))
    block = b"II*\0" + struct.pack("<I", 8) + directory(main, 8)
    assert len(block) <= 128
    if note is not None:
        # The note's offset is fixed, since Canon's offsets count from the block's start.
        photo = [entry for entry in photo if entry[0] != 0x927C]
        body = directory([*photo, (0x927C, UNDEFINED, len(note), b"@@@@@")], 128)
        marker = body.rindex(b"@@@@@")
        pointer = struct.pack("<I", 128 + marker)
        body = body.replace(pointer, struct.pack("<I", NOTE_AT)).replace(b"@@@@@", b"\0" * 5)
        block = (block.ljust(128, b"\0") + body).ljust(NOTE_AT, b"\0") + note
    else:
        block = block.ljust(128, b"\0") + directory(photo, 128)
    return b"Exif\0\0" + block


def jpeg(folder: Path, exif: bytes | None = None, xmp: str | None = None) -> Path:
    path = folder / "frame.jpg"
    Image.new("RGB", (SIZE[1], SIZE[0]), "grey").save(path, exif=exif or b"")
    if xmp is not None:
        packet = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
        segment = b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet
        data = path.read_bytes()
        path.write_bytes(data[:2] + segment + data[2:])
    return path


def read_one(path: Path) -> FrameRecord:
    (record,) = read_exif([path], SIZE)
    return record


def apple_note(near: tuple[int, int], far: tuple[int, int]) -> bytes:
    header = b"Apple iOS\0\0\1MM"
    return header + directory(
        [(0x000C, SIGNED_RATIONAL, 2, struct.pack(">4i", *near, *far))], len(header), ">"
    )


def canon_note(upper_cm: int, lower_cm: int) -> bytes:
    words = [0] * 32
    words[0], words[20], words[21] = 64, upper_cm, lower_cm
    return directory([(0x0093, SHORT, 32, struct.pack("<32H", *words))], NOTE_AT)


def olympus_note(numerator: int, denominator: int, *, om_system: bool = False) -> bytes:
    header = b"OM SYSTEM\0\0\0II\3\0" if om_system else b"OLYMPUS\0II\3\0"
    sub_at = len(header) + 18
    note = header + directory([(0x2050, IFD, 1, struct.pack("<I", sub_at))], len(header))
    assert len(note) == sub_at
    return note + directory([(0x0305, RATIONAL, 1, rational(numerator, denominator))], sub_at)


def nikon_note(code: int) -> bytes:
    lens_data = bytearray(b"0101" + bytes(16))
    lens_data[9] = code
    tiff = b"II*\0" + struct.pack("<I", 8)
    return b"Nikon\0\2\x10\0\0" + tiff + directory([(0x0098, UNDEFINED, 20, bytes(lens_data))], 8)


@pytest.fixture
def exiftool_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def exiftool() -> None:
    pytest.importorskip("exiftool", reason="PyExifTool is not installed")
    if shutil.which("exiftool") is None:
        pytest.skip("the exiftool program is not installed")


class TestLens:
    def test_millimetres_become_metres(self, tmp_path: Path) -> None:
        photo = [
            (0x829D, RATIONAL, 1, rational(185, 100)),
            (0x920A, RATIONAL, 1, rational(681, 100)),
        ]
        record = read_one(jpeg(tmp_path, exif_block("Google", photo)))
        assert record.lens.focal_length_m == pytest.approx(0.00681, rel=1e-12)
        assert record.lens.f_number == pytest.approx(1.85, rel=1e-12)
        assert record.tags == {"focal_length_m": "FocalLength", "f_number": "FNumber"}
        assert record.lens.pixel_pitch_m is None
        assert "neither FocalPlaneXResolution nor" in record.reasons["pixel_pitch_m"]

    def test_pitch_from_the_35_mm_equivalent_is_by_diagonal(self, tmp_path: Path) -> None:
        """f = 6.81 mm called 24 mm: the diagonal is 43.2666 x 6.81 / 24 mm over 500 px."""
        photo = [
            (0x920A, RATIONAL, 1, rational(681, 100)),
            (0xA405, SHORT, 1, struct.pack("<H", 24)),
        ]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.lens.pixel_pitch_m == pytest.approx(43.2666e-3 * 6.81 / 24 / 500, rel=1e-6)
        assert record.tags["pixel_pitch_m"] == "FocalLength and FocalLengthIn35mmFilm"

    @pytest.mark.parametrize(
        ("unit", "per_unit", "pitch_m"),
        [(None, 2540, 10e-6), (2, 2540, 10e-6), (3, 1000, 10e-6), (4, 100, 10e-6), (1, 100, None)],
    )
    def test_pitch_from_the_focal_plane(
        self, tmp_path: Path, unit: int | None, per_unit: int, pitch_m: float | None
    ) -> None:
        photo = [(0xA20E, RATIONAL, 1, rational(per_unit))]
        if unit is not None:
            photo.append((0xA210, SHORT, 1, struct.pack("<H", unit)))
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.lens.pixel_pitch_m == (None if pitch_m is None else pytest.approx(pitch_m))

    def test_pitch_grows_when_the_image_was_reduced(self, tmp_path: Path) -> None:
        photo = [
            (0xA002, LONG, 1, struct.pack("<I", 1600)),
            (0xA003, LONG, 1, struct.pack("<I", 1200)),
            (0xA20E, RATIONAL, 1, rational(100)),
            (0xA210, SHORT, 1, struct.pack("<H", 4)),
        ]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.lens.pixel_pitch_m == pytest.approx(40e-6)

    def test_pitch_unknown_name_when_the_image_was_cropped(self, tmp_path: Path) -> None:
        photo = [
            (0xA002, LONG, 1, struct.pack("<I", 1600)),
            (0xA003, LONG, 1, struct.pack("<I", 800)),
            (0xA20E, RATIONAL, 1, rational(2540)),
        ]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.lens.pixel_pitch_m is None
        assert "cropped: EXIF gives 1600 x 800 pixels" in record.reasons["pixel_pitch_m"]

    def test_two_pitches_that_disagree_are_not_used(self, tmp_path: Path) -> None:
        photo = [
            (0x920A, RATIONAL, 1, rational(50)),
            (0xA405, SHORT, 1, struct.pack("<H", 50)),
            (0xA20E, RATIONAL, 1, rational(2540)),
        ]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.lens.pixel_pitch_m is None
        assert "contradicts itself" in record.reasons["pixel_pitch_m"]
        assert "10 µm" in record.reasons["pixel_pitch_m"]
        assert "86.5 µm" in record.reasons["pixel_pitch_m"]

    def test_no_exif(self, tmp_path: Path) -> None:
        record = read_one(jpeg(tmp_path))
        assert set(record.reasons.values()) == {"no EXIF of a camera"}

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    def test_a_cut_block_loses_only_what_is_cut(
        self, tmp_path: Path, exiftool_missing: None
    ) -> None:
        block = exif_block("Canon", [(0x920A, RATIONAL, 1, rational(50))], canon_note(58, 54))
        found = []
        for cut in [*range(0, len(block) - 6, 5), len(block) - 6]:
            record = read_one(jpeg(tmp_path, block[: 6 + cut]))
            found.append((record.lens.focal_length_m is not None, record.focus is not None))
        assert found == sorted(found)
        assert set(found) == {(False, False), (True, False), (True, True)}


class TestFocus:
    @pytest.mark.parametrize(
        ("numerator", "metres"), [(1250, 1.25), (0, None), (0xFFFFFFFF, math.inf)]
    )
    def test_subject_distance(self, tmp_path: Path, numerator: int, metres: float | None) -> None:
        photo = [(0x9206, RATIONAL, 1, rational(numerator, 1000))]
        focus = read_one(jpeg(tmp_path, exif_block(photo=photo))).focus
        expected = metres and FocusReading(metres, metres, "lens", "EXIF SubjectDistance")
        assert focus == expected

    @pytest.mark.parametrize(
        ("note", "make", "expected"),
        [
            (
                apple_note((50, 100), (25, 100)),
                "Apple",
                FocusReading(0.25, 0.5, "lens", "Apple FocusDistanceRange"),
            ),
            (
                canon_note(58, 54),
                "Canon",
                FocusReading(
                    0.54, 0.58, "sensor", "Canon FocusDistanceUpper and FocusDistanceLower"
                ),
            ),
            (
                canon_note(250, 0xFFFF),  # the 400D has them swapped
                "Canon",
                FocusReading(
                    2.5, math.inf, "sensor", "Canon FocusDistanceUpper and FocusDistanceLower"
                ),
            ),
            (
                olympus_note(1260, 10),
                "OLYMPUS CORPORATION",
                FocusReading(1.26, 1.26, "lens", "Olympus FocusDistance"),
            ),
            (
                olympus_note(0xFFFFFFFF, 1, om_system=True),
                "OM Digital Solutions",
                FocusReading(math.inf, math.inf, "lens", "Olympus FocusDistance"),
            ),
        ],
        ids=["apple", "canon", "canon-swapped", "olympus", "om-system"],
    )
    def test_maker_notes_without_exiftool(
        self,
        tmp_path: Path,
        exiftool_missing: None,
        note: bytes,
        make: str,
        expected: FocusReading,
    ) -> None:
        record = read_one(jpeg(tmp_path, exif_block(make, note=note)))
        assert record.focus == expected
        assert record.tags["focus"] == expected.tag

    @pytest.mark.parametrize(
        ("note", "make", "printed"),
        [
            (apple_note((50, 100), (25, 100)), "Apple", "0.5 0.25"),
            (canon_note(58, 54), "Canon", "0.58 0.54"),
            (olympus_note(1260, 10), "OLYMPUS CORPORATION", "1.26"),
        ],
        ids=["apple", "canon", "olympus"],
    )
    def test_exiftool_reads_these_notes_alike(
        self, tmp_path: Path, exiftool: None, note: bytes, make: str, printed: str
    ) -> None:
        from exiftool import ExifToolHelper

        path = jpeg(tmp_path, exif_block(make, note=note))
        names = ("FocusDistanceRange", "FocusDistanceUpper", "FocusDistanceLower", "FocusDistance")
        with ExifToolHelper(common_args=["-n"]) as tool:
            (answer,) = tool.get_tags(str(path), [f"MakerNotes:{name}" for name in names])
        values = [str(answer[name]) for name in names if name in answer]
        assert " ".join(values) == printed

    @pytest.mark.parametrize(("code", "metres"), [(69, 0.01 * 10 ** (69 / 40)), (251, math.inf)])
    def test_nikon_through_exiftool(
        self, tmp_path: Path, exiftool: None, code: int, metres: float
    ) -> None:
        focus = read_one(
            jpeg(tmp_path, exif_block("NIKON CORPORATION", note=nikon_note(code)))
        ).focus
        assert focus is not None
        assert (focus.reference, focus.tag) == ("sensor", "Nikon FocusDistance")
        # Printed with two decimals, and half a code step, 2.9 %, either side.
        assert focus.near_m == pytest.approx(metres * 10 ** (-1 / 80), abs=0.006)
        assert focus.far_m == pytest.approx(metres * 10 ** (1 / 80), abs=0.006)

    def test_nikon_without_a_recorded_distance(self, tmp_path: Path, exiftool: None) -> None:
        record = read_one(jpeg(tmp_path, exif_block("NIKON CORPORATION", note=nikon_note(0))))
        assert record.reasons["focus"] == "the EXIF of this NIKON CORPORATION has no focus distance"

    def test_missing_exiftool_is_said(self, tmp_path: Path, exiftool_missing: None) -> None:
        record = read_one(jpeg(tmp_path, exif_block("NIKON CORPORATION", note=nikon_note(69))))
        assert record.focus is None
        assert "needs ExifTool (install the program" in record.reasons["focus"]

    @pytest.mark.parametrize("make", ["SONY", "Panasonic", "FUJIFILM"])
    def test_untrusted_makers_are_named(self, tmp_path: Path, make: str) -> None:
        record = read_one(jpeg(tmp_path, exif_block(make)))
        assert record.reasons["focus"] == f"{make} records no focus distance that can be trusted"

    @pytest.mark.parametrize(
        "xmp",
        [
            '<rdf:Description aux:ApproximateFocusDistance="63/100"/>',
            "<aux:ApproximateFocusDistance>63/100</aux:ApproximateFocusDistance>",
        ],
    )
    def test_adobe(self, tmp_path: Path, xmp: str) -> None:
        focus = read_one(jpeg(tmp_path, exif_block(), xmp)).focus
        assert focus == FocusReading(0.63, 0.63, "lens", "XMP aux:ApproximateFocusDistance")
        far = xmp.replace("63/100", "4294967295/1")
        focus = read_one(jpeg(tmp_path, exif_block("Canon"), far)).focus
        assert focus == FocusReading(
            math.inf, math.inf, "sensor", "XMP aux:ApproximateFocusDistance"
        )


class TestAbsurdNumbers:
    """Facts that no camera could have written are unknown, with a reason."""

    @pytest.mark.parametrize(
        "number",
        [
            struct.pack("<d", 1e-310),
            struct.pack("<d", math.inf),
            struct.pack("<d", -math.inf),
            struct.pack("<d", math.nan),
            struct.pack("<d", 1e300),
            struct.pack("<d", -5.0),
        ],
    )
    @pytest.mark.parametrize("tag", [0x829D, 0x9206, 0x920A, 0xA002, 0xA20E, 0xA405, 0xA210])
    def test_doubles(self, tmp_path: Path, tag: int, number: bytes) -> None:
        sound: Entries = [
            (0x829D, RATIONAL, 1, rational(28, 10)),
            (0x9206, RATIONAL, 1, rational(15, 10)),
            (0x920A, RATIONAL, 1, rational(50)),
            (0xA002, LONG, 1, struct.pack("<I", 400)),
            (0xA003, LONG, 1, struct.pack("<I", 300)),
            (0xA20E, RATIONAL, 1, rational(4000)),
            (0xA405, SHORT, 1, struct.pack("<H", 50)),
        ]
        photo = [entry for entry in sound if entry[0] != tag] + [(tag, 12, 1, number)]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        name = {0x829D: "f_number", 0x920A: "focal_length_m", 0x9206: "focus"}.get(tag)
        if name == "focus":
            assert record.focus is None or record.focus.near_m == math.inf
        elif name is not None:
            assert name not in record.lens.values()
            assert record.reasons[name]
        for value in record.lens.values().values():
            assert 1e-7 < value < 1e3
        assert all(reason.isprintable() for reason in record.reasons.values())

    def test_the_reason_has_the_number(self, tmp_path: Path) -> None:
        photo: Entries = [
            (0x829D, 12, 1, struct.pack("<d", 1e-310)),
            (0x9206, 12, 1, struct.pack("<d", 1e-310)),
        ]
        record = read_one(jpeg(tmp_path, exif_block(photo=photo)))
        assert record.reasons["f_number"] == "EXIF FNumber is 1e-310, which no camera has"
        assert "1e-310 m, nearer than anything focuses" in record.reasons["focus"]

    @pytest.mark.parametrize("kind", [4, 11, 12, 2, 7, 5])
    @pytest.mark.parametrize("value", [b"\xff" * 8, b"\0\0\x80\x7f" * 2, bytes(8)])
    def test_pointer_beyond_the_file_or_of_another_type(
        self, tmp_path: Path, kind: int, value: bytes
    ) -> None:
        block = b"II*\0" + struct.pack("<I", 8)
        block += directory([(0x010F, ASCII, 5, b"Make\0"), (0x8769, kind, 1, value)], 8)
        record = read_one(jpeg(tmp_path, b"Exif\0\0" + block))
        assert record.lens.values() == {}
        assert "Make" in record.reasons["focus"]

    @pytest.mark.parametrize("denominator", ["0", "000", "1" + "0" * 400])
    @pytest.mark.parametrize("digits", [1, 400, 5000])
    def test_xmp_digits(self, tmp_path: Path, digits: int, denominator: str) -> None:
        number = f"{'9' * digits}/{denominator}"
        packet = f'<x aux:ApproximateFocusDistance="{number}"/>'
        assert read_one(jpeg(tmp_path, xmp=packet)).focus is None

    def test_maker_notes(self, tmp_path: Path, exiftool_missing: None) -> None:
        for near, far in (((0, 1), (1, 0)), ((-5, 10), (1, 1)), ((1, 2**31 - 1), (1, 1))):
            path = jpeg(tmp_path, exif_block("Apple", note=apple_note(near, far)))
            assert read_one(path).focus is None

    def test_control_characters_of_the_maker_are_left_out(self, tmp_path: Path) -> None:
        record = read_one(jpeg(tmp_path, exif_block(make="A\x1b[31m\r\nB")))
        assert "A[31mB" in record.reasons["focus"]


class TestFromLens:
    def test_middle_is_taken_in_dioptres(self) -> None:
        distance_m, half_width_dpt = FocusReading(1.0, math.inf, "lens", "t").from_lens(None)
        assert (distance_m, half_width_dpt) == (2.0, 0.5)

    def test_infinity(self) -> None:
        assert FocusReading(math.inf, math.inf, "sensor", "t").from_lens(0.05) == (math.inf, 0.0)

    @given(
        near_m=st.floats(0.3, 50), ratio=st.floats(1, 1.2), focal_length_m=st.floats(0.004, 0.07)
    )
    def test_sensor_ends_convert_one_by_one(
        self, near_m: float, ratio: float, focal_length_m: float
    ) -> None:
        """The interval, once converted, still has the converted ends."""
        far_m = near_m * ratio
        reading = FocusReading(near_m, far_m, "sensor", "t")
        distance_m, half_width_dpt = reading.from_lens(focal_length_m)
        near_dpt, far_dpt = 1 / distance_m + half_width_dpt, 1 / distance_m - half_width_dpt
        assert 1 / near_dpt == pytest.approx(lens_distance_m(near_m, focal_length_m))
        assert 1 / far_dpt == pytest.approx(lens_distance_m(far_m, focal_length_m))
        assert distance_m <= far_m

    def test_nearer_than_the_lens_can_focus(self) -> None:
        with pytest.raises(InputError, match="nearer than four focal lengths"):
            FocusReading(0.3, 0.3, "sensor", "t").from_lens(0.1)


def test_real_phone_frames(shared_data: Path) -> None:
    """Pixel 6 Pro, values checked against ExifTool's own listing of the file."""
    path = shared_data / "stacks" / "phone_backpack" / "frame_00.jpg"
    (record,) = read_exif([path], (3072, 4080))
    assert record.lens.focal_length_m == pytest.approx(0.00681)
    assert record.lens.f_number == pytest.approx(1.85)
    assert record.focus is None
