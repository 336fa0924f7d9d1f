"""The report of a run: tables, files and the page."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.charts import legend, robustness_chart
from focaldiffusion.evaluation.report import print_summary, write_report
from focaldiffusion.evaluation.robustness import CURVES
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.summary import Summary, summarise
from focaldiffusion.evaluation.tables import LABELS, decimals, heading, number, tables
from focaldiffusion.io.png import write_png
from tests.evaluation_runs import record, write_run

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of three scenes, three counted; two models, variants, failures, a picture."""
    folder = tmp_path_factory.mktemp("run")
    write_png(folder / "picture.png", np.full((20, 30, 3), 0.5, np.float32), bit_depth=8)
    good = [[0.1 * row, 0.2 - 0.01 * row, 0.1, 0.5, 0.9] for row in range(10)]
    bad = [[0.1 * row, 0.4 - 0.01 * row, 0.1, 0.5, 0.9] for row in range(10)]
    figures = (("one", "A", 0.1, good), ("two", "A", 0.3, bad), (EVIL, "B", 0.5, None))
    records = [
        record("glass", "physics", {"abs_rel": 9.0}, counted=False, seconds=99.0),
        record("glass", "argmax", {"abs_rel": 9.0}, counted=False),
        record("one", "argmax", {"abs_rel": 0.05}, scene="A", seconds=1.0),
        record("two", "argmax", None, scene="A"),
        record(EVIL, "argmax", {"abs_rel": 0.15}, scene="B", seconds=3.0),
        record("one", "physics", {"abs_rel": 0.2}, scene="A", variant="focus_scale=1.05"),
        record("two", "physics", None, scene="A", variant="focus_scale=1.05"),
        record(EVIL, "physics", {"abs_rel": 0.9}, scene="B", variant="focus_scale=1.05"),
        record("one", "physics", {"abs_rel": 0.4}, scene="A", variant="order=reversed"),
    ]
    for name, scene, error, calibration in figures:
        metrics = {"abs_rel": error, "psnr": 30.0, "best_frame_psnr": 25.0}
        more = {"seconds": 2.0, "peak_memory_mib": 512, "picture": "picture.png"}
        records.append(
            record(name, "physics", metrics, scene=scene, calibration=calibration, **more)
        )
    write_run(folder, records)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Summary:
    return summarise(folder)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def printed(summary: Summary, width: int = 160) -> str:
    file = io.StringIO()
    print_summary(summary, Console(file=file, width=width))
    return file.getvalue().replace("\N{NO-BREAK SPACE}", " ")


def test_means_cover_counted_samples(found: Summary) -> None:
    physics, argmax = found.plain["physics"], found.plain["argmax"]
    assert physics.means["abs_rel"].mean == pytest.approx(0.3)
    assert (physics.samples, physics.failed) == (3, 0)
    assert (physics.seconds, physics.peak_memory_mib) == (2.0, 512)
    # Scenes A, with 0.1 and 0.3, and B, with 0.5, drawn in pairs.
    assert physics.means["abs_rel"].interval == pytest.approx((0.2, 0.5))
    assert argmax.means["abs_rel"].mean == pytest.approx(0.1)
    assert (argmax.samples, argmax.failed) == (3, 1)
    assert (argmax.seconds, argmax.peak_memory_mib) == (2.0, None)
    worse = found.scores["focus_scale=1.05", "physics"]
    assert (worse.means["abs_rel"].mean, worse.failed) == (pytest.approx(0.55), 1)
    assert physics.calibration is not None
    assert physics.calibration[0][:2] == pytest.approx([0.0, 0.3])
    assert argmax.calibration is None


def test_metrics_json(folder: Path) -> None:
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    physics = content["models"]["physics"]
    assert physics["means"]["abs_rel"] == {
        "mean": pytest.approx(0.3),
        "low": pytest.approx(0.2),
        "high": pytest.approx(0.5),
        "spread": None,
        "samples": 3,
        "scenes": 2,
        "few_scenes": True,
    }
    assert physics["variants"]["order=reversed"]["means"]["abs_rel"]["low"] is None
    assert content["models"]["argmax"]["failed"] == 1
    assert content["metrics"]["abs_rel"]["better"] == "down"
    assert content["protocol"]["name"] == "rgbd"
    assert content["protocol"]["oracle"] is False
    assert content["run"]["packages"] == {"torch": "2.9.0"}
    reasons = [sample["error"] for sample in content["samples"] if sample["status"] == "failed"]
    assert reasons == ["the frames are too dark to tell."]
    assert len(content["samples"]) == 8


