"""YAML 1.2 files whose keys remember where they were written, and the files that they build on."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter

from focaldiffusion.errors import InputError
from focaldiffusion.files import ABSENT, why_not_file

Block = dict[str, Any]
"""A mapping of a configuration as it was written; its keys are `Key`s."""

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value, outermost first."""

_LARGEST_BYTES = 2**16
_MOST_VALUES = 10_000  # each alias counts all that it repeats
_MOST_BRACKETS = 100  # ruamel.yaml takes seconds for thousands inside each other
_TEXTS = {"!!str", "!!timestamp", "!!merge", "!!value"}
_TYPES = {"!!null", "!!bool", "!!int", "!!float"}


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
    """Read a file and all that its `defaults` name, lowest first: each overrides those before.

    `defaults` lists files relative to the folder of the file that lists them; `.yaml` may be left
    out.

    Raises:
        InputError: a file that is missing, not YAML, not a mapping, or that builds on itself.
    """
    return _layers(path, "", ())


def read_override(text: str) -> Block:
    """The block that a file with the one key of `key.path=value` would hold.

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
    dumper, stream = _yaml(), StringIO()
    dumper.Representer = _Representer
    dumper.default_flow_style = None  # a list or mapping without blocks inside goes on one line
    dumper.width = sys.maxsize  # what ruamel.yaml folds, it may misread
    dumper.dump(block, stream)
    return stream.getvalue()


def dotted(path: KeyPath) -> str:
    """A path of keys as messages write it: `data.train_sources[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.composer.warn_double_anchors = False
    return yaml


class _Representer(SafeRepresenter):
    """Quotes all texts but words and paths, since ruamel.yaml writes some that it misreads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        style = None if re.fullmatch(r"[\w/][\w./-]*", data, re.ASCII) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Representer.add_representer(str, _Representer.represent_str)


def _layers(path: Path, named_at: str, above: tuple[Path, ...]) -> list[Block]:
    """The layers of a file that `named_at` names and that all the files `above` build on."""
    why = why_not_file(path)
    if why is not None and why != ABSENT:
        raise InputError(f"{named_at}{path}: {why}; expected a file")
    if path.resolve() in above:
        raise InputError(f"{named_at}{path} builds on itself through its defaults")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{named_at}{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got another kind of file") from error
    if len(content) > _LARGEST_BYTES:
        raise InputError(f"{path}: expected a configuration, got more than {_LARGEST_BYTES} bytes")
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
        if not isinstance(names, list) or not all(
            isinstance(name, str) and name.isprintable() for name in names
        ):
            raise InputError(f"{named_at}expected a list of files, such as [base]")
        bases = [path.parent / _with_suffix(name) for name in names]
    lower = [layer for base in bases for layer in _layers(base, named_at, (*above, path.resolve()))]
    return [*lower, block]


def _with_suffix(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"


def _parsed(text: str, where: Callable[[int], str]) -> Any:
    """The values of a YAML text; `where` turns a line into the start of a message."""
    yaml, values = _yaml(), count(1)

    def value(node: Node) -> Any:
        line = node.start_mark.line + 1
        if next(values) > _MOST_VALUES:
            raise InputError(f"{where(line)}more than {_MOST_VALUES} values, aliases repeated")
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        if isinstance(node, SequenceNode) and tag == "!!seq":
            return [value(item) for item in node.value]
        if isinstance(node, MappingNode) and tag == "!!map":
            return block(node)
        if tag not in _TEXTS | _TYPES or not isinstance(node, ScalarNode):
            raise InputError(f"{where(line)}the tag {tag} has no meaning here; leave it out")
        try:
            found = node.value if tag in _TEXTS else yaml.constructor.construct_object(node)
            str(found).encode()  # thousands of digits and lone surrogates cannot be shown
            return found
        except (ValueError, LookupError) as error:  # such as `!!int five`
            raise InputError(f"{where(line)}expected {tag}, got {node.value[:40]!r}") from error

    def block(node: MappingNode) -> Block:
        found: Block = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line, name = key_node.start_mark.line + 1, value(key_node)
            if not (isinstance(name, str) and name and name.isprintable()):
                raise InputError(f"{where(line)}expected the name of a key, got {name!r}")
            if name in lines:
                raise InputError(f"{where(line)}{name} is given already in line {lines[name]}")
            lines[name] = line
            found[Key(name, where(line))] = value(value_node)
        return found

    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    if deepest > _MOST_BRACKETS:
        raise InputError(f"{where(1)}not a configuration: nested too deeply")
    try:
        node = yaml.compose(text)
        return None if node is None else value(node)
    except InputError:
        raise
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{where(line)}not YAML: {error.problem}") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{where(line)}not YAML: {error.reason}") from error
    except (OverflowError, ValueError) as error:  # such as "\\UFFFFFFFF"
        raise InputError(f"{where(1)}not YAML: a character that does not exist") from error
    except RecursionError:
        raise InputError(f"{where(1)}not a configuration: nested too deeply") from None
