"""Seeded mutations of files, blind to the format and within it, for benchmarks/fuzz.py.

`mutated` draws one of them. The same random state gives the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import h5py
import numpy as np

_EXTREMES = (0, 1, 2, 3, 5, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF)
_WIDE_EXTREMES = (0x80000000, 0xFFFFFFFF, 0x7F800000, 0x7FC00000, 0xFF800000, 0x7FF0 << 48, -1)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 + 1, 10**40, 1.5, -0.0, 1e-310, 1e308, -1e300,
    float("nan"), float("inf"), "", "nan", "1e999", "a\nb", "\x00", "\ud800", "\x1b[31m", "..",
    "/dev/zero", "é" * 300, [], {}, [[]], [None], {"a": {"b": []}}, [1, 2], "2026-02-30",
)  # fmt: skip
_TEXTS = (
    "!!int ''", "!!bool maybe", "!!float .", "!!set {a}", "!!binary x", "!!python/object:os.x {}",
    "&a [*a]", "*b", "<<: *a", "[" * 3000, "{" * 3000, "[" * 100_000, "0" * 5000, "1" * 5000, "-",
    "1e400", "nan", ".inf", "null", "~", '"', "'", ",,,", ";;", "=", "\x00", "\u2028", "\r", "\t",
    "\ufeff", "🙂", "../../..", "%", "|", ">", "? ", "---", "...", "#", ":", "true", "0x1F", "1_0",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 9)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Mutant(NamedTuple):
    """Mutated bytes, and the name of the kind of mutation."""

    data: bytes
    kind: str


def mutated(data: bytes, name: str, others: Sequence[bytes], random: Random) -> Mutant:
    """One to three mutations of a file's content.

    Args:
        data: content of a valid file.
        name: its name, whose suffix tells the format.
        others: contents to splice from.
        random: source of every choice.
    """
    suffix = name.rpartition(".")[2].lower()
    within = _WITHIN.get(suffix)
    if within is not None and random.random() < 0.5:
        try:
            return Mutant(within(data, random), f"{suffix} structure")
        except (ValueError, LookupError, OSError, struct.error, zlib.error, TypeError):
            pass  # the mutation does not apply to this content
    kind = random.choice(tuple(_BLIND))
    for _ in range(1 if kind == "truncate" else random.randint(1, 3)):
        data = _BLIND[kind](data, others, random)
    return Mutant(data, kind)


def _flip(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        changed[_position(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _splice(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Cut a piece out, or put a piece of this or another file in its place or between."""
    source = random.choice([data, *others])
    start, at = random.randrange(len(source) + 1), random.randrange(len(data) + 1)
    piece = source[start : start + random.choice((1, 2, 4, 8, 16, 64, 256, 1024))]
    if random.random() < 0.3:
        return data[:at] + data[at + len(piece) :]
    return data[:at] + piece + data[at + random.choice((0, len(piece))) :]


