"""`script.train` with FSDP 2 on CPUs, where accelerate, which shards on GPUs alone, ignores it."""

from __future__ import annotations

import sys
from typing import Any

from accelerate.state import AcceleratorState, DistributedType, PartialState

from focaldiffusion.cli.main import main

_initialise = AcceleratorState.__init__


def _with_shards(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
    _initialise(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = _with_shards
    sys.exit(main(sys.argv[1:]))
