"""Base weights: a local folder, or a hub that a small server stands for, over real HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from hub_server import COMMIT, GATED, Hub, serving
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from focaldiffusion.checkpoints.hub import check_access, load_part, resolve_base
from focaldiffusion.errors import InputError
from focaldiffusion.models.presets import PRESETS


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    with serving(monkeypatch, tmp_path) as address:
        yield address


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local folder of a base model."""
    folder = tmp_path_factory.mktemp("base")
    tiny = PRESETS["tiny"]
    channels = tiny.image_channels
    SD3Transformer2DModel(
        **tiny.network, in_channels=channels, out_channels=channels
    ).save_pretrained(folder / "transformer")
    AutoencoderKL(**tiny.autoencoder).save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    return folder


def message_of(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_with_the_licence_accepted_the_plain_files_of_the_parts_come(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "accepted")
    check_access(GATED)
    folder = resolve_base(GATED)
    came = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert came == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert folder.name == COMMIT, "the revision, for the provenance"
    Hub.sent.clear()
    assert resolve_base(GATED) == folder
    assert Hub.sent == [], "nothing is fetched twice"


def test_of_a_variant_only_its_weights_come(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "accepted")
    folder = resolve_base(GATED, variant="fp16")
    assert sorted(path.name for path in folder.rglob("*.safetensors")) == [
        "diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ]


LOGIN = r"Run `hf auth login` \(formerly `huggingface-cli login`\)"
LOCAL = "A local folder works too."


@pytest.mark.parametrize("ask", [resolve_base, check_access])
@pytest.mark.parametrize(
    ("token", "model_id", "sentence"),
    [
        (None, GATED, f"not logged in.*{LOGIN}.*licence at .*/{GATED}"),
        ("expired", GATED, f"not logged in.*no longer valid.*{LOGIN}"),
        ("refused", GATED, f"logged in.*licence is not accepted.*Accept .* at .*/{GATED}"),
        (None, "stabilityai/no-such", f"no such model, or it is private.*{LOGIN}"),
        ("accepted", "stabilityai/no-such", f"no such model, or it is private.*{LOGIN}"),
        ("down", GATED, "answered with error 502"),
    ],
)
def test_a_refusal_of_the_hub_is_explained(
    hub: str,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[str], object],
    token: str | None,
    model_id: str,
    sentence: str,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=f"^{model_id}: .*{sentence}.*{LOCAL}$") as error:
        ask(model_id)
    message_of(error)


@pytest.mark.parametrize("ask", [resolve_base, check_access])
def test_a_lost_network_is_named(
    hub: str, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=f"^{GATED}: .*cannot reach the .*{LOCAL}$") as error:
        ask(GATED)
    message_of(error)


def test_offline_mode_is_named(tmp_path: Path) -> None:
    """In a process of its own: the client reads the variable when it is imported."""
    code = f"from focaldiffusion.checkpoints.hub import resolve_base; resolve_base({GATED!r})"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        f"focaldiffusion.errors.InputError: {GATED}: HF_HUB_OFFLINE is set, so the hub "
        f"cannot be reached. Unset it. {LOCAL}"
    )


def test_a_local_folder_is_taken_as_it_is(base: Path) -> None:
    assert resolve_base(str(base)) == base


@pytest.mark.parametrize("path", ["/no/such/folder", "./weights", "weights", "~/weights"])
def test_what_is_neither_folder_nor_id_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=f"^{path}: no such folder"):
        resolve_base(path)


def test_missing_parts_are_named(base: Path) -> None:
    with pytest.raises(InputError, match="has no text_encoder, tokenizer; expected Stable Diff"):
        resolve_base(str(base), parts=("transformer", "text_encoder", "tokenizer"))


def test_parts_load_as_they_were_saved(base: Path) -> None:
    transformer = load_part(SD3Transformer2DModel, base, "transformer", dtype=torch.bfloat16)
    assert transformer.dtype == torch.bfloat16
    assert transformer.config["in_channels"] == PRESETS["tiny"].image_channels
    vae = load_part(AutoencoderKL, base, "vae")
    assert vae.config["shift_factor"] == 0.0609


def test_a_missing_variant_is_named(base: Path) -> None:
    with pytest.raises(InputError, match=r"transformer: expected .* weights of the variant fp16"):
        load_part(SD3Transformer2DModel, base, "transformer", variant="fp16")


def test_pickled_weights_are_not_read(base: Path, tmp_path: Path) -> None:
    transformer = load_part(SD3Transformer2DModel, base, "transformer")
    transformer.save_pretrained(tmp_path / "transformer", safe_serialization=False)
    with pytest.raises(InputError, match=r"expected config\.json and weights in safetensors"):
        load_part(SD3Transformer2DModel, tmp_path, "transformer")


@pytest.fixture
def copied(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base / "transformer", tmp_path / "transformer")
    return tmp_path


WEIGHTS_FILE = "transformer/diffusion_pytorch_model.safetensors"


def test_weights_of_other_names_are_named(copied: Path) -> None:
    weights = load_file(copied / WEIGHTS_FILE)
    weights["intruder"] = weights.pop("proj_out.bias")
    save_file(weights, copied / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"missing proj_out\.bias; unexpected intruder"):
        load_part(SD3Transformer2DModel, copied, "transformer")


def test_weights_of_another_shape_are_named(copied: Path) -> None:
    weights = load_file(copied / WEIGHTS_FILE)
    weights["proj_out.bias"] = torch.zeros(3)
    save_file(weights, copied / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"proj_out\.bias expected shape .*\[16\].* got .*\[3\]"):
        load_part(SD3Transformer2DModel, copied, "transformer")


def test_a_broken_file_is_named(copied: Path) -> None:
    (copied / WEIGHTS_FILE).write_bytes(b"half of a download")
    with pytest.raises(InputError, match=WEIGHTS_FILE):
        load_part(SD3Transformer2DModel, copied, "transformer")
