"""Optional packages: what needs them, and what is said where they are missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from focaldiffusion.config.load import load_config
from focaldiffusion.packages import OPTIONAL

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = "`pip install -c constraints.txt -e '.[train]'`"

# A Python without some packages: neither an import nor a search finds them.
WITHOUT = """
import json, sys

class Without:
    def __init__(self, finder, missing):
        self.finder, self.missing = finder, missing

    def find_spec(self, name, *rest):
        hidden = name.partition(".")[0] in self.missing
        return None if hidden else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder, sys.argv[1].split(",")) for finder in sys.meta_path]
from focaldiffusion.cli.main import main
code = main(sys.argv[2:])
print(json.dumps({"code": code, "torch": "torch" in sys.modules}))
"""


def run_without(missing: str, *argv: str) -> tuple[dict[str, Any], str, str]:
    """Run a command in a Python without packages: its outcome, standard output and error."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *argv], capture_output=True, text=True, cwd=ROOT
    )
    *out, outcome = done.stdout.splitlines()
    return json.loads(outcome), "\n".join(out), done.stderr


@pytest.mark.parametrize("flags", [("--dry-run",), ()])
def test_training_names_missing_packages_before_it_loads_anything(flags: tuple[str, ...]) -> None:
    outcome, out, error = run_without(
        "peft,transformers,tensorboard,bitsandbytes",
        *("train", "--config", "configs/hypersim.yaml", "--data-root", "/none", *flags),
        *("--override", "training.base_weights=nf4"),
    )
    assert (outcome, out) == ({"code": 2, "torch": False}, "")
    assert error == (
        "error: missing packages: tensorboard (logs), peft (training.tuning lora), transformers "
        "(text encoders of model.base_model_id), bitsandbytes (training.base_weights nf4). Run "
        f"{CHECKOUT} and `pip install bitsandbytes`.\n"
    )


def test_training_goes_on_without_packages_that_it_does_not_need() -> None:
    _, _, error = run_without(
        "peft,transformers,bitsandbytes,wandb",
        *("train", "--config", "configs/compact.yaml", "--dry-run"),
        *("--override", "data.train_sources=[{name: a, dataset_type: cache, data_root: /none}]"),
    )
    assert error.startswith("error: /none")


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        ((), {"tensorboard", "peft", "transformers"}),
        (("logging.use_wandb=true",), {"wandb", "peft", "transformers"}),
        (("training.tuning=full",), {"tensorboard", "transformers"}),
        (("training.start_from=x",), {"tensorboard", "peft"}),
        (
            ("optimizer.type=adamw_8bit", "training.tuning=full", "model.base_model_id=null"),
            {"tensorboard", "bitsandbytes"},
        ),
    ],
)
def test_each_setting_needs_its_packages(overrides: tuple[str, ...], needed: set[str]) -> None:
    config = load_config(ROOT / "configs" / "hypersim.yaml", overrides).config
    assert config.needed_packages.keys() == needed <= OPTIONAL.keys()


def test_doctor_prints_the_command_as_it_must_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, out, _ = run_without("peft,transformers", "doctor", "--preset", "compact", "--side-px", "64")
    assert f"to install peft, transformers: {CHECKOUT.strip('`')}" in out.splitlines()


def test_the_table_has_the_packages_of_each_extra() -> None:
    listed = {
        (found[2], found[1].lower())
        for requirement in metadata.requires("focaldiffusion") or ()
        if (found := re.match(r'([\w.-]+).*extra == "(exr|raw|train)"', requirement))
    }
    assert listed == {(one.extra, one.name.lower()) for one in OPTIONAL.values() if one.extra}


def test_a_folder_of_the_same_name_is_not_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if OPTIONAL["wandb"].is_installed:
        pytest.skip("wandb is installed")
    (tmp_path / "wandb").mkdir()  # as its runs leave behind
    monkeypatch.syspath_prepend(tmp_path)
    assert not OPTIONAL["wandb"].is_installed


def test_outside_a_checkout_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("focaldiffusion.packages._CHECKOUT", tmp_path)
    assert OPTIONAL["peft"].install == "pip install 'focaldiffusion[train]'"
    assert OPTIONAL["wandb"].install == "pip install wandb"
