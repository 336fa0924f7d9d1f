"""Samples with metric truth, as the command line of a benchmark names them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.evaluation.protocols import find_protocol
from focaldiffusion.psf import PSF


@dataclass(frozen=True, eq=False)
class Measured:
    """A sample of a protocol, its name, and the shape of the blur of its frames."""

    name: str
    sample: StackSample
    psf: PSF


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Flags of a benchmark that runs on a protocol.

    Args:
        description: of the benchmark; its first line is shown.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("protocol", help="a protocol with metric truth, such as rendered")
    parser.add_argument("data_root", help="folder of its data")
    return parser


def measured(options: argparse.Namespace, most: int | None = None) -> Iterator[Measured]:
    """The samples that count in the mean of the protocol.

    Args:
        options: parsed flags of `command_line`.
        most: number of samples to look at; None for all.
    """
    protocol = find_protocol(options.protocol)
    dataset = protocol.open(options.data_root)
    psf = PSF() if protocol.photography is None else protocol.photography.psf
    for index in protocol.indices(dataset, None)[:most]:
        name = dataset.name(index)
        if not protocol.counted_prefixes or name.startswith(protocol.counted_prefixes):
            yield Measured(name, protocol.sample(dataset, index), psf)
