"""Results of a batch as one Zarr set: content, workers, shards, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import workshop_in, write_archive
from command_line import refusal
from plant import run as run_command

from focaldiffusion.archive.batch import Batch
from focaldiffusion.archive.manifest import read_manifest
from focaldiffusion.archive.work import Workshop
from focaldiffusion.archive.zarr_set import ZarrSet
from focaldiffusion.cli.main import main
from focaldiffusion.engines.engine import Here
from focaldiffusion.io.png import read_png
from focaldiffusion.shards import Shard

zarr: Any = pytest.importorskip("zarr")

FAST = ("--device", "cpu", "--align", "off", "--working-size", "48", "--quiet")


def in_set(folder: Path, **settings: object) -> Workshop:
    return replace(workshop_in(folder / "out", **settings), zarr_set=ZarrSet(str(folder / "all")))


def run(manifest: Path, workshop: Workshop, shard: Shard | None = None) -> list[str]:
    """Run a batch; the keys that were worked on."""
    batch = Batch(read_manifest(manifest), manifest.parent, workshop, shard)
    with batch.opened():
        return [line.key for line in batch.run(Here(workshop), batch.due())]


def test_the_set_holds_what_the_files_do(tmp_path: Path) -> None:
    manifest, out = write_archive(tmp_path / "archive", 3, broken=(1,)), tmp_path / "out"
    argv = ("batch", manifest, "--output", out, "--zarr", tmp_path / "all.zarr", *FAST)
    assert run_command(*argv, "--workers", "2") == 1
    root = zarr.open_group(str(tmp_path / "all.zarr"), mode="r")
    assert sorted(root) == ["plant 0", "plant 2"]
    for key, group in root.groups():
        folder = out / key
        assert np.array_equal(group["all_in_focus"][:], read_png(folder / "all_in_focus.png"))
        assert np.array_equal(group["source_index"][:], read_png(folder / "source_index.png"))
        depth = np.load(folder / "depth.npy")
        assert np.array_equal(group["depth_m"][:], depth, equal_nan=True)
        steps = np.round(255 * group["confidence"][:])
        assert np.array_equal(steps, read_png(folder / "confidence.png"))
        assert group.attrs["metadata"] == json.loads((folder / "metadata.json").read_text())


def test_a_set_is_filled_from_earlier_results_and_mended(tmp_path: Path) -> None:
    manifest, workshop = write_archive(tmp_path / "archive", 2), in_set(tmp_path)
    run(manifest, replace(workshop, zarr_set=None))
    before = (tmp_path / "out" / "plant 0" / "metadata.json").stat().st_mtime_ns
    assert run(manifest, workshop) == ["plant 0", "plant 1"]
    assert (tmp_path / "out" / "plant 0" / "metadata.json").stat().st_mtime_ns == before
    assert run(manifest, workshop) == []
    # A process was killed before the mark was set.
    root = zarr.open_group(str(tmp_path / "all"), mode="r+")
    root.create_group("plant 1", overwrite=True)
    assert run(manifest, workshop) == ["plant 1"]
    assert root["plant 1"]["all_in_focus"].shape == (64, 96, 3)
    # Other settings replace the groups, too.
    other = in_set(tmp_path, drop_unaligned=True)
    assert run(manifest, other) == ["plant 0", "plant 1"]
    settings = root["plant 0"].attrs["metadata"]["settings"]
    assert settings["drop_unaligned"]


def test_shards_fill_one_set(tmp_path: Path) -> None:
    manifest, workshop = write_archive(tmp_path / "archive", 3), in_set(tmp_path)
    for number in (1, 2):
        run(manifest, workshop, Shard(number, 2))
    assert sorted(zarr.open_group(str(tmp_path / "all"), mode="r")) == [
        "plant 0",
        "plant 1",
        "plant 2",
    ]


def test_places_and_formats_without_a_set_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_archive(tmp_path / "archive", 1)
    argv = ("batch", manifest, "--output", tmp_path / "out")
    err = refusal(capsys, tmp_path, main, *argv, "--zarr", manifest)
    assert "manifest.csv: is a file; expected a new folder, or a Zarr set" in err
    err = refusal(capsys, tmp_path, main, *argv, "--zarr", manifest.parent)
    assert "archive: holds files, but is not a Zarr set" in err
    png = ("--depth-format", "png")
    err = refusal(capsys, tmp_path, main, *argv, "--zarr", tmp_path / "all", *png)
    assert "--zarr: takes the depth from npy files. Add npy to --depth-format" in err
