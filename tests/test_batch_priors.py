"""`batch --prior`: one network for all rows, a file for single ones, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archives import workshop_in, write_archive
from command_line import refusal
from depth_networks import save_network
from plant import SIZE

from focaldiffusion.archive.manifest import read_manifest
from focaldiffusion.archive.work import Bench, Task
from focaldiffusion.cli.main import main
from focaldiffusion.io.depth_files import write_npy
from focaldiffusion.prior import PriorKind, PriorSource
from focaldiffusion.priors.shelf import FoundNetwork, find_prior, load_prior
from focaldiffusion.priors.transformer import TransformerNetwork


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network("depth_anything relative", tmp_path_factory.mktemp("networks") / "tiny")


def with_files(manifest: Path, *files: str) -> Path:
    """A manifest with the column prior, empty after the last of the files."""
    head, *rows = manifest.read_text().splitlines()
    given = [*files, *[""] * (len(rows) - len(files))]
    lines = [f"{head},prior", *(f"{row},{file}" for row, file in zip(rows, given, strict=True))]
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def test_a_network_serves_the_rows_without_a_file_and_is_loaded_once(
    network: Path, tmp_path: Path
) -> None:
    manifest = with_files(write_archive(tmp_path / "archive", 3), "depth.npy")
    write_npy(tmp_path / "archive" / "depth.npy", np.full(SIZE, 1.5, np.float32))
    loaded = []

    def load() -> PriorSource:
        loaded.append(load_prior(network))
        return loaded[-1]

    workshop = workshop_in(tmp_path / "out", image_only=False)
    recipe = replace(workshop.recipe, load_prior=load, prior_kind=PriorKind.METRIC_DEPTH)
    workshop = replace(workshop, recipe=recipe)
    bench = Bench(workshop)
    lines = [
        bench.run(Task(entry, recipe.digest(entry, manifest.parent)))
        for entry in read_manifest(manifest)
    ]
    assert [line.status for line in lines] == ["done"] * 3, lines
    assert len(loaded) == 1
    used = [
        json.loads((tmp_path / "out" / f"plant {number}" / "metadata.json").read_text())["prior"]
        for number in range(3)
    ]
    assert [one["name"] for one in used] == [
        str(tmp_path / "archive" / "depth.npy"),
        str(network),
        str(network),
    ]
    assert [one["kind"] for one in used] == ["metric-depth", *["affine-inverse-depth"] * 2]
    assert [line.prior_share for line in lines] == [f"{one['share']:.3f}" for one in used]


def test_a_row_needs_memory_for_the_weights_of_the_network(network: Path, tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 1)
    (entry,) = read_manifest(manifest)
    loaded = load_prior(network, device="cpu")
    assert isinstance(loaded, TransformerNetwork)
    weights = sum(one.numel() * one.element_size() for one in loaded.model.parameters())
    found = find_prior(str(network))
    assert isinstance(found, FoundNetwork)
    assert found.weight_bytes == weights
    plain = workshop_in(tmp_path / "out")
    larger = replace(plain, recipe=replace(plain.recipe, network_bytes=weights))
    task = Task(entry, "1")
    assert larger.need_bytes(task) == plain.need_bytes(task) + weights


def test_another_prior_is_another_digest(tmp_path: Path) -> None:
    manifest = with_files(write_archive(tmp_path / "archive", 2), "depth.npy")
    file, none = read_manifest(manifest)
    recipe = workshop_in(tmp_path).recipe
    folder = manifest.parent
    other = replace(file, prior=str(folder / "other.npy"))
    assert recipe.digest(file, folder) != recipe.digest(other, folder)
    kind = replace(recipe, prior_kind=PriorKind.AFFINE_DEPTH)
    assert recipe.digest(file, folder) != kind.digest(file, folder)
    assert recipe.digest(none, folder) == kind.digest(none, folder)
    network = replace(recipe, prior={"name": "tiny", "sha256": "0"})
    assert recipe.digest(none, folder) != network.digest(none, folder)
    moved = folder.rename(tmp_path / "moved")
    assert recipe.digest(file, folder) == recipe.digest(
        read_manifest(moved / "manifest.csv")[0], moved
    )


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        (["depth.npy"], "", "manifest.csv: its column prior names files, which do not say whether"),
        ([], "--prior depth.npy --prior-kind metric-depth", "one file for all rows; expected a"),
        ([], "--prior-kind metric-depth", "--prior-kind: no effect without --prior"),
        ([], "--prior nowhere", "nowhere: no such file or folder, and not an id on the hub"),
        ([], "--image-only --depth-format npy", "--depth-format: no effect with --image-only"),
        ([], "--image-only --point-cloud on", "--point-cloud: no effect with --image-only"),
        ([], "--image-only --prior tiny", "--prior: no effect with --image-only"),
    ],
)
def test_flags_that_make_no_sense(
    files: list[str],
    flags: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = with_files(write_archive(tmp_path / "archive", 1), *files)
    write_npy(manifest.parent / "depth.npy", np.ones(SIZE, np.float32))
    monkeypatch.chdir(manifest.parent)
    given = ("batch", manifest, "--output", tmp_path / "out", *flags.split())
    assert message in refusal(capsys, tmp_path, main, *given)
