"""Examples that are written before training: on the network's grid, in shards, several draws."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import exit_code, names, refusal
from fixtures import hypersim
from test_data_shards import content
from training_runs import STACKS, config_of, losses, state, write_stacks

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.cli.main import main
from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.models.codecs import unpad
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.shards import Shard
from focaldiffusion.training.examples import Examples, Grid, Shown, examples_of, patches_of
from focaldiffusion.training.kept import KeptExamples, packed, unpacked
from focaldiffusion.training.kept_writer import grid_of, write_examples
from focaldiffusion.training.objective import prepare
from focaldiffusion.training.trainer import train

GRID = Grid(8, 16)  # of the tiny network, as of Stable Diffusion 3.5
HALF_A_STEP_OF_8_BITS = 1 / 255 + 1e-6


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"), val=0)


def opened(stacks: Path, directory: Path, **training: Any) -> tuple[Config, Mixture, KeptExamples]:
    chosen = {"examples_dir": str(directory), **training}
    config = config_of(stacks, directory.with_name("run"), training=chosen)
    mixture = open_split(config.data, "train", 0)
    kept = KeptExamples.open(config, mixture, grid_of(config.model))
    assert kept is not None
    return config, mixture, kept


def made(mixture: Mixture, *, with_image: bool = True) -> Examples:
    (batch,) = batches(mixture, (0, 1), 2, with_estimates=True)
    return examples_of(batch, "log", with_stacks=False, with_image=with_image)


def test_what_the_network_is_shown_on_its_grid_comes_back(stacks: Path, tmp_path: Path) -> None:
    _, mixture, kept = opened(stacks, tmp_path / "kept")
    examples = made(mixture)
    read = unpacked(kept.add([mixture.draw(0), mixture.draw(1)], examples))
    expected = Shown.on_grid(examples.proposal, GRID)
    assert isinstance(read.proposal, Shown)
    for there, here, atol in (
        (read.proposal.all_in_focus, expected.all_in_focus, HALF_A_STEP_OF_8_BITS),
        (read.truth.image, examples.truth.image, HALF_A_STEP_OF_8_BITS),
        (read.proposal.depth_code, expected.depth_code, 0.5 / 32767 + 1e-7),
        (read.truth.depth_code, examples.truth.depth_code, 0.5 / 32767 + 1e-7),
        (read.proposal.maps, expected.maps, 2**-12),  # half a step of float16 below 1
    ):
        torch.testing.assert_close(there, here, rtol=0, atol=atol)
    assert torch.equal(read.truth.valid, examples.truth.valid)
    assert read.truth.codes == examples.truth.codes


@pytest.mark.parametrize("size", [(48, 64), (41, 55)])
def test_the_network_is_shown_the_same_on_its_grid(
    stacks: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Also where an image is padded to whole tokens: before rounding, equal to the bit."""
    _, mixture, _ = opened(stacks, tmp_path / "kept")
    whole = made(mixture)

    def cut(maps: torch.Tensor) -> torch.Tensor:
        return unpad(maps, size)

    truth = replace(
        whole.truth,
        image=cut(whole.truth.image),
        depth_code=cut(whole.truth.depth_code),
        valid=cut(whole.truth.valid),
    )
    examples = Examples(whole.proposal.map(cut), truth)
    on_grid = Examples(Shown.on_grid(examples.proposal, GRID), truth)
    completer = FocalDiffusionPipeline.from_preset("tiny").completer
    assert Grid.of(completer) == GRID
    seeds = [torch.Generator().manual_seed(i) for i in range(2)]
    one, two = (prepare(completer, each, seeds) for each in (examples, on_grid))
    for name in ("clean", "start", "condition", "sigma", "latent_valid"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


def test_patches_are_cut_from_both_scales_alike(stacks: Path, tmp_path: Path) -> None:
    _, mixture, _ = opened(stacks, tmp_path / "kept")
    examples = made(mixture)
    on_grid = Examples(Shown.on_grid(examples.proposal, GRID), examples.truth)

    def patches(of: Examples) -> Examples:
        seeds = [torch.Generator().manual_seed(i) for i in range(2)]
        return patches_of(of, 16, 8, 16, seeds)

    cut = patches(examples)
    expected, found = Shown.on_grid(cut.proposal, GRID), patches(on_grid).proposal
    assert torch.equal(found.all_in_focus, expected.all_in_focus)
    # Means are summed in another order where a patch is turned.
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-6)


