"""Commands of the pages parse, and those that fixtures can serve run, one after another."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import exit_code
from fixtures import hypersim, stacks
from test_docs import PAGES, ROOT, name_of
from training_runs import run_yaml, val_sources, write_stacks

from focaldiffusion.cli.main import _parser, main
from script.evaluate import main as script_evaluate
from script.train import main as script_train

BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS: dict[str, Callable[..., int]] = {
    "focaldiffusion ": main,
    "python -m script.train ": script_train,
    "python -m script.evaluate ": script_evaluate,
}
"""Beginnings of the commands to check → the function that runs the rest."""
SMALLER = {
    "--samples 2000": "--samples 1",
    "/data/": "data/",
    "--workers 8": "--workers 1",
    "--workers 2": "--workers 1",
    "--robustness quick": "--robustness quick --no-baselines",
    "configs/hypersim.yaml --dry-run": "configs/hypersim.yaml --dry-run --override "
    "data.image_size=[96,128] training.batch_size=2",
    "configs/hypersim.yaml --output": "configs/hypersim.yaml --override data.image_size=[96,128] "
    "--output",
    "--data-root DIR --split val": "--data-root hypersim --split val",
    "--data-root examples": "--data-root rooms",
    "--data-root DIR": "--data-root rooms",
    "--dataset DATASET": "--dataset stacks",
    "--data_root DIR": "--data_root rooms",
    "--device cuda": "--device cpu",
    "outputs/train/checkpoint": "compact",
    "outputs/mine/checkpoints/best": "compact",
    "outputs/*": "outputs/examples outputs/mine",
    "outputs/a outputs/b": "outputs/examples outputs/examples",
    "--model compact --model compact": "--model compact",
    "outputs/mine --model compact": "outputs/learned --model compact",
    "outputs/mine outputs/mine": "outputs/learned outputs/learned",
}
"""Part of a command that needs the reader's files, a GPU or long → its stand-in."""
NOT_RUN = {
    "--dataset rgbd": "needs data that is not in this repository",
    "--data-root rooms --output-dir outputs/rooms": "needs Mitsuba",
    "focaldiffusion submit": "needs ZEDD",
}
"""Parts of commands that only parse here → the reason."""
RUN = ("docs/data.md", "docs/training.md", "docs/evaluation.md")
"""Pages whose commands run."""


def commands(page: Path) -> list[str]:
    """The commands of this package in the blocks of a page, each on one line."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    plain = (" ".join(shlex.split(line, comments=True)) for line in lines)
    return [line for line in plain if line.startswith(tuple(PROGRAMS))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        line = line.replace("python -m script.train ", "focaldiffusion train ")
        program, *words = line.split()
        if program == "focaldiffusion":
            assert callable(_parser().parse_args(words).run), line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data, the configuration and the runs that pages speak of."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    hypersim.write(tmp_path / "hypersim")
    stacks.write(tmp_path / "rooms" / "desk")
    write_stacks(tmp_path, train=2, val=1)
    test = {"name": "rooms", "dataset_type": "stacks", "data_root": str(tmp_path / "rooms")}
    mine = json.loads(run_yaml(tmp_path, tmp_path / "outputs" / "mine_trained"))
    mine["data"] |= {"val_sources": val_sources(tmp_path), "test_sources": [test]}
    (tmp_path / "configs" / "mine.yaml").write_text(json.dumps(mine))
    monkeypatch.setenv("HYPERSIM_DATA_ROOT", str(tmp_path / "hypersim"))
    monkeypatch.delenv("PHOTOGRAPHS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RUN)
def test_commands_run_in_order(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands(ROOT / name):
        if any(part in line for part in NOT_RUN):
            continue
        for long, short in SMALLER.items():
            line = line.replace(long, short)
        beginning = next(one for one in PROGRAMS if line.startswith(one))
        code = exit_code(PROGRAMS[beginning], *line.removeprefix(beginning).split())
        assert code == 0, f"{line}\n{capsys.readouterr().err}"
