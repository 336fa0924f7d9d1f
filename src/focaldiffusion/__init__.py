"""FocalDiffusion: an all-in-focus image and metric depth from a focal stack.

>>> import focaldiffusion as fd
>>> result = fd.reconstruct("photos/", focus_distances_m=[0.3, 0.8, 2.0])  # doctest: +SKIP
>>> result.save("out/")  # doctest: +SKIP

Names are imported when they are first used: torch takes seconds.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.checkpoint import load_model
    from focaldiffusion.errors import InputError
    from focaldiffusion.io.stacks import open_stack
    from focaldiffusion.lens import LensFacts
    from focaldiffusion.models.completer import Sampling
    from focaldiffusion.optics import Camera
    from focaldiffusion.prior import Prior, PriorKind
    from focaldiffusion.priors.shelf import load_prior
    from focaldiffusion.psf import PSF
    from focaldiffusion.reconstruction import Settings, reconstruct
    from focaldiffusion.result import Result
    from focaldiffusion.stack import FocalStack, Grade
    from focaldiffusion.virtual_camera import refocus, simulate

__version__ = "0.1.0"

_MODULES = {
    "Camera": "optics",
    "FocalStack": "stack",
    "Grade": "stack",
    "InputError": "errors",
    "LensFacts": "lens",
    "PSF": "psf",
    "Prior": "prior",
    "PriorKind": "prior",
    "Result": "result",
    "Sampling": "models.completer",
    "Settings": "reconstruction",
    "load_model": "checkpoints.checkpoint",
    "load_prior": "priors.shelf",
    "open_stack": "io.stacks",
    "reconstruct": "reconstruction",
    "refocus": "virtual_camera",
    "simulate": "virtual_camera",
}

__all__ = [  # noqa: RUF022, in the order in which a newcomer needs them
    "reconstruct",
    "open_stack",
    "load_model",
    "load_prior",
    "simulate",
    "refocus",
    "FocalStack",
    "Camera",
    "LensFacts",
    "PSF",
    "Prior",
    "PriorKind",
    "Settings",
    "Sampling",
    "Result",
    "Grade",
    "InputError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)


# diffusers imports bitsandbytes wherever it is installed, and on some CPUs it warns on every
# command's standard error that a kernel of its own is missing.
logging.getLogger("bitsandbytes").addHandler(logging.NullHandler())
