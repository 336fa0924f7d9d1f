"""Manifests: what is written comes back, and what cannot be right is refused with its row."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from focaldiffusion.archive.manifest import Entry, read_manifest, write_manifest
from focaldiffusion.errors import InputError

KINDS = ("csv", "parquet")


def entries(folder: Path) -> list[Entry]:
    return [
        Entry(
            "Käfer 01",
            (str(folder / "card" / "a, 1.jpg"), str(folder / "card" / 'b "2".jpg')),
            focus_distances_m=(0.1 + 0.2, math.inf),
            camera="OM-1",
            notes="two\nlines",
            reason="bracketing tag",
        ),
        Entry("slide", ("s3://bucket/slide.tif",), focus_positions_m=(0.0, 1e-6, 2e-6)),
        Entry("folder", ("/elsewhere/stack",)),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_comes_back(tmp_path: Path, kind: str) -> None:
    written = entries(tmp_path)
    path = tmp_path / f"manifest.{kind}"
    write_manifest(path, written)
    assert read_manifest(path) == written
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_moves_with_its_folder(tmp_path: Path, kind: str) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    write_manifest(before / f"manifest.{kind}", entries(before))
    before.rename(after)
    assert read_manifest(after / f"manifest.{kind}") == entries(after)


def test_only_key_and_frames_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("\ufeffframes,key\na.jpg|b.jpg,one\n\nc,two\n", encoding="utf-8")
    first, second = read_manifest(path)
    assert first == Entry("one", (str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")))
    assert second == Entry("two", (str(tmp_path / "c"),))


def write(*lines: str) -> bytes:
    return "\n".join(lines).encode()


FAULTS = {
    "no file": (None, "no such file"),
    "empty": (b"", "has no column 'key'"),
    "no rows": (b"key,frames\n", "has no rows"),
    "other table": (b"name,age\nx,1\n", "the column 'name' is unknown"),
    "semicolons": (b"key;frames\nx;1\n", "Separate columns by commas"),
    "a column twice": (b"key,frames,key\n", "the column 'key' twice"),
    "not text": (b"\xff\xfe\x00", "not a CSV in UTF-8"),
    "open quote": (b'key,frames\n"a,b\n', "not a CSV in UTF-8"),
    "too many values": (write("key,frames", "a,b,c"), "row 2: 3 values in 2 columns"),
    "no key": (write("key,frames", ",a|b"), "row 2: key missing"),
    "no frames": (write("key,frames", "a,"), "row 2: frames missing"),
    "an empty frame": (write("key,frames", "ok,x", "a,b||c"), "row 3: frames names an empty path"),
    "a key twice": (write("key,frames", "a,b", "A,c"), "row 3: the key 'A' is that of row 2"),
    "words": (write("key,frames,focus_distances_m", "a,b|c,near far"), "row 2, focus_distances_m"),
    "a value too few": (
        write("key,frames,focus_distances_m", "a,b|c,0.3"),
        "1 values for 2 frames",
    ),
    "both": (
        write("key,frames,focus_distances_m,focus_positions_m", "a,b|c,1 2,0 1e-3"),
        "has both focus_distances_m and focus_positions_m",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_with_its_place(tmp_path: Path, fault: str) -> None:
    content, sentence = FAULTS[fault]
    path = tmp_path / "manifest.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.csv") as caught:
        read_manifest(path)
    assert sentence in str(caught.value)


KEYS = ["", ".", "..", "a/b", "a\\b", "-x", "con", "NUL.txt", "a.", "x" * 121]


@pytest.mark.parametrize("key", KEYS)
def test_keys_name_folders_everywhere(key: str) -> None:
    with pytest.raises(InputError, match="cannot name a folder"):
        Entry(key, ("a", "b"))


def test_a_parquet_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_manifest(path)


def test_a_bar_in_a_name_needs_parquet(tmp_path: Path) -> None:
    bars = [Entry("a", (str(tmp_path / "x|y.jpg"), str(tmp_path / "z.jpg")))]
    with pytest.raises(InputError, match=r"manifest\.parquet instead"):
        write_manifest(tmp_path / "manifest.csv", bars)
    assert not list(tmp_path.iterdir())
    write_manifest(tmp_path / "manifest.parquet", bars)
    assert read_manifest(tmp_path / "manifest.parquet") == bars
