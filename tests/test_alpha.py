"""Alpha is validity: what a transparent pixel proves, from the file to the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from sample_stacks import FOCUS_M, SIZE, Frames, photograph, texture

import focaldiffusion as fd
from focaldiffusion.align.registration import find_alignment
from focaldiffusion.errors import InputError
from focaldiffusion.frames import alpha_of
from focaldiffusion.fusion.fuse import fuse
from focaldiffusion.io.images import read_alpha, read_image
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

BORDER = 10
RGBA = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
RGBA[..., 3] = 255
RGBA[1, 2:4, 3] = 0
DEPTH_M = torch.full(SIZE, 0.8)
DEPTH_M[:, SIZE[1] // 2 :] = 1.4
ALPHA = (RGBA[..., 3] / 255).astype(np.float32)


def frames_8bit() -> NDArray[np.uint8]:
    """(N, H, W, 3) of a plane at 0.8 m in front of one at 1.4 m."""
    stack = photograph(texture(contrast=0.8), DEPTH_M)
    encoded = linear_to_srgb(stack.images).permute(0, 2, 3, 1)
    return (encoded * 255).round().to(torch.uint8).numpy()


def folder_of(folder: Path, frames: NDArray[np.uint8], alpha: NDArray[Any] | None) -> Path:
    """Frames as PNG files, black where their alpha (N, H, W) is 0, with their `stack.json`."""
    folder.mkdir()
    for index, frame in enumerate(frames):
        if alpha is not None:
            seen = (alpha[index] > 0)[..., None]
            frame = np.dstack([frame * seen, alpha[index].astype(np.uint8)])
        Image.fromarray(frame).save(folder / f"{index}.png")
    camera = {"focal_length_px": 1000.0, "aperture_diameter_m": 0.008}
    sidecar = {"focus_distances_m": FOCUS_M, "camera": camera}
    (folder / "stack.json").write_text(json.dumps(sidecar))
    return folder


class TestReading:
    @pytest.mark.parametrize("kind", ["rgba", "webp", "rgba16", "tiff", "premultiplied", "tiff16"])
    def test_colour(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "a"
        deep = RGBA.astype(np.uint16) * 257
        if kind == "rgba":
            Image.fromarray(RGBA).save(path, "PNG")
        elif kind == "webp":
            Image.fromarray(RGBA).save(path, "WEBP", lossless=True, exact=True)
        elif kind == "rgba16":
            path.write_bytes(imagecodecs.png_encode(deep))
        else:
            extra = "assocalpha" if kind == "premultiplied" else "unassalpha"
            data = deep if kind == "tiff16" else RGBA
            tifffile.imwrite(path, data, photometric="rgb", extrasamples=[extra])
        np.testing.assert_array_equal(read_alpha(path), ALPHA)
        seen = ALPHA == 1
        expected = RGBA[..., :3].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(read_image(path)[seen], expected[seen])

    @pytest.mark.parametrize("mode", ["LA", "L", "P", "RGB"])
    def test_grey_palettes_and_colour_keys(self, tmp_path: Path, mode: str) -> None:
        path, options = tmp_path / "a.png", {}
        image = Image.new(mode, (4, 3), 0)
        if mode == "LA":
            image.paste((90, 255), (1, 0, 4, 3))
        elif mode == "P":
            image.putpalette([0, 0, 0, 90, 90, 90])
        if mode != "LA":
            image.paste((90, 90, 90) if mode == "RGB" else (1 if mode == "P" else 90), (1, 0, 4, 3))
            options = {"transparency": (0, 0, 0) if mode == "RGB" else 0}
        image.save(path, **options)
        alpha = read_alpha(path)
        assert alpha is not None
        np.testing.assert_array_equal(alpha, [[0, 1, 1, 1]] * 3)
        assert set(read_image(path)[:, 1:].ravel().tolist()) == {np.float32(90 / 255)}

    def test_premultiplied_colours_are_divided(self, tmp_path: Path) -> None:
        half = np.full((2, 3, 4), (50, 100, 25, 128), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", half, photometric="rgb", extrasamples=["assocalpha"])
        expected = np.array([50, 100, 25]) / 128
        np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0, 0], expected, atol=1e-6)

    def test_it_turns_with_the_image(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(RGBA).save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(read_alpha(tmp_path / "a.png"), np.rot90(ALPHA, -1))
        assert read_image(tmp_path / "a.png").shape == (7, 5, 3)

    def test_none_without_transparency(self, tmp_path: Path) -> None:
        Image.fromarray(RGBA[..., :3]).save(tmp_path / "a.jpg")
        Image.fromarray(RGBA[2:]).save(tmp_path / "b.png")
        assert read_alpha(tmp_path / "a.jpg") is None
        assert read_alpha(tmp_path / "b.png") is None

    def test_transparent_everywhere_is_refused(self, tmp_path: Path) -> None:
        Image.fromarray(RGBA * np.uint8([1, 1, 1, 0])).save(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"a\.png: is transparent everywhere\. Export it"):
            read_alpha(tmp_path / "a.png")

    def test_frames_are_extended_beyond_their_alpha(self, tmp_path: Path) -> None:
        frames = np.full((3, *SIZE, 3), 99, np.uint8)
        alpha = np.full((3, *SIZE), 255)
        alpha[1, :BORDER] = 0
        opened = open_stack(
            folder_of(tmp_path / "stack", frames, alpha[:3]), focus_distances_m=[1, 2, 3]
        )
        assert (opened.frames.read(1) == np.float32(99 / 255)).all()
        assert alpha_of(opened.frames, 0) is None


@pytest.mark.filterwarnings("ignore::focaldiffusion.reconstruction.DoubtfulInput")
class TestResult:
    def test_opaque_alpha_changes_no_bit(self, tmp_path: Path) -> None:
        frames = frames_8bit()
        opaque = np.full(frames.shape[:3], 255)
        results = [
            fd.reconstruct(folder_of(tmp_path / name, frames, alpha))
            for name, alpha in (("plain", None), ("opaque", opaque))
        ]
        for name in ("all_in_focus", "depth_m", "confidence", "source_index"):
            np.testing.assert_array_equal(*(getattr(result, name) for result in results))
        assert results[1].alpha is None
        assert results[1].stack.shown is None

    def test_borders_of_some_frames_cost_little(self, tmp_path: Path) -> None:
        frames = frames_8bit()
        alpha = np.full(frames.shape[:3], 255)
        alpha[1, :BORDER] = alpha[2, -BORDER:] = alpha[3, :, :BORDER] = 0
        whole = fd.reconstruct(folder_of(tmp_path / "whole", frames, None))
        part = fd.reconstruct(folder_of(tmp_path / "part", frames, alpha))
        assert part.alpha is None  # some frame shows every pixel
        assert part.stack.shown is not None
        assert whole.depth_m is not None
        assert part.depth_m is not None
        # As dropped alpha, the black borders turn depth upside down and cost 20 dB.
        errors = [np.nanmean(np.abs(one.depth_m / DEPTH_M.numpy() - 1)) for one in (whole, part)]
        assert errors[1] - errors[0] < 0.03
        assert np.abs(part.all_in_focus - whole.all_in_focus).mean() < 0.01
        assert part.confidence.mean() > 0.8 * whole.confidence.mean()

    @pytest.mark.parametrize("metric", [True, False])
    def test_what_no_frame_shows_is_not_a_number(self, tmp_path: Path, metric: bool) -> None:
        frames = frames_8bit()
        alpha = np.full(frames.shape[:3], 255)
        alpha[:, :BORDER, : 2 * BORDER] = 0
        folder = folder_of(tmp_path / "stack", frames, alpha)
        if not metric:
            (folder / "stack.json").unlink()
        result = fd.reconstruct(folder)
        hidden = alpha[0] == 0
        assert np.isnan(result.depth[hidden]).all()
        assert (result.confidence[hidden] == 0).all()
        assert (result.all_in_focus[hidden] == 0).all()
        assert np.isfinite(result.depth[~hidden]).mean() > 0.9
        result.save(tmp_path / "out")
        stored = np.asarray(Image.open(tmp_path / "out" / "all_in_focus.png"))
        np.testing.assert_array_equal(stored[..., 3], alpha[0])

    def test_grey_with_alpha_stays_grey(self, tmp_path: Path) -> None:
        folder = folder_of(tmp_path / "stack", frames_8bit(), None)
        alpha = np.full(SIZE, 255, np.uint8)
        alpha[:BORDER] = 0
        for path in folder.glob("*.png"):
            grey = np.asarray(Image.open(path).convert("L"))
            Image.fromarray(np.dstack([grey, alpha])).save(path)
        fd.reconstruct(folder).save(tmp_path / "out")
        with Image.open(tmp_path / "out" / "all_in_focus.png") as image:
            assert image.mode == "LA"


class _Masked(Frames):
    """Frames in memory with alpha."""

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        return self.masks[index]

    masks: list[NDArray[np.float32] | None]


def masked(images: list[NDArray[np.float32]], masks: list[Any]) -> _Masked:
    frames = _Masked(images)
    frames.masks = masks
    return frames


class TestStages:
    def test_fusion_takes_a_pixel_only_from_frames_that_show_it(self) -> None:
        dark, bright = (np.full((64, 64, 3), level, np.float32) for level in (0.2, 0.8))
        right = np.zeros((64, 64), np.float32)
        right[:, 32:] = 1
        weights = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 64, 64)
        fusion = fuse(masked([dark, bright], [None, right]), weights)
        np.testing.assert_allclose(fusion.all_in_focus[:, :32], 0.2, atol=1e-6)
        np.testing.assert_allclose(fusion.all_in_focus[:, 48:], 0.8, atol=1e-3)
        assert (fusion.source_index[:, :32] == 0).all()
        assert (fusion.source_index[:, 32:] == 1).all()
        assert fusion.alpha is None

    def test_soft_alpha_is_kept(self) -> None:
        half = np.full((64, 64), 0.5, np.float32)
        images = [np.full((64, 64, 3), 0.2, np.float32)] * 2
        fusion = fuse(masked(images, [half, half * 0.5]), torch.full((2, 64, 64), 0.5))
        assert fusion.alpha is not None
        np.testing.assert_array_equal(fusion.alpha, half)
        np.testing.assert_allclose(fusion.all_in_focus, 0.2, atol=1e-5)

    def test_alignment_does_not_look_at_hidden_pixels(self) -> None:
        image = linear_to_srgb(texture((128, 160), contrast=0.9)).permute(1, 2, 0).numpy()
        moved = np.roll(image, (3, 5), (0, 1))
        # A logo that stands still, as borders of an aligning program do.
        logo = np.random.default_rng(1).random((64, 160, 3), np.float32)
        hidden = np.ones((128, 160), np.float32)
        hidden[:64] = 0
        images = [image.copy(), moved.copy(), image.copy()]
        for one in images:
            one[:64] = logo
        alignment = find_alignment(masked(images, [hidden] * 3))
        shift = np.subtract(alignment.frames[1].shift_px, alignment.frames[0].shift_px)
        np.testing.assert_allclose(shift, (5, 3), atol=0.2)
        placed = alpha_of(alignment.apply(masked(images, [hidden] * 3)), 1)
        assert placed is not None
        assert placed.shape == alignment.crop.size

    def test_a_stack_in_memory_keeps_what_is_shown(self) -> None:
        images = torch.rand(3, 3, 32, 48)
        shown = torch.ones(3, 32, 48, dtype=torch.bool)
        shown[0, :, :24] = False
        small = FocalStack(images, shown=shown).at_working_size(24)
        assert small.shown is not None
        assert small.frames is not None
        torch.testing.assert_close(small.shown, shown[:, ::2, ::2])
        alpha = alpha_of(small.frames, 0)
        assert alpha is not None
        np.testing.assert_array_equal(alpha, shown[0].numpy())
        with pytest.raises(ValueError, match="shown"):
            FocalStack(images, shown=shown[:, 1:])