def test_metrics_csv(folder: Path) -> None:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    row = next(row for row in rows if row["sample"] == EVIL and row["model"] == "physics")
    assert (row["variant"], row["abs_rel"]) == ("focus_scale=1.05", "0.9")
    (lost,) = (row for row in rows if row["status"] == "failed" and not row["variant"])
    assert (lost["sample"], lost["model"], lost["abs_rel"]) == ("two", "argmax", "")
    assert lost["error"] == "the frames are too dark to tell."


def test_the_best_is_best_over_all_samples(found: Summary) -> None:
    depth, image = tables(found)
    assert [row.name for row in depth.rows] == ["physics", "argmax"]
    physics, argmax = (row.cells[0] for row in depth.rows)
    assert physics is not None
    assert argmax is not None
    assert (physics.text, physics.interval) == ("0.300", ("0.200", "0.500"))
    # 0.1 is less, but leaves out a sample: marked, and not the best.
    assert (argmax.text, argmax.is_best) == ("0.100*", False)
    assert "* over fewer samples" in depth.notes[0]
    assert [row.name for row in image.rows] == ["physics"]


def test_the_best_is_marked_in_its_direction(tmp_path: Path) -> None:
    metrics = {
        "m": {"abs_rel": 0.1, "psnr": 30.0, "best_frame_psnr": 25.0, "coverage": 1.0},
        "n": {"abs_rel": 0.2, "psnr": 31.0, "best_frame_psnr": 26.0, "coverage": 1.0},
    }
    write_run(tmp_path, [record("hall", model, values) for model, values in metrics.items()])
    best = {
        (row.name, name)
        for table in tables(summarise(tmp_path))
        for row in table.rows
        for name, cell in zip(table.metrics, row.cells, strict=True)
        if cell is not None and cell.is_best
    }
    # Oracles and ties win nothing.
    assert best == {("m", "abs_rel"), ("n", "psnr")}


def test_published_figures_and_their_marks(tmp_path: Path) -> None:
    write_run(tmp_path, [record("hall", "physics", {"delta_1.25": 0.9}, protocol="ibims1")])
    summary = summarise(tmp_path)
    assert summary.title == "ibims1 (oracle: focus planes taken from the truth)"
    (table,) = tables(summary)
    published = {row.name: row for row in table.rows if row.kind == "published"}
    assert published["FOSSA ViT-B"].marks == "a†"
    assert published["Depth Pro"].marks.endswith("‡")
    assert "† focus planes taken from the truth" in table.notes
    text = printed(summary)
    assert text.index("physics") < text.index("FOSSA ViT-B a†")
    assert "oracle" in write_report(tmp_path).title
    assert "oracle: focus planes taken from the truth" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )


def test_published_figures_of_metrics_that_we_lack(tmp_path: Path) -> None:
    write_run(tmp_path, [record("hall", "physics", {"abs_rel": 0.1}, protocol="fod500")])
    text = printed(summarise(tmp_path))
    assert "MSE [m²]" in text
    assert "DDFT a" in text


def test_the_terminal_counts_failures(found: Summary) -> None:
    text = printed(found)
    assert "0.200–0.500" in text
    assert (
        "1 of 3 samples failed for argmax and are not in its means. First: two: the frames are too "
        "dark to tell." in text
    )
    assert "1 of 3 samples failed for physics, focus_scale=1.05" in text
    assert "Means over 3 samples of 2 scenes; 1 more reported but not in the mean." in text
    assert "Few scenes" in text
    assert "0.200–0.500" not in printed(found, width=24)  # no room


