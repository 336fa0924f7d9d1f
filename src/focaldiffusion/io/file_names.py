"""Names of the files of a stack, without the libraries that read them."""

from __future__ import annotations

# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc",
    ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf",
    ".srw", ".x3f",
})
"""Suffixes of camera RAW."""

IMAGE_SUFFIXES = RAW_SUFFIXES | {
    ".avif", ".bmp", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf",
    ".jpg", ".jpx", ".jxl", ".mpo", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
}
# fmt: on
"""Suffixes of photographs: all such files of a folder are frames."""

SIDECAR_NAME = "stack.json"
"""Name of the notes that a user wrote on a stack, beside its frames."""
