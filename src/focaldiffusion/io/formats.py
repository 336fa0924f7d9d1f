"""Formats of picture files: by suffix in a folder, by content when opened."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

from PIL import features

from focaldiffusion.errors import InputError
from focaldiffusion.io.decoding import decoding
from focaldiffusion.io.file_names import RAW_SUFFIXES

# fmt: off
_OTHER_SUFFIXES = frozenset({
    ".exr", ".gif", ".hdr", ".pfm", ".pic", ".psb", ".psd", ".tga", ".xcf",
})
# fmt: on

Kind = Literal["raw", "tiff", "png", "heif", "avif", "jxl", "exr", "hdr", "pil"]

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"8BPS", b"\0\0\0\x0cjP  ")
EXTRA = "pip install 'focaldiffusion[raw]'"
"""Installs the readers of HEIC and camera RAW."""


def kind_of(path: Path) -> Kind:
    """How to read a file. Suffixes of RAW count, because most RAW is TIFF by content.

    Raises:
        InputError: the file cannot be opened.
    """
    with decoding(path), path.open("rb") as file:
        return "raw" if is_raw(path) else _kind_of(file.read(64))


def _kind_of(head: bytes) -> Kind:
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[4:8] == b"ftyp" and (head[8:12] in (b"avif", b"avis") or b"avif" in head[16:]):
        return "avif"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heif"
    if head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "jxl"
    if head[:4] == b"v/1\x01":
        return "exr"
    return "hdr" if head[:6] in (b"#?RADI", b"#?RGBE") else "pil"


def is_raw(path: Path) -> bool:
    """Whether the file is camera RAW, by its suffix."""
    return path.suffix.lower() in RAW_SUFFIXES


def need_reader(path: Path, kind: Kind) -> None:
    """Load what opens a format in Pillow.

    Raises:
        InputError: it is not installed, or the format holds no picture of a camera.
    """
    if kind == "heif":
        try:
            import pillow_heif
        except ImportError:
            raise InputError(
                f"{path}: HEIC is optional; install what reads it with: {EXTRA}"
            ) from None
        pillow_heif.register_heif_opener()
    elif kind == "avif" and not features.check("avif"):
        _need_plugin(path, "AVIF", "pillow_avif", "pillow-avif-plugin")
    elif kind == "jxl":
        _need_plugin(path, "JPEG XL", "pillow_jxl", "pillow-jxl-plugin")
    elif kind in ("exr", "hdr"):
        raise InputError(
            f"{path}: {'OpenEXR' if kind == 'exr' else 'Radiance HDR'} holds light without a white "
            "level; expected a picture. Export it as 16-bit TIFF or PNG."
        )


def _need_plugin(path: Path, name: str, module: str, package: str) -> None:
    try:
        import_module(module)
    except ImportError:
        raise InputError(
            f"{path}: {name} needs {package}. Install it with: pip install {package}; or export "
            "the frames as JPEG, PNG or TIFF."
        ) from None


def overlooked(folder: Path, frames: Sequence[Path]) -> list[str]:
    """Names of files beside the frames that are pictures by suffix or content, in order.

    Hidden files are passed over, and the thumbnails (.thm) of cameras.
    """
    taken = {path.name for path in frames}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in taken
        and not path.name.startswith(".")
        and path.suffix.lower() != ".thm"
        and path.is_file()
        and (path.suffix.lower() in _OTHER_SUFFIXES or _is_picture(path))
    )


def _is_picture(path: Path) -> bool:
    """Whether the content is a picture's, whatever the suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or _kind_of(head) != "pil"
