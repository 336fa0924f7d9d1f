"""Depth networks as priors: every family from its folder, its scale, and what is refused."""

from __future__ import annotations

import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import TOLERANCE
from depth_networks import METRES, change_json, save_constant, save_marigold, save_network
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import pipeline

from focaldiffusion.errors import InputError
from focaldiffusion.prior import Prior, PriorKind, PriorSource
from focaldiffusion.priors.scales import Scale, settled
from focaldiffusion.priors.shelf import find_prior, load_prior

EXACT = TOLERANCE[torch.float32]
SIZE = (45, 60)

with_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="these families need torchvision"
)
PLAIN = ("depth_anything relative", "depth_anything metric", "dpt", "glpn")
OF_TORCHVISION = ("zoedepth", "depth_pro", "tipsv2_dpt")
UNSTATED = ("prompt_depth_anything", "dpt on dinov2")


def picture(size: tuple[int, int] = SIZE) -> Tensor:
    """A picture (3, H, W) of 8-bit values, brighter to the right and to the bottom."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(3, *size, generator=generator)
    ramp = torch.linspace(0, 1, size[1]) * torch.linspace(0.5, 1, size[0])[:, None]
    return (noise * ramp * 255).round() / 255


def loaded(folder: Path, kind: str | None = None) -> PriorSource:
    return load_prior(folder, kind=kind, device="cpu")


@pytest.mark.parametrize(
    "name", [*PLAIN, *(pytest.param(name, marks=with_torchvision) for name in OF_TORCHVISION)]
)
def test_a_network_gives_what_the_pipeline_of_transformers_gives(name: str, tmp_path: Path) -> None:
    folder = save_network(name, tmp_path)
    image = picture()
    found = loaded(folder)(image)
    assert found.size == SIZE
    assert found.name == str(folder)
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    theirs = pipeline("depth-estimation", model=str(folder), device="cpu")(Image.fromarray(pixels))
    expected = theirs["predicted_depth"]
    assert tuple(expected.shape) == SIZE
    # Ours ends where the network's values do; theirs overshoots by cubic interpolation.
    lowest, highest = found.values.min(), found.values.max()
    assert highest > lowest
    span = float(highest - lowest)
    assert torch.allclose(found.values / span, expected.clamp(lowest, highest) / span, **EXACT)


METRIC, DEPTH, INVERSE = PriorKind
HALF_RIGHT_ANGLE = math.radians(45)


@pytest.mark.parametrize(
    ("name", "last_layer", "value", "kind"),
    [
        ("depth_anything relative", 0.7, 0.7, INVERSE),
        ("depth_anything metric", 0.0, 20 * 0.5, METRIC),  # max_depth times the sigmoid of 0
        ("dpt", 0.7, 0.7, INVERSE),
        ("glpn", 0.0, 20 * 0.5, METRIC),
        pytest.param(
            "depth_pro",
            0.25,
            1 / (0.25 * 2 * math.tan(HALF_RIGHT_ANGLE)),  # its view is 90 degrees wide
            METRIC,
            marks=with_torchvision,
        ),
        pytest.param("depth_pro without view", 0.25, 1 / 0.25, DEPTH, marks=with_torchvision),
    ],
)
def test_numbers_mean_what_the_kind_says(
    name: str, last_layer: float, value: float, kind: PriorKind, tmp_path: Path
) -> None:
    found = loaded(save_constant(name, tmp_path, last_layer))(picture())
    assert found.kind is kind
    assert torch.allclose(found.values, torch.full(SIZE, value), **EXACT)


@with_torchvision
@pytest.mark.parametrize("name", ["zoedepth", "tipsv2_dpt"])
def test_bins_are_metres(name: str, tmp_path: Path) -> None:
    found = loaded(save_network(name, tmp_path))(picture())
    assert found.kind is METRIC
    assert float((found.values - METRES).abs().max()) <= 0.01  # all bins lie within


@pytest.mark.parametrize(("prediction", "kind"), [("depth", DEPTH), ("disparity", INVERSE)])
def test_marigold(prediction: str, kind: PriorKind, tmp_path: Path) -> None:
    folder = save_marigold(tmp_path, prediction, value=0.5)
    found = loaded(folder)(picture())
    assert found.kind is kind
    # From [-1, 1] to [0, 1].
    assert torch.allclose(found.values, torch.full(SIZE, 0.75), **EXACT)


def test_marigold_repeats_itself(tmp_path: Path) -> None:
    source = loaded(save_marigold(tmp_path))
    first = source(picture())
    assert torch.equal(first.values, source(picture()).values)
    assert float(first.values.std()) > 0


def test_a_large_picture_reaches_glpn_at_the_size_of_its_training(tmp_path: Path) -> None:
    source = loaded(save_network("glpn", tmp_path))
    seen: list[tuple[int, ...]] = []
    source.model.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda module, args, kwargs: seen.append(tuple(kwargs["pixel_values"].shape)),
        with_kwargs=True,
    )
    assert source(picture((960, 1280))).size == (960, 1280)
    assert seen == [(1, 3, 480, 640)]


@pytest.mark.parametrize("name", UNSTATED)
def test_a_scale_that_is_not_stated_is_asked_for(name: str, tmp_path: Path) -> None:
    folder = save_network(name, tmp_path)
    with pytest.raises(
        InputError, match=r"leaves open .* Give its kind with --prior-kind .*metric"
    ):
        find_prior(str(folder))
    assert loaded(folder, kind="metric-depth")(picture()).kind is METRIC


def test_a_kind_that_contradicts_the_configuration_is_refused(tmp_path: Path) -> None:
    folder = save_network("depth_anything relative", tmp_path)
    with pytest.raises(
        InputError, match="has depth_estimation_type: relative, which is affine-inv"
    ):
        find_prior(str(folder), METRIC)


@pytest.mark.parametrize(
    ("scale", "given", "kind"),
    [
        (Scale(METRIC, "stated"), DEPTH, DEPTH),  # metres are affine depth too
        (Scale(INVERSE), METRIC, METRIC),  # usual for the family, but not stated
        (Scale(None, "stated"), INVERSE, INVERSE),
        (Scale(METRIC, "stated"), METRIC, METRIC),
    ],
)
def test_a_given_kind(scale: Scale, given: PriorKind, kind: PriorKind) -> None:
    assert settled("it", scale, given) is kind


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(InputError, match=r"'disparity' is unknown.*metric-depth"):
        load_prior("x.npy", kind="disparity")


def refused(name: object) -> str:
    with pytest.raises(InputError) as error:
        load_prior(str(name), device="cpu")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert "holds no config.json of transformers and no model_index.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "config.json describes bert; expected a depth network: " in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "describes no model of transformers" in refused(tmp_path)
    (tmp_path / "config.json").write_text("nonsense")
    assert "config.json: cannot be read" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "chmv2"}')
    assert "estimates the height of trees seen from the air, not depth" in refused(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    assert "describes StableDiffusion3Pipeline; expected MarigoldDepthPipeline" in refused(tmp_path)


def test_our_own_checkpoint_belongs_to_another_flag(tmp_path: Path) -> None:
    (tmp_path / "focaldiffusion.json").write_text("{}")
    assert "is a checkpoint of this program. Give it to --model" in refused(tmp_path)


@pytest.mark.parametrize("name", ["no-such-folder", "./no/such/folder", "depth"])
def test_what_is_nowhere(name: str) -> None:
    assert refused(name).startswith(f"{name}: no such file or folder, and not an id on the hub")


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "depth_pro", "use_fov_model": true}')
    assert "depth_pro needs the package torchvision" in refused(tmp_path)


def test_weights_of_another_task_are_refused(tmp_path: Path) -> None:
    folder = save_network("dpt", tmp_path)
    weights = load_file(folder / "model.safetensors")
    without_head = {name: one for name, one in weights.items() if not name.startswith("head")}
    save_file(without_head, folder / "model.safetensors", {"format": "pt"})
    assert "the weights lack head.head.0.bias" in refused(folder)


def test_weights_that_no_forward_pass_uses_may_be_absent(tmp_path: Path) -> None:
    folder = save_network("dpt", tmp_path)
    before = loaded(folder)(picture())
    weights = load_file(folder / "model.safetensors")
    used = {name: one for name, one in weights.items() if "layers.0.residual_layer1" not in name}
    assert len(used) < len(weights)
    save_file(used, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(loaded(folder)(picture()).values, before.values)


def test_damaged_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_network("dpt", tmp_path / "dpt")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])
    assert "weights in safetensors" in refused(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert "weights in safetensors" in refused(folder)


def test_a_marigold_without_its_steps_or_parts_is_refused(tmp_path: Path) -> None:
    folder = save_marigold(tmp_path / "marigold")
    shutil.rmtree(folder / "unet")
    assert "expected MarigoldDepthPipeline of diffusers" in refused(folder)
    change_json(folder / "model_index.json", default_denoising_steps=None)
    assert "has no default_denoising_steps" in refused(folder)


def test_a_prior_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"^it: the prior holds no depth anywhere; expected a pos"):
        Prior(torch.zeros(2, 2), METRIC, "it").checked()
    values = torch.tensor([[0.0, torch.inf], [-1.0, torch.nan]])
    found = Prior(values, DEPTH, "it").values
    assert found.isnan().tolist() == [[False, True], [False, True]]
