"""Base models of Stable Diffusion 3.5, in a folder or on the Hugging Face hub, and widened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from focaldiffusion.config.run import ModelConfig
from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.models.denoiser import realign_weights, widen
from focaldiffusion.models.presets import PRESETS, preset_of

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )
    from huggingface_hub.errors import HfHubHTTPError

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.prompt import EmptyPrompt

    Model = TypeVar("Model", bound=ModelMixin)

WEIGHTS = ("transformer", "vae", "scheduler")
"""Parts of a Stable Diffusion 3.5 folder that are adapted."""

TEXT_ENCODERS = (
    "model_index.json",
    "scheduler",
    "tokenizer",
    "tokenizer_2",
    "tokenizer_3",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
)
"""Parts that `EmptyPrompt.from_text_encoders` needs, once."""


def resolve_base(
    model_id: str,
    parts: Sequence[str] = WEIGHTS,
    variant: str | None = None,
    *,
    local_only: bool = False,
) -> Path:
    """The local folder of a base model: given, cached, or downloaded from the hub.

    Args:
        model_id: `model.base_model_id`: a local folder, or a hub id such as
            stabilityai/stable-diffusion-3.5-medium.
        parts: the required sub-folders and files.
        variant: `model.variant`, such as fp16; None takes the plain files.
        local_only: do not download.

    Raises:
        InputError: the folder, the model or a part is missing; the user is not logged in or has
            not accepted the licence; or the hub cannot be reached.
    """
    folder = Path(model_id)
    if not folder.is_dir():
        if not is_hub_id(model_id):
            raise InputError(
                f"{model_id}: no such folder. Give the folder of the base model, or its id on "
                "the hub, such as stabilityai/stable-diffusion-3.5-medium."
            )
        folder = _downloaded(model_id, parts, variant, local_only)
    missing = [part for part in dict.fromkeys(parts) if not (folder / part).exists()]
    if missing:
        raise InputError(
            f"{folder}: has no {', '.join(missing)}; expected Stable Diffusion 3.5 in the layout "
            "of diffusers, as `hf download` fetches it."
        )
    return folder


def weights_here(model_id: str | None, variant: str | None) -> list[Path]:
    """The files of weights of a base model that are on this machine; none without.

    Args:
        model_id: see `resolve_base`.
        variant: see `resolve_base`.
    """
    if model_id is None:
        return []
    try:
        folder = resolve_base(model_id, variant=variant, local_only=True)
    except InputError:
        return []
    # Plain files are named x.safetensors or x-00001-of-00002.safetensors.
    return [
        path
        for part in WEIGHTS
        for path in sorted((folder / part).glob("*.safetensors"))
        if (f".{variant}" in path.stem if variant else "." not in path.stem)
    ]


def check_access(model_id: str) -> None:
    """Ask the hub whether this login may download a model.

    Raises:
        InputError: it may not, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    with explained(model_id):
        HfApi().auth_check(model_id)


