"""`python -m script.train`: the original's command, the same as `focaldiffusion train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from focaldiffusion.cli.main import main as focaldiffusion


def main(argv: Sequence[str] | None = None) -> int:
    """Run `focaldiffusion train` and return its exit code.

    Args:
        argv: the arguments, those of the process when not given.
    """
    return focaldiffusion(["train", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
