"""Every key of the published original is accepted with effect, or refused with its reason."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from focaldiffusion.config.data import SPLITS
from focaldiffusion.config.load import Loaded, load_config
from focaldiffusion.config.originals import REFUSED, RENAMED
from focaldiffusion.errors import InputError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

KWARGS = "data.dataset_kwargs"
CAMERA = f"{KWARGS}.camera_defaults"
SIMULATOR = f"{KWARGS}.simulator_kwargs"

SAME: dict[str, Any] = {
    "model.base_model_id": "me/sd",
    "model.variant": "fp16",
    "data.dataset_type": "virtual_kitti",
    "data.data_root": ["/a", "/b"],
    "data.train_filelist": "a.csv",
    "data.val_filelist": "a.csv",
    "data.test_filelist": "a.csv",
    "data.image_size": [64, 96],
    "data.focal_stack_size": 7,
    "data.focal_range": [0.5, 5.0],
    "data.num_workers": 3,
    "data.max_train_samples": 9,
    "data.max_val_samples": 9,
    f"{KWARGS}.depth_bounds": [0.5, 50.0],
    f"{KWARGS}.generate_focal_stack": True,
    f"{CAMERA}.f_number": 2.8,
    "training.num_epochs": 9,
    "training.batch_size": 9,
    "training.gradient_accumulation_steps": 9,
    "training.mixed_precision": "bf16",
    "training.seed": 9,
    "training.val_every_n_epochs": 9,
    "training.save_every_n_epochs": 9,
    "training.use_ema": True,
    "training.ema_decay": 0.5,
    "training.max_grad_norm": 0.5,
    "training.lora_rank": 9,
    "training.lora_alpha": 9.0,
    "optimizer.type": "sgd",
    "optimizer.learning_rate": 0.5,
    "optimizer.weight_decay": 0.5,
    "optimizer.betas": [0.5, 0.5],
    "scheduler.type": "linear",
    "scheduler.warmup_steps": 9,
    "losses.diffusion_weight": 0.5,
    "losses.depth_weight": 0.5,
    "losses.rgb_weight": 0.5,
    "losses.consistency_weight": 0.5,
    "logging.level": "ERROR",
    "logging.use_wandb": True,
    "logging.log_every_n_steps": 9,
    "logging.tags": ["a"],
    "logging.run_name": "a",
    "logging.project_name": "a",
    "output.save_dir": "/out",
    "output.save_top_k": 9,
}
STEPS = "validation.num_inference_steps"
"""The same, of a model that starts from noise."""
"""Key → a value that is not its default."""

SAME_IN_SOURCES: dict[str, Any] = {
    "name": "a",
    "data_root": "/a",
    "filelist": "a.csv",
    "focal_range": [0.5, 5.0],
    "focal_stack_size": 7,
    "image_size": 64,
    "max_samples": 9,
    "dataset_kwargs": {"generate_focal_stack": True},
}

CALLED_OTHERWISE: dict[str, tuple[str, Any]] = {
    f"{CAMERA}.focal_length": (f"{CAMERA}.focal_length_m", 0.05),
    f"{CAMERA}.pixel_size": (f"{CAMERA}.pixel_pitch_m", 1.2e-5),
    f"{SIMULATOR}.default_f_number": (f"{CAMERA}.f_number", 22.0),
    f"{SIMULATOR}.default_focal_length": (f"{CAMERA}.focal_length_m", 0.05),
    f"{SIMULATOR}.default_pixel_size": (f"{CAMERA}.pixel_pitch_m", 1.2e-5),
    "data.data_root.rgb": ("data.data_root.all_in_focus", "/a"),
    "data.data_root.images": ("data.data_root.all_in_focus", "/a"),
    "data.data_root.aif": ("data.data_root.all_in_focus", "/a"),
    "data.data_root.stack": ("data.data_root.focal_stack", "/a"),
    "data.data_root.depth_map": ("data.data_root.depth", "/a"),
    "data.data_root.disparity": ("data.data_root.depth", "/a"),
    "training.trainable_modules.transformer": ("training.tuning", "attention_only"),
}

WITHOUT_MEANING = [
    "model.feature_dim",
    "model.num_scales",
    "model.max_focal_stack_size",
    "model.auth_token",
    f"{SIMULATOR}.min_sigma",
    f"{SIMULATOR}.max_sigma",
    f"{SIMULATOR}.sigma_quantisation",
    f"{SIMULATOR}.kernel_limit",
    f"{SIMULATOR}.eps",
    "losses.perceptual_weight",
    "validation.guidance_scale",
]

HOLDING_OTHERS = [
    "defaults",
    "data.train_sources",
    "data.val_sources",
    "data.test_sources",
    KWARGS,
    CAMERA,
    SIMULATOR,
    f"{KWARGS}.train",
    f"{KWARGS}.val",
    f"{KWARGS}.test",
]
"""Keys that hold other keys."""


def load(path: Path, key: str, value: Any) -> Loaded:
    """A configuration file with one key; JSON is YAML."""
    block: Any = value
    for name in reversed(key.split(".")):
        block = {name: block}
    path.write_text(json.dumps(block), encoding="utf-8")
    return load_config(path)


def value_at(loaded: Loaded, key: str) -> Any:
    return reduce(
        lambda node, name: node[name], key.split("."), loaded.config.model_dump(mode="json")
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.yaml"


def test_steps_are_of_a_model_that_starts_from_noise(path: Path) -> None:
    with pytest.raises(InputError, match=rf"{STEPS} is 9, but model\.start estimate reaches"):
        load(path, STEPS, 9)
    loaded = load_config(path, overrides=["model.start=noise"])
    assert value_at(loaded, STEPS) == 9
    assert loaded.notices == ()


@pytest.mark.parametrize("key", SAME)
def test_same_name(path: Path, key: str) -> None:
    loaded = load(path, key, SAME[key])
    assert value_at(loaded, key) == SAME[key]
    assert loaded.notices == ()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("key", SAME_IN_SOURCES)
def test_same_name_in_sources(path: Path, split: str, key: str) -> None:
    value = SAME_IN_SOURCES[key]
    loaded = load(path, f"data.{split}_sources", [{"name": "a", key: value}])
    (source,) = value_at(loaded, f"data.{split}_sources")
    seen = source[key]
    assert (seen if not isinstance(value, dict) else {k: seen[k] for k in value}) == value
    assert loaded.notices == ()


@pytest.mark.parametrize("split", SPLITS)
def test_same_name_in_the_options_of_a_split(path: Path, split: str) -> None:
    key = f"{KWARGS}.{split}.generate_focal_stack"
    assert value_at(load(path, key, True), key) is True


@pytest.mark.parametrize("key", CALLED_OTHERWISE)
def test_another_name_has_the_same_effect_and_a_notice(path: Path, key: str) -> None:
    here, value = CALLED_OTHERWISE[key]
    loaded = load(path, key, value)
    assert loaded.config == load(path, here, value).config != load(path, "logging", {}).config
    (notice,) = loaded.notices
    assert notice.startswith(f"{path}:1: {key} is called ")
    assert here.endswith(notice.removesuffix(" here.").rpartition(" ")[2])


@pytest.mark.parametrize("key", WITHOUT_MEANING)
def test_a_key_without_a_meaning_is_refused_with_a_reason(path: Path, key: str) -> None:
    with pytest.raises(InputError) as caught:
        load(path, key, 1)
    message = str(caught.value)
    assert message.startswith(f"{path}:1: {key} is not accepted: ")
    assert len(message) > len(f"{path}:1: {key} is not accepted: ") + 20


def test_every_table_entry_is_tested() -> None:
    tails = {".".join(key.split(".")[-2:]) for key in (*CALLED_OTHERWISE, *WITHOUT_MEANING)}
    tails.add("training.trainable_modules.transformer")
    assert {*RENAMED, *REFUSED} <= tails


@pytest.mark.parametrize(
    "where",
    [
        "data.dataset_kwargs.simulator_kwargs",
        "data.dataset_kwargs.val.simulator_kwargs",
        "data.train_sources.0.dataset_kwargs.simulator_kwargs",
        "data.train_sources.0.dataset_kwargs.train.simulator_kwargs",
    ],
)
def test_old_names_are_known_wherever_options_are(path: Path, where: str) -> None:
    def written(name: str, value: Any) -> Loaded:
        block: Any = {name: value}
        for part in reversed(where.split(".")):
            block = [{"name": "a", **block}] if part == "0" else {part: block}
        path.write_text(json.dumps(block), encoding="utf-8")
        return load_config(path)

    with pytest.raises(InputError, match=r"kernel_limit is not accepted: the renderer"):
        written("kernel_limit", 25)
    (notice,) = written("default_f_number", 22).notices
    assert notice.endswith("default_f_number is called camera_defaults.f_number here.")


def test_an_old_name_replaces_the_new_one_of_a_lower_layer(path: Path) -> None:
    low = path.parent / "low.yaml"
    low.write_text("data: {dataset_kwargs: {camera_defaults: {sensor_width_m: 0.036}}}")
    path.write_text(
        "defaults: [low]\ndata: {dataset_kwargs: {camera_defaults: {pixel_size: 1.2e-5}}}"
    )
    camera = load_config(path, [f"{CAMERA}.focal_length=0.1"]).config.data.dataset_kwargs
    assert camera.camera_defaults.model_dump(exclude_none=True) == {
        "focal_length_m": 0.1,
        "pixel_pitch_m": 1.2e-5,
    }


def test_old_and_new_name_may_agree_but_not_differ(path: Path) -> None:
    both = "simulator_kwargs: {{default_f_number: 2}}\n    camera_defaults: {{f_number: {}}}"
    path.write_text("data:\n  dataset_kwargs:\n    " + both.format(2))
    assert load_config(path).config.data.dataset_kwargs.camera_defaults.f_number == 2
    path.write_text("data:\n  dataset_kwargs:\n    " + both.format(4))
    with pytest.raises(InputError, match=r"my\.yaml:3: .*camera_defaults\.f_number says otherwise"):
        load_config(path)


def test_a_focal_length_in_millimetres_is_noticed(path: Path) -> None:
    with pytest.raises(InputError, match=r"focal_length_m: 50 looks like millimetres"):
        load(path, f"{CAMERA}.focal_length", 50)


def documented() -> set[str]:
    """The keys of the first column of the page's table."""
    table = PAGE.read_text(encoding="utf-8").partition("| key of the original |")[2]
    rows = table.partition("\n\n")[0].splitlines()
    keys = set()
    for row in rows:
        cell = row.split("|")[1] if row.startswith("| ") else ""
        prefix = "source." if cell.startswith(" source:") else ""
        keys |= {prefix + key for key in re.findall(r"`([^`]*)`", cell)}
    return keys


def test_the_page_has_every_key() -> None:
    keys = [*SAME, STEPS, *CALLED_OTHERWISE, *WITHOUT_MEANING, *HOLDING_OTHERS]
    # The page counts options from the block that holds them.
    outer = re.compile(
        r"^.*\.(?=(data_root|camera_defaults|simulator_kwargs)\.)|^data\.(?=dataset_kwargs\.)"
    )
    expected = {outer.sub("", key) for key in keys} | {f"source.{key}" for key in SAME_IN_SOURCES}
    assert documented() == expected
