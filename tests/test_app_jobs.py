from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_client import eventually, sentence, visitor
from command_line import names
from PIL import Image
from plant import run, write_large_stack
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stack that takes its time."""
    home = tmp_path_factory.mktemp("home")
    write_large_stack(home / "large", (500, 700), 8)
    return home


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def client(work: Path, home: Path, pristine: Path) -> Iterator[TestClient]:
    with visitor(work, home, pristine.parent) as visiting:
        yield visiting


def draft_of(client: TestClient, name: str) -> dict[str, Any]:
    place = {"root": "1", "path": "plant"} if name == "small" else {"root": "0", "path": name}
    draft: dict[str, Any] = client.post("/api/drafts", json=place).json()
    assert draft["errors"] == []
    return draft


def start(client: TestClient, name: str, **options: Any) -> dict[str, Any]:
    body = {"draft": draft_of(client, name)["id"], "options": options}
    job: dict[str, Any] = client.post("/api/jobs", json=body).json()
    return job


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = client.get(f"/api/jobs/{job['id']}").json()
        return None if now["state"] in ("queued", "running") else now

    result: dict[str, Any] = eventually(look, f"the end of {job}")
    return result


def begun(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        now = client.get(f"/api/jobs/{job['id']}").json()
        return now if now["state"] == "running" and now["progress"] > 0 else None

    now: dict[str, Any] = eventually(look, f"the work on {job}")
    return now


def owner(work: Path, job: dict[str, Any]) -> int:
    """Process id of a job's process."""
    state = json.loads((work / "jobs" / job["id"] / "state.json").read_text())
    return int(state["owner"].partition("-")[0])


def test_a_job_writes_what_infer_writes(
    client: TestClient, work: Path, tmp_path: Path, pristine: Path
) -> None:
    job = start(client, "small")
    assert (job["state"], job["progress"], job["has_result"]) == ("queued", 0, False)
    done = ended(client, job)
    assert (done["state"], done["progress"], done["error"]) == ("done", 1, None)
    assert done["has_result"]
    assert run("infer", pristine, "--output", tmp_path / "infer") == 0
    ours, theirs = work / "jobs" / job["id"] / "result", tmp_path / "infer"
    assert names(ours) == names(theirs)
    for name in names(ours):
        if name != "metadata.json":  # has the seconds
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_two_jobs_wait_for_each_other_and_a_waiting_one_can_be_taken_out(
    client: TestClient, work: Path
) -> None:
    first, second, third = (start(client, name) for name in ("large", "small", "small"))
    begun(client, first)
    states = [client.get(f"/api/jobs/{one['id']}").json()["state"] for one in (second, third)]
    assert states == ["queued", "queued"]
    assert client.post(f"/api/jobs/{second['id']}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/api/jobs/{first['id']}/cancel").status_code == 200
    stopped = ended(client, first)
    assert (stopped["state"], stopped["has_result"]) == ("cancelled", False)
    assert [name for name in names(work / "jobs" / first["id"]) if "partial" in name] == []
    assert ended(client, third)["state"] == "done"
    assert ended(client, second)["state"] == "cancelled"
    order = [job["id"] for job in client.get("/api/jobs").json()]
    assert order[:3] == [third["id"], second["id"], first["id"]]


def test_a_killed_process_is_a_sentence_and_the_job_can_run_again(
    client: TestClient, work: Path
) -> None:
    job = start(client, "large")
    running = begun(client, job)
    assert running["stage"]
    assert "has ended" not in sentence(client.delete(f"/api/jobs/{job['id']}"), 409)
    os.kill(owner(work, job), signal.SIGKILL)
    failed = ended(client, job)
    assert failed["state"] == "failed"
    assert failed["error"].startswith("large: its process was ended by SIGKILL, perhaps because")
    again = client.post(f"/api/jobs/{job['id']}/retry").json()
    assert (again["state"], again["error"], again["progress"]) == ("queued", None, 0)
    begun(client, job)
    client.post(f"/api/jobs/{job['id']}/cancel")
    assert ended(client, job)["state"] == "cancelled"
    assert "has ended already (cancelled)" in sentence(
        client.post(f"/api/jobs/{job['id']}/cancel"), 409
    )
    assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert not (work / "jobs" / job["id"]).exists()
    assert not (work / "drafts" / job["draft"]).exists()


def test_a_draft_result_comes_first(client: TestClient, work: Path, home: Path) -> None:
    write_large_stack(home / "wide", (540, 960), 3)
    job = start(client, "wide")

    def look() -> dict[str, Any] | None:
        now = client.get(f"/api/jobs/{job['id']}").json()
        return now if now["draft_ready"] else None

    early = eventually(look, "the draft result")
    assert (early["state"], early["has_result"]) == ("running", False)
    assert ended(client, job)["state"] == "done"
    folder = work / "jobs" / job["id"]
    with Image.open(folder / "draft" / "all_in_focus.png") as draft:
        assert draft.size == (640, 360)
    with Image.open(folder / "result" / "all_in_focus.png") as result:
        assert result.size == (960, 540)


def test_a_stack_that_changed_since_it_was_opened_is_a_sentence(
    client: TestClient, home: Path, stack: Path
) -> None:
    stack.rename(home / "changing")
    draft = draft_of(client, "changing")
    (home / "changing" / "frame_1.png").unlink()
    job = client.post("/api/jobs", json={"draft": draft["id"]}).json()
    failed = ended(client, job)
    assert failed["state"] == "failed"
    assert "focus_distances_m: 3 values for 2 frames." in failed["error"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aline": "on"}, "option 'aline' is unknown; did you mean align?"),
        ({"align": "maybe"}, "option align: 'maybe' is unknown"),
        ({"image_only": 1}, "option image_only: expected true or false."),
        ({"working_size": 1e9}, "option working_size: 1000000000.0; expected 16 to 16384"),
        ({"model": "../../etc"}, "option model: '../../etc' is unknown"),
        ([], "options: expected an object."),
    ],
)
def test_wrong_options_are_refused(client: TestClient, options: Any, words: str) -> None:
    answer = client.post("/api/jobs", json={"draft": "0123456789ab", "options": options})
    assert words in sentence(answer, 400)


def test_a_job_needs_a_draft(client: TestClient) -> None:
    answer = client.post("/api/jobs", json={"draft": "0123456789ab"})
    assert "there is no draft '0123456789ab'" in sentence(answer, 404)
