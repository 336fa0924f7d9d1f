"""The recipes, the overlays for hardware, and what accelerate makes of its configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.models.memory import training_bytes
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.objective import Objective

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = ("hypersim", "virtual_kitti", "mixed")
PROCESSES = {"gpu_24gb": 1, "gpu_80gb": 1, "gpu_8x80gb": 8}
CARDS_GB = {"gpu_24gb": 24, "gpu_80gb": 80, "gpu_8x80gb": 80}


def loaded(folder: Path, *defaults: str) -> Config:
    names = ", ".join(str(CONFIGS / name) for name in defaults)
    (folder / "mine.yaml").write_text(f"defaults: [{names}]")
    return load_config(folder / "mine.yaml").config


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("hardware", PROCESSES)
def test_hardware_changes_how_a_recipe_is_computed_and_not_what(
    recipe: str, hardware: str, tmp_path: Path
) -> None:
    plain = loaded(tmp_path, recipe)
    here = loaded(tmp_path, recipe, f"hardware/{hardware}")

    def stacks_per_step(config: Config, processes: int) -> int:
        training = config.training
        return training.batch_size * training.gradient_accumulation_steps * processes

    assert stacks_per_step(here, PROCESSES[hardware]) == stacks_per_step(plain, 1) == 32
    computed = {
        name: getattr(plain.training, name)
        for name in (
            "batch_size",
            "gradient_accumulation_steps",
            "base_weights",
            "gradient_checkpointing",
        )
    }
    same = here.model_copy(update={"training": here.training.model_copy(update=computed)})
    assert same == plain


def documented(recipe: str, cells: list[str]) -> str:
    """The row of a recipe in the table of docs/training.md."""
    return f"| `{recipe}` | {' | '.join(cells)} |"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_fits_the_card_of_its_overlay_as_documented(
    recipe: str, tmp_path: Path
) -> None:
    """Nine tenths of a card for the whole step: weights, coding, both passes and the optimiser."""
    cells = []
    for hardware, gb in CARDS_GB.items():
        config = loaded(tmp_path, recipe, f"hardware/{hardware}")
        assert config.model.base_model_id == PRESETS["sd35-medium"].base_model_id
        assert isinstance(config.data.image_size, tuple)
        need = training_bytes(
            "sd35-medium",
            config.data.image_size,
            config.training.batch_size,
            config.training,
            config.optimizer.type,
            len(Objective(config.losses).decodes),
        )
        assert need < 0.9 * gb * 10**9
        cells.append(f"{need / 2**30:.1f} GiB")
    page = (CONFIGS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    assert documented(recipe, cells) in page


def test_a_recipe_alone_holds_its_frozen_weights_in_bfloat16(tmp_path: Path) -> None:
    for recipe in RECIPES:
        training = loaded(tmp_path, recipe).training
        assert (training.tuning, training.base_weights) == ("lora", "bfloat16")


def test_every_overlay_is_in_this_test() -> None:
    assert {path.stem for path in (CONFIGS / "hardware").iterdir()} == set(PROCESSES)


def test_the_compact_recipe_trains_a_preset_from_its_start() -> None:
    config = load_config(CONFIGS / "compact.yaml").config
    assert config.model.preset == "compact"
    assert config.model.base_model_id is None
    assert config.training.tuning == "full"


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").iterdir()), ids=lambda p: p.stem)
def test_accelerate_accepts_its_configurations(path: Path) -> None:
    config = load_config_from_file(str(path))  # which refuses unknown keys
    assert config.num_processes == 8 * config.num_machines
    assert "Untested on GPUs" in path.read_text(encoding="utf-8")
    argv = ["--config_file", str(path), "--module", "script.train", "--config", "x.yaml"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(argv))
    kind = {"fsdp": "use_fsdp"}.get(path.stem, "multi_gpu")
    assert getattr(arguments, kind)
    assert arguments.training_script == "script.train"


def test_the_blocks_that_fsdp_wraps_are_those_of_the_transformer() -> None:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    config = load_config_from_file(str(CONFIGS / "accelerate" / "fsdp.yaml"))
    wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    assert wrapped in SD3Transformer2DModel._no_split_modules
