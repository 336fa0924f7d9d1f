"""The readers of pictures and their metadata, for benchmarks/fuzz.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_readers import Reader, pixels, sane, unit
from numpy.typing import NDArray


def _write_images(folder: Path) -> None:
    import imagecodecs
    from PIL import Image

    picture = Image.fromarray(pixels())
    for name in ("a.jpg", "a.png", "a.bmp", "a.webp"):
        picture.save(folder / name)
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(pixels(np.uint16)))


def _write_tiffs(folder: Path) -> None:
    import tifffile

    rgb = pixels(np.uint16)
    tifffile.imwrite(folder / "plain.tif", rgb, photometric="rgb", rowsperstrip=4)
    tifffile.imwrite(folder / "packed.tif", rgb, photometric="rgb", compression="zlib")
    pages = np.moveaxis(rgb, -1, 0).copy()
    metadata = {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(folder / "imagej.tif", pages, imagej=True, metadata=metadata)
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(folder / "z.ome.tif", pages, metadata=metadata)


def _write_heif(folder: Path) -> None:
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    Image.fromarray(pixels()).save(folder / "a.heic")


def _image(folder: Path, path: Path) -> NDArray[Any]:
    from focaldiffusion.io.images import probe_image, read_image, read_metadata

    header = probe_image(path)
    image = read_image(path)
    read_metadata(path)
    sane(image.shape == (*header.size(), 3), "another size than the header says")
    return unit(image)


def _tiff(folder: Path, path: Path) -> NDArray[Any]:
    if path.name in ("plain.tif", "packed.tif"):
        return _image(folder, path)
    return _frames(path)


def _frames(source: Path) -> NDArray[Any]:
    from focaldiffusion.io.stacks import open_stack

    opened = open_stack(source)
    for focus in (opened.focus_distances_m, opened.focus_positions_m):
        if focus is not None:
            sane(len(focus) == len(opened), "a focus is missing")
            sane(not np.isnan(focus).any(), "a focus is not a number")
    if opened.focus_distances_m is not None:
        sane(min(opened.focus_distances_m) > 1e-6, "focus within a micrometre of the lens")
    camera = opened.camera_for(0)
    sane(camera is None or np.isfinite(camera.focal_length_px), "the focal length is not finite")
    opened.metadata_for(0)
    return np.stack([unit(opened.frames.read(index)) for index in range(len(opened))])


def _write_exif(folder: Path) -> None:
    from test_io_exif import ASCII, RATIONAL, apple_note, canon_note, exif_block, jpeg, rational

    photo = [
        (0x920A, RATIONAL, 1, rational(50)),
        (0x829D, RATIONAL, 1, rational(28, 10)),
        (0x9206, RATIONAL, 1, rational(15, 10)),
        (0xA434, ASCII, 5, b"Lens\0"),
    ]
    for name, make, note in (
        ("0.jpg", "Apple", apple_note((12, 10), (14, 10))),
        ("1.jpg", "Canon", canon_note(120, 100)),
    ):
        jpeg(folder, exif_block(make, photo, note)).rename(folder / name)


def _exif(folder: Path, path: Path) -> None:
    from focaldiffusion.io.exif import read_exif

    (record,) = read_exif([path], (300, 400))
    for value in vars(record.lens).values() if hasattr(record, "lens") else ():
        sane(value is None or not isinstance(value, float) or np.isfinite(value), "lens not finite")


def _write_sidecar(folder: Path) -> None:
    from PIL import Image

    for name in ("0.png", "1.png"):
        Image.fromarray(pixels()).save(folder / name)
    content = {
        "files": ["0.png", "1.png"],
        "focus_distances_m": [0.5, 1.0],
        "camera": {"focal_length_px": 100.0, "aperture_diameter_m": 0.01},
    }
    (folder / "stack.json").write_text(json.dumps(content))


PICTURE_READERS: dict[str, Reader] = {
    "image": Reader(_write_images, _image),
    "tiff": Reader(_write_tiffs, _tiff, cost=3),
    "heif": Reader(_write_heif, _image, cost=2),
    "exif": Reader(_write_exif, _exif, cost=2),
    "stackexif": Reader(_write_exif, lambda folder, path: _frames(folder), cost=4),
    "sidecar": Reader(_write_sidecar, lambda folder, path: _frames(folder), ("*.json",)),
}
"""By name."""