def load_part(
    kind: type[Model],
    folder: Path,
    part: str,
    variant: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Load one part from a folder of `resolve_base`, from safetensors only.

    Raises:
        InputError: the files are missing, or their weights do not fit the model.
    """
    wanted = f"weights of the variant {variant}" if variant else "weights"
    remedy = "Download the folder again, or give another."
    read_json(folder / part / "config.json", "cannot be read", remedy)
    with reading(
        folder / part, f"expected config.json and {wanted} in safetensors that fit it", remedy
    ):
        loaded: Any = kind.from_pretrained(
            folder,
            subfolder=part,
            variant=variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    model, report = loaded
    differences = [
        f"{what} {', '.join(sorted(report[f'{what}_keys'])[:3])}"
        for what in ("missing", "unexpected")
        if report[f"{what}_keys"]
    ]
    if differences:
        raise InputError(
            f"{folder / part}: the weights do not fit config.json ({'; '.join(differences)}). "
            "Download the folder again, or give another."
        )
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise InputError(f"{folder / part}: {name} is not finite everywhere. {remedy}")
    realign_weights(model)
    return model


def is_hub_id(text: str) -> bool:
    """Whether a text has the form owner/name of a hub id."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" in text


def _downloaded(model_id: str, parts: Sequence[str], variant: str | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    texts = ("*.json", "*.txt", "*.model")
    # A shard of a variant is named x.fp16-00001-of-00002.safetensors.
    weights = ("*.safetensors",) if variant is None else (f"*.{variant}*.safetensors",)
    with explained(model_id):
        folder = snapshot_download(
            model_id,
            allow_patterns=[f"{part}/{name}" for part in parts for name in texts + weights]
            + ["model_index.json"],
            ignore_patterns=["*.*.safetensors"] if variant is None else None,
            local_files_only=local_only,
        )
    return Path(folder)


@contextmanager
def explained(model_id: str) -> Iterator[None]:
    """Turn errors of the hub's client into one sentence with cause and remedy."""
    # HTTPError is the base class of the client's HTTP library, lost connections included.
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        reason = (
            _refusal(model_id, answer)
            if isinstance(answer, HfHubHTTPError)
            else _unreachable(model_id)
        )
        raise InputError(f"{reason} A local folder works too.") from error


def _refusal(model_id: str, answer: HfHubHTTPError) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = answer.response.status_code
    login = "Run `hf auth login` (formerly `huggingface-cli login`)"
    page = f"{constants.ENDPOINT}/{model_id}"
    gated = isinstance(answer, GatedRepoError)
    if isinstance(answer, RepositoryNotFoundError) and not gated:
        return (
            f"{model_id}: the hub has no such model, or it is private. Check the id; {login} "
            "if it is yours."
        )
    if status == 401:
        return (
            f"{model_id}: not logged in to the hub, or the token is no longer valid. "
            f"{login}, and accept the licence at {page}."
        )
    if gated or status == 403:
        return (
            f"{model_id}: you are logged in to the hub, but the licence is not accepted, or the "
            f"token may not read gated models. Accept the licence at {page}."
        )
    return f"{model_id}: the hub answered with error {status}. Try again later."


def _unreachable(model_id: str) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return f"{model_id}: HF_HUB_OFFLINE is set, so the hub cannot be reached. Unset it."
    return f"{model_id}: cannot reach the Hugging Face hub. Check the network."


def widened_base(
    model: ModelConfig,
    prompt: EmptyPrompt,
    *,
    base_model: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> FocalDiffusionPipeline:
    """A Stable Diffusion 3.5 model, widened: the start of training.

    Args:
        model: model configuration with a `base_model_id`.
        prompt: the empty prompt of that model.
        base_model: folder or hub id that replaces `base_model_id`.
        dtype: number format of all weights.

    Raises:
        InputError: the base model is unavailable, or of another kind.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.codecs import codec_of
    from focaldiffusion.models.conditioning import condition_channels

    base_model = base_model or model.base_model_id
    if base_model is None:
        raise ValueError("model.base_model_id is None: there is nothing to widen")
    folder = resolve_base(base_model, variant=model.variant)
    vae = load_part(AutoencoderKL, folder, "vae", model.variant, dtype)
    codec = codec_of(vae, None, model.depth_in_pixels)
    maps = condition_channels(codec.factor, keep_pixels=False, **model.shown)
    transformer = widen(
        load_part(SD3Transformer2DModel, folder, "transformer", model.variant, dtype),
        codec.channels + codec.depth_channels,
        codec.channels + maps,
        model.start,
    )
    return FocalDiffusionPipeline(
        transformer,
        prompt,
        load_scheduler(folder),
        vae,
        start=model.start,
        depth_code=model.depth_code,
        timestep=model.timestep,
        depth_in_pixels=model.depth_in_pixels,
        **model.shown,
    )


def is_same_base(one: str, other: str) -> bool:
    """Whether two folders or hub ids name the same base model, by its configuration."""
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    presets = {_preset_of_base(name) for name in (one, other)}
    return len(presets) == 1 and presets != {None}


def _preset_of_base(name: str) -> str | None:
    """Preset of the network of a base model, without a download; None if it has none."""
    config = Path(name) / "transformer" / "config.json"
    if config.is_file():
        network = read_json(config, "cannot be read", "Download the folder again.")
        return preset_of(network, patch_factor=None)
    return next((preset for preset, one in PRESETS.items() if one.base_model_id == name), None)


def load_scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    """Load the scheduler from a folder in diffusers' layout.

    Raises:
        InputError: it cannot be read.
    """
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    path, fault, remedy = folder / "scheduler", "cannot be read", "Get the folder again."
    read_json(path / "scheduler_config.json", fault, remedy)
    with reading(path, fault, remedy):
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder, subfolder="scheduler", local_files_only=True
        )
        if not bool(scheduler.sigmas.isfinite().all()):
            raise ValueError("its noise levels are not finite")
    return scheduler
