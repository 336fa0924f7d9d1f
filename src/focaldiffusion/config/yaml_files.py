"""YAML files that remember where each key was written, and the files that they build on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from focaldiffusion.errors import InputError

Block = dict[str, Any]
"""A mapping of a configuration as it was written; its keys are `Key`s."""

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value, outermost first."""


class Key(str):
    """A key of a configuration that knows where it was written."""

    __slots__ = ("where",)
    where: str
    """What precedes the key's path in a message: `configs/my.yaml:12: ` or `override `."""

    def __new__(cls, name: str, where: str) -> Key:
        """A key of this name, written there."""
        key = super().__new__(cls, name)
        key.where = where
        return key


def read_layers(path: Path) -> list[Block]:
    """Read a file and all that its `defaults` name, lowest first: each is laid over those before.

    `defaults` lists files relative to the folder of the file that says so; `.yaml` may be left out.

    Raises:
        InputError: a file that is missing, not YAML, not a mapping, or that builds on itself.
    """
    return _layers(path, "", ())


def read_override(text: str) -> Block:
    """What `key.path=value` says, as a file with that one key would.

    Raises:
        InputError: another form, or a value that is not YAML.
    """
    path, equals, value = text.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        raise InputError(f"override {text}: expected key.path=value")
    inner = _parsed(value, lambda line: f"override {path.strip()}: ")
    for name in reversed(names):
        inner = {Key(name, "override "): inner}
    block: Block = inner
    return block


def yaml_text(block: Block) -> str:
    """The YAML of plain values; reading it gives the same values back."""
    text: str = yaml.dump(
        block,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,  # what holds no block goes on one line
        width=100,
    )
    return text


def dotted(path: KeyPath) -> str:
    """A path of keys as messages write it: `data.train_sources[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _layers(path: Path, named_at: str, above: tuple[Path, ...]) -> list[Block]:
    """The layers of a file that `named_at` names and that all the files `above` build on."""
    if path.resolve() in above:
        raise InputError(f"{named_at}{path} builds on itself through its defaults")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{named_at}{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got another kind of file") from error
    block = _parsed(text, lambda line: f"{path}:{line}: ")
    if block is None:
        return []
    if not isinstance(block, dict):
        raise InputError(f"{path}: expected keys with values, got {type(block).__name__}")
    bases: list[Path] = []
    key = next((key for key in block if key == "defaults"), None)
    if key is not None:
        named_at = f"{key.where}defaults: "
        names = block.pop(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{named_at}expected a list of files, such as [base]")
        bases = [path.parent / _with_suffix(name) for name in names]
    lower = [layer for base in bases for layer in _layers(base, named_at, (*above, path.resolve()))]
    return [*lower, block]


def _with_suffix(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"


def _parsed(text: str, where: Callable[[int], str]) -> Any:
    """The values of a YAML text; `where` says what precedes a message on one of its lines."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, where)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(
            f"{where(mark.line + 1 if mark else 1)}not YAML: {error.problem}"
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{where(line)}not YAML: {error.reason}") from error
    except RecursionError:
        raise InputError(f"{where(1)}not a configuration: nested too deeply") from None


def _value(loader: _Loader, node: yaml.Node, where: Callable[[int], str]) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, where) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except ValueError as error:  # an explicit tag, such as `!!int five`
            raise InputError(f"{where(line)}not YAML: {error}") from error
    block: Block = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        name = _value(loader, key_node, where)
        if not isinstance(name, str):
            raise InputError(f"{where(line)}expected the name of a key, got {name!r}")
        if name in lines:
            raise InputError(f"{where(line)}{name} is given already in line {lines[name]}")
        lines[name] = line
        block[Key(name, where(line))] = _value(loader, value_node, where)
    return block


class _Loader(yaml.SafeLoader):
    """Reads plain scalars as YAML 1.2 does: `1e-5` is a number, `no` and `on` are texts."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as a text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
        )
