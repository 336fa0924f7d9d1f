"""Units of length as microscopes write them."""

from __future__ import annotations

import math
from typing import Any

_PREFIXES = {
    "Y": 1e24, "Z": 1e21, "E": 1e18, "P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "h": 1e2,
    "da": 1e1, "": 1.0, "d": 1e-1, "c": 1e-2, "m": 1e-3, "µ": 1e-6, "n": 1e-9, "p": 1e-12,
    "f": 1e-15, "a": 1e-18, "z": 1e-21, "y": 1e-24,
}  # fmt: skip
_WORDS = {
    "": 1.0, "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9,
    "pico": 1e-12, "kilo": 1e3,
}  # fmt: skip

# Case counts in symbols (Mm is not mm), not in words. The units of the OME schema first.
_SYMBOLS = {f"{prefix}m": factor for prefix, factor in _PREFIXES.items()}
_SYMBOLS |= {
    "Å": 1e-10, "thou": 2.54e-5, "li": 2.54e-2 / 12, "in": 2.54e-2, "ft": 0.3048, "yd": 0.9144,
    "mi": 1609.344, "ua": 149597870700.0, "ly": 9460730472580800.0, "pc": 3.0856775814913673e16,
    "pt": 2.54e-2 / 72, "um": 1e-6, "u": 1e-6, "µ": 1e-6, '"': 2.54e-2, "A": 1e-10,
}  # fmt: skip
_NAMES = {
    f"{prefix}{metre}": factor
    for prefix, factor in _WORDS.items()
    for metre in ("meter", "meters", "metre", "metres")
}
_NAMES |= dict.fromkeys(("micron", "microns", "um", "µm"), 1e-6)
_NAMES |= dict.fromkeys(("angstrom", "angstroms", "ångström", "å"), 1e-10)
_NAMES |= dict.fromkeys(("inch", "inches"), 2.54e-2)
_NAMES |= {"foot": 0.3048, "feet": 0.3048, "mil": 2.54e-5, "mm": 1e-3, "cm": 1e-2, "nm": 1e-9}


def metres_per(unit: str) -> float | None:
    """Metres of one unit; None for what is not a length, such as pixels.

    >>> metres_per("micron"), metres_per("Mm"), metres_per("pixel")
    (1e-06, 1000000.0, None)
    """
    text = unit.strip().strip("\0")
    # ImageJ escapes the micro sign; the Greek mu and the Angstrom sign have two codes each.
    for escaped in ("\\u00b5", "\\u00B5", "\\u03bc", "\\u03BC", "\u03bc", "&#181;", "Âµ"):
        text = text.replace(escaped, "µ")
    for escaped in ("\\u00c5", "\\u00C5", "\u212b"):
        text = text.replace(escaped, "Å")
    return _SYMBOLS.get(text, _NAMES.get(text.lower()))


def metres(value: Any, unit: str) -> float | None:
    """A length in metres; None for zero, nonsense and units other than of length."""
    factor = metres_per(unit)
    try:
        length_m = float(value) * factor if factor is not None else 0.0
    except (TypeError, ValueError):
        return None
    return length_m if math.isfinite(length_m) and length_m != 0 else None
