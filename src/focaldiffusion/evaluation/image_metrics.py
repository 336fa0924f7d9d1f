"""Quality of an all-in-focus image, against the truth and against the frames it was made from.

Images are (3, H, W), sRGB-encoded, [0, 1].
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape

if TYPE_CHECKING:
    from torch import nn

_Plane = NDArray[np.float64]

_SSIM_BORDER = 5  # half of the 11-pixel window
_SSIM_STRIP = 256  # rows of an image compared at a time, which bounds memory
_BLOCK_PX = 16  # side of the blocks whose detail is compared
_LEAST_DETAIL = 2 / 255  # of a block that counts; noise of 1 / 255 adds up to a third of it


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB.

    10 log10(1 / mean((p - t)²)); infinite for equal images.

    Args:
        prediction, truth: (3, H, W) sRGB-encoded, [0, 1].
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    _check_images(prediction, truth)
    return peak_signal_noise_ratio(prediction.double(), truth.double(), data_range=1.0).item()


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over pixels and channels.

    11x11 Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03, range 1; pixels whose
    window leaves the image do not count.

    Args:
        prediction, truth: (3, H, W) sRGB-encoded, [0, 1], at least 11 pixels either way.

    Raises:
        ValueError: images of different sizes, or smaller than the window.
    """
    _check_images(prediction, truth)
    height, width = truth.shape[1:]
    inner_height, inner_width = height - 2 * _SSIM_BORDER, width - 2 * _SSIM_BORDER
    if min(inner_height, inner_width) < 1:
        raise ValueError(f"images of {(height, width)}; the SSIM window needs 11 px")
    total = 0.0
    for top in range(0, inner_height, _SSIM_STRIP):
        rows = slice(top, top + _SSIM_STRIP + 2 * _SSIM_BORDER)
        for channels in zip(prediction[:, rows], truth[:, rows], strict=True):
            total += _similarity(*(channel.double().cpu().numpy() for channel in channels)).sum()
    return float(total / (3 * inner_height * inner_width))


def lpips(prediction: Tensor, truth: Tensor) -> float | None:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1 with AlexNet.

    Args:
        prediction, truth: (3, H, W) sRGB-encoded, [0, 1].

    Returns:
        0 for equal images, about 1 for unrelated ones; None without the packages `lpips` and
        `torchvision`.

    Raises:
        InputError: AlexNet's weights are not on this machine and cannot be fetched.
    """
    _check_images(prediction, truth)
    if not (importlib.util.find_spec("lpips") and importlib.util.find_spec("torchvision")):
        return None
    with torch.inference_mode():
        images = (image.float().cpu()[None] for image in (prediction, truth))
        return float(_lpips_network()(*images, normalize=True))


def in_range(prediction: Tensor, frames: Tensor) -> float:
    """Share of pixels within the range of the frames there, in all three channels.

    The range includes half an 8-bit step at both ends, because files are rounded.

    Args:
        prediction: (3, H, W) sRGB-encoded, [0, 1].
        frames: (N, 3, H, W) sRGB-encoded, [0, 1].
    """
    check_shape("prediction", prediction, frames.shape[1:])
    # A hundred-thousandth for the float32 round trip from sRGB to light and back.
    slack = 0.5 / 255 + 1e-5
    above = prediction >= frames.amin(0) - slack
    below = prediction <= frames.amax(0) + slack
    return (above & below).all(0).double().mean().item()


def detail_metrics(prediction: Tensor, frames: Tensor) -> dict[str, float]:
    """Detail of the frames that the image keeps, and detail that no frame shows.

    Needs no truth. The figures follow the benchmark of the stacker MacroStack
    (https://github.com/macrostackapp/macrostack, tools/bench); block, detail and floor are our
    choice. The detail of a block of 16x16 px is the root mean square of the grey image minus its
    Gaussian blur of standard deviation 1 px. A block holds detail if the sharpest frame has at
    least 2 / 255 there, and at least twice as much as the blurriest. Noise is equal in all frames,
    so it is at most a quarter of the mean square, and an image without noise has a ratio of at
    least 0.87.

    - `kept`: detail of the image over that of the sharpest frame, at most 1; median over the blocks
      that hold detail.
    - `soft`: share of these blocks with a ratio below 0.7.
    - `invented`: share of all blocks with more than 1.5 times the detail of every frame, and more
      than 1.5 times 2 / 255: noise, halos, seams, and detail restored or made up by a generative
      model, which cannot be distinguished without a truth.

    Args:
        prediction: (3, H, W) sRGB-encoded, [0, 1]; incomplete blocks at the right and lower border
            do not count.
        frames: (N, 3, H, W) sRGB-encoded, [0, 1].

    Returns:
        kept, soft and invented; figures without a block that counts are absent.
    """
    check_shape("prediction", prediction, frames.shape[1:])
    detail = _block_detail(prediction)
    of_frames = [_block_detail(frame) for frame in frames]
    blurriest, sharpest = np.min(of_frames, axis=0), np.max(of_frames, axis=0)
    if detail.size == 0:
        return {}
    found = {"invented": float((detail > 1.5 * sharpest.clip(min=_LEAST_DETAIL)).mean())}
    detailed = (sharpest >= _LEAST_DETAIL) & (sharpest >= 2 * blurriest)
    if detailed.any():
        ratio = detail[detailed] / sharpest[detailed]
        found["kept"] = float(np.median(ratio.clip(max=1)))
        found["soft"] = float((ratio < 0.7).mean())
    return found


def _block_detail(image: Tensor) -> _Plane:
    """Detail of each whole block: (H // 16, W // 16)."""
    rows, columns = image.shape[1] // _BLOCK_PX, image.shape[2] // _BLOCK_PX
    colours = image.permute(1, 2, 0).float().cpu().contiguous().numpy()
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.float64)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), 1.0))[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    blocks = fine.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    return np.asarray(np.sqrt((blocks**2).mean(axis=(1, 3))))


@cache
def _lpips_network() -> nn.Module:
    import lpips

    try:
        return lpips.LPIPS(net="alex", verbose=False).eval()
    except OSError as error:
        raise InputError(
            f"LPIPS: the weights of AlexNet cannot be fetched ({error}). Connect once, or "
            "uninstall the package lpips to go without this metric."
        ) from error


def _similarity(prediction: _Plane, truth: _Plane) -> _Plane:
    """SSIM at each pixel of (H, W) planes whose window lies inside: (H - 10, W - 10).

    (2 p t + C1) (2 cov + C2) / ((p² + t² + C1) (var_p + var_t + C2)) of local means p and t.
    """
    # torchmetrics has the same formula, but its convolution needs gigabytes for a few megapixels.
    mean_p, mean_t = _local_mean(prediction), _local_mean(truth)
    variances = _local_mean(prediction**2 + truth**2) - mean_p**2 - mean_t**2
    covariance = _local_mean(prediction * truth) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (variances + c2)
    return (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1) * contrast


def _local_mean(plane: _Plane) -> _Plane:
    window = 2 * _SSIM_BORDER + 1
    inner = slice(_SSIM_BORDER, -_SSIM_BORDER)
    return np.asarray(cv2.GaussianBlur(plane, (window, window), 1.5)[inner, inner])


def _check_images(prediction: Tensor, truth: Tensor) -> None:
    check_shape("truth", truth, (3, "H", "W"))
    check_shape("prediction", prediction, truth.shape)
