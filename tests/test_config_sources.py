"""What each source of a split inherits, and where its files are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from focaldiffusion.config.data import SPLITS, CameraDefaults, DataConfig, SourceConfig, Split
from focaldiffusion.config.load import load_config, save_resolved
from focaldiffusion.config.run import Config
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PRESETS = ("hypersim", "virtual_kitti", "mixed")
VARIABLES = ("MY_ROOMS_2", "HYPERSIM", "VIRTUAL_KITTI", "FOCALDIFFUSION")


@pytest.fixture(autouse=True)
def _no_roots_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"{name}_DATA_ROOT", raising=False)


def data(**values: Any) -> DataConfig:
    return DataConfig.model_validate({"data_root": "/data", **values})


def f_number(config: DataConfig, split: Split = "train") -> float | None:
    return resolve_sources(config, split)[0].options.camera_defaults.f_number


def camera(f_number: float) -> dict[str, Any]:
    return {"camera_defaults": {"f_number": f_number}}


def test_the_most_specific_option_wins() -> None:
    """Laid over each other one by one, each layer is what is seen."""
    general: dict[str, Any] = {}
    special: dict[str, Any] = {}
    config = {"train_sources": [{"name": "a", "dataset_type": "rgbd", "dataset_kwargs": special}]}
    config["val_sources"] = config["train_sources"]

    def seen(split: Split) -> float | None:
        return f_number(data(dataset_kwargs=general, **config), split)

    assert seen("train") is None
    general.update(camera(2))
    assert seen("train") == 2
    general["train"] = camera(3)
    assert (seen("train"), seen("val")) == (3, 2)
    special.update(camera(4))
    assert (seen("train"), seen("val")) == (4, 4)
    special["train"] = camera(5)
    assert (seen("train"), seen("val")) == (5, 4)


def test_options_merge_value_by_value() -> None:
    source = {
        "name": "a",
        "dataset_type": "rgbd",
        "dataset_kwargs": {
            "simulator_kwargs": {"shift_px": 2.0},
            "train": {"camera_defaults": {"aperture_diameter_m": 0.02}},
        },
    }
    config = data(
        train_sources=[source],
        dataset_kwargs={
            "depth_scale": 0.001,
            "camera_defaults": {"f_number": 2, "focal_length_m": 0.05},
            "simulator_kwargs": {"psf": "gaussian", "shift_px": 1.0},
            "train": {"simulator_kwargs": {"breathing": 0.01}},
            "val": {"depth_scale": 1.0},
        },
    )
    options = resolve_sources(config, "train")[0].options
    assert options.depth_scale == 0.001
    assert options.camera_defaults == CameraDefaults(
        aperture_diameter_m=0.02, focal_length_m=0.05
    ), "the diameter replaces the f-number"
    simulator = options.simulator_kwargs
    assert (simulator.psf, simulator.shift_px, simulator.breathing) == ("gaussian", 2.0, 0.01)


def test_a_source_inherits_what_it_leaves_out() -> None:
    config = data(
        dataset_type="rgbd",
        focal_range=[1, 5],
        focal_stack_size=4,
        image_size=32,
        max_train_samples=7,
        allow_missing=True,
        train_sources=[
            {"name": "plain"},
            {
                "name": "own",
                "dataset_type": "hypersim",
                "data_root": "/own",
                "filelist": "own.csv",
                "focal_range": [2, 3],
                "focal_stack_size": [2, 9],
                "image_size": [16, 48],
                "max_samples": 3,
                "weight": 5,
            },
        ],
    )
    plain, own = resolve_sources(config, "train")
    assert (plain.dataset_type, plain.data_root, plain.filelist) == ("rgbd", "/data", None)
    assert (plain.focal_range, plain.focal_stack_size) == ((1, 5), (4, 4))
    assert (plain.image_size, plain.max_samples, plain.weight) == ((32, 32), 7, 1)
    assert plain.allow_missing
    assert own.allow_missing
    assert (own.dataset_type, own.data_root, own.filelist) == ("hypersim", "/own", "own.csv")
    assert (own.focal_range, own.focal_stack_size) == ((2, 3), (2, 9))
    assert (own.image_size, own.max_samples, own.weight) == ((16, 48), 3, 5)


def test_a_single_data_set_has_a_list_per_split() -> None:
    config = data(dataset_type="filelist", val_filelist="val.csv", max_val_samples=2)
    (source,) = resolve_sources(config, "val")
    assert (source.name, source.filelist, source.max_samples) == ("filelist", "val.csv", 2)
    assert resolve_sources(config, "test")[0].filelist is None


def test_a_split_without_sources() -> None:
    with pytest.raises(InputError, match=r"no data for test: give data\.test_sources, or data\.d"):
        resolve_sources(data(train_sources=[{"name": "a", "dataset_type": "rgbd"}]), "test")
    with pytest.raises(InputError, match=r"source a of data\.train_sources has no dataset_type"):
        resolve_sources(data(train_sources=[{"name": "a"}]), "train")


def test_the_folder_is_looked_for_from_the_nearest_place_outwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def root(**values: Any) -> Any:
        source = {"name": "my-rooms 2", "dataset_type": "hypersim", **values}
        return resolve_sources(DataConfig.model_validate({"train_sources": [source]}), "train")[
            0
        ].data_root

    with pytest.raises(InputError) as caught:
        root()
    assert str(caught.value) == (
        "source my-rooms 2: the folder of its files is unknown. Give the source a data_root, give "
        "data.data_root, or set the environment variable MY_ROOMS_2_DATA_ROOT or "
        "HYPERSIM_DATA_ROOT or FOCALDIFFUSION_DATA_ROOT."
    )
    monkeypatch.setenv("FOCALDIFFUSION_DATA_ROOT", "/all")
    assert root() == "/all"
    monkeypatch.setenv("HYPERSIM_DATA_ROOT", "/kind")
    assert root() == "/kind"
    monkeypatch.setenv("MY_ROOMS_2_DATA_ROOT", "/name")
    assert root() == "/name"
    assert root(data_root="/own") == "/own"


def test_made_scenes_need_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOTOGRAPHS", raising=False)
    (source,) = resolve_sources(DataConfig(dataset_type="procedural"), "train")
    assert source.data_root == []
    alone = DataConfig(dataset_type="procedural", data_root="/textures")
    assert resolve_sources(alone, "train")[0].data_root == "/textures"
    # In a mixture the common folder is that of the other sources, not one of textures.
    mixed = DataConfig(
        dataset_type="procedural", data_root="/data", train_sources=[{"name": "made"}]
    )
    assert resolve_sources(mixed, "train")[0].data_root == []
    monkeypatch.setenv("PHOTOGRAPHS", "/photographs")
    assert resolve_sources(mixed, "train")[0].data_root == "/photographs"
    assert resolve_sources(alone, "train")[0].data_root == "/textures"


# The presets


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Config]:
    monkeypatch.setenv("FOCALDIFFUSION_DATA_ROOT", "/data")
    loaded = {name: load_config(CONFIGS / f"{name}.yaml") for name in PRESETS}
    assert all(one.notices == () for one in loaded.values())
    return {name: one.config for name, one in loaded.items()}


def test_presets_simulate_with_a_stated_camera(presets: dict[str, Config]) -> None:
    for config in presets.values():
        for split in SPLITS:
            for source in resolve_sources(config.data, split):
                camera = source.options.camera_defaults
                assert camera.f_number is not None
                assert camera.sensor_width_m == 0.036
                assert source.focal_range is not None
                # The autoencoder halves the size three times, the transformer once more.
                assert source.image_size is not None
                assert all(side % 16 == 0 for side in source.image_size)


def test_presets_vary_training_alone(presets: dict[str, Config]) -> None:
    still = resolve_sources(data(dataset_type="rgbd"), "val")[0].options
    for config in presets.values():
        for source in resolve_sources(config.data, "train"):
            assert source.options.simulator_kwargs.aperture_stops > 0
            assert source.options.transforms.flip
        for split in ("val", "test"):
            for source in resolve_sources(config.data, split):
                assert source.options.simulator_kwargs == still.simulator_kwargs
                assert source.options.transforms == still.transforms


def test_the_mixture_has_the_published_proportion(presets: dict[str, Config]) -> None:
    sources = resolve_sources(presets["mixed"].data, "train")
    weights = {source.dataset_type: source.weight for source in sources}
    assert weights == {"hypersim": 0.9, "virtual_kitti": 0.1}


def test_presets_survive_being_saved(presets: dict[str, Config], tmp_path: Path) -> None:
    for config in presets.values():
        save_resolved(config, tmp_path / "resolved.yaml")
        again = load_config(tmp_path / "resolved.yaml").config
        assert again == config
        for split in SPLITS:
            assert resolve_sources(again.data, split) == resolve_sources(config.data, split)


def test_the_base_repeats_no_default() -> None:
    """Each default has one home."""
    config = load_config(CONFIGS / "base.yaml").config
    given, default = config.model_dump(exclude_unset=True), Config().model_dump()

    def repeated(block: dict[str, Any], default: dict[str, Any]) -> list[str]:
        same = [key for key, value in block.items() if value == default[key]]
        inner = [(block[key], default[key]) for key in block if isinstance(block[key], dict)]
        return same + [key for pair in inner for key in repeated(*pair)]

    assert repeated(given, default) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/abs", "a\\b", "a\nb", "x" * 101])
def test_a_source_has_a_name_that_a_folder_may_have(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name of 1 to 100 bytes without slashes"):
        SourceConfig(name=name)
    assert SourceConfig(name="rooms [a] é").name == "rooms [a] é"
