"""`focaldiffusion train --dry-run` and `python -m script.train` on trees in native layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import contents, exit_code, refusal
from fixtures import hypersim, virtual_kitti

from focaldiffusion.cli.main import main
from script.train import main as script_train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PRESETS = {
    "hypersim": ("hypersim",),
    "virtual_kitti": ("virtual_kitti",),
    "mixed": ("hypersim", "virtual_kitti"),
}
SMALL = ("--override", "data.image_size=[96,128]", "training.batch_size=2")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders hypersim and virtual_kitti in native layout."""
    root = tmp_path_factory.mktemp("trees")
    hypersim.write(root / "hypersim")
    virtual_kitti.write(root / "virtual_kitti")
    return root


@pytest.fixture
def roots(trees: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trees, named in the environment as the presets expect."""
    for name in ("hypersim", "virtual_kitti"):
        monkeypatch.setenv(f"{name.upper()}_DATA_ROOT", str(trees / name))
    return trees


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_passes_on_the_native_layout(
    preset: str, roots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(roots)
    argv = ("train", "--config", CONFIGS / f"{preset}.yaml", "--dry-run", *SMALL)
    assert exit_code(main, *argv) == 0
    out, err = capsys.readouterr()
    assert contents(roots) == before
    assert err == ""
    blocks = [line for line in out.splitlines() if not line.startswith(" ")]
    assert blocks[:3] == ["train", "val", "test"]
    for source in PRESETS[preset]:
        assert out.count(f"  {source} (") == 3
    # Five frames of two stacks, in light; depth in metres, as the fixtures have it.
    assert "frames           2 x 5 x 3 x 96 x 128     linear light" in out
    assert "focus distances  2 x 5                    m" in out
    assert "0 bad" in out


def test_the_compact_recipe_draws_its_textures_without_photographs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHOTOGRAPHS", "")
    argv = ("train", "--config", CONFIGS / "compact.yaml", "--dry-run", *SMALL)
    assert exit_code(main, *argv, "data.focal_stack_size=2", "training.batch_size=1") == 0
    out, err = capsys.readouterr()
    assert "procedural: one step taken, loss 0." in out
    assert err == (
        "note: procedural: drawn textures; set PHOTOGRAPHS to a folder of photographs to use "
        "those.\n"
    )


def test_ranges_are_those_of_the_fixture(roots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("train", "--config", CONFIGS / "virtual_kitti.yaml", "--dry-run", *SMALL)
    assert exit_code(main, *argv) == 0
    depth = next(line for line in capsys.readouterr().out.splitlines() if "depth" in line)
    low, high = (float(text) for text in depth.split("; ")[0].split(" m ")[1].split(" to "))
    # Centimetres became metres, sky and what lies beyond 80 m is invalid.
    assert virtual_kitti.NEAREST_M <= low < high <= 80
    assert "100.0% valid" not in depth


@pytest.mark.parametrize(
    ("preset", "file", "origin"),
    [
        ("hypersim", "metadata_images_split_scene_v1.csv", "https://github.com/apple/ml-hypersim"),
        ("mixed", "metadata_images_split_scene_v1.csv", "https://github.com/apple/ml-hypersim"),
        ("virtual_kitti", "rgb_00000.jpg", "https://europe.naverlabs.com"),
    ],
)
def test_an_empty_root_names_the_first_missing_file_and_its_origin(
    preset: str,
    file: str,
    origin: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FOCALDIFFUSION_DATA_ROOT", str(tmp_path))
    argv = ("--config", str(CONFIGS / f"{preset}.yaml"), "--dry-run")
    assert exit_code(script_train, *argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}")
    assert f"{file}: no such file" in err
    assert origin in err
    assert err.count("\n") == 1


def test_a_bad_sample_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hypersim.write(tmp_path)
    bad = tmp_path / "ai_006_007/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    bad.write_bytes(b"not HDF5")
    argv = ("--config", CONFIGS / "hypersim.yaml", "--data-root", tmp_path, "--dry-run", *SMALL)
    assert exit_code(main, "train", *argv) == 2
    out, err = capsys.readouterr()
    assert "1 samples of 1 scenes, 0 left out for missing files; 1 read, 1 bad" in out
    assert err.startswith(f"error: 1 of the samples read are bad; the first: {bad}")


def test_missing_samples_are_left_out_only_when_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hypersim.write(tmp_path)
    missing = tmp_path / "ai_001_001/images/scene_cam_00_final_hdf5/frame.0001.color.hdf5"
    missing.unlink()
    argv = ("train", "--config", CONFIGS / "hypersim.yaml", "--data-root", tmp_path, "--dry-run")
    assert exit_code(main, *argv, *SMALL) == 2
    assert str(missing) in capsys.readouterr().err
    assert exit_code(main, *argv, *SMALL, "--allow-missing") == 0
    out, err = capsys.readouterr()
    assert "4 samples of 3 scenes, 1 left out for missing files" in out
    assert str(missing) in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--debug",), "--debug: for more messages set logging.level=DEBUG"),
        (("--device", "gpu"), "device gpu: torch cannot compute there"),
        (("--dryrun",), "unrecognized arguments: --dryrun"),
    ],
)
def test_flags_that_mean_nothing_are_refused(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("train", "--config", CONFIGS / "hypersim.yaml", "--dry-run", *flags)
    assert message in refusal(capsys, tmp_path, main, *argv)


def test_splits_that_share_a_scene_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hypersim.write(tmp_path)
    table = tmp_path / "metadata_images_split_scene_v1.csv"
    table.write_text(table.read_text().replace("ai_044_004,cam_00,0,True,,test", "LINE"))
    table.write_text(
        table.read_text()
        .replace("LINE", "ai_044_004,cam_00,0,True,,train")
        .replace("ai_037_002,cam_01,0,True,,train", "ai_037_002,cam_01,0,True,,test")
    )
    argv = ("train", "--config", CONFIGS / "hypersim.yaml", "--data-root", tmp_path, "--dry-run")
    assert exit_code(main, *argv, *SMALL) == 2
    assert "scene ai_037_002 is in train (source hypersim) and in test" in capsys.readouterr().err


def test_a_batch_that_the_data_do_not_fill_is_refused(
    roots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("train", "--config", CONFIGS / "hypersim.yaml", "--dry-run", *SMALL)
    assert exit_code(main, *argv, "training.gradient_accumulation_steps=10000") == 2
    assert "fewer than the 20000 stacks of one optimiser step" in capsys.readouterr().err


def test_training_takes_the_device_from_accelerate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("train", "--config", CONFIGS / "hypersim.yaml", "--device", "cuda:1")
    assert "--device cuda:1: training runs where accelerate starts it" in refusal(
        capsys, tmp_path, main, *argv
    )


def test_a_typo_names_file_line_and_the_nearest_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"defaults: [{CONFIGS / 'hypersim.yaml'}]\ndata:\n  focal_stack_sise: 3\n")
    err = refusal(capsys, tmp_path, main, "train", "--config", config, "--dry-run")
    assert err.startswith(
        f"error: {config}:3: data.focal_stack_sise is unknown; did you mean focal_stack_size? "
        "Expected one of dataset_type, data_root, "
    )
