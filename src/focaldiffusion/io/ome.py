"""OME-XML of OME-TIFF: which file and page holds each plane, and what it says of the z axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from focaldiffusion.errors import InputError

_MOST_PLANES = 100_000
_LARGEST_XML = 1 << 26  # bytes of a companion file
_AXES = ("Z", "C", "T")
_DEFAULT_ORDER = "XYZCT"


@dataclass(frozen=True)
class Plane:
    """Place of a plane: a file, and the number of its page in it, from 0."""

    file: Path
    page: int


@dataclass(frozen=True)
class OmeImage:
    """The one image of an OME-TIFF, or of a set of several.

    Attributes:
        axes: names of the axes that count planes, slowest first.
        lengths: size of each axis.
        planes: place of each plane, the last axis fastest; None where the set has none.
        pixels: attributes of `Pixels`.
        positions: attributes of each `Plane` of the first channel and time.
    """

    axes: str
    lengths: tuple[int, ...]
    planes: tuple[Plane | None, ...]
    pixels: dict[str, str]
    positions: tuple[dict[str, str], ...]

    @property
    def significant_bits(self) -> int | None:
        """Bits of a value that are in use; None where the file does not say."""
        text = self.pixels.get("SignificantBits", "")
        return int(text) if text.isdecimal() and len(text) < 4 else None


def read_ome(path: Path, xml: str, page_count: int) -> OmeImage:
    """Read the OME-XML of a file.

    Args:
        path: the file.
        xml: its OME-XML.
        page_count: number of its pages.

    Raises:
        InputError: several images, no image, or sizes that are not positive numbers.
    """
    written = ElementTree.fromstring(xml)
    root, own_identity = _complete(path, written), written.get("UUID")
    found = [pixels for one in _children(root, "Image") for pixels in _children(one, "Pixels")]
    if len(found) != 1:
        raise InputError(
            f"{path}: {len(found)} OME images (positions or scenes); expected one. "
            "Save each as a file of its own."
        )
    pixels = found[0]
    order = pixels.get("DimensionOrder", _DEFAULT_ORDER)[2:]
    if sorted(order) != sorted(_AXES):
        raise InputError(f"{path}: OME axes {order}; expected Z, C and T. Export the stack again.")
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in order}
    samples = [int(one.get("SamplesPerPixel", "1")) for one in _children(pixels, "Channel")]
    if samples and samples[0] > 1:
        sizes["C"] //= samples[0]
    total = math.prod(sizes.values())
    if min(sizes.values()) < 1 or total > _MOST_PLANES:
        raise InputError(
            f"{path}: OME-XML declares {total} planes; expected 1 to {_MOST_PLANES}. "
            "Export the stack again."
        )
    return OmeImage(
        axes=order[::-1],
        lengths=tuple(sizes[axis] for axis in reversed(order)),
        planes=_planes(
            path, own_identity, pixels, [(axis, sizes[axis]) for axis in order], page_count
        ),
        pixels=dict(pixels.attrib),
        positions=tuple(
            dict(plane.attrib)
            for plane in _children(pixels, "Plane")
            if plane.get("TheC", "0") == plane.get("TheT", "0") == "0"
        ),
    )


def _complete(path: Path, root: ElementTree.Element) -> ElementTree.Element:
    """The metadata itself, where the file only names the one that holds it."""
    reference = next(_children(root, "BinaryOnly"), None)
    if reference is None:
        return root
    companion = path.parent / Path(reference.get("MetadataFile", "")).name
    if not companion.is_file() or companion.stat().st_size > _LARGEST_XML:
        raise InputError(
            f"{path}: its OME-XML is in {companion.name}, which is absent. Put it into the same "
            "folder, or save the frames as plain TIFF."
        )
    if companion.suffix.lower() in (".tif", ".tiff", ".btf", ".tf8"):
        import tifffile

        with tifffile.TiffFile(companion) as tif:
            return ElementTree.fromstring(tif.ome_metadata or "<OME/>")
    return ElementTree.fromstring(companion.read_text(encoding="utf-8"))


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children of a name, in any version of the namespace."""
    return (one for one in element if one.tag.rpartition("}")[2] == name)


def _planes(
    path: Path,
    own_identity: str | None,
    pixels: ElementTree.Element,
    sizes: list[tuple[str, int]],
    page_count: int,
) -> tuple[Plane | None, ...]:
    """Place of each plane, the first of the axes fastest."""
    total = math.prod(size for _, size in sizes)
    blocks = list(_children(pixels, "TiffData"))
    if not blocks:
        return tuple(Plane(path, page) if page < page_count else None for page in range(total))
    planes: list[Plane | None] = [None] * total
    names = {_file_name(block) for block in blocks}
    # A file that was renamed still names itself as before.
    is_alone = len(names) == 1 and not any((path.parent / name).is_file() for name in names)
    for block in blocks:
        uuid = next(_children(block, "UUID"), None)
        name = _file_name(block)
        own = uuid is None or is_alone or name.casefold() == path.name.casefold()
        if uuid is not None and uuid.text is not None and uuid.text == own_identity:
            own = True
        file = path if own else path.parent / name
        first, stride = 0, 1
        for axis, size in sizes:
            first += int(block.get(f"First{axis}", "0")) * stride
            stride *= size
        page = int(block.get("IFD", "0"))
        count = block.get("PlaneCount", block.get("NumPlanes"))
        if count is None:
            count = "1" if "IFD" in block.attrib else str(page_count if own else total)
        for offset in range(min(int(count), total - first)):
            if first + offset >= 0:
                planes[first + offset] = Plane(file, page + offset)
    return tuple(planes)


def _file_name(block: ElementTree.Element) -> str:
    """The file of a block of planes, without a folder: members of a set lie side by side."""
    uuid = next(_children(block, "UUID"), None)
    return "" if uuid is None else Path(uuid.get("FileName", "")).name