def _extreme(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """An integer or float at the end of its range, at an aligned offset."""
    width = random.choice((1, 2, 4, 8))
    value = random.choice(_EXTREMES + _WIDE_EXTREMES) % 2 ** (8 * width)
    at = _position(data, random) // width * width
    return data[:at] + value.to_bytes(width, random.choice(("little", "big"))) + data[at + width :]


def _position(data: bytes | bytearray, random: Random) -> int:
    """A position, half of the time in the first 512 bytes, where headers are."""
    return random.randrange(max(1, min(len(data), random.choice((512, len(data))))))


_BLIND: dict[str, Callable[[bytes, Sequence[bytes], Random], bytes]] = {
    "flip": _flip,
    "truncate": _truncate,
    "splice": _splice,
    "extreme": _extreme,
}


def _json(data: bytes, random: Random) -> bytes:
    """A value replaced, a key renamed, left out or repeated; in JSON Lines, of one line."""
    lines = data.split(b"\n") if b"}\n{" in data else [data]
    index = random.choice([i for i, line in enumerate(lines) if line.strip()])
    tree = json.loads(lines[index])
    holders = [one for one in _holders(tree) if len(one)]
    if not holders or random.random() < 0.05:
        return json.dumps(random.choice(_VALUES)).encode()
    holder = random.choice(holders)
    key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    action = random.choice(("replace", "replace", "replace", "rename", "remove", "repeat"))
    if action == "remove":
        del holder[key]
    elif action == "rename" and isinstance(holder, dict):
        holder[random.choice(("", "x", f"{key} ", "\ud800", "a\nb"))] = holder.pop(key)
    else:
        holder[key] = random.choice(_VALUES)
    text = json.dumps(tree)
    if action == "repeat":
        text = text.replace("{", '{"x": 1, "x": 2, ', 1)
    lines[index] = text.encode()
    return b"\n".join(lines)


def _holders(tree: Any) -> list[Any]:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = [tree] if isinstance(tree, (dict, list)) else []
    return own + [one for value in inside for one in _holders(value)]


def _text(data: bytes, random: Random) -> bytes:
    """A number or a place in the text takes an odd value; a line is repeated or moved."""
    text = data.decode("utf-8", errors="replace")
    action = random.choice(("number", "number", "insert", "insert", "word", "line", "bomb"))
    numbers = list(_NUMBER.finditer(text))
    if action == "number" and numbers:
        found = random.choice(numbers)
        value = str(random.choice(_VALUES[3:18]))
        return _encoded(text[: found.start()] + value + text[found.end() :])
    if action == "line":
        lines = text.splitlines(keepends=True)
        lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
        return _encoded("".join(lines))
    if action == "bomb":
        return _encoded(random.choice((text + "\n" + _BOMB, _BOMB)))
    at = random.randrange(len(text) + 1)
    end = at
    if action == "word":
        words = list(re.finditer(r"[^\s,:]+", text))
        at, end = random.choice(words).span() if words else (at, end)
    return _encoded(text[:at] + random.choice(_TEXTS) + text[end:])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _json_or_text(data: bytes, random: Random) -> bytes:
    return random.choice((_json, _json, _text))(data, random)


_ODD_ARRAYS: tuple[Callable[[], Any], ...] = (
    lambda: np.zeros(0, np.float32),
    lambda: np.float32(1),
    lambda: np.zeros((2, 3), complex),
    lambda: np.array([["a", "b"]], dtype="S1"),
    lambda: np.zeros((2, 2), bool),
    lambda: np.zeros((4, 6, 3), np.float64),
    lambda: np.full((4, 6), np.nan),
    lambda: np.full((4, 6), -np.inf, np.float32),
    lambda: np.zeros(3, [("x", "i4"), ("y", "f4")]),
    lambda: np.zeros((4, 6), ">u8"),
    lambda: np.arange(24, dtype="M8[s]").reshape(4, 6),
)
_ODD_NUMBERS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e30, -1e-30, 1e-45)


def _npy(data: bytes, random: Random) -> bytes:
    """Another header before the same data, or odd numbers in them."""
    start = data.index(b"{")
    end = data.index(b"\n", start)
    header = data[start:end].decode("latin-1")
    shape = random.choice(
        ("(99999, 99999)", "(-1, 4)", "()", "(0, 4)", "(4, 6, 2)", "(1e3, 2)", "(2**70, 1)",
         "(4,)", "'x'", "(True, 4)", "(None, 4)", "(99999999999999999999, 1)")
    )  # fmt: skip
    kind = random.choice(("'<f4'", "'<f8'", "'|O'", "'<c8'", "'<U9'", "'|b1'", "5", "'<M8[s]'"))
    choice = random.randrange(3)
    if choice == 0:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", header)
    elif choice == 1:
        header = re.sub(r"'descr': '[^']*'", f"'descr': {kind}", header)
    else:
        return data[: end + 1] + _odd_numbers(data[end + 1 :], random)
    return data[:8] + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data[end + 1 :]


