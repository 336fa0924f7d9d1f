"""Flags that override a configuration, and the resulting configuration."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focaldiffusion.config.run import Config

_KEY_OF_FLAG = {
    "--data-root": "data.data_root",
    "--train-filelist": "data.train_filelist",
    "--val-filelist": "data.val_filelist",
    "--test-filelist": "data.test_filelist",
    "--output-dir": "output.save_dir",
}


def add_config(parser: argparse.ArgumentParser, *, saves: bool = True) -> None:
    """Add the flags that `read_config` reads.

    Args:
        parser: parser of a command that reads a configuration.
        saves: whether the command writes to the configuration's `output`.
    """
    group = parser.add_argument_group("overrides of the file")
    group.add_argument(
        "--override",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="such as training.batch_size=4 data.image_size=[480,640]",
    )
    for flag, key in _KEY_OF_FLAG.items():
        if saves or not key.startswith("output."):
            group.add_argument(flag, metavar="PATH", help=f"short for --override {key}=PATH")
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="short for --override data.allow_missing=true: leave out samples without their files",
    )


def read_config(options: argparse.Namespace) -> Config:
    """The configuration of `options.config` and the flags; notices go to standard error.

    Raises:
        InputError: a mistake in it.
    """
    from focaldiffusion.config.load import load_config

    paths = {
        key: getattr(options, flag[2:].replace("-", "_"), None)
        for flag, key in _KEY_OF_FLAG.items()
    }
    # JSON is YAML, with the quotes that a path may need.
    given = [f"{key}={json.dumps(path)}" for key, path in paths.items() if path is not None]
    if options.allow_missing:
        given.append("data.allow_missing=true")
    loaded = load_config(options.config, [*options.override, *given])
    for notice in loaded.notices:
        print(f"note: {notice}", file=sys.stderr)
    return loaded.config
