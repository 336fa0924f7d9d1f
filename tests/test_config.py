"""Configurations: layers, overrides, paths, messages, and the resolved file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from focaldiffusion.config.data import CameraDefaults, SimulatorKwargs
from focaldiffusion.config.load import Loaded, load_config, save_resolved
from focaldiffusion.config.run import Config, LoggingConfig, OptimizerConfig, TrainingConfig
from focaldiffusion.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, so that messages have short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str) -> Loaded:
    Path("my.yaml").write_text(text, encoding="utf-8")
    return load_config(Path("my.yaml"), overrides)


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(text, *overrides)
    return str(caught.value)


# What is laid over what


@pytest.mark.usefixtures("folder")
def test_blocks_merge_and_lists_are_replaced() -> None:
    Path("low.yaml").write_text("training: {seed: 1, num_epochs: 2}\nlogging: {tags: [a, b]}")
    Path("high.yaml").write_text("training: {seed: 3}\nlogging: {tags: [c]}")
    config = load("defaults: [low, high.yaml]\ntraining: {batch_size: 4}").config
    training = config.training
    assert (training.seed, training.num_epochs, training.batch_size) == (3, 2, 4)
    assert config.logging.tags == ("c",)


def test_defaults_count_from_the_folder_of_their_file(folder: Path) -> None:
    (folder / "sets" / "deep").mkdir(parents=True)
    (folder / "base.yaml").write_text("training: {seed: 5}")
    (folder / "sets" / "room.yaml").write_text("defaults: [../base]\ntraining: {num_epochs: 2}")
    (folder / "sets" / "deep" / "my.yaml").write_text("defaults: [../room]")
    training = load_config(Path("sets/deep/my.yaml")).config.training
    assert (training.seed, training.num_epochs) == (5, 2)


@pytest.mark.usefixtures("folder")
def test_a_file_that_builds_on_itself_is_refused() -> None:
    Path("other.yaml").write_text("defaults: [my]")
    assert complaint("\ndefaults: [other]") == (
        "other.yaml:1: defaults: my.yaml builds on itself through its defaults"
    )


@pytest.mark.usefixtures("folder")
def test_one_base_under_two_files_is_no_cycle() -> None:
    Path("base.yaml").write_text("training: {seed: 1}")
    Path("a.yaml").write_text("defaults: [base]")
    Path("b.yaml").write_text("defaults: [base]")
    assert load("defaults: [a, b]").config.training.seed == 1


@pytest.mark.usefixtures("folder")
def test_overrides_are_laid_over_the_file_in_turn() -> None:
    config = load(
        "training: {seed: 1}",
        "training.seed=2",
        "training.seed=3",
        "data.focal_range=[0.5, 4]",
        "logging.run_name=no",
        "training.max_grad_norm=",
    ).config
    assert config.training.seed == 3
    assert config.data.focal_range == (0.5, 4.0)
    assert config.logging.run_name == "no"
    assert config.training.max_grad_norm is None


CAMERA = "data: {dataset_kwargs: {camera_defaults: {sensor_width_m: 0.036, f_number: 2}}}"


@pytest.mark.usefixtures("folder")
def test_a_camera_value_takes_the_place_of_its_other_form_below() -> None:
    prefix = "data.dataset_kwargs.camera_defaults"
    loaded = load(CAMERA, f"{prefix}.aperture_diameter_m=0.01", f"{prefix}.pixel_pitch_m=1e-5")
    camera = loaded.config.data.dataset_kwargs.camera_defaults
    assert camera.model_dump(exclude_none=True) == {
        "aperture_diameter_m": 0.01,
        "pixel_pitch_m": 1e-5,
    }


@pytest.mark.usefixtures("folder")
def test_both_forms_in_one_file_are_refused() -> None:
    text = CAMERA.replace("sensor_width_m: 0.036", "aperture_diameter_m: 0.01")
    assert complaint(f"\n{text}") == (
        "my.yaml:2: data.dataset_kwargs.camera_defaults: f_number and aperture_diameter_m "
        "exclude each other; give one"
    )


# Scalars


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-05", ".00001", "0.00001"])
def test_numbers_with_an_exponent_are_numbers(text: str) -> None:
    assert load(f"optimizer: {{learning_rate: {text}}}").config.optimizer.learning_rate == 1e-5


@pytest.mark.usefixtures("folder")
def test_no_and_on_and_dates_are_texts_where_a_text_is_wanted() -> None:
    config = load(
        "training: {mixed_precision: no}\nlogging: {use_wandb: on, tags: [yes, 2024-01-01, 1:30]}"
    ).config
    assert config.training.mixed_precision == "no"
    assert config.logging.use_wandb is True
    assert config.logging.tags == ("yes", "2024-01-01", "1:30")


# Paths


@pytest.mark.usefixtures("folder")
def test_variables_and_home_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/disk")
    monkeypatch.setenv("HOME", "/home/me")
    config = load(
        "model: {base_model_id: '${WHERE}/sd'}\n"
        "data:\n"
        "  data_root: {depth: ['${WHERE}/a', ~/b], default: '${WHERE}${WHERE}'}\n"
        "  val_filelist: ${WHERE}/val.csv\n"
        "  train_sources: [{name: a, data_root: '${WHERE}', filelist: '${WHERE}/a.csv'}]\n"
        "output: {save_dir: '${WHERE}/out'}\n"
    ).config
    assert config.model.base_model_id == "/disk/sd"
    assert config.data.data_root == {"depth": ["/disk/a", "/home/me/b"], "default": "/disk/disk"}
    assert config.data.val_filelist == "/disk/val.csv"
    assert config.data.train_sources is not None
    assert config.data.train_sources[0].data_root == "/disk"
    assert config.data.train_sources[0].filelist == "/disk/a.csv"
    assert config.output.save_dir == "/disk/out"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("WHERE", raising=False)
    if value is not None:
        monkeypatch.setenv("WHERE", value)
    assert complaint("data:\n  data_root: [/x, '${WHERE}/y']") == (
        "my.yaml:2: data.data_root[1]: the environment variable WHERE is not set"
    )
    # What an override replaces need not be set.
    assert load("data: {data_root: '${WHERE}'}", "data.data_root=/x").config.data.data_root == "/x"


# Messages


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data:\n\n  focal_stack_sise: 5",
            "my.yaml:3: data.focal_stack_sise is unknown; did you mean focal_stack_size?",
        ),
        ("modle: {}", "my.yaml:1: modle is unknown; did you mean model?"),
        (
            "validation: {num_inference_steps: 4}",
            "my.yaml: validation.num_inference_steps is 4, but model.start estimate reaches",
        ),
        (
            "model: {start: noise, timestep: 500}",
            "my.yaml: model.timestep is 500, but model.start noise follows the timesteps of its",
        ),
        (
            "training:\n  learning_rate: 1",
            "my.yaml:2: training.learning_rate is unknown; did you mean optimizer.learning_rate?",
        ),
        (
            "data:\n  train_sources:\n    - name: a\n      type: hypersim",
            "my.yaml:4: data.train_sources[0].type is unknown; did you mean dataset_type?",
        ),
        (
            "scheduler: {xyz: 1}",
            "my.yaml:1: scheduler.xyz is unknown. Expected one of type, warmup_steps",
        ),
        (
            "data:\n  data_root: {dept: /x}",
            "my.yaml:2: data.data_root.dept is unknown; did you mean depth?",
        ),
        (
            "data:\n  focal_stack_size: five",
            'my.yaml:2: data.focal_stack_size: expected a whole number or a list, got "five"',
        ),
        (
            "data:\n  image_size: [480, wide]",
            'my.yaml:2: data.image_size[1]: expected a whole number, got "wide"',
        ),
        (
            "data: {image_size: 0}",
            "my.yaml:1: data.image_size: expected a number above 0 or a list, got 0",
        ),
        (
            "data: {data_root: 5}",
            "my.yaml:1: data.data_root: expected a text or a list or a block of keys, got 5",
        ),
        (
            "data: {focal_range: [8, 0.8]}",
            "my.yaml:1: data.focal_range: expected [near, far] in metres, near < far, "
            "got [8.0, 0.8]",
        ),
        ("data: {focal_range: [8]}", "my.yaml:1: data.focal_range[1] is missing"),
        (
            "data: {focal_stack_size: 1}",
            "my.yaml:1: data.focal_stack_size: expected a number of frames of at least 2, or "
            "[fewest, most], got 1",
        ),
        (
            "data:\n  train_sources:\n    - weight: 2",
            "my.yaml:3: data.train_sources[0].name is missing",
        ),
        (
            "data:\n  train_sources:\n    - hypersim",
            'my.yaml:2: data.train_sources[0]: expected a block of keys, got "hypersim"',
        ),
        (
            "data:\n  train_filelist: a.csv\n  train_sources: [{name: a}]",
            "my.yaml:1: data: train_filelist and train_sources exclude each other; give one",
        ),
        (
            "training: {mixed_precision: fp32}",
            "my.yaml:1: training.mixed_precision: expected 'no' or 'bf16', got \"fp32\"",
        ),
        (
            "training: {mixed_precision: fp16}",
            "my.yaml:1: training.mixed_precision: fp16 is refused: its range is too small for "
            "this model (NaN or black images); use bf16",
        ),
        (
            "training: {batch_size: true}",
            "my.yaml:1: training.batch_size: expected another kind of value, got true",
        ),
        (
            "optimizer: {learning_rate: .inf}",
            "my.yaml:1: optimizer.learning_rate: expected a finite number, got Infinity",
        ),
        ("model:", "my.yaml:1: model: expected a block of keys, got null"),
        ("training: {1: 2}", "my.yaml:1: expected the name of a key, got 1"),
        ("training:\n  seed: 1\n  seed: 2", "my.yaml:3: seed is given already in line 2"),
        ("training: [1", "my.yaml:1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("\ntraining: {seed: !!int x}", "my.yaml:2: expected !!int, got 'x'"),
        ("training: {seed: !!int ''}", "my.yaml:1: expected !!int, got ''"),
        ("training: {use_ema: !!bool maybe}", "my.yaml:1: expected !!bool, got 'maybe'"),
        (f"training: {{seed: 0x{'f' * 5000}}}", "my.yaml:1: expected !!int, got '0xffff"),
        ('logging: {run_name: "\\ud800"}', "my.yaml:1: expected !!str, got '"),
        ("x: !!python/name:os.system y", "my.yaml:1: the tag !!python/name:os.system has no"),
        ("model: !thing {a: 1}", "my.yaml:1: the tag !thing has no meaning here; leave it out"),
        ("model: !!str [a]", "my.yaml:1: the tag !!str has no meaning here; leave it out"),
        ('a: "\\UFFFFFFFF"', "my.yaml:1: not YAML: a character that does not exist"),
        ("a: 1\n---\nb: 2", "my.yaml:2: not YAML: but found another document"),
        ("model: {<<: {preset: x}}", "my.yaml:1: model.<< is unknown."),
        ("'': 1", "my.yaml:1: expected the name of a key, got ''"),
        ("? [a]\n: 1", "my.yaml:1: expected the name of a key, got ['a']"),
        ("x: " + 1000 * "[", "my.yaml:1: not a configuration: nested too deeply"),
        (30000 * "a: 1\n", "my.yaml: expected a configuration, got more than 65536 bytes"),
        ('defaults: ["\\0"]', "my.yaml:1: defaults: expected a list of files"),
        ('output: {save_dir: "\\0"}', "my.yaml:1: output.save_dir: expected a path, got a text wi"),
        ("a: 1\nb: \x01", "my.yaml:2: not YAML: special characters are not allowed"),
        ("model: &a [*a]", "my.yaml:1: not a configuration: nested too deeply"),
        ("- a", "my.yaml: expected keys with values, got list"),
        ("defaults: base", "my.yaml:1: defaults: expected a list of files, such as [base]"),
        ("\ndefaults: [base]", "my.yaml:2: defaults: base.yaml: no such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(text: str, message: str) -> None:
    assert complaint(text).startswith(message)
    assert "\n" not in complaint(text)


@pytest.mark.usefixtures("folder")
def test_aliases_repeat_values_but_not_without_end() -> None:
    sources = "data:\n  train_sources: &a [{name: a}, {name: b}]\n  val_sources: *a"
    data = load(sources).config.data
    assert data.val_sources == data.train_sources
    laughs = "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 40))
    assert (
        complaint(f"a0: &a0 {{x: 1}}\n{laughs}")
        == "my.yaml:1: more than 10000 values, aliases repeated"
    )


@pytest.mark.usefixtures("folder")
def test_the_line_is_that_of_the_file_where_the_key_was_written() -> None:
    Path("base.yaml").write_text("data:\n  focal_stack_size: 5\n  image_sise: 3\n")
    assert complaint("defaults: [base]\ndata:\n  focal_stack_size: 6").startswith(
        "base.yaml:3: data.image_sise"
    )
    Path("base.yaml").write_text("data:\n  image_size: 3\n")
    assert complaint("defaults: [base]\ndata:\n\n  image_size: -3").startswith(
        "my.yaml:4: data.image_size:"
    )


@pytest.mark.usefixtures("folder")
def test_an_override_changes_one_item_of_a_list() -> None:
    text = "data: {train_sources: [{name: a, weight: 2}, {name: b, max_samples: 3}]}"
    first, second = load(
        text, "data.train_sources.1.weight=5", "data.train_sources.0.dataset_kwargs.depth_scale=2"
    ).config.data.train_sources
    assert (first.name, first.weight, first.dataset_kwargs.depth_scale) == ("a", 2, 2)
    assert (second.name, second.weight, second.max_samples) == ("b", 5, 3)
    assert complaint(text, "data.train_sources.2.weight=5") == (
        "override data.train_sources[2]: the list has 2 items, counted from 0"
    )
    assert complaint(text, "data.train_sources.0.weigth=5").startswith(
        "override data.train_sources[0].weigth is unknown; did you mean weight?"
    )
    assert complaint("data: {}", "data.val_sources.0.weight=5").startswith(
        "override data.val_sources: expected a list"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.batch_sise=3",
            "override training.batch_sise is unknown; did you mean batch_size?",
        ),
        (
            "training.batch_size=many",
            'override training.batch_size: expected a whole number, got "many"',
        ),
        (
            "data.data_root={dept: x}",
            "override data.data_root: data.data_root.dept is unknown; did you mean depth?",
        ),
        ("training.seed", "override training.seed: expected key.path=value"),
        ("training..seed=1", "override training..seed=1: expected key.path=value"),
        ("training.seed=[1", "override training.seed: not YAML:"),
    ],
)
def test_a_mistaken_override_is_named(override: str, message: str) -> None:
    assert complaint("training: {seed: 1}", override).startswith(message)


@pytest.mark.usefixtures("folder")
def test_further_problems_are_counted() -> None:
    text = "training: {batch_size: 0, num_epochs: 0}\nscheduler: {x: 1}"
    assert complaint(text).endswith("(2 more problems)")


@pytest.mark.usefixtures("folder")
def test_what_is_no_text_file_is_refused() -> None:
    Path("my.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"^my\.yaml: expected UTF-8 text"):
        load_config(Path("my.yaml"))
    with pytest.raises(InputError, match=r"^none\.yaml: no such file"):
        load_config(Path("none.yaml"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("focal_length_m", 50, "50 looks like millimetres; in metres that is 0.05"),
        ("pixel_pitch_m", 12, "12 looks like micrometres; in metres that is 1.2e-05"),
        ("sensor_width_m", 36, "36 looks like millimetres; in metres that is 0.036"),
    ],
)
def test_lengths_in_another_unit_are_noticed(name: str, value: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CameraDefaults(**{name: value})


@pytest.mark.parametrize(
    "name", ["psf_exponent_range", "noise_std_lsb_range", "jpeg_quality_range"]
)
def test_a_range_ascends(name: str) -> None:
    with pytest.raises(ValidationError, match="low <= high"):
        SimulatorKwargs(**{name: (4, 3)})
    assert getattr(SimulatorKwargs(**{name: (3, 3)}), name) == (3, 3)


# The resolved file

TEXTS = st.text(st.characters(exclude_categories=["C"], exclude_characters="\u2028\u2029"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    run_name=TEXTS | st.sampled_from(["no", "1e-5", "010", "null", "~", "- a", "a: b", "1_0"]),
    tags=st.lists(TEXTS, max_size=2),
    learning_rate=st.floats(1e-300, 1e300),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_resolved_file_gives_an_equal_configuration(
    folder: Path, run_name: str, tags: list[str], learning_rate: float, seed: int
) -> None:
    config = Config(
        logging=LoggingConfig(run_name=run_name, tags=tuple(tags)),
        optimizer=OptimizerConfig(learning_rate=learning_rate),
        training=TrainingConfig(seed=seed),
    )
    save_resolved(config, folder / "resolved.yaml")
    assert load_config(folder / "resolved.yaml").config == config


@pytest.mark.usefixtures("folder")
def test_the_resolved_file_has_every_default() -> None:
    save_resolved(load("").config, Path("resolved.yaml"))
    text = Path("resolved.yaml").read_text()
    assert "warmup_steps: 0" in text
    assert "focal_stack_size: 5" in text


def test_a_block_that_is_not_wanted_is_not_read_but_an_unknown_one_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("model: {preset: tiny}\ndata: {data_root: '${NOT_SET}'}\n")
    assert load_config(path, only=["model"]).config.model.preset == "tiny"
    path.write_text("modle: {preset: tiny}\n")
    with pytest.raises(InputError, match="modle"):
        load_config(path, only=["model"])
