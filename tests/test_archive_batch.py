"""Batches: reports, digests, shards, and what is due."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from archives import report_of, results_of, workshop_in, write_archive
from command_line import contents, names

from focaldiffusion.archive.batch import Batch
from focaldiffusion.archive.manifest import read_manifest
from focaldiffusion.archive.report import Line, Report
from focaldiffusion.archive.storage import Storage
from focaldiffusion.archive.work import Task, Workshop
from focaldiffusion.engines.engine import Here
from focaldiffusion.errors import InputError
from focaldiffusion.shards import Shard


def run(manifest: Path, workshop: Workshop, retry=None, shard=None) -> list[str]:
    """Run a batch; the keys that were worked on."""
    batch = Batch(read_manifest(manifest), manifest.parent, workshop, shard)
    with batch.opened():
        return [line.key for line in batch.run(Here(workshop), batch.due(retry=retry))]


def test_a_batch_is_done_once_and_again_where_something_changed(tmp_path: Path) -> None:
    manifest, out = write_archive(tmp_path / "archive", 3, broken=(1,)), tmp_path / "out"
    workshop = workshop_in(out)
    assert run(manifest, workshop) == ["plant 0", "plant 1", "plant 2"]
    rows = report_of(out)
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done"]
    assert rows["plant 0"]["frames"] == "3"
    assert rows["plant 0"]["size"] == "96x64"
    assert "stack_1/frame_1.png" in rows["plant 1"]["error"]
    assert names(out) == [".report.csv.claim", "plant 0", "plant 2", "report.csv"]
    before = contents(out)
    assert run(manifest, workshop) == []
    assert contents(out) == before

    # Results that are gone, failures on request, and all of it.
    (out / "plant 2" / "metadata.json").unlink()
    for path in (out / "plant 2").iterdir():
        path.unlink()
    (out / "plant 2").rmdir()
    assert run(manifest, workshop) == ["plant 2"]
    (tmp_path / "archive/stack_1/frame_1.png").write_bytes(
        (tmp_path / "archive/stack_0/frame_1.png").read_bytes()
    )
    assert run(manifest, workshop) == []
    assert run(manifest, workshop, retry="failed") == ["plant 1"]
    assert {row["status"] for row in report_of(out).values()} == {"done"}
    assert len(run(manifest, workshop, retry="all")) == 3

    # Other settings give other results; a moved archive does not.
    other = workshop_in(out, drop_unaligned=True)
    assert len(run(manifest, other)) == 3
    moved = (tmp_path / "archive").rename(tmp_path / "moved")
    assert run(moved / "manifest.csv", other) == []


def test_results_without_a_line_are_taken_over(tmp_path: Path) -> None:
    """A process may be killed after it has saved results and before it has reported them."""
    manifest, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    run(manifest, workshop_in(out))
    line, before = (out / "report.csv").read_bytes(), contents(out / "plant 0")
    (out / "report.csv").unlink()
    assert run(manifest, workshop_in(out)) == ["plant 0"]
    assert (out / "report.csv").read_bytes() == line
    assert contents(out / "plant 0") == before


def test_results_of_other_commands_are_kept(tmp_path: Path) -> None:
    manifest, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    (out / "plant 0").mkdir(parents=True)
    (out / "plant 0" / "metadata.json").write_text("{}")
    run(manifest, workshop_in(out))
    row = report_of(out)["plant 0"]
    assert row["status"] == "failed"
    assert "holds results that another command made" in row["error"]
    assert names(out / "plant 0") == ["metadata.json"]


def test_shards_together_are_the_whole(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 4)
    run(manifest, workshop_in(tmp_path / "whole"))
    shards, out = workshop_in(tmp_path / "shards"), tmp_path / "shards"
    worked = [run(manifest, shards, shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert worked == [["plant 0", "plant 3"], ["plant 1"], ["plant 2"]]
    assert list(report_of(out, "report-2-of-3.csv")) == ["plant 1"]
    assert results_of(out) == results_of(tmp_path / "whole")
    # Without --shard, the same command has nothing left to do but the report of all.
    assert run(manifest, shards) == []
    assert list(report_of(out)) == list(report_of(tmp_path / "whole"))


def test_a_line_that_was_cut_is_dropped_and_others_count(tmp_path: Path) -> None:
    report = Report(Storage(str(tmp_path)), "report.csv")
    with report.opened(["a", "b"], whole=True):
        report.append(Line("b", "failed", 'has "quotes",\nlines and commas'))
        report.append(Line("a", "done", digest="1"))
        report.append(Line("b", "done", digest="2"))
    assert [row["status"] for row in report_of(tmp_path).values()] == ["done", "done"]
    assert list(report_of(tmp_path)) == ["a", "b"]
    path = tmp_path / "report.csv"
    path.write_bytes(path.read_bytes() + b"c,failed,wh")
    again = Report(Storage(str(tmp_path)), "report.csv")
    with again.opened([], whole=True):
        assert list(again.lines) == ["a", "b"]
    assert path.read_bytes().count(b"\n") == 3


def test_a_report_belongs_to_one_process_and_is_ours(tmp_path: Path) -> None:
    first = Report(Storage(str(tmp_path)), "report.csv")
    second = Report(Storage(str(tmp_path)), "report.csv")
    with (
        first.opened([], whole=True),
        pytest.raises(InputError, match="another process is writing here"),
        second.opened([], whole=True),
    ):
        pass
    (tmp_path / "report-1-of-2.csv").write_text("name,age\nx,3\n")
    with pytest.raises(InputError, match="is not a report of"), first.opened([], whole=True):
        pass


def test_an_error_of_this_program_is_a_row_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"

    def broken(*_: object, **__: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr("focaldiffusion.archive.making.reconstruct", broken)
    run(manifest, workshop_in(out))
    assert "unexpected KeyError" in report_of(out)["plant 0"]["error"]
    assert "KeyError: 'inside'" in (out / "tracebacks.txt").read_text()


def test_the_digest_is_of_the_row_and_the_settings_but_not_of_threads(tmp_path: Path) -> None:
    (entry,) = read_manifest(write_archive(tmp_path / "archive", 1))
    recipe = workshop_in(tmp_path).recipe
    first = recipe.digest(entry, tmp_path)
    more = replace(recipe, settings=replace(recipe.settings, threads=4))
    assert more.digest(entry, tmp_path) == first
    for changed in (
        replace(recipe, point_cloud="off").digest(entry, tmp_path),
        replace(recipe, model={"sha256": "1"}).digest(entry, tmp_path),
        recipe.digest(replace(entry, focus_distances_m=(0.3, 0.4, 0.5)), tmp_path),
        recipe.digest(replace(entry, frames=("elsewhere",)), tmp_path),
    ):
        assert changed != first


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0)])
def test_shards_that_do_not_exist_are_refused(shard: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="expected a number from 1 to the count"):
        Shard(*shard)


def test_metadata_says_which_row_a_result_is_of(tmp_path: Path) -> None:
    manifest, out = write_archive(tmp_path / "archive", 1), tmp_path / "out"
    workshop = workshop_in(out)
    (entry,) = read_manifest(manifest)
    line = workshop.open().run(Task(entry, "abc"))
    assert (line.status, line.digest) == ("done", "abc")
    block = json.loads((out / "plant 0" / "metadata.json").read_text())["batch"]
    assert block == {"key": "plant 0", "digest": "abc", "finished": line.finished, "size": [64, 96]}
