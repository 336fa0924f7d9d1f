"""Scene of the example `still_life`: a table in window light, 0.35 m to 2.5 m from the lens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapes
import textures
from parts import Part, Softbox
from shapes import Mesh
from textures import Colour, Print, Rng

INK = (0.13, 0.12, 0.13)
CREAM = (0.85, 0.83, 0.76)

LIGHTS = [
    Softbox((-1.9, 0.55, 1.75), (0.1, 1.0, 0.1), 1.5, 1.2, (7.6, 7.0, 6.1)),
    Softbox((2.0, 1.5, 1.5), (0.0, 1.2, 0.1), 0.8, 1.0, (1.9, 2.2, 2.7)),
]
AMBIENT = (0.20, 0.22, 0.25)


def build(rng: Rng) -> list[Part]:
    """All parts, front to back."""
    return [
        *_table_and_wall(rng),
        *_page(rng),
        *_pencils(rng),
        *_marbles(rng),
        *_pawn_and_spectacles(rng),
        *_gear_and_spring(),
        *_ruler(rng),
        *_cloth_and_fruit(rng),
        *_mug(rng),
        *_books(rng),
        *_globe(rng),
        *_plant(rng),
    ]


def _table_and_wall(rng: Rng) -> list[Part]:
    oak = [(0.80, 0.62, 0.43), (0.66, 0.46, 0.28), (0.40, 0.25, 0.14), (0.16, 0.10, 0.06)]
    table = shapes.plate(1.96, 1.96).turned("z", 8).at(0, 1.12)
    wall = shapes.plate(5.0, 3.0).turned("x", 90).at(0, 2.45, 0.6)
    floor = shapes.plate(6.0, 6.0).at(0, 1.0, -0.75)
    plaster = textures.mottled(rng, (900, 1500), (0.42, 0.53, 0.55), 0.018, 90)
    return [
        Part(table, textures.wood(rng, (2600, 2800), 14, oak), "gloss", 0.32),
        Part(wall, plaster),
        Part(floor, (0.25, 0.22, 0.20)),
        *_picture(rng),
    ]


def _picture(rng: Rng) -> list[Part]:
    """A framed print of circles that overlap: a bare wall needs one thing to focus on."""
    sheet = Print(480, 300, 2.2, CREAM)
    inks = [(0.80, 0.33, 0.20), (0.88, 0.62, 0.22), (0.16, 0.33, 0.42), (0.42, 0.56, 0.47)]
    for k, radius in enumerate((78, 62, 48, 34, 22, 13)):
        centre = (110 + 52 * k, 122 + 10 * (k % 2))
        sheet.disc(*centre, radius, inks[k % 4])
        sheet.disc(*centre, radius * 0.72, CREAM if k % 2 else inks[(k + 2) % 4])
    sheet.text(240, 252, "CIRCLES OF CONFUSION", 27, INK, "mm")
    frame = shapes.merged(
        [
            *(shapes.rounded_box((0.54, 0.03, 0.03), 0.003).at(0, y) for y in (-0.165, 0.165)),
            *(shapes.rounded_box((0.03, 0.30, 0.03), 0.003).at(x, 0) for x in (-0.255, 0.255)),
        ]
    )
    place = (-0.02, 2.44, 0.335)
    return [
        Part(frame.turned("x", 90).at(*place), (0.20, 0.13, 0.09), "gloss", 0.3),
        Part(shapes.plate(0.48, 0.30).turned("x", 90).at(*place), sheet.texture(rng)),
    ]


def _page(rng: Rng) -> list[Part]:
    """A printed page: the text shows which strip of it is in focus."""
    page = Print(150, 210, 8, CREAM)
    page.text(14, 13, "ON DEPTH OF FIELD", 8.6, INK)
    page.line([(14, 25), (136, 25)], 0.5, INK)
    words = (
        "A lens is sharp at one distance only. A point nearer or farther than that becomes a "
        "small disc of light, and the disc grows with the aperture and with the distance to "
        "the plane of focus, counted in dioptres. Whoever wants all of a scene sharp takes "
        "several pictures, moves the focus a little before each, and keeps the sharp parts. "
        "The discs are no defect, though. Their size tells how far away every point is: this "
        "page at the front, the orange behind it, the globe, and the wall at the end. "
    )
    lines, line = [], ""
    for word in (words * 3).split():
        if len(line) + len(word) > 45:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    for k, text in enumerate(lines[:18]):
        page.text(14, 30 + k * 6.4 + (52 if k > 6 else 0), text, 5.2, INK)
    top = 78.0  # the figure: a lens, two rays, and the disc that they leave on the sensor
    page.line([(18, top + 22), (132, top + 22)], 0.3, INK)
    for y in (8, 36):
        page.line([(20, top + 22), (70, top + y), (118, top + 22 + (22 - y) * 0.35)], 0.6, INK)
    page.line([(118, top + 8), (118, top + 36)], 1.4, (0.72, 0.22, 0.16))
    bulge = np.sin(np.linspace(0, np.pi, 30))
    for side in (-1, 1):
        outline = [(70 + side * 5 * b, top + 3 + 38 * k / 29) for k, b in enumerate(bulge)]
        page.line(outline, 0.8, (0.16, 0.33, 0.42))
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, 40), np.linspace(-0.5, 0.5, 30), indexing="ij")
    lift = 0.0006 + 0.010 * np.clip(u - 0.15, 0, 1) ** 2 * 4 + 0.006 * np.clip(-v - 0.2, 0, 1) ** 2
    sheet = shapes.grid(np.stack([0.150 * u, 0.210 * v, lift], -1))
    return [Part(sheet.turned("z", -14).at(0.035, 0.515), page.texture(rng))]


def _pencils(rng: Rng) -> list[Part]:
    """Hexagonal colour pencils: one on the page, two beside it, more in a cup."""
    colours = [(0.78, 0.16, 0.13), (0.95, 0.70, 0.12), (0.13, 0.36, 0.55), (0.18, 0.48, 0.30)]
    parts = _pencil(rng, colours[0], lambda m: m.turned("z", 62).at(-0.035, 0.475, 0.005))
    parts += _pencil(rng, colours[2], lambda m: m.turned("z", 196).at(0.235, 0.66, 0.004))
    cup = shapes.lathe(
        [(0.036, 0), (0.040, 0.1), (0.040, 0.1), (0.037, 0.1), (0.037, 0.1), (0.034, 0.01)]
    )
    kiln = textures.glaze(rng, (400, 900), (0.16, 0.30, 0.30), (0.62, 0.66, 0.55))
    parts.append(Part(cup.at(0.335, 1.02), kiln, "gloss", 0.18))
    leans = [(-14, 20), (9, 110), (-8, 200), (12, 290), (4, 40), (-10, 160)]
    for (lean, yaw), colour in zip(
        leans, [*colours, (0.90, 0.42, 0.15), (0.42, 0.24, 0.46)], strict=True
    ):

        def stand(mesh: Mesh, lean: float = lean, yaw: float = yaw) -> Mesh:
            return mesh.turned("y", -90).turned("x", lean).turned("z", yaw).at(0.335, 1.02, 0.10)

        parts += _pencil(rng, colour, stand)
    return parts


def _pencil(rng: Rng, colour: Colour, place: Callable[[Mesh], Mesh]) -> list[Part]:
    """A pencil along x, its tip at the +x end, placed by a function of meshes."""
    hexagon = shapes.ring(np.zeros((6, 2)), shapes.circle(0.0038, 6), 0.150)
    hexagon = hexagon.turned("y", 90).at(-0.09, 0)
    cone = shapes.lathe([(0.0036, 0), (0.0012, 0.018)], 32).turned("y", 90).at(0.0600, 0)
    tip = shapes.lathe([(0.0012, 0), (0.0002, 0.006)], 24).turned("y", 90).at(0.0780, 0)
    cedar = textures.mottled(rng, (64, 64), (0.84, 0.64, 0.44), 0.05, 8)
    return [
        Part(place(hexagon), colour, "gloss", 0.12),
        Part(place(cone), cedar),
        Part(place(tip), (0.75 * colour[0], 0.75 * colour[1], 0.75 * colour[2])),
    ]


def _marbles(rng: Rng) -> list[Part]:
    kinds = [
        ((-0.185, 0.455), 0.0125, [(0.05, 0.20, 0.42), (0.20, 0.55, 0.72), (0.94, 0.95, 0.92)]),
        ((-0.135, 0.485), 0.0095, [(0.60, 0.10, 0.08), (0.90, 0.45, 0.12), (0.98, 0.88, 0.62)]),
        ((-0.215, 0.500), 0.0105, [(0.06, 0.30, 0.18), (0.35, 0.62, 0.28), (0.95, 0.93, 0.75)]),
        ((0.185, 0.600), 0.0110, [(0.35, 0.12, 0.40), (0.75, 0.48, 0.72), (0.96, 0.92, 0.95)]),
        ((0.130, 0.750), 0.0125, [(0.92, 0.62, 0.10), (0.98, 0.92, 0.72), (0.20, 0.42, 0.50)]),
    ]
    return [
        Part(
            shapes.sphere(radius).turned("x", 50).turned("z", rng.uniform(0, 360)).at(*xy, radius),
            textures.swirl(rng, (256, 512), stops),
            "gloss",
            0.06,
        )
        for xy, radius, stops in kinds
    ]


def _pawn_and_spectacles(rng: Rng) -> list[Part]:
    """The nearest subject, and wire thinner than its own blur."""
    head = [(0.0068 * np.sin(a), 0.0395 - 0.0068 * np.cos(a)) for a in np.linspace(0.6, np.pi, 16)]
    pawn = [
        (0.0135, 0),
        (0.0138, 0.004),
        (0.0110, 0.007),
        (0.0112, 0.009),
        (0.0060, 0.016),
        (0.0045, 0.027),
        (0.0043, 0.029),
        (0.0043, 0.029),
        (0.0080, 0.0300),
        (0.0080, 0.0320),
        (0.0042, 0.0333),
        *head,
    ]
    box_wood = textures.wood(rng, (200, 200), 1, [(0.80, 0.62, 0.36), (0.66, 0.42, 0.20)])
    angle = np.arange(72) * 2 * np.pi / 72
    rim = np.stack([0.0255 * np.cos(angle), 0 * angle, 0.021 * np.sin(angle) + 0.022], -1)
    bridge = shapes.curve([(-0.009, 0, 0.028), (0, -0.003, 0.032), (0.009, 0, 0.028)], 16)
    wires = [
        shapes.tube(np.add(rim, (x, 0, 0)), 0.0013, 12, closed=True) for x in (-0.0335, 0.0335)
    ]
    wires.append(shapes.tube(bridge, 0.0013, 12))
    for side in (-1, 1):
        temple = [
            (0.059, 0, 0.029),
            (0.062, 0.01, 0.029),
            (0.064, 0.09, 0.021),
            (0.060, 0.125, 0.004),
        ]
        wires.append(shapes.tube(shapes.curve(np.array(temple) * (side, 1, 1), 40), 0.0013, 12))
    spectacles = shapes.merged(wires).turned("z", 24).at(-0.055, 0.655, 0.0012)
    return [
        Part(shapes.lathe(1.45 * np.array(pawn), 96).at(-0.150, 0.350), box_wood, "gloss", 0.15),
        Part(spectacles, (0.16, 0.10, 0.08), "gloss", 0.1),
    ]


def _gear_and_spring() -> list[Part]:
    brass, steel = (0.91, 0.76, 0.48), (0.66, 0.67, 0.70)
    wheel = shapes.gear(0.034, 26, 0.007, 0.007).turned("z", 5).at(0.215, 0.515)
    pinion = shapes.gear(0.019, 14, 0.008, 0.004).at(0.215, 0.515, 0.007)
    spring = shapes.helix(0.013, 0.0056, 9)
    return [
        Part(wheel, brass, "metal", 0.28),
        Part(pinion, brass, "metal", 0.22),
        Part(shapes.tube(spring, 0.0011).at(0.265, 0.735, 0.001), steel, "metal", 0.2),
    ]


def _ruler(rng: Rng) -> list[Part]:
    """A folding rule laid away from the lens: the blur grows along it."""
    rule = Print(500, 24, 5, (0.95, 0.79, 0.30))
    for millimetre in range(2, 499):
        long = 9.0 if millimetre % 10 == 0 else 6.5 if millimetre % 5 == 0 else 4.0
        rule.line([(millimetre, 0), (millimetre, long)], 0.28, INK)
        if millimetre % 10 == 0:
            rule.text(millimetre, 20, f"{millimetre // 10}", 8.5, INK, "ms")
    stick = shapes.rounded_box((0.50, 0.024, 0.004), 0.0012)
    return [Part(stick.turned("z", 72).at(0.385, 0.78), rule.texture(rng), "gloss", 0.3)]


def _cloth_and_fruit(rng: Rng) -> list[Part]:
    linen = textures.linen(rng, (1500, 1100), 3.0, (0.22, 0.36, 0.50))
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, 120), np.linspace(-0.5, 0.5, 90), indexing="ij")
    folds = textures.noise(rng, (120, 90), (34, 9)) * 0.0022 + 0.0075
    cloth = shapes.grid(np.stack([0.36 * u, 0.52 * v, folds], -1)).turned("z", 16).at(-0.285, 0.78)
    profile = shapes.curve(
        [(0.034, 0.004), (0.050, 0.010), (0.078, 0.036), (0.094, 0.066), (0.097, 0.072)], 40
    )
    inside = profile[::-1] * (0.955, 1) + (0, 0.0035)
    bowl = np.concatenate([[(0.036, 0), (0.034, 0.004)], profile, inside, [(0, 0.009)]])
    kiln = textures.glaze(rng, (500, 1600), (0.10, 0.34, 0.46), (0.80, 0.74, 0.60))
    parts = [
        Part(cloth, linen),
        Part(shapes.lathe(bowl, 160).at(-0.26, 0.90, 0.009), kiln, "gloss", 0.14),
    ]
    fruit = [
        (-0.295, 0.885, 0.070),
        (-0.222, 0.880, 0.072),
        (-0.258, 0.945, 0.074),
        (-0.262, 0.895, 0.128),
        (-0.125, 0.775, 0.041),
    ]
    for k, place in enumerate(fruit):
        parts += _orange(rng, 0.036 + 0.001 * (k % 3), place, lemon=k == 3)
    return parts


def _orange(
    rng: Rng, radius: float, place: tuple[float, float, float], *, lemon: bool
) -> list[Part]:
    """A citrus fruit with real dimples, so that highlights break up as on skin."""
    points = shapes.sphere(radius, 256).positions.reshape(129, 257, 3).copy()
    dimples = textures.noise(rng, (128, 256), 2.2)
    dimples = np.concatenate([dimples, dimples[-1:]])[:, [*range(256), 0]]
    fade = np.cos(np.linspace(-np.pi / 2, np.pi / 2, 129))[:, None]
    points *= (1 - 0.005 * np.clip(dimples, 0, 2) * fade)[..., None]
    points *= (1, 1, 1.22) if lemon else (1, 1, 0.94)
    skin = (0.93, 0.76, 0.16) if lemon else (0.92, 0.47, 0.08)
    body = shapes.grid(points, wrap=(False, True))
    stalk = shapes.lathe([(0.0035, 0), (0.0042, 0.0012), (0, 0.002)], 12).at(0, 0, radius * 0.925)
    tilt, yaw = (80, 30) if lemon else (rng.uniform(15, 60), rng.uniform(0, 360))
    parts = [Part(body, textures.mottled(rng, (256, 512), skin, 0.035, 30), "gloss", 0.28)]
    if not lemon:
        parts.append(Part(stalk, (0.36, 0.40, 0.16)))
    return [
        Part(part.mesh.turned("x", tilt).turned("z", yaw).at(*place), *part.surface)
        for part in parts
    ]


def _mug(rng: Rng) -> list[Part]:
    outer = shapes.curve([(0.037, 0.002), (0.042, 0.012), (0.043, 0.05), (0.041, 0.095)], 40)
    lip = [(0.0402, 0.0965), (0.0392, 0.0955)]
    inner = [(0.0385, 0.09), (0.0395, 0.05), (0.038, 0.012), (0, 0.008)]
    wall = shapes.lathe(np.concatenate([[(0.0, 0)], outer, lip, inner]), 128)
    grip = [(0.040, 0.078), (0.062, 0.080), (0.072, 0.055), (0.062, 0.030), (0.040, 0.024)]
    handle = shapes.tube(shapes.curve([(x, 0, z) for x, z in grip], 40), 0.0055)
    kiln = textures.glaze(rng, (500, 1400), (0.90, 0.86, 0.78), (0.52, 0.27, 0.15))
    place = (0.075, 0.905)
    coffee = shapes.lathe([(0.0392, 0.074), (0, 0.074)], 64)
    return [
        Part(wall.at(*place), kiln, "gloss", 0.12),
        Part(handle.turned("z", -28).at(*place), (0.86, 0.81, 0.72), "gloss", 0.12),
        Part(coffee.at(*place), (0.12, 0.06, 0.03), "gloss", 0.05),
    ]


def _books(rng: Rng) -> list[Part]:
    """A pile with printed spines turned to the lens."""
    volumes = [
        ("THIN LENSES  ·  Volume II", (0.50, 0.14, 0.12), 0.036, 0.300, 2),
        ("The Pleasures of Blur", (0.14, 0.26, 0.36), 0.028, 0.270, -5),
        ("A FIELD GUIDE TO EDGES", (0.80, 0.62, 0.26), 0.032, 0.285, 4),
        ("Near & Far", (0.24, 0.36, 0.27), 0.024, 0.235, -9),
    ]
    parts, z = [], 0.0
    for title, cloth, thick, length, yaw in volumes:
        spine = Print(length * 1000, thick * 1000, 3, cloth)
        gold = (0.90, 0.78, 0.48) if max(cloth) < 0.6 else (0.30, 0.12, 0.08)
        for x in (12, 16, length * 1000 - 18, length * 1000 - 14):
            spine.box(x, 0, 1.4, thick * 1000, gold)
        spine.text(length * 500, thick * 500, title, thick * 520, gold, "mm")
        width = 0.19
        leaves = shapes.rounded_box((length - 0.012, width - 0.012, thick - 0.006), 0.0005)
        pieces: list[tuple[Mesh, Colour | textures.Texture]] = [
            (shapes.rounded_box((length, width, 0.003), 0.001), cloth),
            (shapes.rounded_box((length, width, 0.003), 0.001).at(0, 0, thick - 0.003), cloth),
            (leaves.at(0, 0, 0.003), (0.88, 0.83, 0.70)),
        ]
        back = shapes.rounded_box((length, thick, 0.005), 0.002).turned("x", 90)
        pieces.append((back.at(0, -width / 2 + 0.004, thick / 2), spine.texture(rng, 0.05)))
        place = (0.40, 1.50, z)
        parts += [Part(m.turned("z", yaw - 10).at(*place), surface) for m, surface in pieces]
        z += thick
    return parts


def _globe(rng: Rng) -> list[Part]:
    """A globe on the pile of books: the far subject."""
    radius, centre = 0.125, (0.40, 1.48, 0.12 + 0.185)
    ball = shapes.sphere(radius, 160).turned("z", 75).turned("y", 23).at(*centre)
    angle = np.radians(np.linspace(-67, 113, 60)) + np.radians(-23)
    arc = (radius + 0.011) * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)
    bracket = shapes.tube(arc, 0.0045).turned("z", -15).at(*centre)
    foot = shapes.lathe(
        [(0.078, 0), (0.078, 0.006), (0.070, 0.014), (0.020, 0.020), (0.011, 0.030), (0.009, 0.058)]
    ).at(centre[0], centre[1], 0.12)
    brass = (0.86, 0.63, 0.30)
    return [
        Part(ball, textures.globe(rng, (1000, 2016)), "gloss", 0.2),
        Part(bracket, brass, "metal", 0.25),
        Part(foot, (0.26, 0.14, 0.08), "gloss", 0.2),
    ]


def _plant(rng: Rng) -> list[Part]:
    place = (-0.47, 1.42)
    outer = shapes.curve([(0.062, 0), (0.080, 0.10), (0.085, 0.118)], 20)
    rim = [
        (0.092, 0.118),
        (0.092, 0.118),
        (0.094, 0.146),
        (0.094, 0.146),
        (0.086, 0.146),
        (0.086, 0.146),
        (0.080, 0.125),
    ]
    pot = shapes.lathe(np.concatenate([outer, outer[-1:], rim]), 128)
    clay = textures.mottled(rng, (300, 900), (0.70, 0.37, 0.23), 0.07, 40)
    soil = shapes.lathe([(0.083, 0.13), (0, 0.138)], 48)
    parts = [
        Part(pot.at(*place), clay),
        Part(soil.at(*place), textures.mottled(rng, (200, 400), (0.16, 0.11, 0.08), 0.4, 6)),
    ]
    greens = [textures.leaf(rng, (300, 150)) for _ in range(4)]
    for k in range(30):
        yaw = 137.5 * k
        reach, rise = rng.uniform(0.10, 0.21), rng.uniform(0.12, 0.36)
        stem = shapes.curve(
            [(0.005, 0, 0.13), (0.2 * reach, 0, 0.13 + 0.6 * rise), (0.62 * reach, 0, 0.13 + rise)],
            24,
        )
        length, droop = rng.uniform(0.09, 0.15), rng.uniform(0.3, 0.9)
        parts.append(
            Part(shapes.tube(stem, 0.0016, 8).turned("z", yaw).at(*place), (0.30, 0.42, 0.18))
        )
        blade = _leaf_blade(length, 0.46 * length, droop).turned("z", rng.uniform(-25, 25))
        blade = blade.turned("x", rng.uniform(-25, 25)).at(*stem[-1]).turned("z", yaw)
        parts.append(Part(blade.at(*place), greens[k % 4], "gloss", 0.3))
    return parts


def _leaf_blade(length: float, width: float, droop: float) -> Mesh:
    """Pointed oval along +x from the origin, folded along the midrib, tip hanging down."""
    s, t = np.meshgrid(np.linspace(0, 1, 28), np.linspace(-1, 1, 13), indexing="ij")
    half = 0.5 * width * np.sin(np.pi * s**0.8) ** 0.8
    bend = droop * s
    x = length * np.sin(bend) / droop
    z = 0.25 * length * s - length * (1 - np.cos(bend)) / droop + 0.30 * np.abs(t) * half
    return shapes.grid(np.stack([x, -t * half, z], -1))
