"""The empty prompt: what the text encoders of a folder say, computed once."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from miniature import CLIP_WIDTHS, T5_WIDTH, text_encoders
from torch import Tensor
from transformers import T5EncoderModel

from focaldiffusion.models.prompt import EmptyPrompt


@pytest.fixture(scope="module")
def encoders() -> StableDiffusion3Pipeline:
    return text_encoders()


@pytest.fixture(scope="module")
def folder(encoders: StableDiffusion3Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd35")
    encoders.save_pretrained(folder)
    return folder


def clip_embeddings(encoders: StableDiffusion3Pipeline, suffix: str) -> tuple[Tensor, Tensor]:
    """The last hidden state but one, (1, 77, C), and the pooled vector, (1, C)."""
    begin, end = 0, 1
    tokens = torch.tensor([[begin] + 76 * [end]])
    with torch.no_grad():
        said = getattr(encoders, f"text_encoder{suffix}")(tokens, output_hidden_states=True)
    return said.hidden_states[-2], said[0]


def test_it_is_what_the_three_encoders_say(
    encoders: StableDiffusion3Pipeline, folder: Path
) -> None:
    (first, first_pooled), (second, second_pooled) = (
        clip_embeddings(encoders, suffix) for suffix in ("", "_2")
    )
    pad, end = 0, 1
    with torch.no_grad():
        third = encoders.text_encoder_3(torch.tensor([[end] + 76 * [pad]]))[0]

    prompt = EmptyPrompt.from_text_encoders(folder)
    assert prompt.prompt_embeds.shape == (1, 77 + 77, T5_WIDTH)
    clips, t5 = prompt.prompt_embeds.split(77, dim=1)
    said_by_first, said_by_second, padding = clips.split(
        [*CLIP_WIDTHS, T5_WIDTH - sum(CLIP_WIDTHS)], dim=2
    )
    assert torch.equal(said_by_first, first.float())
    assert torch.equal(said_by_second, second.float())
    assert padding.eq(0).all()
    assert torch.equal(t5, third.float())
    assert torch.equal(prompt.pooled, torch.cat([first_pooled, second_pooled], dim=1).float())
    assert t5.std() > 0


def test_the_encoders_are_freed(folder: Path) -> None:
    def encoders_alive() -> int:
        gc.collect()
        return sum(type(one) is T5EncoderModel for one in gc.get_objects())

    before = encoders_alive()
    EmptyPrompt.from_text_encoders(folder)
    assert encoders_alive() == before


def test_saved_and_loaded_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    prompt = EmptyPrompt.from_text_encoders(folder)
    prompt.save_pretrained(tmp_path)
    loaded, report = EmptyPrompt.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(loaded.prompt_embeds, prompt.prompt_embeds)
    assert torch.equal(loaded.pooled, prompt.pooled)


def test_every_sample_has_it_in_the_dtype_of_the_model() -> None:
    prompt = EmptyPrompt(tokens=5, channels=T5_WIDTH, pooled_channels=24).bfloat16()
    prompt.prompt_embeds += torch.arange(T5_WIDTH)
    embeds, pooled = prompt(3)
    assert embeds.shape == (3, 5, T5_WIDTH)
    assert pooled.shape == (3, 24)
    assert embeds.dtype == pooled.dtype == prompt.dtype == torch.bfloat16
    assert torch.equal(embeds[2, 4], torch.arange(T5_WIDTH).bfloat16())
    assert pooled.eq(0).all(), "a model that never saw text has zeros"
