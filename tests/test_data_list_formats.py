"""The three forms of file lists, their fields, and what is wrong with bad lines."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.data.lists.entry import FIELDS, ORIGINALS, REFUSED, Entry
from focaldiffusion.data.lists.formats import FileListing, read_list
from focaldiffusion.errors import InputError

README = Path(__file__).resolve().parents[1] / "data" / "filelists" / "README.md"


def read(folder: Path, name: str, text: str) -> FileListing:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_list(path)


def problem(folder: Path, name: str, text: str) -> str:
    """The message of a bad list, from its name on."""
    with pytest.raises(InputError) as error:
        read(folder, name, text)
    return str(error.value).removeprefix(f"{folder}/")


def test_one_sample_reads_the_same_in_every_form(tmp_path: Path) -> None:
    fields = {
        "all_in_focus": "my room/a, b.jpg",
        "depth": "depth.hdf5",
        "depth_dataset": "dataset",
        "depth_scale": 0.01,
        "depth_kind": "ray",
        "depth_bounds": [0.5, 20],
        "depth_orientation": ["transpose", "rotate_90"],
        "focus_distances_m": [0.5, 1.5, None],
        "num_images": 3,
        "generate_focal_stack": True,
        "camera": {"f_number": 2.8, "focal_length_px": 900},
        "scene": "room 1",
    }
    rest = (
        "depth_dataset=dataset, depth_scale=0.01 depth_kind=ray depth_bounds=0.5;20 "
        "depth_orientation=transpose;rotate_90 focus_distances_m=0.5;1.5;inf num_images=3 "
        "generate_focal_stack=true camera.f_number=2.8 camera.focal_length_px=900 "
    )
    cells = {
        word.partition("=")[0]: word.partition("=")[2] for word in rest.replace(",", "").split()
    }
    cells |= {"all_in_focus": '"my room/a, b.jpg"', "depth": "depth.hdf5", "scene": "room 1"}
    forms = {
        "array.json": json.dumps([fields], indent=1),
        "lines.jsonl": json.dumps(fields) + "\n",
        "lines.json": "\n" + json.dumps(fields) + "\n",
        "text.txt": "# a comment, don't mind\n"
        f'"my room/a, b.jpg" depth.hdf5 {rest} scene="room 1" # end\n',
        "columns.csv": ",".join(cells) + "\n" + ", ".join(cells.values()) + "\n",
    }
    expected = Entry.model_validate(
        fields
        | {
            "focus_distances_m": [0.5, 1.5, math.inf],
            "depth_orientation": ["transpose", "rotate_90"],
        }
    )
    for name, text in forms.items():
        assert read(tmp_path, name, text).entries == (expected,), name


def test_the_documented_csv_row(tmp_path: Path) -> None:
    text = 'my stacks/one, depth/one.npy, 5\n"two, too",two.npy\n'
    first, second = read(tmp_path, "list.csv", text).entries
    assert first == Entry(focal_stack="my stacks/one", depth="depth/one.npy", num_images=5)
    assert second == Entry(focal_stack="two, too", depth="two.npy")


def test_an_image_comes_first_in_text_too(tmp_path: Path) -> None:
    text = "rgb/1.JPG, depth/1.png, 7, depth_scale=0.001\nstack depth.npy\n"
    first, second = read(tmp_path, "list.txt", text).entries
    assert (first.all_in_focus, first.focal_stack, first.num_images) == ("rgb/1.JPG", None, 7)
    assert (second.all_in_focus, second.focal_stack) == (None, "stack")


@given(
    st.lists(
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1)
        .map(str.strip)
        .filter(lambda name: name and name not in (*FIELDS, *ORIGINALS, *REFUSED, "camera")),
        min_size=2,
        max_size=2,
    )
)
def test_any_name_survives_csv_and_json(names: list[str]) -> None:
    from tempfile import TemporaryDirectory

    stack, depth = names
    row = io.StringIO()
    csv.writer(row).writerow(names)
    with TemporaryDirectory() as folder:
        (entry,) = read(Path(folder), "list.csv", row.getvalue()).entries
        assert (entry.focal_stack or entry.all_in_focus, entry.depth) == (stack, depth)
        content = json.dumps([{"focal_stack": stack, "depth": depth}], ensure_ascii=False)
        (entry,) = read(Path(folder), "list.json", content).entries
        assert (entry.focal_stack, entry.depth) == (stack, depth)


def test_names_of_the_original_are_taken_with_one_notice_each(tmp_path: Path) -> None:
    line = {
        "scene_path": "stack",
        "aif": "aif.png",
        "depth_path": "depth.hdf5",
        "focus_distances": [0.5, 1],
        "depth_range": [0.1, 10],
        "transpose_depth": True,
        "camera": {"f_number": 2, "focal_length": 0.05, "pixel_size": 1.2e-5},
    }
    listing = read(tmp_path, "list.jsonl", 2 * (json.dumps(line) + "\n"))
    entry = listing.entries[1]
    assert entry == listing.entries[0]
    assert (entry.focal_stack, entry.all_in_focus, entry.depth) == (
        "stack",
        "aif.png",
        "depth.hdf5",
    )
    assert entry.focus_distances_m == (0.5, 1)
    assert entry.depth_bounds == (0.1, 10)
    assert entry.depth_orientation == ("transpose",)
    assert (entry.camera.focal_length_m, entry.camera.pixel_pitch_m) == (0.05, 1.2e-5)
    assert len(listing.notices) == 8
    assert listing.notices[0] == f"{tmp_path}/list.jsonl:1: scene_path is called focal_stack here."
    assert any("depth outside is invalid" in notice for notice in listing.notices)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "s,d.npy\ns\n", "a.csv:2: 1 values without a name (s); expected an image or a f"),
        ("a.csv", "s,d.npy,many\n", "a.csv:1: the third value is 'many'; expected a frame count."),
        ("a.csv", '"s,d.npy\n', "a.csv:1: not CSV (unexpected end of data)."),
        (
            "a.csv",
            "focal_stack,dept\ns,d\n",
            "a.csv:1: field 'dept' is unknown; did you mean depth?",
        ),
        ("a.csv", "focal_stack,depth\ns,d,5\n", "a.csv:2: 3 cells, but 2 columns."),
        ("a.csv", "focal_stack,depth\n", "a.csv: lists no samples."),
        ("a.csv", "depth,aif,depth\nd,a,e\n", "a.csv:1: depth is the name of two columns."),
        ("a.csv", "depth,aif,depth_path\nd,a,e\n", "a.csv:1: depth is the name of two columns."),
        ("a.txt", "a.png d depth_scale=5000\n", "depth_scale 5000 looks like units per metre; in "),
        (
            "a.txt",
            "s d\n\n#\ns d depht_scale=1\n",
            "a.txt:4: field 'depht_scale' is unknown; did you ",
        ),
        ("a.txt", 's d name="x', "a.txt:1: a quotation mark is not closed"),
        ("a.txt", "s d 5 stack\n", "a.txt:1: 4 values without a name (s, d, 5, stack); expected"),
        ("a.txt", "s d depth=e\n", "a.txt:1: depth is given twice."),
        ("a.txt", "s d num_images=1\n", "a.txt:1: num_images is '1'; expected greater than or eq"),
        ("a.txt", "s d depth_scale=cm\n", "a.txt:1: depth_scale is 'cm'; expected a valid number."),
        ("a.txt", "s d depth_kind=z\n", "a.txt:1: depth_kind is 'z'; expected 'planar' or 'ray'."),
        ("a.txt", "s d focus_distances_m=500;800\n", "all above 100 ([500.0, 800.0]): these look"),
        ("a.txt", "s d 3 focus_distances_m=1;2\n", "focus_distances_m: 2 values for 3 frames."),
        ("a.txt", "s d focus_distances_m=1;1\n", "a.txt:1: focus_distances_m: 1.0 appears more"),
        ("a.txt", "s d focal_range=1;2\n", "a.txt:1: focal_range governs simulated stacks only; "),
        ("a.txt", "a.png d image_glob=*.png\n", "a.txt:1: image_glob chooses the frames of a foc"),
        ("a.txt", "a.png d generate_focal_stack=false\n", "there are no frames to read; name"),
        ("a.txt", "s d generate_focal_stack=true\n", "no image is given to simulate from; name"),
        ("a.txt", "a.png d depth_dataset=x\n", "names an array of an HDF5 file, and d is none."),
        ("a.txt", "a.png d focal_range=2;1\n", "focal_range expected [near, far] in metres, near "),
        (
            "a.txt",
            "a.png d focal_range=1;2 focus_distances_m=1;2\n",
            "a.txt:1: focal_range and focus_distances_m exclude each other; give one.",
        ),
        ("a.txt", "s d camera.focal_length=50\n", "camera.focal_length_m 50 looks like millimetr"),
        ("a.txt", "s d camera.aperture=2\n", "a.txt:1: camera.aperture is refused: the original"),
        ("a.txt", "s d scene_path=t\n", "a.txt:1: focal_stack is given twice, once under an older"),
        ("a.txt", "s d transpose_depth=maybe\n", "transpose_depth is 'maybe'; expected true or f"),
        ("a.txt", "s d depth_orientation=mirror\n", "depth_orientation is 'mirror'; expected 'tr"),
        ("a.json", '[{"depth": "d"}]', "a.json:1: names neither an image (all_in_focus) nor fra"),
        ("a.json", '[{"focal_stack": "s"}]', "a.json:1: depth is missing."),
        ("a.json", '[\n{"depth": 3,\n "focal_stack": "s"}]', "a.json:2: depth is 3; expected a va"),
        ("a.json", '[\n{"depth" 3}]', "a.json:2: not JSON: Expecting ':' delimiter, column 10."),
        ("a.json", '[{"depth": "d", "depth": "e"}]', "a.json:1: depth is given twice."),
        ("a.json", '[\n"d"]', 'a.json:2: "d"; expected an object in braces.'),
        (
            "a.json",
            '[{"depth": "d", "focal_stack": "s"}\n{',
            "a.json:1: not JSON: expected a comma",
        ),
        ("a.json", '[{"depth": "d", "focal_stack": "s"},]', "expected a comma and another object"),
        ("a.json", '[{"depth": "d", "focal_stack": "s"}] x', "not JSON: text after the end of the"),
        ("a.json", "[", "a.json:1: not JSON: Expecting value, column 2. Expected an array"),
        ("a.jsonl", '{"depth": "d", "focal_stack": "s"}\n{', "a.jsonl:2: not JSON: Expecting prop"),
        ("a.jsonl", '{"depth": "d", "focal_stack": "s"} {}', "a.jsonl:1: text after the object;"),
        ("a.jsonl", '{"depth": "d", "camera": 3}', "a.jsonl:1: camera is 3; expected its values"),
        ("a.jsonl", '{"depth": "d", "camera": {"fnumber": 3}}', "did you mean camera.f_number?"),
        ("a.jsonl", "", "a.jsonl: lists no samples. Expected a sample a line."),
    ],
)
def test_a_bad_line_is_named_with_its_reason(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    assert message in problem(tmp_path, name, text)


def test_empty_cells_at_the_end_of_a_row_say_nothing(tmp_path: Path) -> None:
    entries = read(tmp_path, "a.csv", "a,b.npy,5\r\nc,d.npy,\r\ne,f.npy,,\r\n").entries
    assert [entry.num_images for entry in entries] == [5, None, None]


def test_a_list_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"^nowhere\.csv: cannot be read as a file list \("):
        read_list(Path("nowhere.csv"))


@pytest.mark.parametrize("name", FIELDS)
def test_the_readme_explains_every_field(name: str) -> None:
    assert f"`{name}" in README.read_text(encoding="utf-8")
