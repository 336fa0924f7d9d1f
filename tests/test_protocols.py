"""Protocols, each run on a tiny tree in its data set's native layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fixtures import (
    ddff12,
    diode,
    fod500,
    hammer,
    hci,
    ibims1,
    infinigen_defocus,
    nyuv2,
    rgbd,
    stacks,
    zedd,
)
from PIL import Image

from focaldiffusion.config.sources import FILELESS
from focaldiffusion.data.sets.ddff12 import focus_distances_m
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.baselines import open_model
from focaldiffusion.evaluation.protocol import OraclePlanes, Protocol, chosen_frames
from focaldiffusion.evaluation.protocols import PROTOCOLS, find_protocol
from focaldiffusion.evaluation.published import PUBLISHED
from focaldiffusion.evaluation.scoring import METRICS, score
from focaldiffusion.optics import Camera, linear_to_srgb
from focaldiffusion.scene import Scene

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evaluation.md"
SIZE = (24, 32)
"""Most trees are too small for the windows of a model, or of their published size."""


def write_diode(root: Path) -> None:
    diode.write(root)
    for path in root.rglob("*_depth.npy"):
        np.save(path, relief(*diode.SIZE)[..., None])


def write_hammer(root: Path) -> None:
    hammer.write(root)
    for path in root.rglob("_gt/*.png"):
        Image.fromarray((1000 * relief(*hammer.SIZE)).astype(np.uint16)).save(path)


def write_nyuv2(root: Path) -> None:
    nyuv2.write(root)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["depths"][:] = relief(*nyuv2.SIZE).T


def relief(height: int, width: int) -> np.ndarray:
    """Planes taken from a flat wall would coincide: 1 m at the left, 3 m at the right."""
    return np.broadcast_to(np.linspace(1, 3, width, dtype=np.float32), (height, width))


TREES: dict[str, Callable[[Path], None]] = {
    "rendered": lambda root: stacks.write(root / "room_0"),
    "rgbd": lambda root: rgbd.write(root / "midd_wall"),
    "examples": lambda root: stacks.write(root / "still_life"),
    "stacks": lambda root: stacks.write_together(root / "mine"),
    "zedd": zedd.write,
    "infinigen_defocus": infinigen_defocus.write,
    "ibims1": ibims1.write,
    "diode": write_diode,
    "hammer": write_hammer,
    "ddff12": ddff12.write,
    "nyuv2": write_nyuv2,
    "nyuv2_oracle": write_nyuv2,
    "fod500": fod500.write,
    "hci": hci.write,
}

FOCUS_M = {
    "rendered": stacks.FOCUS_M,
    "rgbd": (0.8, 1.7, 3.0, 4.7, 8.0),
    "examples": stacks.FOCUS_M,
    "stacks": stacks.FOCUS_M,
    "zedd": (0.82, 1.68, 3.06, 4.91, 8.10),
    "infinigen_defocus": (0.8, 1.7, 3.0, 4.7, 8.0),
    "ddff12": tuple(focus_distances_m()[[0, 2, 4, 6, 9]].tolist()),
    "nyuv2": (1.0, 1.5, 2.5, 4.0, 6.0),
    "fod500": (0.1, 0.15, 0.3, 0.7, 1.5),
}
"""Focus distances of the protocols whose planes do not depend on the sample."""


@pytest.mark.parametrize(
    "name", [name for name, one in PROTOCOLS.items() if one.dataset_type not in FILELESS]
)
def test_every_protocol_runs_from_native_files_to_figures(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path / "data")
    protocol = replace(PROTOCOLS[name], image_size=SIZE)
    dataset = protocol.open(tmp_path / "data")
    sample = protocol.sample(dataset, 0)
    assert sample.stack.size == SIZE
    assert sample.stack.focus_distances_m is not None
    if name in FOCUS_M:
        assert sample.stack.focus_distances_m.tolist() == pytest.approx(FOCUS_M[name])
    else:
        assert protocol.oracle
        assert len(sample.stack) == protocol.photography.planes.count
        truth_m = sample.depth_m[sample.valid]
        assert truth_m.min() <= sample.stack.focus_distances_m.min()
        assert truth_m.max() >= sample.stack.focus_distances_m.max() * 0.9999

    prediction = open_model("physics").predict(sample.stack, dataset.name(0))
    figures = score(sample, prediction, protocol.domain)
    assert {"abs_rel", "rmse", "delta_1.05", "delta_1.25", "coverage", "in_range"} <= set(figures)
    assert ("psnr" in figures) == (sample.all_in_focus is not None)
    assert ("disparity:mse" in figures) == (name == "ddff12")
    assert protocol.counts(dataset.name(0))


def test_procedural_scenes_need_no_files_and_are_focused_over_their_working_range() -> None:
    protocol = PROTOCOLS["procedural"]
    dataset = protocol.open(None)
    scene, sample = dataset[7], protocol.sample(dataset, 7)
    near_m, far_m = scene.focal_range_m
    focus_m = sample.stack.focus_distances_m
    assert focus_m[[0, -1]].tolist() == pytest.approx([near_m, far_m])
    assert (1 / focus_m).diff().diff().abs().max() < 1e-6
    assert not protocol.oracle
    assert len(protocol.indices(dataset, None)) == 48
    assert torch.equal(protocol.sample(dataset, 7).stack.images, sample.stack.images)


def test_other_protocols_need_a_folder() -> None:
    with pytest.raises(InputError, match=r"--data-root is missing: the folder of the data set sta"):
        PROTOCOLS["rendered"].open(None)


def rephotographed(protocol: Protocol, **changes: object) -> Protocol:
    return replace(protocol, photography=replace(protocol.photography, **changes))


def opened(name: str, root: Path, **changes: object) -> tuple[Protocol, object]:
    TREES[name](root)
    protocol = replace(PROTOCOLS[name], **changes)
    return protocol, protocol.open(root)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("zedd", [zedd.level(run, "F2.8") for run in (1, 3, 5, 7, 9)]),
        ("infinigen_defocus", [infinigen_defocus.level(k, 1.4) for k in (0, 2, 4, 6, 8)]),
        ("ddff12", [ddff12.level(k) for k in (0, 2, 4, 6, 9)]),
    ],
)
def test_the_published_frames_are_used(name: str, levels: list[int], tmp_path: Path) -> None:
    protocol, dataset = opened(name, tmp_path / "data", image_size=None)
    reds = 255 * linear_to_srgb(protocol.sample(dataset, 0).stack.images[:, 0, 0, 0])
    assert reds.tolist() == pytest.approx(levels, abs=1)


def test_rgbd_is_photographed_by_a_full_frame_lens_at_f_2_8(tmp_path: Path) -> None:
    protocol, dataset = opened("rgbd", tmp_path)
    camera = protocol.sample(dataset, 0).stack.camera
    assert camera is not None
    assert camera.image_size == rgbd.SIZE  # never enlarged
    focal_length_m = camera.focal_length_px * 0.036 / max(rgbd.SIZE)
    assert camera.aperture_diameter_m == pytest.approx(focal_length_m / 2.8)


def test_noise_repeats_for_a_sample_and_differs_between_samples(tmp_path: Path) -> None:
    rgbd.write(tmp_path / "midd_other")
    protocol, dataset = opened("rgbd", tmp_path)
    first, again, other = (protocol.sample(dataset, index) for index in (0, 0, 1))
    assert torch.equal(first.stack.images, again.stack.images)
    assert not torch.equal(first.stack.images, other.stack.images)
    clean = rephotographed(protocol, noise_std_lsb=0.0).sample(dataset, 0)
    noise = 255 * (linear_to_srgb(first.stack.images) - linear_to_srgb(clean.stack.images))
    assert noise.std().item() == pytest.approx(1, abs=0.15)


def test_variants_are_made_by_replacing_fields(tmp_path: Path) -> None:
    protocol, dataset = opened("rgbd", tmp_path)
    varied = rephotographed(protocol, planes=(1.0, 2.0)).sample(dataset, 0)
    assert varied.stack.focus_distances_m.tolist() == [1.0, 2.0]
    torch.testing.assert_close(
        varied.depth_m, protocol.sample(dataset, 0).depth_m, equal_nan=True, rtol=0, atol=0
    )


def test_only_clean_scenes_enter_the_mean_of_rgbd() -> None:
    names = ("icl_livingroom_1", "midd_piano", "d435_bottles", "cleargrasp_synth_0")
    assert [PROTOCOLS["rgbd"].counts(name) for name in names] == [True, True, False, False]
    assert PROTOCOLS["stacks"].counts("anything")


def test_truth_out_of_range_does_not_count(tmp_path: Path) -> None:
    protocol, dataset = opened("ibims1", tmp_path / "data", depth_range_m=(1.0, 3.0))
    with pytest.raises(InputError, match="hardly varies"):  # the far half is 5 m away
        protocol.sample(dataset, 0)
    valid = rephotographed(protocol, planes=(1.0, 2.0)).sample(dataset, 0).valid
    assert not valid[:, ibims1.SIZE[1] // 2 :].any()


@pytest.mark.parametrize("name", ["nyuv2", "nyuv2_oracle"])
def test_nyu_blur_is_that_of_the_published_lens(name: str, tmp_path: Path) -> None:
    protocol, dataset = opened(name, tmp_path)
    camera = protocol.sample(dataset, 0).stack.camera
    assert camera is not None
    assert camera.blur_scale_px_m == pytest.approx(0.05 / 8 * 0.05 / 12e-6, rel=1e-3)


def scene_of(depth_m: torch.Tensor) -> Scene:
    size = (1, len(depth_m))
    return Scene(
        torch.zeros(3, *size),
        depth_m[None],
        depth_m[None] > 0,
        Camera(100.0, 0.01, size),
        "wall",
    )


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (OraclePlanes(3, (0.0, 1.0)), [1.0, 1.6, 4.0]),  # 1, 0.625 and 0.25 dpt
        (OraclePlanes(3, (0.0, 1.0), "depth_m"), [1.0, 2.5, 4.0]),
        # The quantile 5/6 of 1, 2/3, 1/2, 1/4 dpt is halfway between the first two.
        (OraclePlanes(2, (1 / 6, 1.0)), [1.2, 4.0]),
        (OraclePlanes(2, (0.0, 0.5), "depth_m"), [1.0, 1.75]),
    ],
)
def test_oracle_planes_by_hand(planes: OraclePlanes, expected: list[float]) -> None:
    depth_m = torch.tensor([4.0, 1.0, 2.0, 1.5, -1.0])  # the last one is not valid
    assert planes.distances_m(scene_of(depth_m)) == pytest.approx(expected)


def test_planes_that_coincide_are_refused() -> None:
    message = r"wall: the true depth hardly varies \(2 to 2 m\).*Leave this sample out\."
    with pytest.raises(InputError, match=message):
        OraclePlanes(5, (0.05, 0.95)).distances_m(scene_of(torch.full((100,), 2.0)))


def test_a_frame_that_is_not_there_is_refused(tmp_path: Path) -> None:
    protocol, dataset = opened("rendered", tmp_path)
    stack = protocol.sample(dataset, 0).stack
    with pytest.raises(InputError, match="a stack of 3 frames has no frame 4"):
        chosen_frames(stack, (0, 4))


def test_an_unknown_protocol_names_the_nearest() -> None:
    assert find_protocol("zedd") is PROTOCOLS["zedd"]
    with pytest.raises(InputError, match=r"protocol 'ibims' is unknown; did you mean ibims1\?"):
        find_protocol("ibims")


def test_missing_data_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metadata\.txt.*huggingface\.co/datasets/venkatsubra"):
        PROTOCOLS["zedd"].open(tmp_path)


def test_published_rows_have_known_figures_and_the_protocols_mark() -> None:
    assert set(PUBLISHED) <= set(PROTOCOLS)
    for name, rows in PUBLISHED.items():
        for row in rows:
            assert set(row.figures) <= set(METRICS), row
            assert PROTOCOLS[name].oracle or not row.oracle, row
            # Only measurements on recorded frames can equal ours.
            assert row.differs or PROTOCOLS[name].photography is None, row


def test_the_page_says_what_is_fixed() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for protocol in PROTOCOLS.values():
        row = f"| `{protocol.name}` | " + " | ".join(protocol.settings().values()) + " |"
        assert row in page
        assert f"- `{protocol.name}`: {protocol.about}\n" in page
