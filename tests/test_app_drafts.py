from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from app_client import eventually, frames_of, sentence, uploaded, visitor
from PIL import Image
from plant import DISTANCES, FRAMES
from starlette.testclient import TestClient

from focaldiffusion.app.look import colour_maps
from focaldiffusion.app.options import Options
from focaldiffusion.reconstruction import Settings


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def client(work: Path) -> Iterator[TestClient]:
    with visitor(work) as visiting:
        yield visiting


@pytest.fixture
def draft(client: TestClient, pristine: Path) -> dict[str, Any]:
    """A stack without any facts beside its frames."""
    opened: dict[str, Any] = uploaded(client, frames_of(pristine)[:3]).json()
    return opened


def patched(client: TestClient, draft: dict[str, Any], **patch: Any) -> dict[str, Any]:
    answer = client.patch(f"/api/drafts/{draft['id']}", json=patch)
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def checked(client: TestClient, draft: dict[str, Any]) -> dict[str, Any]:
    def look() -> Any:
        now = client.get(f"/api/drafts/{draft['id']}").json()
        return None if now["checking"] else now

    now: dict[str, Any] = eventually(look, "the check")
    return now


def column(draft: dict[str, Any], name: str) -> list[Any]:
    return [frame[name] for frame in draft["frames"]]


def test_what_infer_would_warn_of_is_said_before_the_run(
    client: TestClient, draft: dict[str, Any]
) -> None:
    assert (draft["grade"], column(draft, "focus_distance_m")) == ("order", [None] * 3)
    assert draft["warnings"] == [
        "Camera unknown: no focal length, pixel pitch, f-number (frame_0.png: no EXIF of a camera)",
        "Focus distances unknown: frame_0.png: no EXIF of a camera",
    ]


def test_the_lens_and_the_distances_can_be_given_and_taken_back(
    client: TestClient, draft: dict[str, Any]
) -> None:
    lens = {"focal_length_px": 115.0, "aperture_diameter_mm": 12.0}
    given = patched(client, draft, focus_distances_m=[0.4, 0.7, "inf"], lens=lens)
    assert column(given, "focus_distance_m") == [0.4, 0.7, "inf"]
    assert column(given, "focus_source") == ["given"] * 3
    assert (given["grade"], given["lens"], given["errors"]) == ("calibrated", lens, [])
    assert checked(client, given)["warnings"] == []
    without = patched(client, draft, lens=None)
    assert (without["grade"], without["lens"]) == ("focus distances", {})
    bare = patched(client, draft, focus_distances_m=None)
    assert bare["warnings"] == draft["warnings"]


def test_frames_come_in_the_order_of_their_focus(client: TestClient, draft: dict[str, Any]) -> None:
    turned = patched(client, draft, focus_distances_m=[1.5, 0.7, 0.4])
    assert column(turned, "name") == FRAMES[::-1]
    assert column(turned, "focus_distance_m") == DISTANCES
    rail = patched(client, draft, positions_mm=[0, 1, 2], order=["1", "0", "2"])
    assert column(rail, "name") == [FRAMES[1], FRAMES[0], FRAMES[2]]
    assert (rail["grade"], column(rail, "position_mm")) == ("stage positions", [0, 1, 2])
    assert column(rail, "focus_distance_m") == [None] * 3


def test_an_order_stays_where_the_focus_is_unknown(
    client: TestClient, draft: dict[str, Any]
) -> None:
    moved = patched(client, draft, order=["2", "0", "1"], left_out=["0"])
    assert column(moved, "id") == ["2", "0", "1"]
    assert column(moved, "left_out") == [False, True, False]
    alone = patched(client, draft, left_out=["0", "1"])
    assert "1 frames are left; a focal stack needs at least 2" in alone["errors"][0]
    assert column(alone, "id") == ["2", "0", "1"]
    assert patched(client, draft, left_out=[])["errors"] == []


def test_a_distance_that_is_missing_is_an_error_until_its_frame_is_left_out(
    client: TestClient, draft: dict[str, Any]
) -> None:
    given = patched(client, draft, focus_distances_m=[0.4, None, 1.5])
    assert "1 of 3 frames have none" in given["errors"][0]
    assert patched(client, draft, left_out=["1"])["errors"] == []


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"focus": []}, "key 'focus' is unknown"),
        ({"order": ["0", "1"]}, "order: expected all 3 frames."),
        ({"order": ["0", "1", "9"]}, "order: there is no frame '9'."),
        ({"order": "012"}, "order: expected a list of frames."),
        ({"left_out": ["0", "0"]}, "left_out: holds a frame twice."),
        ({"focus_distances_m": [1.0]}, "focus_distances_m: expected a list of 3 values"),
        ({"focus_distances_m": [1, 2, "3 m"]}, "focus_distances_m of frame 2 is '3 m'; expected a"),
        ({"lens": {"f_nummer": 2}}, "lens: 'f_nummer' is unknown; did you mean f_number?"),
        ({"lens": {"f_number": True}}, "f_number is 'True'; expected a number."),
        ({"lens": {"f_number": 1e999}}, "the request is not JSON"),
    ],
)
def test_mistakes_are_refused_and_change_nothing(
    client: TestClient, draft: dict[str, Any], patch: dict[str, Any], words: str
) -> None:
    place = f"/api/drafts/{draft['id']}"
    assert words in sentence(client.patch(place, content=json.dumps(patch)), 400)
    assert client.get(place).json()["frames"] == draft["frames"]


