"""Optional packages: their purpose, whether they are installed, and how to install them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from focaldiffusion.errors import InputError

_CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Package:
    """An optional package.

    Attributes:
        name: as pip calls it.
        module: as Python imports it.
        purpose: in a few words.
        extra: the extra of focaldiffusion that brings it; None for none.
    """

    name: str
    module: str
    purpose: str
    extra: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether Python finds it, without importing it."""
        spec = find_spec(self.module)
        return spec is not None and spec.origin is not None  # None: any folder of that name

    @property
    def version(self) -> str | None:
        """The installed version; None if the package is missing."""
        try:
            return metadata.version(self.name) if self.is_installed else None
        except metadata.PackageNotFoundError:
            return "unknown"

    @property
    def install(self) -> str:
        """The command that installs it, to run in the checkout if this is one."""
        if self.extra is None:
            return f"pip install {self.name}"
        if (_CHECKOUT / "constraints.txt").is_file():
            return f"pip install -c constraints.txt -e '.[{self.extra}]'"
        return f"pip install 'focaldiffusion[{self.extra}]'"


OPTIONAL = {
    package.name: package
    for package in (
        Package("starlette", "starlette", "the app in the browser", "app"),
        Package("uvicorn", "uvicorn", "the app in the browser", "app"),
        Package("python-multipart", "python_multipart", "uploads of the app", "app"),
        Package("av", "av", "films of the app", "app"),
        Package("OpenEXR", "OpenEXR", "OpenEXR images", "exr"),
        Package("rawpy", "rawpy", "camera raw", "raw"),
        Package("pillow-heif", "pillow_heif", "HEIC images", "raw"),
        Package("pyexiftool", "exiftool", "lens data of camera raw", "raw"),
        Package("torchvision", "torchvision", "priors of Depth Pro, TIPSv2 and ZoeDepth", "prior"),
        Package("pyarrow", "pyarrow", "Parquet manifests", "archive"),
        Package("zarr", "zarr", "all results of a batch as one Zarr set", "archive"),
        Package("ray", "ray", "batches, evaluation and caches on a Ray cluster", "cluster"),
        Package("submitit", "submitit", "batches, evaluation and caches on Slurm", "cluster"),
        Package("s3fs", "s3fs", "frames and results in S3"),
        Package("bitsandbytes", "bitsandbytes", "training in 4 and 8 bits"),
        Package("wandb", "wandb", "logs of training"),
        Package("flash-attn", "flash_attn", "attention: flash"),
        Package("xformers", "xformers", "attention: xformers"),
    )
}
"""Optional packages by name."""


def check_installed(needs: Mapping[str, str]) -> None:
    """Check that optional packages are installed.

    Args:
        needs: names of packages → the setting that needs each.

    Raises:
        InputError: some are missing; names all of them and the commands that install them.
    """
    missing = {name: why for name, why in needs.items() if not OPTIONAL[name].is_installed}
    if missing:
        listed = ", ".join(f"{name} ({why})" for name, why in missing.items())
        commands = dict.fromkeys(f"`{OPTIONAL[name].install}`" for name in missing)
        raise InputError(f"missing packages: {listed}. Run {' and '.join(commands)}.")
