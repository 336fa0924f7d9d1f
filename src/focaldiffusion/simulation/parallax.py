"""Views of an image with depth from beside its camera, by layers that hide each other."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_LAYERS = 20


class Parallax:
    """An image (H, W, 3) cut into layers, far to near.

    Where a nearer layer moves away, the layer behind it shows: its own pixels nearest to the gap,
    continued. Those are the only pixels that no frame has seen.
    """

    def __init__(self, image: NDArray[np.uint8], nearness: Plane, layers: int = _LAYERS) -> None:
        """Cut the image.

        Args:
            image: (H, W, 3) sRGB.
            nearness: (H, W), grows towards the camera.
            layers: number of layers, evenly spaced in nearness.
        """
        far, near = (float(end) for end in np.quantile(nearness, (0.01, 0.99)))
        share = np.clip((nearness - far) / max(near - far, 1e-9), 0, 1)
        ends = np.linspace(0, 1, layers + 1)
        self.places = (ends[:-1] + ends[1:]) / 2
        """Nearness of each layer, 0 the farthest to 1 the nearest."""
        self._layers: list[NDArray[np.uint8]] = []
        for low, high in pairwise(ends.tolist()):
            opaque = share >= low if low > 0 else np.ones(share.shape, bool)
            # A surface goes on into the next layer, and what lies farther in front hides this one.
            colours = _continued(image, share < high + 1 / layers + 1e-6, opaque)
            alpha = cv2.GaussianBlur(opaque.astype(np.uint8) * 255, (3, 3), 0.6)
            self._layers.append(np.dstack([colours, alpha]))

    def view(self, shift_px: tuple[float, float], pivot: float = 0.5) -> NDArray[np.uint8]:
        """The image seen from beside.

        Args:
            shift_px: (x, y) by which the nearest layer moves relative to the farthest.
            pivot: nearness that stands still, 0 to 1.
        """
        height, width = self._layers[0].shape[:2]
        canvas = np.zeros((height, width, 3), np.float32)
        for layer, place in zip(self._layers, self.places, strict=True):
            x, y = (part * (place - pivot) for part in shift_px)
            move = np.array([[1, 0, x], [0, 1, y]], np.float32)
            moved = cv2.warpAffine(
                layer,
                move,
                (width, height),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            alpha = moved[..., 3:].astype(np.float32) / 255
            canvas += (moved[..., :3] - canvas) * alpha
        return np.rint(canvas).clip(0, 255).astype(np.uint8)


def _continued(
    image: NDArray[np.uint8], known: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The image, with the nearest known pixel of the wanted ones where it is not known."""
    source = known & wanted
    if not source.any():
        source = known
    if not source.any() or known.all():
        return image
    _, label = cv2.distanceTransformWithLabels(
        (~source).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colour_of = np.zeros((label.max() + 1, 3), np.uint8)
    colour_of[label[source]] = image[source]
    return np.where(known[..., None], image, colour_of[label])
