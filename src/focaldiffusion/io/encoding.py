"""Encodings of pixel values: ICC curves and PNG gamma that are unlike sRGB are converted.

The computation expects the encoding of sRGB, or one close to it: gamma 2.2, Display P3, Adobe RGB.
Such values are left alone. Linear light, gamma 1.8 and the like are encoded anew. Primaries are
never converted, so nothing leaves the gamut; the profile of the output keeps them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = Callable[[NDArray[Any]], NDArray[Any]]
"""Linear light of encoded values, both in [0, 1]."""

_LIKE_SRGB = 0.05
"""Largest difference from sRGB's encoding of the same light. Gamma 2.2 has 0.03, L* and Rec. 709
up to 0.05; gamma 1.8 has 0.08, linear light 0.3."""

_CURVE_TAGS = {b"RGB ": (b"rTRC", b"gTRC", b"bTRC"), b"GRAY": (b"kTRC",)}
_COLORANT_TAGS = (b"rXYZ", b"gXYZ", b"bXYZ")
_SRGB_COLORANTS = (0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7139)
_SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_STEPS = 1024  # entries of the curve that replaces another in a profile


def gamma_curve(gamma: float) -> Curve:
    """The curve of a PNG's gAMA, such as 0.45455: light = value^(1/gamma)."""
    return lambda values: values ** (1 / gamma)


def _hybrid_log_gamma(values: NDArray[Any]) -> NDArray[Any]:
    """Scene light of hybrid log-gamma (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


def _perceptual_quantizer(values: NDArray[Any]) -> NDArray[Any]:
    """Display light of the perceptual quantizer (BT.2100, table 4), 1000 cd/m² as white."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    root = values ** (1 / m2)
    return 10 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


TRANSFER_CURVES: dict[int, Curve] = {
    5: lambda values: values**2.8,
    8: lambda values: values,
    16: _perceptual_quantizer,
    18: _hybrid_log_gamma,
}
"""Curves of the transfer characteristics of HEIC (ITU-T H.273) that are unlike sRGB's."""


def curves_of(info: dict[Any, Any]) -> tuple[Curve, ...]:
    """Curves unlike sRGB's of an image open in Pillow: by its profile, else by PNG or HEIC."""
    if profile := info.get("icc_profile"):
        return profile_curves(profile)
    curve = TRANSFER_CURVES.get((info.get("nclx_profile") or {}).get("transfer_characteristics", 0))
    if "srgb" not in info and info.get("gamma"):
        curve = gamma_curve(info["gamma"])
    return () if curve is None or is_like_srgb(curve) else (curve,)


def chromaticities_of(info: dict[Any, Any]) -> tuple[float, ...] | None:
    """White, red, green and blue of an image without profile, where they are not sRGB's."""
    found = None if "srgb" in info else info.get("chromaticity")
    if nclx := info.get("nclx_profile"):
        corners = ("white", "red", "green", "blue")
        names = [f"color_primary_{corner}_{axis}" for corner in corners for axis in "xy"]
        found = [float(nclx.get(name, 0)) for name in names]
    if info.get("icc_profile") or found is None or len(found) != 8:
        return None
    valid = all(0 < one < 1 for one in found)
    different = np.abs(np.subtract(found, _SRGB_CHROMATICITIES)).max() > 0.005
    return tuple(found) if valid and different else None


def profile_curves(profile: bytes | None) -> tuple[Curve, ...]:
    """The curves of an ICC profile, one for grey or three for RGB, where they are unlike sRGB's.

    Returns:
        None of them where they are like sRGB's, or where the profile has no plain curves.
    """
    tags = _tags(profile or b"")
    names = _CURVE_TAGS.get((profile or b"")[16:20], ())
    if b"A2B0" in tags or not names or not all(name in tags for name in names):
        return ()
    curves = tuple(_curve(tags[name]) for name in names)
    return curves if not all(is_like_srgb(curve) for curve in curves) else ()


def is_like_srgb(curve: Curve) -> bool:
    """Whether values of this curve may be taken for sRGB's."""
    values = np.linspace(0, 1, 65)
    return bool(np.abs(_encoded(curve, values) - values).max() <= _LIKE_SRGB)


def srgb_encoded(image: NDArray[np.float32], curves: tuple[Curve, ...]) -> NDArray[np.float32]:
    """An image (H, W, 3) of up to 16 bits in the encoding of sRGB; unchanged without curves."""
    if not curves:
        return image
    levels = np.rint(image * 65535).astype(np.uint16)
    values = np.linspace(0, 1, 65536)
    tables = [_encoded(curve, values).astype(np.float32) for curve in curves]
    if len(tables) == 1:
        return tables[0].take(levels)
    return np.stack([tables[c].take(levels[..., c]) for c in range(3)], axis=-1)