def _odd_numbers(data: bytes, random: Random) -> bytes:
    value = np.float32(random.choice(_ODD_NUMBERS)).tobytes()
    at = random.randrange(max(1, len(data) // 4)) * 4
    return data[:at] + value + data[at + 4 :]


def _zip(data: bytes, random: Random) -> bytes:
    """The archive with a member mutated, renamed, repeated or left out, and sound checksums."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen, action = random.choice(names), random.choice(("npy", "npy", "blind", "name", "no"))
        for name in names:
            content = old.read(name)
            if name == chosen:
                if action == "no":
                    continue
                if action == "name":
                    name = random.choice(("x.npy", "../x.npy", "depth", "\x00", "a/" * 90))
                elif action == "npy":
                    content = _npy(content, random)
                else:
                    content = random.choice(tuple(_BLIND.values()))(content, [data], random)
            new.writestr(name, content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _hdf5(data: bytes, random: Random) -> bytes:
    """A data set of another kind, shape or content, an unfilled huge one, a group or a link."""
    made = io.BytesIO(data)
    with h5py.File(made, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        name = random.choice(names)
        shape, kind = file[name].shape, file[name].dtype
        action = random.choice(("odd", "huge", "group", "link", "values", "values", "rename"))
        if action == "values" and kind.kind in "fiu" and file[name].size:
            values = file[name][()].reshape(-1)
            with np.errstate(all="ignore"):
                values[random.randrange(values.size)] = np.array(
                    random.choice(_ODD_NUMBERS)
                ).astype(kind)
            file[name][...] = values.reshape(shape)
            return _closed(file, made)
        if action == "rename":
            file.move(name, f"{name}x")
            return _closed(file, made)
        del file[name]
        if action == "huge":
            huge = random.choice(((2**20, 2**20), (10**9,), (0, 0), (2**16, *shape), (3, *shape)))
            file.create_dataset(name, huge, "f4", chunks=tuple(max(1, min(n, 16)) for n in huge))
        elif action == "group":
            file.create_group(name)
        elif action == "link":
            target = random.choice(("/nowhere", f"/{name}"))
            file[name] = random.choice(
                (h5py.SoftLink(target), h5py.ExternalLink("/dev/null", target))
            )
        else:
            odd = random.choice(_ODD_ARRAYS)()
            file[name] = odd.astype("S20") if np.asarray(odd).dtype.kind == "M" else odd
        return _closed(file, made)


def _closed(file: h5py.File, made: io.BytesIO) -> bytes:
    file.close()
    return made.getvalue()


def _safetensors(data: bytes, random: Random) -> bytes:
    """Another header before the same data, or odd numbers in them."""
    length = int.from_bytes(data[:8], "little")
    header, content = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.4:
        return data[: 8 + length] + _odd_numbers(content, random)
    tree = json.loads(header)
    notes = tree.get("__metadata__", {}).get("notes")
    if notes is not None and random.random() < 0.6:
        tree["__metadata__"]["notes"] = _json(notes.encode(), random).decode()
        header = json.dumps(tree).encode()
    else:
        header = _json(header, random)
    return len(header).to_bytes(8, "little") + header + content


def _png(data: bytes, random: Random) -> bytes:
    """A chunk mutated, repeated or left out, with a sound checksum."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    index = random.randrange(len(chunks))
    name, content = chunks[index]
    action = random.choice(("size", "cut", "blind", "blind", "repeat", "remove", "name"))
    if action == "size":
        index, (name, content) = 0, chunks[0]
        size = [random.choice((0, 1, 40, 5000, 30000, 2**31 - 1)) for _ in range(2)]
        content = struct.pack(">II", *size) + content[8:]
    elif action == "cut" and b"IDAT" in [one for one, _ in chunks]:
        index = next(i for i, (one, _) in enumerate(chunks) if one == b"IDAT")
        name = b"IDAT"
        pixels = zlib.decompress(b"".join(c for one, c in chunks if one == name))
        content = zlib.compress(pixels[: random.randrange(len(pixels))])
    elif action == "name":
        name = bytes(random.randrange(65, 123) for _ in range(4))
    elif action != "repeat":
        content = random.choice(tuple(_BLIND.values()))(content, [data], random)
    chunks[index] = (name, content)
    if action == "remove":
        del chunks[index]
    elif action == "repeat":
        chunks.insert(index, chunks[index])
    return data[:8] + b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks
    )


def _tiff(data: bytes, random: Random) -> bytes:
    """An entry of a directory with another type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    directories, at = [], struct.unpack_from(f"{order}I", data, 4)[0]
    while at and len(directories) < 8:
        count = struct.unpack_from(f"{order}H", data, at)[0]
        directories.append((at + 2, count))
        at = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)[0]
    start, count = random.choice(directories)
    entry = start + 12 * random.randrange(count)
    field = random.choice(("type", "count", "value", "value", "value", "tag"))
    offset, width = {"tag": (0, 2), "type": (2, 2), "count": (4, 4), "value": (8, 4)}[field]
    values = (*_EXTREMES, *_WIDE_EXTREMES[:3]) if field != "type" else range(20)
    value = random.choice(values) % 2 ** (8 * width)
    if field == "value" and random.random() < 0.5:
        width, value = 2, value % 2**16  # a SHORT lies in the first two bytes
    packed = struct.pack(f"{order}{'H' if width == 2 else 'I'}", value)
    return data[: entry + offset] + packed + data[entry + offset + width :]


_WITHIN: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json_or_text,
    "jsonl": _json_or_text,
    "csv": _text,
    "txt": _text,
    "yaml": _text,
    "npy": _npy,
    "npz": _zip,
    "zip": _zip,
    "h5": _hdf5,
    "hdf5": _hdf5,
    "safetensors": _safetensors,
    "png": _png,
    "tif": _tiff,
    "mat": lambda data, random: (_hdf5 if data[512:516] == b"\x89HDF" else _zlib)(data, random),
}
"""Mutations within a format, by suffix."""


def _zlib(data: bytes, random: Random) -> bytes:
    """The elements of a MATLAB 5 file, each mutated inside its compression."""
    if data[128:130] != b"\x0f\0":
        raise ValueError("not compressed")
    length = int.from_bytes(data[132:136], "little")
    inside = zlib.decompress(data[136 : 136 + length])
    packed = zlib.compress(random.choice(tuple(_BLIND.values()))(inside, [data], random))
    return data[:132] + struct.pack("<I", len(packed)) + packed + data[136 + length :]
