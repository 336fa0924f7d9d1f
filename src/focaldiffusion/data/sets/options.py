"""Checks of a source's options against a data set with published units and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from focaldiffusion.config.data import Source
from focaldiffusion.errors import InputError


def check_published(
    source: Source,
    *,
    split_from: str,
    depth_kind: Literal["planar", "ray"],
    depth_scale: float,
    layouts: Sequence[str] = (),
    has_stacks: bool = False,
) -> None:
    """Refuse options that contradict a data set of fixed layout, instead of ignoring them.

    Args:
        source: source of that data set.
        split_from: origin of its split, named if the source has a file list.
        depth_kind: kind of depth in its files.
        depth_scale: metres per unit of depth in its files.
        layouts: valid values of `layout`.
        has_stacks: whether it has photographed or rendered stacks to read.

    Raises:
        InputError: names the first option that does not apply.
    """
    options = source.options
    if source.filelist is not None:
        raise InputError(
            f"{source.name}: a file list ({source.filelist}) with dataset_type "
            f"{source.dataset_type}, whose split comes from {split_from}. Leave it out, or use "
            "dataset_type: filelist."
        )
    if options.generate_focal_stack is False and not has_stacks:
        raise InputError(
            f"{source.name}: generate_focal_stack is false, but {source.dataset_type} has no "
            "photographed stacks. Leave it out."
        )
    if options.layout is not None and options.layout not in layouts:
        raise InputError(
            f"{source.name}: layout {options.layout!r} is unknown; {source.dataset_type} "
            + (f"has {' and '.join(layouts)}." if layouts else "has one only. Leave it out.")
        )
    for name, given, published in (
        ("depth_kind", options.depth_kind, depth_kind),
        ("depth_scale", options.depth_scale, depth_scale),
        ("depth_shift", options.depth_shift or None, 0),
    ):
        if given is not None and given != published:
            raise InputError(
                f"{source.name}: {name} is {given}, but that of {source.dataset_type} is "
                f"{published}. Leave it out."
            )