class Reader(HTMLParser):
    """Checks that elements close in order, and gathers their targets, ids and text."""

    VOID = ("meta", "img", "br", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pointers: list[str] = []
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.pointers += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_loads_nothing_and_is_well_formed(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert {pointer[:5] for pointer in reader.pointers if pointer[:1] != "#"} == {"data:"}
    anchors = {pointer[1:] for pointer in reader.pointers if pointer[:1] == "#"}
    assert {"results", "failures", "robustness", "samples"} <= anchors <= set(reader.ids)
    for loader in ("@import", "url(http", "<link", "<iframe", "fetch(", "<!DOCTYPE svg"):
        assert loader not in page
    assert reader.elements.count("svg") >= 4  # calibration, robustness and their legends


def test_the_page_of_a_run_is_always_the_same(folder: Path, page: str) -> None:
    write_report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == page


def test_names_are_text(page: str) -> None:
    assert EVIL not in page
    assert Reader(page).said.count(EVIL) >= 2
    assert page.count("<script>") == 1


def test_the_page_shows_everything(page: str) -> None:
    said = Reader(page).said
    for text in (
        "focaldiffusion evaluate --output-dir 'my run'",
        "torch 2.9.0",
        "A Processor",
        "1 of 3 samples failed for argmax",
        "the frames are too dark to tell.",
        f"AbsRel over {CURVES['focus_scale'].meaning}",
        "order=reversed",
        "best: one, AbsRel 0.100",
        f"worst: {EVIL}, AbsRel 0.500",
        "0.8, 1.7, 3, 4.7, 8 m",
        "2025-01-02 03:04:05+0000",
        "Mean of |p - z| / z; a missing prediction counts 1.",
    ):
        assert text in said
    # One sample of A rose by 0.1, the sample of B by 0.4; the failed one is in neither.
    assert "0.550<small>+0.250</small>" in page


def test_a_lost_picture_is_reported(tmp_path: Path) -> None:
    write_run(tmp_path, [record("hall", "m", {"abs_rel": 0.1}, picture="pictures/hall.png")])
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "hall.png" in Reader(page).said


def test_curves_go_through_the_unperturbed_protocol(found: Summary) -> None:
    chart = robustness_chart(found, "focus_scale", "abs_rel")
    assert chart is not None
    assert "currentColor" in chart
    assert "focus scale" in chart
    assert robustness_chart(found, "focus_scale", "psnr") is None  # no variant has it
    assert robustness_chart(found, "order", "abs_rel") is None  # words, not numbers
    assert robustness_chart(found, "noise_lsb", "abs_rel") is None  # not in the run


def test_legends_name_any_model(tmp_path: Path) -> None:
    names = ["_mine", "$x_1$", "<b>"]
    write_run(tmp_path, [record("hall", name, {"abs_rel": 0.1}) for name in names])
    drawn = legend(summarise(tmp_path), names)
    assert Reader(drawn).said.split()[-3:] == names  # after a style


def test_every_metric_has_a_name() -> None:
    bases = {name.rpartition(":")[2] for name in METRICS}
    assert bases == set(LABELS)
    assert heading("rmse") == "RMSE\N{NO-BREAK SPACE}[m]\N{NO-BREAK SPACE}↓"
    assert heading("scale:delta_1.25") == "δ1.25, scaled\N{NO-BREAK SPACE}↑"


def test_numbers_have_the_digits_they_need() -> None:
    assert decimals("abs_rel", [0.3, 0.0005]) == 3
    assert decimals("abs_rel", [0.03, 0.0005]) == 4
    assert decimals("disparity:mse", [5.7e-4, 0.0]) == 6
    assert decimals("soft", [0.0, 0.0]) == 6
    assert decimals("psnr", [30.0]) == 2
    assert number(-0.5, 3) == "−0.500"
    assert number(-0.0001, 3) == "0.000"


def test_runs_without_figures(tmp_path: Path) -> None:
    failed = write_run(tmp_path / "failed", [record("hall", "m", None)])
    assert "1 of 1 samples failed for m" in printed(write_report(failed))
    uncounted = write_run(
        tmp_path / "uncounted", [record("hall", "m", {"abs_rel": 0.1}, counted=False)]
    )
    assert "Means over 0 samples of 0 scenes; 1 more reported" in printed(write_report(uncounted))


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no evaluation"):
        summarise(tmp_path)
    write_run(tmp_path, [])
    with pytest.raises(InputError, match=r"samples\.jsonl: is empty"):
        summarise(tmp_path)
    write_run(tmp_path, [record("hall", "m", {"abs_rel": 0.1}, protocol="nonsense")])
    with pytest.raises(InputError, match="protocol 'nonsense' is unknown"):
        summarise(tmp_path)
    write_run(tmp_path, [record("hall", "m", {"abs_rel": 0.1})])
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        summarise(tmp_path)


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_table_that_is_too_wide_is_split_and_never_cut(tmp_path: Path, width: int) -> None:
    shown = ("abs_rel", "rmse", "delta_1.05", "delta_1.25", "coverage", "boundary_f1", "ause")
    figures = {name: 0.111 * (place + 1) for place, name in enumerate(shown)}
    write_run(tmp_path, [record("[b]hall", "a/long/path/of/a/[model]/checkpoint", figures)])
    text = printed(summarise(tmp_path), width)
    for value in figures.values():
        assert f" {value:.3f} " in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