def test_without_the_image_half_no_true_image_is_kept(stacks: Path, tmp_path: Path) -> None:
    _, mixture, kept = opened(stacks, tmp_path / "kept")
    (draws, examples) = [mixture.draw(0), mixture.draw(1)], made(mixture, with_image=False)
    assert not examples.truth.has_image.any()
    read = kept.add(draws, examples)
    assert torch.equal(read.truth.image, read.proposal.all_in_focus)
    with_image = KeptExamples(tmp_path / "with", 1, GRID)
    with_image.directory.mkdir()
    with_image.add(draws, made(mixture))
    sizes = [
        sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        for folder in (kept.directory, with_image.directory)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_finds_what_shards_have_written(
    stacks: Path, tmp_path: Path, workers: int
) -> None:
    """Three shards in folders of their own, joined; two draws, which epochs take in turn."""
    two = {"draws_per_sample": 2, "num_epochs": 3}
    config, mixture, whole = opened(stacks, tmp_path / "whole", **two)
    write_examples(config, mixture, whole)
    assert len(list(whole.directory.glob("*.safetensors"))) == 16
    folders = []
    for index in range(3):
        of_part, _, part = opened(stacks, tmp_path / f"part{index}", **two)
        of_part = of_part.model_copy(
            update={"data": of_part.data.model_copy(update={"num_workers": workers})}
        )
        write_examples(of_part, mixture, part, shard=Shard(index + 1, 3))
        folders.append(part.directory)
    KeptExamples.joined(folders, tmp_path / "joined")
    assert content(tmp_path / "joined") == content(whole.directory)
    # A run that makes its own, and one that reads nothing else.
    train(
        config_of(
            stacks, tmp_path / "first", training={"examples_dir": str(tmp_path / "own"), **two}
        )
    )
    assert content(tmp_path / "own") == content(whole.directory)
    config = config_of(
        stacks, tmp_path / "second", training={"examples_dir": str(tmp_path / "joined"), **two}
    )
    samples = stacks / "train" / "samples"
    shutil.move(samples, tmp_path / "away")
    samples.mkdir()
    try:
        for path in (tmp_path / "away").iterdir():
            (samples / path.name).write_bytes(b"nothing")
        train(config)
    finally:
        shutil.rmtree(samples)
        shutil.move(tmp_path / "away", samples)
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    states = [state(tmp_path / name, 12) for name in ("first", "second")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_each_draw_of_a_sample_differs_and_then_returns(tmp_path: Path) -> None:
    (tmp_path / "stacks.yaml").write_text(
        STACKS + "  train_sources: [{name: scenes, max_samples: 2, dataset_kwargs: "
        "{simulator_kwargs: {noise_std_lsb_range: [2, 2]}}}]\n"
    )
    config = load_config(tmp_path / "stacks.yaml").config
    mixture = open_split(config.data, "train", 0)
    kept = KeptExamples(tmp_path / "kept", 2, GRID)
    kept.directory.mkdir()
    write_examples(config, mixture, kept)
    (a, b), (c, d), (e, _) = ([mixture.draw(2 * epoch + i) for i in (0, 1)] for epoch in range(3))
    first, second = (next(one for one in pair if one.sample == 0) for pair in ((a, b), (c, d)))
    third = next(one for one in (e, mixture.draw(5)) if one.sample == 0)
    maps = [kept.read([one]).proposal.maps for one in (first, second, third)]
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


def test_packed_examples_are_small(stacks: Path, tmp_path: Path) -> None:
    _, mixture, _ = opened(stacks, tmp_path / "kept")
    examples = made(mixture)

    def size(of: Examples) -> int:
        tensors = [*vars(of.proposal).values(), of.truth.image, of.truth.depth_code, of.truth.valid]
        return sum(one.nbytes for one in tensors)

    on_grid = Examples(Shown.on_grid(examples.proposal, GRID), examples.truth)
    assert size(packed(on_grid)) < size(packed(examples)) / 4


def test_the_grid_is_known_without_weights(tmp_path: Path) -> None:
    medium = PRESETS["sd35-medium"].base_model_id
    for model, grid in (
        ({"base_model_id": medium}, Grid(8, 16)),
        ({"preset": "tiny"}, GRID),
        ({"preset": "compact"}, None),
    ):
        assert grid_of(Config.model_validate({"model": model}).model) == grid


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hypersim.write(tmp_path / "tree")
    config = Path(__file__).resolve().parents[1] / "configs" / "hypersim.yaml"
    two = "training.draws_per_sample=2"
    small = ("--override", "data.image_size=[48,64]", "data.num_workers=0", two)
    shared = ("data", "cache", config, "--data-root", tmp_path / "tree", *small, "--examples")
    parts = [tmp_path / "part0", tmp_path / "part1"]
    for index, part in enumerate(parts):
        argv = ("--shard", f"{index}/2", "--output", part)
        assert exit_code(main, *shared, *argv) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [["5", "examples"]] * 2
    assert exit_code(main, "data", "merge", *parts, "--output", parts[0]) == 0
    assert len(names(parts[0])) == 11
    assert capsys.readouterr().out == f"2 folders joined in {parts[0]}\n"
    argv = (*shared, "--evidence", "--output", tmp_path / "none")
    assert "--examples with --evidence" in refusal(capsys, tmp_path, main, *argv)