def with_srgb_curves(profile: bytes) -> bytes:
    """The profile with sRGB's curve in place of its own, for an image of `srgb_encoded`."""
    table = np.rint(_srgb_curve(np.linspace(0, 1, _STEPS)) * 65535).astype(">u2").tobytes()
    curve = b"curv\0\0\0\0" + struct.pack(">I", _STEPS) + table
    changed = bytearray(profile + bytes(-len(profile) % 4))
    place = struct.pack(">II", len(changed), len(curve))
    (count,) = struct.unpack_from(">I", changed, 128)
    for entry in range(132, 132 + 12 * count, 12):
        if bytes(changed[entry : entry + 4]) in (b"rTRC", b"gTRC", b"bTRC", b"kTRC"):
            changed[entry + 4 : entry + 12] = place
    changed += curve
    changed[:4] = struct.pack(">I", len(changed))
    changed[84:100] = bytes(16)  # the profile's own digest, optional
    return bytes(changed)


def profile_name(profile: bytes | None) -> str:
    """Name of a profile, by its own description; sRGB without one."""
    if profile is None:
        return "sRGB"
    text = _tags(profile).get(b"desc", b"")
    if text[:4] == b"mluc" and len(text) >= 28:
        length, offset = struct.unpack_from(">II", text, 20)
        name = text[offset : offset + length].decode("utf-16-be", "replace")
    else:
        name = text[12:].split(b"\0")[0].decode("ascii", "replace")
    return "".join(filter(str.isprintable, name)).strip() or "unnamed"


def same_colours(first: bytes | None, second: bytes | None) -> bool:
    """Whether two profiles have the same primaries; grey ones fit any."""
    if first == second:
        return True
    primaries = [_primaries(profile) for profile in (first, second)]
    return any(one is not None and not len(one) for one in primaries) or (
        primaries[0] is not None
        and primaries[1] is not None
        and bool(np.abs(primaries[0] - primaries[1]).max() < 0.005)
    )


def _primaries(profile: bytes | None) -> NDArray[np.float64] | None:
    """XYZ of red, green and blue, (9,); empty for grey; None where they cannot be told."""
    if profile is None:
        return np.array(_SRGB_COLORANTS)
    if profile[16:20] == b"GRAY":
        return np.array([])
    tags = _tags(profile)
    values = [tags.get(name, b"")[8:20] for name in _COLORANT_TAGS]
    if any(len(value) < 12 for value in values):
        return None
    return np.frombuffer(b"".join(values), ">i4") / 65536


def _encoded(curve: Curve, values: NDArray[Any]) -> NDArray[Any]:
    """The sRGB encoding of the light that values of a curve stand for."""
    import torch  # here, because commands that read no picture do without

    from focaldiffusion.optics import linear_to_srgb

    light = np.clip(np.nan_to_num(curve(values)), 0, 1)
    encoded: NDArray[Any] = linear_to_srgb(torch.from_numpy(light)).numpy()
    return encoded


def _srgb_curve(values: NDArray[Any]) -> NDArray[Any]:
    import torch

    from focaldiffusion.optics import srgb_to_linear

    light: NDArray[Any] = srgb_to_linear(torch.from_numpy(values)).numpy()
    return light


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The tags of an ICC profile; none of a broken one."""
    if len(profile) < 132:
        return {}
    (count,) = struct.unpack_from(">I", profile, 128)
    if 132 + 12 * count > len(profile):
        return {}
    tags = {}
    for entry in range(132, 132 + 12 * count, 12):
        name, offset, size = struct.unpack_from(">4sII", profile, entry)
        tags[name] = profile[offset : offset + size]
    return tags


def _curve(tag: bytes) -> Curve:
    """The curve of a tag `curv` or `para` (ICC.1:2022, 10.6 and 10.18); sRGB's of a broken one."""
    if tag[:4] == b"curv" and len(tag) >= 12:
        (count,) = struct.unpack_from(">I", tag, 8)
        table = np.frombuffer(tag[12 : 12 + 2 * count], ">u2", len(tag[12 : 12 + 2 * count]) // 2)
        if len(table) < count:
            return _srgb_curve
        if count == 0:
            return lambda values: values
        if count == 1:
            exponent = int(table[0]) / 256
            return lambda values: values**exponent
        return lambda values: np.interp(values, np.linspace(0, 1, count), table / 65535)
    if tag[:4] == b"para" and len(tag) >= 16:
        (kind,) = struct.unpack_from(">H", tag, 8)
        numbers = np.frombuffer(tag[12 : len(tag) // 4 * 4], ">i4") / 65536
        if kind > 4 or len(numbers) < (1, 3, 4, 5, 7)[kind]:
            return _srgb_curve
        g, a, b, c, d, e, f = 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
        if kind == 0:
            g = numbers[0]
        elif kind in (1, 2):
            g, a, b = numbers[:3]
            d = -b / a if a else 0.0
            e = f = numbers[3] if kind == 2 else 0.0
        elif kind == 3:
            g, a, b, c, d = numbers[:5]
        else:
            g, a, b, c, d, e, f = numbers[:7]
        return lambda values: np.where(
            values >= d, np.maximum(a * values + b, 0) ** g + e, c * values + f
        )
    return _srgb_curve
