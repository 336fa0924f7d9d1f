"""Reports of a run, and their places."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import names

from focaldiffusion.config.run import Config, LoggingConfig, OutputConfig
from focaldiffusion.errors import InputError
from focaldiffusion.training.watch import Watch


def config(folder: Path, **logging: Any) -> Config:
    return Config(output=OutputConfig(save_dir=str(folder)), logging=LoggingConfig(**logging))


def test_numbers_and_pictures_go_to_the_log_and_tensorboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(config(tmp_path), active=True, step=0)
    watch.numbers(1, {"train/loss": 0.5})
    watch.validation(2, {"val/abs_rel": 0.25}, [np.zeros((4, 6, 3), np.uint8)])
    watch.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "val/abs_rel": 0.25},
    ]
    assert capsys.readouterr().out == "validation after step 2: abs_rel 0.25\n"
    assert len(names(tmp_path / "tensorboard")) == 1


def test_each_source_of_a_validation_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(config(tmp_path), active=True, step=0)
    watch.validation(2, {"val/abs_rel": 0.25, "val/rooms/abs_rel": 0.5, "val/a/b/rmse": 2.0}, [])
    watch.close()
    out = capsys.readouterr().out
    assert out == "validation after step 2: abs_rel 0.25\n  rooms: abs_rel 0.5\n  a/b: rmse 2\n"


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"step": 4, "tra')
    Watch(config(tmp_path), active=True, step=2).close()
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:2])


def test_a_validation_that_is_owed_is_logged_once(tmp_path: Path) -> None:
    for owed in (False, True):
        watch = Watch(config(tmp_path), active=True, step=2 * owed, owes_validation=owed)
        if not owed:
            watch.numbers(2, {"train/loss": 0.5})
        watch.validation(2, {"val/abs_rel": 0.25}, [])
        watch.close()
    (tmp_path / "log.jsonl").open("a").write("\x00[]\n")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()[:2]]
    assert lines == [{"step": 2, "train/loss": 0.5}, {"step": 2, "val/abs_rel": 0.25}]
    Watch(config(tmp_path), active=True, step=2).close()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_other_processes_and_quiet_runs_print_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Watch(config(tmp_path), active=False, step=0).say("hello")
    Watch(config(tmp_path, level="ERROR"), active=True, step=0).say("hello")
    assert capsys.readouterr().out == ""


def test_without_its_package_weights_and_biases_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"logging.use_wandb: the package wandb is missing"):
        Watch(config(tmp_path, use_wandb=True), active=True, step=0)


def test_weights_and_biases_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its place is taken by what notes how it is called: the real one starts a service.
    calls: list[dict[str, Any]] = []
    run = types.SimpleNamespace(log=lambda values, step: None, finish=lambda: None)
    stand_in = types.SimpleNamespace(init=lambda **arguments: calls.append(arguments) or run)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for step in (0, 5):
        made = config(tmp_path, use_wandb=True, run_name="mine", tags=("a",))
        Watch(made, active=True, step=step).close()
    assert calls[0]["id"] == calls[1]["id"]
    assert calls[0]["name"] == "mine"
    assert calls[0]["tags"] == ["a"]
    assert not (tmp_path / "tensorboard").exists()
