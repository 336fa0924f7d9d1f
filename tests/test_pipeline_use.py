from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pipelines import (
    physical,
    quiet,
    slanted_plane,
    untrained,
)
from sample_stacks import SIZE, native, photograph, texture

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.errors import InputError
from focaldiffusion.io.results import strict_json
from focaldiffusion.models.prompt import EmptyPrompt
from focaldiffusion.models.sampling import Sampling
from focaldiffusion.progress import Stages
from focaldiffusion.stack import FocalStack

# Filling


@pytest.fixture(scope="module")
def unsharp() -> FocalStack:
    """Its left third lies at 4 dpt, 16 px of blur from the nearest focus."""
    inverse_depth_dpt = torch.ones(SIZE)
    inverse_depth_dpt[:, :32] = 4
    return photograph(texture(), 1 / inverse_depth_dpt)


def test_generated_pixels_fill_what_no_frame_shows_sharp_and_are_marked(unsharp):
    plain = untrained("tiny")(unsharp)
    filled = untrained("tiny")(unsharp, fill_unsharp=True)
    marked = filled.source_index == 255
    assert 0.1 < marked.mean() < 0.5
    assert filled.provenance["never_sharp_share"] > marked.mean()
    np.testing.assert_array_equal(filled.all_in_focus[~marked], plain.all_in_focus[~marked])
    np.testing.assert_array_equal(filled.source_index[~marked], plain.source_index[~marked])
    assert not (plain.source_index == 255).any()
    assert (filled.all_in_focus[marked] != plain.all_in_focus[marked]).mean() > 0.9


def test_a_grey_stack_is_filled_without_colour(unsharp):
    grey = replace(unsharp, images=unsharp.images.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    frames = native(grey)
    frames.is_grey = True
    filled = untrained("tiny")(replace(grey, frames=frames), fill_unsharp=True)
    assert (filled.source_index == 255).any()
    spread = np.ptp(filled.all_in_focus, axis=2)
    assert spread.max() < 1e-6


# A diffusers pipeline


def test_components_configuration_and_offloading():
    model = untrained()
    assert set(model.components) == {"denoiser", "prompt", "scheduler", "vae"}
    assert model.components["vae"] is None
    again = FocalDiffusionPipeline(**model.components, **model.parameters)
    assert again.config["patch_factor"] == 4
    assert set(model.model_cpu_offload_seq.split("->")) | {"scheduler"} == set(model.components)


def test_presets_are_drawn_from_their_seed_and_leave_the_global_generator():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    one, same, other = (
        FocalDiffusionPipeline.from_preset("tiny", "noise", seed).denoiser.proj_out.weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_provenance_is_json_and_enough_to_repeat():
    provenance = untrained("tiny", "noise")(
        slanted_plane(), sampling=Sampling(seed=3, ensemble=2, steps=2)
    ).provenance
    text = json.dumps(strict_json(provenance), allow_nan=False)
    provenance = json.loads(text)
    assert provenance["model"] == "tiny, random weights of seed 0"
    assert provenance["grade"] == "calibrated"
    generation = provenance["generation"]
    assert {name: generation[name] for name in ("start", "seed", "steps", "ensemble")} == {
        "start": "noise",
        "seed": 3,
        "steps": 2,
        "ensemble": 2,
    }


def test_progress_is_reported_pass_by_pass():
    stack, estimate = physical()
    seen: list[tuple[str, int, int]] = []

    untrained("tiny", "noise").refine(
        stack,
        estimate,
        Stages(lambda *call: seen.append(call)),
        sampling=Sampling(steps=2, ensemble=2),
    )
    passes = [("generating", done, 4) for done in (1, 2, 3, 4)]
    assert seen == [
        ("generating", 0, 1),
        *passes,
        ("generating", 1, 1),
        ("checking again", 0, 1),
        ("checking again", 1, 1),
    ]


def test_progress_uses_the_bars_of_diffusers(capsys):
    model = FocalDiffusionPipeline.from_preset("compact")
    model(slanted_plane())
    shown = capsys.readouterr().err
    assert "sweeping" in shown
    assert "generating: 100%" in shown


# Bad input


@pytest.mark.parametrize(
    ("start", "options", "message"),
    [
        ("estimate", {"steps": 4}, r"steps: got 4, .* in 1 step"),
        ("estimate", {"ensemble": 2}, r"ensemble: got 2, .* all be equal"),
        ("noise", {"steps": 0}, r"steps: got 0; expected at least 1"),
        ("noise", {"ensemble": 0}, r"ensemble: got 0; expected at least 1"),
        ("noise", {"tile_px": 15}, r"tile_px: got 15; expected 16 to 1536"),
        ("noise", {"tile_px": 2048}, r"tile_px: got 2048; expected 16 to 1536"),
    ],
)
def test_unsupported_options_are_refused(start, options, message):
    with pytest.raises(InputError, match=message):
        untrained("compact", start)(slanted_plane(), sampling=Sampling(**options))


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match=r"'huge' is unknown; expected sd35-medium"):
        FocalDiffusionPipeline.from_preset("huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_factor": 8}, "64 output channels; expected .* and 256 with this codec"),
        ({"patch_factor": None}, "vae is missing and patch_factor is None"),
        ({"start": "end"}, "start 'end' is unknown; expected estimate, noise"),
    ],
)
def test_parts_that_do_not_fit_each_other(change, message):
    model = untrained()
    with pytest.raises(InputError, match=message):
        FocalDiffusionPipeline(**model.components, **{**model.parameters, **change})


def test_a_prompt_of_another_transformer():
    parts = {**untrained("tiny").components, "prompt": EmptyPrompt(1, 8, 8)}
    with pytest.raises(InputError, match=r"has 8 channels, and 8 pooled; .* reads 48 and 24"):
        FocalDiffusionPipeline(**parts, **untrained("tiny").parameters)


def test_a_model_that_returns_nan_is_refused():
    model = quiet(FocalDiffusionPipeline.from_preset("tiny"))
    with torch.no_grad():
        model.denoiser.proj_out.bias.fill_(torch.nan)
    with pytest.raises(InputError, match=r"NaN or infinity in torch.float32"):
        model.refine(*physical())
