from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from focaldiffusion.evaluation import image_metrics


def test_psnr_by_hand():
    truth = torch.zeros(3, 2, 2)
    prediction = truth.clone()
    prediction[1, 0, 0] = 0.6  # mean square 0.36 / 12 = 0.03
    assert image_metrics.psnr(prediction, truth) == pytest.approx(
        10 * math.log10(1 / 0.03), rel=1e-7
    )
    assert image_metrics.psnr(truth, truth) == math.inf
    with pytest.raises(ValueError, match=r"expected \(3, 2, 2\)"):
        image_metrics.psnr(truth[:, :1], truth)


def test_ssim_follows_its_definition():
    random = np.random.default_rng(1)
    truth = gaussian_filter(random.random((3, 40, 50)), (0, 2, 2))
    prediction = (truth + random.normal(0, 0.05, truth.shape)).clip(0, 1)

    def local_mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (0, 1.5, 1.5), radius=5)[:, 5:-5, 5:-5]

    mean_p, mean_t = local_mean(prediction), local_mean(truth)
    var_p, var_t = local_mean(prediction**2) - mean_p**2, local_mean(truth**2) - mean_t**2
    covariance = local_mean(prediction * truth) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    expected = np.mean(
        (2 * mean_p * mean_t + c1)
        * (2 * covariance + c2)
        / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
    )
    found = image_metrics.ssim(torch.from_numpy(prediction), torch.from_numpy(truth))

    assert 0.1 < found < 0.99
    assert found == pytest.approx(expected, rel=1e-9)
    assert image_metrics.ssim(torch.from_numpy(truth), torch.from_numpy(truth)) == pytest.approx(1)
    with pytest.raises(ValueError, match="the SSIM window needs 11 px"):
        image_metrics.ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))


@pytest.mark.parametrize("height", [11, 266, 267, 600])  # strips: one row, one whole, two, three
def test_ssim_agrees_with_torchmetrics_however_many_strips(height):
    from torchmetrics.functional.image import structural_similarity_index_measure

    random = torch.Generator().manual_seed(2)
    # float32, like images; the strips differ, so a row counted twice or never shows.
    truth = torch.rand(3, height, 37, generator=random) * torch.linspace(0, 1, height)[:, None]
    prediction = (truth + 0.1 * torch.randn(truth.shape, generator=random)).clamp(0, 1)
    _, similarity = structural_similarity_index_measure(
        prediction.double()[None],
        truth.double()[None],
        data_range=1.0,
        sigma=1.5,
        return_full_image=True,
    )
    # Wang et al. have no border; what torchmetrics does there differs between its versions.
    expected = similarity[..., 5:-5, 5:-5].mean().item()

    assert image_metrics.ssim(prediction, truth) == pytest.approx(expected, rel=1e-12)


def test_lpips_is_left_out_where_it_cannot_run():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    if importlib.util.find_spec("lpips") and importlib.util.find_spec("torchvision"):
        assert image_metrics.lpips(image, image) == 0
        assert image_metrics.lpips(image, 1 - image) > 0.1
    else:
        assert image_metrics.lpips(image, image) is None


def test_in_range_by_hand():
    # Two frames of 100 and 150 of 255; half a step either side still counts.
    frames = torch.tensor([100.0, 150.0])[:, None, None, None].expand(2, 3, 2, 2) / 255
    prediction = torch.full((3, 2, 2), 120.0)
    prediction[:, 0, 0] = 150.5
    prediction[1, 0, 1] = 99.4  # one channel is enough
    prediction[:, 1, 0] = 99.5
    assert image_metrics.in_range(prediction / 255, frames) == 0.75
    assert image_metrics.in_range(frames.mean(0), frames) == 1
    with pytest.raises(
        ValueError, match=r"prediction: got shape \(3, 2, 1\), expected \(3, 2, 2\)"
    ):
        image_metrics.in_range(prediction[..., :1], frames)


