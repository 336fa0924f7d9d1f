"""Predicted memory and arithmetic, against a real run and against a count by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from torch.profiler import ProfilerActivity, profile

from focaldiffusion.config.run import TrainingConfig
from focaldiffusion.models.memory import (
    MemoryRow,
    _checkpoint,
    _let_train,
    _Work,
    memory_row,
    peak_bytes,
    training_bytes,
)
from focaldiffusion.models.presets import PRESETS

TINY = PRESETS["tiny"]
SIDE_PX = 256


def allocated_bytes(run: Callable[[], object]) -> int:
    """The most bytes that the CPU's allocator has given to `run` at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events = recorded.profiler.kineto_results.events()
    memory = sorted(
        (event for event in events if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    live = peak = 0
    for event in memory:
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def on_cpu(module: nn.Module) -> None:
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        nn.init.normal_(tensor, std=0.02)


def bytes_of(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def float32_work(name: str) -> _Work:
    """The work of a preset in float32, which every CPU is fast at."""
    work = _Work(PRESETS[name], (SIDE_PX, SIDE_PX))
    work.autoencoder = None
    work.model.float()
    work.inputs = {name: one.float() for name, one in work.inputs.items()}
    return work


@pytest.mark.parametrize("task", ["infer", "train", "train_checkpointed"])
@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_the_network_allocates_what_is_predicted(name: str, task: str) -> None:
    """Within 1 %, and of convolutions a copy of the widest input: CPUs reorder what they read."""
    predicted, real = float32_work(name), float32_work(name)
    if task != "infer" and name == "tiny":
        for work in (predicted, real):
            _let_train(work.network, TrainingConfig())
    if task == "train_checkpointed":
        predicted.network.enable_gradient_checkpointing(_checkpoint)
        real.network.enable_gradient_checkpointing()
    on_cpu(real.model)
    real.inputs = {name: torch.randn_like(one, device="cpu") for name, one in real.inputs.items()}
    run = "infer" if task == "infer" else "train"
    peak = peak_bytes(predicted.model, getattr(predicted, run)) - bytes_of(predicted.model)
    copied = real.inputs["hidden_states"].nbytes if name == "compact" else 0
    assert allocated_bytes(getattr(real, run)) == pytest.approx(peak, rel=0.01, abs=copied)


def test_the_autoencoder_allocates_what_is_predicted() -> None:
    """Encoding, within 1 %. Of decoding the CPU needs a quarter more, to reorder convolutions."""
    settings = {**PRESETS["sd35-medium"].autoencoder, "block_out_channels": (32, 64, 128, 128)}
    real = AutoencoderKL(**settings)
    with torch.device("meta"):
        predicted = AutoencoderKL(**settings)
        image = torch.empty(1, 3, SIDE_PX, SIDE_PX)
    image_on_cpu = torch.zeros(image.shape)
    with torch.no_grad():
        peak = peak_bytes(predicted, lambda: predicted.encode(image))
        allocated = allocated_bytes(lambda: real.encode(image_on_cpu))
    assert peak - bytes_of(predicted) == pytest.approx(allocated, rel=0.01)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_gradient_through_the_decoder_allocates_what_is_predicted(checkpointed: bool) -> None:
    """Within 1 %, and a copy of the widest map: CPUs reorder what a convolution reads."""
    widest = 32
    settings = {**PRESETS["sd35-medium"].autoencoder, "block_out_channels": (widest, 64, 128, 128)}
    real = AutoencoderKL(**settings).requires_grad_(False)
    cells = (1, 16, SIDE_PX // 8, SIDE_PX // 8)
    with torch.device("meta"):
        predicted = AutoencoderKL(**settings).requires_grad_(False)
        latents = torch.empty(cells, requires_grad=True)
    if checkpointed:
        predicted.enable_gradient_checkpointing(_checkpoint)
        real.enable_gradient_checkpointing()

    def run(model: AutoencoderKL, of: torch.Tensor) -> None:
        torch.autograd.backward([model.decode(of).sample.square().mean()])

    peak = peak_bytes(predicted, lambda: run(predicted, latents)) - bytes_of(predicted)
    latents_on_cpu = torch.zeros(cells, requires_grad=True)
    allocated = allocated_bytes(lambda: run(real, latents_on_cpu))
    copied = 4 * widest * SIDE_PX**2
    assert allocated == pytest.approx(peak + copied, rel=0.01)


@pytest.fixture(scope="module")
def row() -> MemoryRow:
    return memory_row("tiny", SIDE_PX)


def test_arithmetic_is_that_of_a_count_by_hand(row: MemoryRow) -> None:
    width, layers, tokens, text = 32, 3, (SIDE_PX // 16) ** 2, TINY.prompt_tokens
    # Queries, keys, values, output: 4 D². Feed forward: 2 · 4 D². Modulation, once: 6 D².
    block = 12 * width**2
    image = layers * (tokens * block + 6 * width**2)
    # The last layer takes only queries, keys and values of the text, and two modulations.
    written = (layers - 1) * (text * block + 6 * width**2)
    read = text * 3 * width**2 + 2 * width**2
    attention = layers * 2 * (tokens + text) ** 2 * width
    # The first layer attends to the image a second time, with three more modulations.
    dual = tokens * 4 * width**2 + 3 * width**2 + 2 * tokens**2 * width
    ends = tokens * width * 4 * (TINY.state_channels + TINY.condition_channels)
    ends += tokens * width * 4 * TINY.state_channels + 2 * width**2
    time_and_text = (256 + width) * width + (24 + width) * width + text * 48 * width
    by_hand = image + written + read + attention + dual + ends + time_and_text
    assert row.teraflop * 1e12 == pytest.approx(2 * by_hand, rel=1e-9)


def test_weights_are_all_that_is_saved_in_bfloat16(row: MemoryRow) -> None:
    position_embedding = 24**2 * 32
    assert row.weights_bytes == 2 * (row.parameters + position_embedding)


def network_peaks(side_px: int) -> list[int]:
    """Bytes beside the weights that the network alone needs to infer, to train, to train frugally.

    The autoencoder of the tiny model needs more than its network.
    """
    work = _Work(TINY, (side_px, side_px))
    work.autoencoder = None
    peaks = [peak_bytes(work.model, run) for run in (work.infer, work.train)]
    work.network.enable_gradient_checkpointing(_checkpoint)
    peaks.append(peak_bytes(work.model, work.train))
    return [peak - bytes_of(work.model) for peak in peaks]


def test_checkpointing_saves_memory_and_training_costs_most() -> None:
    inference, training, checkpointed = network_peaks(SIDE_PX)
    assert 0 < inference < checkpointed < training


def test_activations_grow_with_the_area_and_not_with_its_square() -> None:
    """Attention is fused: four times the tokens are not sixteen times the memory."""
    small, large = (network_peaks(side_px)[0] for side_px in (SIDE_PX // 2, SIDE_PX))
    assert large / small == pytest.approx(4, rel=0.05)


def documented(row: MemoryRow) -> str:
    """The row as docs/models.md has it."""
    sizes = (
        row.weights_bytes,
        row.inference_bytes,
        row.training_bytes,
        row.training_checkpointed_bytes,
    )
    gib = " | ".join(f"{size / 2**30:.2f} GiB" for size in sizes)
    return (
        f"| {row.preset} | {row.side_px} | {row.parameters / 1e6:.1f} M | {row.teraflop:.2f} | "
        f"{gib} |\n"
    )


def test_the_documented_table_is_what_comes_out() -> None:
    """For the compact preset, at both sizes; the large ones take long."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    for row in (memory_row("compact", side_px) for side_px in (512, 1024)):
        assert documented(row) in page


def test_the_autoencoder_counts_with_the_transformer() -> None:
    with torch.device("meta"):
        autoencoder = AutoencoderKL(**PRESETS["tiny"].autoencoder)
    work = _Work(PRESETS["tiny"], (64, 64))
    expected = bytes_of(autoencoder) // 2 + bytes_of(work.network)
    assert memory_row("tiny", 64).weights_bytes == expected


def test_training_is_priced_at_its_size_batch_and_formats() -> None:
    def need(size_px: tuple[int, int], stacks: int = 1, kind: str = "adamw", **more: object) -> int:
        defaults = {"tuning": "full", "mixed_precision": "bf16", "base_weights": "bfloat16"}
        training = TrainingConfig.model_validate({**defaults, **more})
        return training_bytes("tiny", size_px, stacks, training, kind)

    square = need((SIDE_PX, SIDE_PX))
    wide, two = (need((SIDE_PX // 2, SIDE_PX), stacks) for stacks in (1, 2))
    assert wide < two
    assert two == pytest.approx(square, rel=0.02)  # as many tokens; attention is fused
    assert need((SIDE_PX - 3, SIDE_PX)) == square  # padded
    lora = need((SIDE_PX, SIDE_PX), tuning="lora")
    assert lora < square == memory_row("tiny", SIDE_PX).training_bytes
    trained = sum(one.numel() for one in _Work(TINY, (64, 64)).network.parameters())
    assert square - need((SIDE_PX, SIDE_PX), kind="adamw_8bit") == 6 * trained
    assert need((SIDE_PX, SIDE_PX), use_ema=True) - square == 4 * trained
    frozen = memory_row("tiny", SIDE_PX).parameters - trained
    embedding = 24**2 * 32
    in_float32, coded_in_float32 = (
        need((SIDE_PX, SIDE_PX), **changes)
        for changes in ({"base_weights": "float32"}, {"autoencoder_weights": "float32"})
    )
    assert in_float32 - coded_in_float32 == 2 * embedding  # with all others trained
    assert coded_in_float32 - square > 2 * frozen  # and activations


def test_each_decoded_plane_is_priced() -> None:
    training = TrainingConfig(tuning="full", mixed_precision="bf16", base_weights="bfloat16")
    none, one, two = (
        training_bytes("tiny", (SIDE_PX, SIDE_PX), 1, training, "adamw", decoded)
        for decoded in range(3)
    )
    assert none < one < two


def test_depth_in_pixels_needs_no_decoder() -> None:
    """A step that decodes nothing is priced without, in spite of more channels of the state."""
    training = TrainingConfig(tuning="full", mixed_precision="bf16", base_weights="bfloat16")
    size_px = SIDE_PX, SIDE_PX
    in_latents = training_bytes("tiny", size_px, 1, training, "adamw", 1)
    in_pixels, with_image = (
        training_bytes("tiny", size_px, 1, training, "adamw", decoded, depth_in_pixels=True)
        for decoded in (0, 1)
    )
    assert in_pixels < min(in_latents, with_image)
