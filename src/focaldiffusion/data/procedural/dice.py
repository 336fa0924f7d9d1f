"""Random draws shared by the parts of a procedural scene.

They happen on the CPU, so that a scene is the same on every device.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform between those of `low` and `high`, both > 0."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def fractal(
    rng: np.random.Generator, size: int, slope: float, finest: float = math.inf
) -> NDArray[np.float32]:
    """Periodic noise whose amplitude falls with frequency f as f^-slope.

    Args:
        rng: the source of randomness.
        size: side in pixels, even.
        slope: 0 is white noise, 1 a cloudy texture, 2 smooth hills.
        finest: the highest frequency, in periods per side.

    Returns:
        (size, size), mean 0, standard deviation 1.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[(frequency == 0) | (frequency > finest)] = np.inf
    spectrum = rng.standard_normal((2, *frequency.shape), dtype=np.float32) * frequency**-slope
    noise = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(size, size))
    return (noise / noise.std()).astype(np.float32)
