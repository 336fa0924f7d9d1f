"""Registration of handheld frames, correction of focus breathing and of exposure."""

from focaldiffusion.align.alignment import Alignment, Crop, FrameAlignment
from focaldiffusion.align.registration import AlignMode, find_alignment

__all__ = ["AlignMode", "Alignment", "Crop", "FrameAlignment", "find_alignment"]
