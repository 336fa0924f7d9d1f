"""Priors on a hub that a small server stands for: what comes, and what a lost network says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from depth_networks import save_marigold, save_network
from hub_server import GATED, Hub, serving
from huggingface_hub import constants
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.priors.shelf import FoundNetwork, find_prior, load_prior


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with serving(monkeypatch, tmp_path) as address:
        monkeypatch.setenv("HF_TOKEN", "accepted")
        yield address


def publish(folder: Path, *more: str) -> None:
    """Let the hub's model be that of a folder, with further files of no use."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    Hub.files = {**files, **{name: b"nothing" for name in more}}


def found(name: str = GATED) -> FoundNetwork:
    network = find_prior(name)
    assert isinstance(network, FoundNetwork)
    return network


def test_the_description_comes_first_and_the_weights_when_they_are_needed(
    hub: str, tmp_path: Path
) -> None:
    folder = save_network("depth_anything relative", tmp_path / "saved")
    publish(folder, "model.fp16.safetensors", "pytorch_model.bin", "onnx/model.onnx", "README.md")
    network = found()
    assert set(Hub.sent) == {"config.json", "preprocessor_config.json"}
    Hub.sent.clear()
    image = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0))
    prior = network.load("cpu")(image)
    assert set(Hub.sent) == {"model.safetensors"}
    assert prior.name == GATED
    assert torch.equal(prior.values, load_prior(folder, device="cpu")(image).values)
    assert network.as_json()["sha256"] == found(str(folder)).as_json()["sha256"]


def test_of_marigold_the_plain_files_of_its_parts_come(hub: str, tmp_path: Path) -> None:
    folder = save_marigold(tmp_path / "saved")
    publish(folder, "unet/diffusion_pytorch_model.fp16.safetensors", "unet/weights.bin", "a.ckpt")
    network = found()
    assert set(Hub.sent) == {"model_index.json"}
    network.load("cpu")
    useful = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(Hub.sent) <= useful


def test_a_network_that_is_here_needs_no_hub(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(save_network("dpt", tmp_path / "saved"))
    load_prior(GATED, device="cpu")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_prior(GATED, device="cpu").name == GATED


def refused(name: str = GATED) -> str:
    with pytest.raises(InputError) as error:
        load_prior(name, device="cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_lost_network_is_named(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused() == (
        f"{GATED}: cannot reach the Hugging Face hub. Check the network. A local folder works too."
    )


def test_a_network_lost_before_the_weights_came_is_named(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(save_network("dpt", tmp_path / "saved"))
    network = found()
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(InputError, match=f"^{GATED}: .*hub cannot be reached|cannot reach the"):
        network.load("cpu")


def test_pickled_weights_are_not_downloaded(hub: str, tmp_path: Path) -> None:
    folder = save_network("dpt", tmp_path / "saved")
    publish(folder, "pytorch_model.bin")
    del Hub.files["model.safetensors"]
    assert "or none in safetensors" in refused()
    assert "pytorch_model.bin" not in Hub.sent


def test_another_layout_is_named(hub: str) -> None:
    Hub.files = {"depth_anything_v2_vits.pth": b"pickle", "README.md": b"text"}
    assert "holds no config.json of transformers and no model_index.json" in refused()
    assert Hub.sent == []


def test_a_model_that_is_not_there(hub: str) -> None:
    assert "the hub has no such model, or it is private" in refused("depth-anything/no-such")


def test_offline_mode_is_named_by_the_command(tmp_path: Path) -> None:
    """In a process of its own: the client reads the variable when it is imported."""
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(3):
        Image.new("RGB", (64, 48), (60 * index, 90, 120)).save(frames / f"{index}.png")
    command = ["infer", str(frames), "--prior", "depth-anything/Depth-Anything-V2-Small-hf"]
    done = subprocess.run(
        [sys.executable, "-m", "focaldiffusion", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: depth-anything/Depth-Anything-V2-Small-hf: HF_HUB_OFFLINE is set, so the hub "
        "cannot be reached. Unset it. A local folder works too.\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames"]
