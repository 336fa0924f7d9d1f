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
from fixtures import stacks
from miniature import save_base, text_encoders
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from training_runs import checkpoint, config_of, val_sources, write_stacks

from focaldiffusion.config.load import load_config
from focaldiffusion.evaluation.records import read_records
from focaldiffusion.packages import OPTIONAL

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
# A Python without some packages: no import, search or query of versions finds them.
WITHOUT = """
import json, sys
from importlib.metadata import DistributionFinder

class Without:
    def __init__(self, finder, missing):
        self.finder, self.missing = finder, missing

    def find_spec(self, name, *rest):
        hidden = name.partition(".")[0] in self.missing
        return None if hidden else self.finder.find_spec(name, *rest)

    def find_distributions(self, context=DistributionFinder.Context()):
        found = getattr(self.finder, "find_distributions", lambda context: ())(context)
        return (one for one in found if one.name.lower() not in self.missing)

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


def beyond_the_install() -> str:
    """Installed modules and packages that `pip install -e .` does not bring, joined by commas."""
    listed = re.search(r"^dependencies = \[(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert listed is not None
    needed: set[str] = set()
    wanted = re.findall(r'"([\w.-]+)', listed[1])
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in needed:
            continue
        needed.add(name)
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    beyond = {
        name
        for module, owners in metadata.packages_distributions().items()
        if not needed & {canonicalize_name(owner) for owner in owners}
        for name in (module, *map(str.lower, owners))
    }
    return ",".join(sorted(beyond - {"focaldiffusion", "script"}))


def test_the_documented_install_trains_scores_and_runs_what_it_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text_encoders().save_pretrained(tmp_path / "base")
    save_base(tmp_path / "base")
    write_stacks(tmp_path, train=3, val=1)
    stacks.write(tmp_path / "rooms" / "desk")
    rooms = {"name": "rooms", "dataset_type": "stacks", "data_root": str(tmp_path / "rooms")}
    changes = {
        "model": {"preset": None, "base_model_id": str(tmp_path / "base")},
        "training": {"num_epochs": 1, "batch_size": 1, "tuning": "lora", "lora_rank": 2},
        "data": {"val_sources": val_sources(tmp_path), "test_sources": [rooms]},
    }
    config_of(tmp_path, tmp_path / "run", **changes)
    missing = beyond_the_install()
    assert {"pytest", "rawpy", "bitsandbytes"} <= set(missing.split(","))
    training = ("train", "--config", str(tmp_path / "run.yaml"), "--device", "cpu")
    outcome, out, error = run_without(missing, *training, "--dry-run")
    assert (outcome["code"], error) == (0, "")
    assert "(lora, AdamW)" in out
    outcome, out, error = run_without(missing, *training)
    assert (outcome["code"], error) == (0, "")
    ended = checkpoint(tmp_path / "run", 3)
    assert f"done; --model {ended} runs it" in out
    scored = ("evaluate", "--config", str(tmp_path / "run.yaml"), "--model", str(ended), "--quiet")
    outcome, _, error = run_without(missing, *scored, "--output-dir", str(tmp_path / "scored"))
    assert (outcome["code"], error) == (0, "")
    assert {one.sample for one in read_records(tmp_path / "scored")} == {"rooms/desk"}
    stack = ("infer", "examples/still_life/stack", "--output", str(tmp_path / "out"))
    outcome, _, error = run_without(missing, *stack, "--working-size", "64", "--model", str(ended))
    assert (outcome["code"], error) == (0, "")
    assert (tmp_path / "out" / "metadata.json").is_file()


@pytest.mark.parametrize("flags", [("--dry-run",), ()])
def test_training_names_missing_packages_before_it_loads_anything(flags: tuple[str, ...]) -> None:
    outcome, out, error = run_without(
        "wandb,bitsandbytes",
        *("train", "--config", "configs/hypersim.yaml", "--data-root", "/none", *flags),
        *("--override", "training.base_weights=nf4", "logging.use_wandb=true"),
    )
    assert (outcome, out) == ({"code": 2, "torch": False}, "")
    assert error == (
        "error: missing packages: wandb (logging.use_wandb), bitsandbytes (training.base_weights "
        "nf4). Run `pip install wandb` and `pip install bitsandbytes`.\n"
    )


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        ((), set()),
        (("logging.use_wandb=true",), {"wandb"}),
        (("optimizer.type=adamw_8bit",), {"bitsandbytes"}),
        (("training.base_weights=nf4",), {"bitsandbytes"}),
        (("training.attention=flash",), {"flash-attn"}),
        (("training.attention=xformers",), {"xformers"}),
    ],
)
def test_each_setting_needs_its_packages(overrides: tuple[str, ...], needed: set[str]) -> None:
    config = load_config(ROOT / "configs" / "hypersim.yaml", overrides).config
    assert config.needed_packages.keys() == needed <= OPTIONAL.keys()


def test_doctor_prints_the_command_as_it_must_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, out, _ = run_without("OpenEXR", "doctor", "--preset", "compact", "--side-px", "64")
    command = "pip install -c constraints.txt -e '.[exr]'"
    assert f"to install OpenEXR: {command}" in out.splitlines()


def test_the_table_has_the_packages_of_each_extra() -> None:
    listed = {
        (found[2], found[1].lower())
        for requirement in metadata.requires("focaldiffusion") or ()
        if (found := re.match(r'([\w.-]+).*extra == "(archive|cluster|exr|raw)"', requirement))
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
    assert OPTIONAL["rawpy"].install == "pip install 'focaldiffusion[raw]'"
    assert OPTIONAL["wandb"].install == "pip install wandb"