class TestDetail:
    """Four blocks of 16x16; the left ones are sharp in frame 0, the right ones in frame 1."""

    random = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(4)).expand(3, -1, -1)
    sharp = 0.5 + 0.2 * (random - 0.5)
    left = torch.zeros(3, 32, 32, dtype=torch.bool)
    left[..., :16] = True

    def frames(self) -> torch.Tensor:
        flat = torch.full_like(self.sharp, 0.5)
        return torch.stack([self.sharp.where(self.left, flat), flat.where(self.left, self.sharp)])

    def test_every_block_of_its_sharpest_frame_is_kept(self):
        found = image_metrics.detail_metrics(self.sharp, self.frames())
        assert found["kept"] == pytest.approx(1, abs=0.02)  # blur reaches over the seam
        assert found["soft"] == found["invented"] == 0

    def test_frames_themselves_are_kept_where_sharp_and_soft_elsewhere(self):
        found = image_metrics.detail_metrics(self.frames()[0], self.frames())
        assert found["soft"] == 0.5
        assert found["invented"] == 0

    def test_faded_detail_is_its_ratio(self):
        found = image_metrics.detail_metrics(0.5 + 0.6 * (self.sharp - 0.5), self.frames())
        assert found["kept"] == pytest.approx(0.6, abs=0.02)
        assert found["soft"] == 1
        barely = image_metrics.detail_metrics(0.5 + 0.75 * (self.sharp - 0.5), self.frames())
        assert barely["soft"] == 0

    def test_detail_that_no_frame_has_is_invented(self):
        prediction = self.sharp.clone()
        prediction[:, :16, :16] = 0.5 + 2 * (self.sharp[:, :16, :16] - 0.5)
        found = image_metrics.detail_metrics(prediction, self.frames())
        assert found["invented"] == 0.25
        assert found["kept"] <= 1

    def test_rounding_of_a_flat_frame_is_no_detail(self):
        flat = torch.full((2, 3, 32, 32), 0.5)
        rounded = (flat[0] + (self.random - 0.5) * 2 / 255).clamp(0, 1)
        assert image_metrics.detail_metrics(rounded, flat) == {"invented": 0}

    def test_noise_is_no_detail(self):
        random = torch.Generator().manual_seed(5)
        frames = self.frames() + 8 / 255 * torch.randn(2, 3, 32, 32, generator=random)
        found = image_metrics.detail_metrics(self.sharp, frames)
        assert found["kept"] > 0.87
        assert found["soft"] == 0
        only_noise = frames - self.frames()
        assert image_metrics.detail_metrics(only_noise.mean(0), only_noise) == {"invented": 0}

    def test_an_image_smaller_than_a_block_says_nothing(self):
        assert image_metrics.detail_metrics(self.sharp[:, :15], self.frames()[:, :, :15]) == {}

    def test_detail_is_the_residual_of_a_gaussian(self):
        image = self.sharp.numpy()
        image = image * np.array([1, 0.5, 0.2], np.float32)[:, None, None]
        grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
        # The blurred image keeps this share of the detail, block by block.
        frame = gaussian_filter(image, (0, 0.4, 0.4)).astype(np.float32)
        softened = np.tensordot([0.299, 0.587, 0.114], frame, 1)

        def detail(plane: np.ndarray) -> np.ndarray:
            fine = plane - gaussian_filter(plane, 1.0, mode="mirror", truncate=4)
            return np.sqrt(
                [np.mean(fine[i : i + 16, j : j + 16] ** 2) for i in (0, 16) for j in (0, 16)]
            )

        frames = torch.from_numpy(np.stack([image, np.full_like(image, 0.5)]))
        expected = np.median(detail(softened) / detail(grey))
        found = image_metrics.detail_metrics(torch.from_numpy(frame), frames)
        assert 0.3 < expected < 0.95
        assert found["kept"] == pytest.approx(expected, rel=1e-3)
