"""The tables of the report's page."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from focaldiffusion.evaluation.records import Record
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.summary import Result, Summary
from focaldiffusion.evaluation.tables import Cell, Row, Table, decimals, heading, label, number


def escaped(value: Any) -> str:
    """A value as text of a page."""
    return html.escape(str(value))


def grid(caption: str, heads: Sequence[str], bodies: Sequence[Sequence[str]], css: str = "") -> str:
    """A table.

    Args:
        caption: text.
        heads: the cells of its heading, whole elements.
        bodies: its rows, whole elements, in groups that a line parts.
        css: its class.
    """
    head = f"<caption>{escaped(caption)}</caption>" if caption else ""
    groups = "".join(f"<tbody>{''.join(rows)}</tbody>" for rows in bodies if rows)
    return (
        f'<div class="wide"><table class="{css}">{head}<thead><tr>{"".join(heads)}</tr></thead>'
        f"{groups}</table></div>\n"
    )


def metric_table(table: Table) -> str:
    """Means with their intervals, published figures below, and what the columns mean."""
    heads = [f"<th>{escaped(heading(name))}</th>" for name in table.metrics]
    kinds = ("model", "untrained", "published")
    bodies = [[_metric_row(row) for row in table.rows if row.kind == kind] for kind in kinds]
    notes = "".join(f"{escaped(note)}<br>" for note in table.notes)
    meanings = " ".join(
        f"<b>{escaped(label(name))}</b>: {escaped(METRICS[name].meaning)}" for name in table.metrics
    )
    return (
        grid(table.title, ["<th>model</th>", *heads], bodies)
        + f"<p><small>{notes}{meanings}</small></p>\n"
    )


def _metric_row(row: Row) -> str:
    marks = f" <small>{escaped(row.marks)}</small>" if row.marks else ""
    cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row.cells)
    return f'<tr class="{row.kind}"><th>{escaped(row.name)}{marks}</th>{cells}</tr>'


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    text = f"<b>{cell.text}</b>" if cell.is_best else cell.text
    return text + (f"<small>{'–'.join(cell.interval)}</small>" if cell.interval else "")


def cost_table(summary: Summary) -> str:
    """Time and memory of each model."""
    rows = []
    for model, result in summary.plain.items():
        figures = (
            "–" if result.seconds is None else f"{result.seconds:.2f}",
            result.peak_memory_mib or "–",
            result.samples - result.failed,
            result.failed,
        )
        cells = "".join(f"<td>{figure}</td>" for figure in figures)
        rows.append(f"<tr><th>{escaped(model)}</th>{cells}</tr>")
    names = "model", "time a sample [s]", "peak memory [MiB]", "samples done", "failed"
    return grid("Cost", [f"<th>{name}</th>" for name in names], [rows]) + (
        "<p><small>Wall time beside whatever else the machine did. Memory is the peak of the "
        "process, in which other models may have run before.</small></p>\n"
    )


def failure_table(failures: Sequence[Record]) -> str:
    """Every prediction that there is not, and why."""
    rows = [
        f'<tr><td>{escaped(record.sample)}</td><td class="text">{escaped(record.model)}</td>'
        f'<td class="text">{escaped(record.variant or "–")}</td>'
        f'<td class="text reason">{escaped(record.error)}</td></tr>'
        for record in failures
    ]
    names = "sample", "model", "variant", "reason"
    return grid("", [f'<th class="text">{name}</th>' for name in names], [rows])


def variant_table(summary: Summary, metric: str) -> str:
    """A metric of every variant, and how far it is from the protocol as it is."""
    models = {
        model: result.means[metric].mean
        for model, result in summary.plain.items()
        if metric in result.means
    }
    places = decimals(metric, models.values())
    changes = _changes(summary.records, metric)
    plain = "".join(f"<td>{number(mean, places)}</td>" for mean in models.values())
    rows = []
    for variant in summary.variants:
        cells = (
            _variant_cell(
                summary.results.get((variant, model)), metric, changes[variant, model], places
            )
            for model in models
        )
        rows.append(f"<tr><th>{escaped(variant)}</th>{''.join(cells)}</tr>")
    return grid(
        f"{heading(metric)}, and its mean change on the same samples",
        ["<th>variant</th>", *(f"<th>{escaped(model)}</th>" for model in models)],
        [[f"<tr><th>as it is</th>{plain}</tr>"], rows],
    )


def _variant_cell(result: Result | None, metric: str, changes: Sequence[float], places: int) -> str:
    if result is None:
        return "<td>–</td>"
    text = number(result.means[metric].mean, places) if metric in result.means else "–"
    if changes:
        change = fmean(changes)
        text += f"<small>{'+' if change >= 0 else ''}{number(change, places)}</small>"
    if result.failed:
        text += f'<small class="alarm">{result.failed} failed</small>'
    return f"<td>{text}</td>"


def _changes(records: Sequence[Record], metric: str) -> dict[tuple[str, str], list[float]]:
    """By variant and model, what each sample that counts has more than the protocol as it is."""
    scored = [record for record in records if record.counted and metric in record.metrics]
    plain = {
        (record.sample, record.model): record.metrics[metric]
        for record in scored
        if record.variant is None
    }
    changes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in scored:
        key = record.sample, record.model
        if record.variant is not None and key in plain:
            changes[record.variant, record.model].append(record.metrics[metric] - plain[key])
    return changes


def sample_table(summary: Summary, metric: str) -> str:
    """A metric of every sample, one column a model, to sort by a click."""
    models = [model for model, result in summary.plain.items() if metric in result.means]
    samples: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in summary.records:
        if record.variant is None:
            samples[record.sample][record.model] = record
    shown = [record for one in samples.values() for record in one.values()]
    places = decimals(
        metric, [record.metrics[metric] for record in shown if metric in record.metrics]
    )
    rows = []
    for name, records in samples.items():
        any_record = next(iter(records.values()))
        css = "" if any_record.counted else ' class="uncounted"'
        scene = any_record.scene
        cells = "".join(_sample_cell(records.get(model), metric, places) for model in models)
        rows.append(
            f'<tr{css}><td data-value="{escaped(name)}">{escaped(name)}</td>'
            f'<td class="text" data-value="{escaped(scene)}">{escaped(scene)}</td>{cells}</tr>'
        )
    heads = ["<th>sample</th>", '<th class="text">scene</th>']
    heads += [f"<th>{escaped(model)}</th>" for model in models]
    return grid(heading(metric), heads, [rows], css="sortable")


def _sample_cell(record: Record | None, metric: str, places: int) -> str:
    if record is None or metric not in record.metrics:
        why = "failed" if record is not None and record.status == "failed" else "–"
        return f"<td>{why}</td>"
    value = record.metrics[metric]
    return f'<td data-value="{value!r}">{number(value, places)}</td>'
