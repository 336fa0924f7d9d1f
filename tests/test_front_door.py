"""The public API of `import focaldiffusion as fd`, on files and on arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plant import CAMERA, DISTANCES, FRAMES, SIZE

import focaldiffusion as fd

STILL = fd.Settings(align="off", device="cpu")
LENS = fd.LensFacts(**CAMERA)


def frames_of(stack: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(stack / name)) for name in FRAMES]


def test_a_folder_gives_numpy_arrays_and_a_folder_of_results(stack: Path, tmp_path: Path) -> None:
    result = fd.reconstruct(stack, settings=STILL)
    assert result.grade is fd.Grade.CALIBRATED
    for plane in (result.depth_m, result.confidence):
        assert plane.dtype == np.float32
        assert plane.shape == SIZE
    assert result.all_in_focus.shape == (*SIZE, 3)
    assert result.all_in_focus.dtype == np.float32
    assert result.source_index.dtype == np.uint8
    assert result.alignment.is_identity
    assert result.save(tmp_path / "out") == {}
    np.testing.assert_array_equal(np.load(tmp_path / "out/depth.npy"), result.depth_m)
    assert Image.open(tmp_path / "out/overview.png").size == result.overview().shape[1::-1]
    assert result._repr_png_().startswith(b"\x89PNG")
    assert repr(result).startswith("<Result plant: calibrated, 96x64 px, depth 0.4")


def test_arrays_give_the_same_result_as_their_files(stack: Path) -> None:
    expected = fd.reconstruct(stack, settings=STILL)
    frames = frames_of(stack)
    for source in (
        frames,
        np.stack(frames),
        torch.from_numpy(np.stack(frames)),
        [frame.astype(np.float32) / 255 for frame in frames],
        [frame.astype(np.uint16) * 257 for frame in frames],
    ):
        result = fd.reconstruct(source, focus_distances_m=DISTANCES, lens=LENS, settings=STILL)
        np.testing.assert_array_equal(result.depth_m, expected.depth_m)
        # 16-bit frames are not rounded to 8 bits.
        np.testing.assert_allclose(result.all_in_focus, expected.all_in_focus, atol=0.51 / 255)


def test_grey_arrays_are_saved_as_grey(stack: Path, tmp_path: Path) -> None:
    grey = [frame.mean(axis=2).round().astype(np.uint8) for frame in frames_of(stack)]
    result = fd.reconstruct(grey, settings=STILL)
    assert result.grade is fd.Grade.ORDER
    result.save(tmp_path / "out", point_cloud="off")
    assert Image.open(tmp_path / "out/all_in_focus.png").mode == "L"


def test_a_stack_in_memory_is_reconstructed_like_its_file(stack: Path) -> None:
    expected = fd.reconstruct(stack, settings=STILL)
    result = fd.reconstruct(expected.stack, settings=STILL)
    np.testing.assert_array_equal(result.depth_m, expected.depth_m)
    assert result.camera == expected.camera


def test_python_records_what_the_command_records(stack: Path) -> None:
    result = fd.reconstruct(fd.open_stack(stack), model="compact", settings=STILL)
    generation = result.provenance["generation"]
    assert len(generation["checkpoint"]["sha256"]) == 64
    assert result.provenance["device"] == "cpu"
    assert {"aligning", "reading", "sweeping", "generating"} <= set(result.provenance["seconds"])
    same = fd.reconstruct(stack, model=fd.load_model("compact", device="cpu"), settings=STILL)
    np.testing.assert_array_equal(same.depth_m, result.depth_m)
    assert same.provenance["generation"] == generation


def scene() -> tuple[np.ndarray, np.ndarray, fd.Camera]:
    image = np.random.default_rng(0).random((*SIZE, 3), np.float32)
    depth_m = np.linspace(DISTANCES[0], DISTANCES[-1], SIZE[1], dtype=np.float32)
    return image, np.broadcast_to(depth_m, SIZE).copy(), fd.Camera(**CAMERA, image_size=SIZE)


def test_simulated_stacks_are_reconstructed() -> None:
    image, depth_m, camera = scene()
    stack = fd.simulate(image, depth_m, camera=camera, focus_distances_m=DISTANCES)
    result = fd.reconstruct(stack, settings=STILL)
    # Half a pixel of blur at 1 dpt.
    assert np.median(np.abs(1 / result.depth_m - 1 / depth_m)) * camera.blur_scale_px_m < 0.5


def test_refocusing_is_sharp_at_its_distance_and_follows_the_aperture(stack: Path) -> None:
    result = fd.reconstruct(stack, settings=STILL)

    def detail(picture: np.ndarray) -> float:
        near = picture[:, : SIZE[1] // 4]  # the plane goes from near to far
        return float(np.abs(np.diff(near, axis=0)).mean())

    sharp, blurred = (fd.refocus(result, distance_m) for distance_m in (0.42, 1.5))
    assert sharp.shape == (*SIZE, 3)
    assert detail(sharp) > 1.5 * detail(blurred)
    stopped_down = fd.refocus(result, 1.5, aperture_diameter_m=1e-4)
    np.testing.assert_allclose(stopped_down, result.all_in_focus, atol=0.02)
    with pytest.raises(fd.InputError, match="focal length in metres is unknown"):
        fd.refocus(result, 1.5, 2.8)


def test_an_f_number_needs_the_focal_length_in_metres(stack: Path) -> None:
    (stack / "stack.json").unlink()
    lens = fd.LensFacts(focal_length_m=0.05, f_number=2.0, pixel_pitch_m=4e-4)
    result = fd.reconstruct(stack, focus_distances_m=DISTANCES, lens=lens, settings=STILL)
    wide, same = fd.refocus(result, 0.5, 1.0), fd.refocus(result, 0.5, 2.0)
    np.testing.assert_allclose(same, fd.refocus(result, 0.5), atol=1e-5)
    assert np.abs(wide - same).mean() > 1e-3


def test_results_never_go_among_the_frames(stack: Path) -> None:
    with pytest.raises(fd.InputError, match="holds the frames of the stack"):
        fd.reconstruct(stack, settings=STILL).save(stack)


@pytest.mark.parametrize("kept", [slice(0, 3), slice(1, 3)])
def test_heights_grow_with_the_listed_positions_also_where_a_frame_is_left_out(kept) -> None:
    positions_m = torch.tensor([0.0, 2e-3, 1e-3])[kept]
    images = torch.rand(len(positions_m), 3, *SIZE, generator=torch.Generator().manual_seed(0))
    stack = fd.FocalStack(
        images, focus_positions_m=positions_m, height_origin_m=0.0, height_sign=1.0
    )
    height_m = fd.reconstruct(stack, settings=STILL).height_m
    assert height_m.min() >= -1e-6
    assert height_m.max() <= 2e-3 + 1e-6


def test_simulated_stacks_of_16_bits_are_saved_with_16_bits(tmp_path: Path) -> None:
    image, depth_m, camera = scene()
    stack = fd.simulate(
        image, depth_m, camera=camera, focus_distances_m=np.array(DISTANCES), bit_depth=16
    )
    assert repr(stack) == "<FocalStack: 3 frames of 96x64 px on the axis inverse_depth_dpt>"
    result = fd.reconstruct(stack, settings=STILL)
    result.save(tmp_path / "out", point_cloud="off")
    assert (tmp_path / "out/all_in_focus.png").read_bytes()[24] == 16
    # An aperture needs no focal length in metres.
    assert fd.refocus(result, 0.5, aperture_diameter_m=0.01).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: fd.reconstruct(None), "stack: got NoneType; expected a folder"),
        (lambda s: fd.reconstruct(s.glob("*.png")), "stack: got .*; expected a folder"),
        (lambda s: fd.reconstruct(set(s.glob("*.png"))), "stack: got set; expected a folder"),
        (lambda s: fd.reconstruct(""), "the path is empty"),
        (lambda s: fd.reconstruct([]), "no files given"),
        (lambda s: fd.reconstruct([s / FRAMES[0], np.zeros((4, 4))]), "frame 1: a .*Path; expect"),
        (lambda s: fd.reconstruct(np.zeros((64, 96, 3))), "one image; a focal stack needs"),
        (lambda s: fd.reconstruct(np.zeros((3, 64, 96, 4), np.uint8)), "alpha channel out"),
        (lambda s: fd.reconstruct(s, focus_distances_m="0.3,0.5"), "expected a list of one number"),
        (lambda s: fd.reconstruct(s, focus_distances_m={0.3, 0.5, 2}), "expected a list of one"),
        (lambda s: fd.reconstruct(s, focus_distances_m=[0.3, None, 2]), "expected a list of one"),
        (
            lambda s: fd.reconstruct(s, focus_distances_m=torch.tensor([1.0, 1.0, 2.0])),
            "1.0 appears more than once",
        ),
        (lambda s: fd.reconstruct(s, lens=scene()[2]), "lens: got Camera; expected LensFacts"),
        (lambda s: fd.reconstruct(s, settings={}), "settings: got dict; expected Settings"),
        (lambda s: fd.reconstruct(s, model=None), "model: got NoneType; expected a name"),
        (lambda s: fd.reconstruct(s, model="phisics"), "did you mean physics"),
        (
            lambda s: fd.reconstruct(s, settings=fd.Settings(sampling=fd.Sampling(steps=4))),
            "sampling: no effect with the model physics",
        ),
        (lambda s: fd.Settings(align="maybe"), "Settings.align: 'maybe' is unknown"),
        (lambda s: fd.Settings(working_size="64"), "Settings.working_size: got '64'"),
        (
            lambda s: fd.reconstruct(s, model="compact", settings=fd.Settings(image_only=True)),
            "image_only: no effect of a model",
        ),
        (lambda s: fd.Settings(threads=0), "Settings.threads: got 0; expected a number of threads"),
        (lambda s: fd.Settings(psf="disc"), "Settings.psf: got str; expected a PSF"),
        (
            lambda s: fd.reconstruct(s, settings=fd.Settings(device="gpu")),
            "device gpu: torch cannot compute there",
        ),
        (lambda s: fd.LensFacts(focal_length_m="50mm"), "focal_length_m is '50mm'; expected"),
        (lambda s: fd.Camera("1", 0.1, SIZE), "focal_length_px is '1'; expected a positive"),
        (lambda s: fd.FocalStack(torch.zeros(3, 64, 96, 3)), "expected a tensor"),
        (lambda s: fd.FocalStack(torch.zeros(3, 3, 64, 96).byte()), "expected float32"),
        (
            lambda s: fd.FocalStack(torch.zeros(3, 3, 64, 96), focus_distances_m=[1, 2]),
            "2 values for 3 frames",
        ),
        (
            lambda s: fd.FocalStack(torch.zeros(3, 3, 64, 96), fd.Camera(1, 1, (9, 9))),
            "FocalStack.camera: of images of",
        ),
        (lambda s: fd.reconstruct(fd.FocalStack(torch.full((3, 3, 64, 96), 2.0))), "not all in"),
        (
            lambda s: fd.simulate(*scene()[:2], camera=LENS, focus_distances_m=DISTANCES),
            "camera: got LensFacts; expected a Camera",
        ),
        (
            lambda s: fd.simulate(*scene()[:2], camera=scene()[2], focus_distances_m=["a"]),
            "focus_distances_m: got .*; expected a list of one number",
        ),
        (
            lambda s: fd.simulate(
                *scene()[:2], camera=scene()[2], focus_distances_m=DISTANCES, noise_std_lsb=-1
            ),
            "expected noise from 0 on",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(stack: Path, call, message: str) -> None:
    with pytest.raises(fd.InputError, match=message):
        call(stack)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frames: frames[:1], "1 frame; a focal stack needs at least 2"),
        (lambda frames: [frames[0], frames[1][:-1]], r"frame 2: uint8 of shape .* but frame 1"),
        (lambda frames: [f.transpose(2, 0, 1) for f in frames], r"Channels go last: use permute"),
        (
            lambda frames: [f.astype(np.float32) for f in frames],
            r"floats from .*; expected \[0, 1\]",
        ),
        (lambda frames: [f.astype(np.int64) for f in frames], "array of int64; expected uint8"),
        (lambda frames: [np.full(SIZE, np.nan) for _ in frames], "floats from nan to nan"),
    ],
)
def test_unusable_arrays_are_refused(stack: Path, change, message: str) -> None:
    with pytest.raises(fd.InputError, match=message):
        fd.reconstruct(change(frames_of(stack)), settings=STILL)


def test_arguments_without_effect_are_refused(stack: Path) -> None:
    opened = fd.open_stack(stack)
    with pytest.raises(fd.InputError, match="focus_distances_m: no effect on a OpenedStack"):
        fd.reconstruct(opened, focus_distances_m=DISTANCES)
    with pytest.raises(fd.InputError, match="fill_unsharp: needs a model"):
        fd.reconstruct(opened, settings=fd.Settings(fill_unsharp=True))
    with pytest.raises(fd.InputError, match="2 values for 3 frames"):
        fd.reconstruct(stack, focus_distances_m=DISTANCES[:2])


def test_names_are_listed_for_newcomers() -> None:
    assert dir(fd) == sorted(fd.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'reconstrct'"):
        _ = fd.reconstrct


def test_metadata_are_json(stack: Path, tmp_path: Path) -> None:
    fd.reconstruct(stack, settings=STILL).save(tmp_path / "out")
    metadata = json.loads((tmp_path / "out/metadata.json").read_text())
    assert metadata["grade"] == "calibrated"
    assert metadata["origins"]["focus_distances_m"] == "stack.json"