def test_impossible_values_are_sentences_of_the_core(
    client: TestClient, draft: dict[str, Any]
) -> None:
    place = f"/api/drafts/{draft['id']}"
    answer = client.patch(place, json={"lens": {"f_number": -2}})
    assert "f_number is -2.0; expected a positive number." in sentence(answer, 422)
    wrong = patched(client, draft, focus_distances_m=[0.4, -1, 2])
    assert "focus_distances_m" in wrong["errors"][0]


def test_the_check_shows_the_frames_and_finds_what_they_contradict(
    client: TestClient, pristine: Path
) -> None:
    files = frames_of(pristine)[:3]
    twice = [*files, ("frame_3.png", files[1][1])]
    done = checked(client, uploaded(client, twice).json())
    assert any("shows the same as frame_1.png" in text for text in done["warnings"])
    for frame in done["frames"]:
        picture = client.get(frame["thumbnail"])
        with Image.open(io.BytesIO(picture.content)) as image:
            assert image.size == (96, 64)
    assert "no frame" in sentence(client.get(f"/api/drafts/{done['id']}/thumbnails/x"), 404)
    assert "has no thumbnail" in sentence(client.get(f"/api/drafts/{done['id']}/thumbnails/9"), 404)


def test_frames_that_show_no_change_of_focus_cannot_be_run(
    client: TestClient, pristine: Path
) -> None:
    _, content = frames_of(pristine)[0]
    done = checked(client, uploaded(client, [("a.png", content), ("b.png", content)]).json())
    assert "the frames show no change of focus" in done["errors"][0]


def test_exposure_is_shown(client: TestClient, pristine: Path) -> None:
    files = []
    for name, content in frames_of(pristine)[:3]:
        exif = Image.Exif()
        exif[0x8769] = {0x829A: 1 / 60, 0x829D: 2.8, 0x8827: 100}
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(content)) as image:
            image.save(buffer, "PNG", exif=exif)
        files.append((name, buffer.getvalue()))
    assert column(uploaded(client, files).json(), "exposure") == ["1/60 s, f/2.8, ISO 100"] * 3


def test_pages_of_a_tiff_are_frames(client: TestClient, pristine: Path) -> None:
    pages = [np.asarray(Image.open(pristine / name)) for name in FRAMES]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.stack(pages), photometric="rgb")
    draft = uploaded(client, [("stack.tif", buffer.getvalue())]).json()
    assert column(draft, "id") == ["0", "1", "2"]
    given = patched(client, draft, focus_distances_m=DISTANCES)
    assert column(given, "focus_distance_m") == DISTANCES
    left = patched(client, draft, left_out=["1"])
    assert "pages of one TIFF cannot be left out or put in order" in left["errors"][0]
    done = checked(client, patched(client, draft, left_out=[]))
    assert client.get(done["frames"][2]["thumbnail"]).status_code == 200


def test_drafts_that_nobody_needs_are_deleted(work: Path, tmp_path: Path, pristine: Path) -> None:
    (tmp_path / "drafts").mkdir()
    for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "not one of ours"):
        shutil.copytree(pristine, tmp_path / "drafts" / name)
    (tmp_path / "drafts" / "aaaaaaaaaaaa" / "draft.json").write_text("{}")
    old = tmp_path / "drafts" / "cccccccccccc"
    old.mkdir()
    (old / "draft.json").write_text("{}")
    os.utime(old / "draft.json", (0, 0))
    visitor(tmp_path)
    left = sorted(path.name for path in (tmp_path / "drafts").iterdir())
    assert left == ["aaaaaaaaaaaa", "not one of ours"]


def test_a_draft_can_be_deleted(client: TestClient, draft: dict[str, Any], work: Path) -> None:
    assert client.delete(f"/api/drafts/{draft['id']}").status_code == 204
    assert not (work / "drafts" / draft["id"]).exists()
    assert "there is no draft" in sentence(client.get(f"/api/drafts/{draft['id']}"), 404)


def test_the_colours_of_the_page_are_those_of_the_tiles(client: TestClient) -> None:
    assert client.get("/api/about").json()["colours"] == colour_maps()


def test_the_options_have_the_defaults_of_infer() -> None:
    assert Settings(**Options().settings()) == Settings()
