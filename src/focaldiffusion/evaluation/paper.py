"""A table of several evaluations for a paper: models down, protocols and metrics across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.statistics import SampleMean
from focaldiffusion.evaluation.summary import Summary, summarise
from focaldiffusion.evaluation.tables import Cell, column, heading

METRICS_OF_A_PAPER = ("abs_rel", "delta_1.25", "psnr")

_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{NO-BREAK SPACE}": "~",
    "δ": r"$\delta$",
    "²": "$^2$",
    "³": "$^3$",
    "−": "$-$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}
"""Characters that LaTeX reads otherwise, or lacks."""


@dataclass(frozen=True)
class PaperTable:
    """Means of models over protocols.

    Attributes:
        columns: protocol and metric of each.
        rows: name of a model, and its cell in each column.
        notes: sentences on samples and marks.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    notes: Sequence[str]

    def markdown(self) -> str:
        """The table in Markdown, the best in bold."""

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

        heads = [f"{protocol}: {heading(metric)}" for protocol, metric in self.columns]
        body = [
            line([name, *(_cell(cell, "**{}**") for cell in cells)]) for name, cells in self.rows
        ]
        rule = f"|---|{'---:|' * len(heads)}"
        return "\n".join([line(["model", *heads]), rule, *body, "", *self.notes]) + "\n"

    def latex(self) -> str:
        """The table in LaTeX with the package booktabs, the best in bold."""
        spans, rules, place = [], [], 2
        for protocol, group in groupby(self.columns, lambda one: one[0]):
            width = len(list(group))
            spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_escaped(protocol)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
            place += width
        heads = [_escaped(heading(metric)) for _, metric in self.columns]
        body = [
            " & ".join([_row_name(name), *(_escaped_cell(cell) for cell in cells)]) + r" \\"
            for name, cells in self.rows
        ]
        lines = [
            *(f"% {note}" for note in self.notes),
            rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
            r"\toprule",
            " & ".join(["", *spans]).strip() + r" \\",
            " ".join(rules),
            " & ".join(["Model", *heads]) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def paper_table(
    directories: Sequence[Path], metrics: Sequence[str] = METRICS_OF_A_PAPER
) -> PaperTable:
    """The table of several runs. A model of two runs of one protocol is named with its folder.

    Args:
        directories: folders of runs.
        metrics: names of `METRICS`; columns that no model has are left out.

    Raises:
        InputError: a folder without a run, an unknown metric, or no figure at all.
    """
    for name in metrics:
        if name not in METRICS:
            raise InputError(f"metric {name!r} {unknown_name(name, METRICS)}")
    means: dict[tuple[str, str], dict[str, SampleMean | None]] = {}
    rows: dict[str, None] = {}
    notes: dict[str, None] = {}
    for directory in directories:
        summary = summarise(directory)
        notes[f"{summary.title}: {summary.counts_note()}"] = None
        for model, scores in summary.plain.items():
            row = _row(model, directory, summary, means, metrics)
            rows[row] = None
            for name in metrics:
                if name in scores.means:
                    means.setdefault((summary.title, name), {})[row] = scores.means[name]
    if not means:
        raise InputError(
            f"{', '.join(map(str, directories))}: no model has {' or '.join(metrics)}. Choose "
            "other --metrics."
        )
    protocols = dict.fromkeys(protocol for protocol, _ in means)
    columns = [(one, name) for one in protocols for name in metrics if (one, name) in means]
    cells = [
        column(name, {row: means[one, name].get(row) for row in rows}, ()) for one, name in columns
    ]
    if any(cell and cell.text.endswith("*") for each in cells for cell in each):
        notes["* over fewer samples than models without this mark"] = None
    return PaperTable(columns, list(zip(rows, zip(*cells, strict=True), strict=True)), list(notes))


def _row(
    model: str,
    directory: Path,
    summary: Summary,
    means: dict[tuple[str, str], dict[str, SampleMean | None]],
    metrics: Sequence[str],
) -> str:
    """Name of the row of a model: with its folder where an earlier run has other figures."""
    there = {name: means.get((summary.title, name), {}).get(model) for name in metrics}
    found = summary.plain[model].means
    differs = any(mean is not None and mean != found.get(name) for name, mean in there.items())
    return f"{model} ({directory.name})" if differs else model


def _cell(cell: Cell | None, bold: str) -> str:
    if cell is None:
        return "–"
    return bold.format(cell.text) if cell.is_best else cell.text


def _escaped_cell(cell: Cell | None) -> str:
    text = _escaped(_cell(cell, "{}"))
    return rf"\textbf{{{text}}}" if cell is not None and cell.is_best else text


def _row_name(name: str) -> str:
    """A name at the start of a row, where `[` and `*` would be options of the command before."""
    text = _escaped(name)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)
