"""The report as one page that loads nothing from elsewhere, and prints."""

from __future__ import annotations

import shlex
from typing import Any

from focaldiffusion.evaluation.html_figures import calibration_figure, cases, robustness_figures
from focaldiffusion.evaluation.html_tables import (
    cost_table,
    escaped,
    failure_table,
    metric_table,
    sample_table,
)
from focaldiffusion.evaluation.page_style import CSS, SCRIPT
from focaldiffusion.evaluation.summary import Summary
from focaldiffusion.evaluation.tables import LEADING, tables


def page(summary: Summary) -> str:
    """The whole page.

    Args:
        summary: of the run; pictures are read from its folder.
    """
    samples = "".join(
        sample_table(summary, metric)
        for metric in LEADING
        if any(metric in result.means for result in summary.plain.values())
    )
    sections = {
        "Results": _results(summary),
        "Failures": failure_table(summary.failures) if summary.failures else None,
        "What confidence is worth": calibration_figure(summary),
        "Robustness": robustness_figures(summary),
        "Best and worst cases": cases(summary),
        "Every sample": "<p>A click on a heading sorts. Grey samples are not in the mean.</p>"
        + samples,
        "How it was made": _setting(summary),
    }
    body = "".join(f"<h2>{name}</h2>\n{part}" for name, part in sections.items() if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evaluation: {escaped(summary.protocol.name)}</title>\n<style>{CSS}</style>\n"
        f"</head>\n<body>\n{_head(summary)}{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(summary: Summary) -> str:
    protocol, run = summary.protocol, summary.run
    mark = '<p><span class="mark">oracle: focus planes taken from the truth</span></p>'
    return (
        f"<h1>Evaluation: {escaped(protocol.name)}</h1>\n"
        f"{mark if protocol.oracle else ''}<p>{escaped(protocol.about)}</p>\n"
        f"<code>{escaped(shlex.join(map(str, run.get('command', ()))))}</code>\n"
        f'<p class="quiet">focaldiffusion {escaped(run.get("focaldiffusion", ""))}, '
        f"{escaped(run.get('started', ''))}</p>\n"
    )


def _results(summary: Summary) -> str:
    failed = "".join(f'<p class="alarm">{escaped(note)}</p>' for note in summary.failure_notes())
    return (
        f"<p>{escaped(summary.counts_note())}</p>{failed}\n"
        + "".join(map(metric_table, tables(summary)))
        + cost_table(summary)
    )


def _setting(summary: Summary) -> str:
    """What was fixed, what it ran on, and with which versions."""
    checkpoints: dict[str, dict[str, Any]] = summary.run.get("checkpoints", {})
    apart = "command", "plan", "checkpoints"
    facts = {key: value for key, value in summary.run.items() if key not in apart}
    return "".join(
        f"<h3>{heading}</h3><dl>"
        + "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(_said(value))}</dd>" for key, value in part)
        + "</dl>\n"
        for heading, part in (
            ("Protocol", summary.protocol.settings().items()),
            ("Plan", summary.run.get("plan", {}).items()),
            *((f"Checkpoint {escaped(name)}", one.items()) for name, one in checkpoints.items()),
            ("Machine and versions", facts.items()),
        )
    )


def _said(value: Any) -> str:
    """A value of run.json in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    return "none" if value is None else str(value).replace("**", "")
