"""The empty prompt as the transformer reads it: computed once, stored with every checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from focaldiffusion.models.presets import T5_TOKENS


class EmptyPrompt(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Embedding of an empty prompt by the text encoders; zeros for a model without them.

    The trainable projections of the transformer turn the zeros into one token and one vector.

    Attributes:
        prompt_embeds: (1, L, C).
        pooled: (1, P).
    """

    prompt_embeds: Tensor
    pooled: Tensor

    @register_to_config
    def __init__(self, tokens: int, channels: int, pooled_channels: int) -> None:
        super().__init__()
        self.register_buffer("prompt_embeds", torch.zeros(1, tokens, channels))
        self.register_buffer("pooled", torch.zeros(1, pooled_channels))

    @classmethod
    def from_text_encoders(
        cls, folder: Path, variant: str | None = None, device: torch.device | str = "cpu"
    ) -> EmptyPrompt:
        """Compute it with the three text encoders of a Stable Diffusion 3.5 folder.

        The encoders are loaded in bfloat16 (11 GB) and freed again. T5 reads `T5_TOKENS`.

        Args:
            folder: with the parts `hub.TEXT_ENCODERS`.
            variant: `model.variant`, such as fp16; None takes the plain files.
            device: to encode on.
        """
        with _quiet():
            from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
                StableDiffusion3Pipeline,
            )

            encoders: Any = StableDiffusion3Pipeline.from_pretrained(
                folder,
                transformer=None,
                vae=None,
                variant=variant,
                dtype=torch.bfloat16,
                use_safetensors=True,
                local_files_only=True,
            ).to(device)
        with torch.no_grad():
            prompt_embeds, _, pooled, _ = encoders.encode_prompt(
                prompt="",
                prompt_2="",
                prompt_3="",
                do_classifier_free_guidance=False,
                max_sequence_length=T5_TOKENS,
            )
        _, tokens, channels = prompt_embeds.shape
        prompt = cls(tokens, channels, pooled.shape[-1])
        prompt.prompt_embeds.copy_(prompt_embeds)
        prompt.pooled.copy_(pooled)
        return prompt

    def forward(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """The prompt for each sample, (B, L, C) and (B, P)."""
        return self.prompt_embeds.expand(batch_size, -1, -1), self.pooled.expand(batch_size, -1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of libraries, and their warnings of image processors without torchvision,
    inside the block."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    verbosity = of_transformers.get_verbosity()
    of_transformers.set_verbosity_error()
    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    try:
        yield
    finally:
        of_transformers.set_verbosity(verbosity)
        for library in (of_diffusers, of_transformers):
            library.enable_progress_bar()
