from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_client import frames_of, sentence, uploaded, visitor
from command_line import contents
from PIL import Image
from starlette.testclient import TestClient

from focaldiffusion.app.limits import Limits

PNG = b"\x89PNG\r\n\x1a\n"
LIMITS = Limits(file_bytes=20_000, total_bytes=100_000, files=4)
BOUNDARY = "b"


def part(name: str, content: bytes = b"x") -> bytes:
    """One file of a multipart body, its name byte for byte."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="'.encode()
    return head + name.encode() + b'"\r\n\r\n' + content + b"\r\n"


def sent(client: object, *parts: bytes, declared: bool = True) -> object:
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    chunks: Iterator[bytes] = (body[at : at + 700] for at in range(0, len(body), 700))
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return client.post(  # type: ignore[attr-defined]
        "/api/drafts", content=body if declared else chunks, headers=headers
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads") / "work"


@pytest.fixture(scope="module")
def client(work: Path) -> Iterator[TestClient]:
    """One visitor for all tests that open a stack: its process imports torch once."""
    with visitor(work) as visiting:
        yield visiting


REFUSED: dict[str, tuple[list[bytes], int, str]] = {
    "a large file": (
        [part("a.png", PNG + bytes(20_001))],
        413,
        "a.png: has more than 19.5 KiB",
    ),
    "large together": (
        [part(f"{n}.png", bytes(19_000)) for n in range(4)] + [part("stack.json", bytes(30_000))],
        413,
        "",
    ),
    "many files": ([part(f"{n}.png") for n in range(5)], 413, "more than 4 files"),
    "no photographs": (
        [part("notes.txt"), part("virus.exe")],
        422,
        "no photograph among the files. Left out: notes.txt: is no photograph by its suffix",
    ),
    "nothing": ([], 422, "there is no photograph among the files."),
    "hidden files alone": ([part(".DS_Store"), part(".a.png")], 422, "there is no photograph"),
    "the same name twice": ([part("x/a.png"), part("y/A.PNG")], 422, "A.PNG: two files have this"),
    "a long name": ([part("a" * 250 + ".png")], 422, "aaa...: the name is too long."),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_uploads_are_sentences_and_leave_nothing(
    tmp_path: Path, case: str, declared: bool
) -> None:
    parts, status, words = REFUSED[case]
    client = visitor(tmp_path, limits=LIMITS)
    assert words in sentence(sent(client, *parts, declared=declared), status)
    assert contents(tmp_path / "drafts") == {}


def test_a_declared_length_beyond_the_limit_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    client = visitor(tmp_path, limits=LIMITS)
    answer = sent(client, *(part(f"{n}.png", bytes(15_000)) for n in range(9)))
    assert "together" in sentence(answer, 413)


@pytest.mark.parametrize("length", [1, 30, 100, 150])
def test_a_broken_upload_is_a_sentence(tmp_path: Path, length: int) -> None:
    client = visitor(tmp_path)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = part("a.png", bytes(100))[:length]
    answer = client.post("/api/drafts", content=body, headers=headers)
    assert sentence(answer, 400) == "the upload is incomplete. Try again."
    assert contents(tmp_path / "drafts") == {}
    body = part("a.png")
    answer = client.post("/api/drafts", content=body.replace(b"--b", b"??b"), headers=headers)
    assert "the upload is damaged" in sentence(answer, 400)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/mixed; boundary=b"])
def test_other_bodies_are_refused(tmp_path: Path, kind: str) -> None:
    answer = visitor(tmp_path).post("/api/drafts", content=b"?", headers={"content-type": kind})
    assert "expected files as multipart/form-data" in sentence(answer, 415)


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "..\\..\\evil.png", "/etc/evil.png", "C:\\evil.png", "x/../../evil.png"],
)
def test_names_cannot_leave_the_folder(
    client: TestClient, work: Path, stack: Path, name: str
) -> None:
    ((_, content), *_) = frames_of(stack)
    draft = sent(client, part(name, content)).json()  # type: ignore[attr-defined]
    home = work / "drafts" / draft["id"] / "frames"
    assert [path.name for path in home.iterdir()] == ["evil.png"]
    assert not list(work.parent.glob("evil.png"))


def test_html_in_names_is_sent_as_text(client: TestClient, stack: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    files = [
        (f"{name}/{number}{name}.png", content)
        for number, (_, content) in enumerate(frames_of(stack)[:3])
    ]
    answer = uploaded(client, files)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["name"] == name
    assert answer.json()["frames"][0]["name"] == f"0{name}.png"


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["IMG_0012.png", "IMG_0013.png"], "IMG"),
        (["rose 1.png", "rose 2.png"], "rose"),
        (["1.png", "2.png"], "2 frames"),
        (["tulips/1.png", "tulips/2.png"], "tulips"),
    ],
)
def test_a_stack_is_named_after_its_files(
    client: TestClient, stack: Path, names: list[str], name: str
) -> None:
    contents = [content for _, content in frames_of(stack)]
    assert uploaded(client, zip(names, contents, strict=False)).json()["name"] == name


def test_an_upload_is_a_draft_of_the_frames_and_their_notes(
    client: TestClient, stack: Path
) -> None:
    files = [(f"holiday/{name}", content) for name, content in frames_of(stack)]
    draft = uploaded(client, [*files, ("holiday/a.doc", b"")]).json()
    assert draft["name"] == "holiday"
    assert [frame["focus_distance_m"] for frame in draft["frames"]] == [0.4, 0.7, 1.5]
    assert (draft["grade"], draft["errors"]) == ("calibrated", [])
    assert draft["warnings"] == ["a.doc: is no photograph by its suffix, so it was left out."]


def broken_stacks(folder: Path) -> dict[str, tuple[list[tuple[str, bytes]], str]]:
    """Uploads that are written, but are no stack."""
    frames = frames_of(folder)[:3]
    small = folder.parent / "small.png"
    Image.new("RGB", (90, 64)).save(small)
    bomb = folder.parent / "bomb.png"
    Image.new("1", (50_000, 40_000)).save(bomb)
    return {
        "one frame": (frames[:1], "frame_0.png: the only frame; a focal stack needs at least 2"),
        "no image": ([*frames, ("frame_3.png", b"hello")], "frame_3.png: "),
        "sizes": ([*frames, ("frame_3.png", small.read_bytes())], "frame_3.png: 90x64, but"),
        "a bomb": (
            [*frames, ("frame_3.png", bomb.read_bytes())],
            "frame_3.png: declares 50000x40000 pixels; expected at most 400 megapixels.",
        ),
        "a sidecar that leads outside": (
            [*frames, ("stack.json", b'{"files": ["/etc/hostname", "frame_0.png"]}')],
            "hostname: leads outside the folder that may be read",
        ),
    }


def test_what_is_no_stack_is_said_before_a_run(
    client: TestClient, tmp_path: Path, stack: Path
) -> None:
    for case, (files, words) in broken_stacks(stack).items():
        answer = uploaded(client, files)
        if answer.status_code == 422:
            assert words in answer.json()["error"], case
            continue
        draft = answer.json()
        assert words in draft["errors"][0], case
        assert str(tmp_path) not in draft["errors"][0]
        job = client.post("/api/jobs", json={"draft": draft["id"]})
        assert sentence(job, 422) == draft["errors"][0]
        if len(files) > 3:  # without the last frame it is one
            left = {"left_out": [draft["frames"][-1]["id"]]}
            mended = client.patch(f"/api/drafts/{draft['id']}", json=left).json()
            assert mended["errors"] == [], case
            assert [frame["left_out"] for frame in mended["frames"]] == [False] * 3 + [True]
