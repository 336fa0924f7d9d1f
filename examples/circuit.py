"""Scene of the example `circuit`: a printed circuit board, 0.12 m to 0.3 m from a macro lens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import shapes
from parts import Part, Softbox
from shapes import Mesh
from textures import Colour, Print, Rng

LIGHTS = [
    Softbox((-0.42, 0.22, 0.42), (0.0, 0.17, 0.0), 0.40, 0.30, (7.4, 7.2, 7.0)),
    Softbox((0.45, 0.42, 0.22), (0.0, 0.17, 0.0), 0.16, 0.30, (5.0, 5.6, 6.4)),
]
AMBIENT = (0.34, 0.36, 0.40)

WIDTH_MM, DEPTH_MM = 200.0, 260.0
NEAR_MM = 60.0
"""y of the board's near edge; x runs from -WIDTH_MM / 2."""
MASK = (0.05, 0.24, 0.21)
COPPER = (0.11, 0.36, 0.30)
GOLD = (0.88, 0.72, 0.40)
SILK = (0.86, 0.88, 0.84)
EPOXY = (0.085, 0.085, 0.095)
TIN = (0.80, 0.80, 0.79)


def build(rng: Rng) -> list[Part]:
    """The board and what is soldered to it."""
    board = Board(rng)
    processor(board, 0, 158, 30, 22, ("FD-1", "FOCAL ENGINE", "6 PLANES  2611"))
    processor(board, 52, 118, 16, 12, ("PSF32", "DISC / GAUSS"))
    dual_in_line(board, -46, 152, ("DPT 0400", "1/m  2611"), 20)
    dual_in_line(board, 40, 214, ("AIF 8 MB", "NS-70"), 0)
    for x, y, radius, height, sleeve in (
        (-24, 112, 4.0, 11, (0.12, 0.20, 0.42)),
        (-13, 117, 4.0, 11, (0.12, 0.20, 0.42)),
        (-62, 196, 8.0, 22, (0.10, 0.10, 0.12)),
        (-42, 204, 8.0, 22, (0.10, 0.10, 0.12)),
        (72, 176, 6.3, 16, (0.36, 0.30, 0.14)),
        (72, 192, 6.3, 16, (0.36, 0.30, 0.14)),
    ):
        electrolytic(board, x, y, radius, height, sleeve)
    for k, bands in enumerate(("brown", "red", "yellow", "green", "violet")):
        resistor(board, -37 + 5.2 * k * 0.9, 96 - 1.2 * k, bands, 78)
    toroid(board, 24, 110)
    toroid(board, -14, 222)
    heat_sink(board, 2, 196)
    coin_cell(board, 26, 256)
    processor(board, -36, 266, 18, 14, ("EV 11", "LUMEN"))
    pin_header(board, -40, 128, 10, 12)
    crystal(board, 28, 134)
    for x, y, colour in (
        (6, 104, (0.85, 0.12, 0.10)),
        (14, 101, (0.15, 0.62, 0.22)),
        (47, 140, (0.93, 0.62, 0.10)),
        (55, 142, (0.93, 0.62, 0.10)),
    ):
        led(board, x, y, colour)
    small_parts(board)
    jumper_wires(board)
    return board.parts()


class Board:
    """The board's print (traces, pads, legend) and its parts, placed in millimetres."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.print = Print(WIDTH_MM, DEPTH_MM, 11, MASK)
        self.placed: list[Part] = []
        self.legend = 0
        self._traces()

    def add(
        self, mesh_mm: Mesh, x: float, y: float, surface: tuple, turn: float = 0, z: float = 0
    ) -> None:
        """A part modelled in millimetres, turned about z [degrees] and put at (x, y, z) [mm]."""
        mesh = mesh_mm.turned("z", turn).at(x, y, z)
        metres = Mesh(mesh.positions / 1000, mesh.normals, mesh.uv, mesh.faces)
        self.placed.append(Part(metres, *surface))

    def pad(self, x: float, y: float, width: float, depth: float) -> None:
        """A gold-plated rectangle."""
        u, v = self.on_print(x, y)
        self.print.box(u - width / 2, v - depth / 2, width, depth, GOLD)

    def via(self, x: float, y: float, radius: float) -> None:
        """A plated hole."""
        u, v = self.on_print(x, y)
        self.print.disc(u, v, radius, GOLD)
        self.print.disc(u, v, 0.5 * radius, (0.05, 0.05, 0.04))

    def label(self, x: float, y: float, text: str, height: float = 1.9) -> None:
        """Legend in white."""
        self.print.text(*self.on_print(x, y), text, height, SILK, "mm")

    def outline(self, x: float, y: float, width: float, depth: float, turn: float = 0) -> None:
        """Legend: a rectangle and the next reference number beside it."""
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
        points = [
            self.on_print(
                x + a * width / 2 * c - b * depth / 2 * s, y + a * width / 2 * s + b * depth / 2 * c
            )
            for a, b in corners
        ]
        self.print.line(points, 0.22, SILK)
        self.legend += 1
        self.label(x, y - (depth * abs(c) + width * abs(s)) / 2 - 1.6, f"U{self.legend}")

    def parts(self) -> list[Part]:
        """Everything, with the board itself and the bench under it."""
        slab = shapes.rounded_box((WIDTH_MM, DEPTH_MM, 1.6), 0.1, 2)
        surface = self.print.texture(self.rng, 0.025)
        self.add(slab, 0, NEAR_MM + DEPTH_MM / 2, (surface, "gloss", 0.16), z=-1.6)
        self.add(shapes.plate(3000, 3000), 0, 300, ((0.25, 0.27, 0.30),), z=-8)
        return self.placed

    def on_print(self, x: float, y: float) -> tuple[float, float]:
        """Board coordinates to those of the print, which has y downwards from the far edge."""
        return x + WIDTH_MM / 2, NEAR_MM + DEPTH_MM - y

    def _traces(self) -> None:
        """Buses that run along the board and turn by 45 degrees, with vias at their ends."""
        for _ in range(95):
            lanes, pitch = self.rng.integers(1, 8), 0.75
            x, y = self.rng.uniform(-98, 98), self.rng.uniform(62, 318)
            heading = 45 * self.rng.integers(0, 8)
            path = [np.array((x, y))]
            headings = []
            for _ in range(self.rng.integers(2, 5)):
                step = self.rng.uniform(6, 30)
                angle = np.radians(heading)
                path.append(path[-1] + step * np.array((np.cos(angle), np.sin(angle))))
                headings.append(angle)
                heading += 45 * self.rng.choice([-1, 1])
            corner = [
                headings[0],
                *(np.mean(pair) for pair in pairwise(headings)),
                headings[-1],
            ]
            widen = [1.0, *([1 / np.cos(np.radians(22.5))] * (len(path) - 2)), 1.0]
            for lane in range(lanes):
                offset = (lane - lanes / 2) * pitch
                points = [
                    p + offset * w * np.array((-np.sin(a), np.cos(a)))
                    for p, a, w in zip(path, corner, widen, strict=True)
                ]
                self.print.line([self.on_print(*p) for p in points], 0.34, COPPER)
                for end in (points[0], points[-1]):
                    self.via(end[0], end[1], 0.31)


def _boxes(size: tuple[float, float, float], places: Sequence[tuple[float, float, float]]) -> Mesh:
    box = shapes.rounded_box(size, 0.06, 2)
    return shapes.merged([box.at(*place) for place in places])


def _chip_print(lines: tuple[str, ...], width: float, depth: float) -> Print:
    top = Print(width, depth, 22, EPOXY)
    ink, size = (0.66, 0.66, 0.64), min(depth / (2.0 * len(lines)), 3.0)
    for k, text in enumerate(lines):
        y = depth / 2 + (k - (len(lines) - 1) / 2) * size * 1.35
        top.text(width / 2, y, text, size * (1.15 if k == 0 else 0.85), ink, "mm")
    top.disc(1.6, depth - 1.6, 0.55, (0.15, 0.15, 0.16))
    return top


def processor(
    board: Board, x: float, y: float, side: float, pins: int, lines: tuple[str, ...]
) -> None:
    """A flat square package with gull-wing leads on four sides."""
    body = shapes.rounded_box((side, side, 2.2), 0.25, 3)
    print_ = _chip_print(lines, side, side).texture(board.rng, 0.10)
    board.add(body, x, y, (print_, "gloss", 0.3), z=0.25)
    pitch = (side - 4) / (pins - 1)
    run = [(-side / 2 + 2 + pitch * k, side / 2) for k in range(pins)]
    leads = [
        _boxes((0.4, 1.0, 0.18), [(a, b + 0.4, 0.95) for a, b in run]),
        _boxes((0.4, 0.18, 0.95), [(a, b + 0.9, 0.1) for a, b in run]),
        _boxes((0.4, 0.9, 0.18), [(a, b + 1.3, 0.03) for a, b in run]),
    ]
    for quarter in range(4):
        board.add(shapes.merged(leads), x, y, (TIN, "metal", 0.25), 90 * quarter)
        for a, b in run:
            c, s = np.cos(np.pi / 2 * quarter), np.sin(np.pi / 2 * quarter)
            size = (0.55, 1.6) if quarter % 2 == 0 else (1.6, 0.55)
            board.pad(x + a * c - (b + 1.5) * s, y + a * s + (b + 1.5) * c, *size)
    board.outline(x, y, side + 6, side + 6)


def dual_in_line(board: Board, x: float, y: float, lines: tuple[str, ...], turn: float) -> None:
    """A 16-pin package on its legs."""
    body = shapes.rounded_box((20, 6.4, 3.4), 0.35, 3)
    print_ = _chip_print(lines, 20, 6.4).texture(board.rng, 0.10)
    board.add(body, x, y, (print_, "gloss", 0.3), turn, 1.0)
    places = [(-8.9 + 2.54 * k, side * 3.7, 0) for k in range(8) for side in (-1, 1)]
    legs = [_boxes((1.1, 0.3, 2.9), places)]
    legs.append(_boxes((1.1, 0.8, 0.3), [(a, b - 0.25 * np.sign(b), 2.6) for a, b, _ in places]))
    board.add(shapes.merged(legs), x, y, (TIN, "metal", 0.25), turn)
    board.outline(x, y, 22, 10, turn)


def electrolytic(
    board: Board, x: float, y: float, radius: float, height: float, sleeve: Colour
) -> None:
    """A can in a printed sleeve, its vent scored in the top."""
    wrap = Print(2 * np.pi * radius, height, 12, sleeve)
    red, green, blue = (min(1.0, 0.55 + 0.5 * c) for c in sleeve)
    pale = (red, green, blue)
    for stripe in (0.12, 0.62):
        wrap.box(stripe * 2 * np.pi * radius, 0, 1.5 + radius / 6, height, pale)
        for k in range(3):
            wrap.box(
                stripe * 2 * np.pi * radius + 0.5, height * (0.2 + 0.28 * k), 0.9, 0.35, sleeve
            )
    for u in (0.30, 0.80):
        wrap.text(2 * np.pi * radius * u, height * 0.36, "470 uF", height / 5.5, pale, "mm")
        wrap.text(2 * np.pi * radius * u, height * 0.62, "25V", height / 5.5, pale, "mm")
    wall = [
        (radius * 0.93, 0),
        (radius, 0.4),
        (radius, 0.9),
        (radius * 0.95, 1.5),
        (radius, 2.1),
        (radius, height - 0.7),
        (radius * 0.97, height - 0.2),
        (radius * 0.86, height),
    ]
    lid = [(radius * 0.86, height), (radius * 0.84, height - 0.25), (0, height - 0.25)]
    turn = board.rng.uniform(-140, -100)
    board.add(shapes.lathe(wall), x, y, (wrap.texture(board.rng, 0.02), "gloss", 0.15), turn)
    board.add(shapes.lathe(lid), x, y, ((0.58, 0.58, 0.59), "metal", 0.4))
    score = _boxes((radius * 1.3, 0.16, 0.05), [(0, 0, height - 0.28)])
    for angle in (20, 110):
        board.add(score, x, y, ((0.20, 0.20, 0.21), "metal", 0.4), angle)
    circle = shapes.circle(radius + 0.7, 60)
    board.print.line([board.on_print(x + a, y + b) for a, b in [*circle, circle[0]]], 0.22, SILK)
    board.label(x + radius + 2, y - radius, "+", 2.6)


def resistor(board: Board, x: float, y: float, bands: str, turn: float) -> None:
    """A through-hole resistor: beige body, colour bands, bent wire ends."""
    colours = {
        "brown": (0.36, 0.20, 0.10),
        "red": (0.75, 0.12, 0.10),
        "yellow": (0.92, 0.76, 0.12),
        "green": (0.13, 0.45, 0.22),
        "violet": (0.42, 0.22, 0.55),
    }
    body = Print(6, 6.4, 20, (0.80, 0.68, 0.49))
    order = [bands, "violet" if bands != "violet" else "green", "red"]
    for k, name in enumerate(order):
        body.box(0, 1.25 + 1.15 * k, 6, 0.55, colours[name])
    body.box(0, 5.0, 6, 0.5, (0.68, 0.52, 0.20))
    z = np.linspace(-3.2, 3.2, 60)
    bulge = 1.05 + 0.22 * (np.exp(-(((np.abs(z) - 2.3) / 0.6) ** 2)))
    bulge = bulge * np.clip((1 - (np.abs(z) / 3.2) ** 14), 0.0, 1) ** 0.5
    mesh = shapes.lathe(np.stack([bulge, z], -1), 48).turned("y", 90).at(0, 0, 1.7)
    board.add(mesh, x, y, (body.texture(board.rng, 0.02), "gloss", 0.2), turn)
    bend = [(-5.6, 0, -0.5), (-5.5, 0, 1.2), (-5.0, 0, 1.7), (-4.4, 0, 1.7), (-2.5, 0, 1.7)]
    for side in (-1, 1):
        path = shapes.curve(np.array(bend) * (side, 1, 1), 30)
        board.add(shapes.tube(path, 0.28, 12), x, y, (TIN, "metal", 0.2), turn)
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        board.via(x + side * 5.6 * c, y + side * 5.6 * s, 1.0)


def toroid(board: Board, x: float, y: float) -> None:
    """An inductor: enamelled copper wound on a ring."""
    angle = np.arange(96) * 2 * np.pi / 96
    core = np.stack([5.6 * np.cos(angle), 5.6 * np.sin(angle), 0 * angle + 3.2], -1)
    board.add(shapes.tube(core, 2.1, 32, closed=True), x, y, ((0.22, 0.30, 0.20), "gloss", 0.3))
    t = np.linspace(0, 1, 30 * 44)
    around, twist = np.radians(25 + 310 * t), 2 * np.pi * 44 * t
    reach = 5.6 + 2.5 * np.cos(twist)
    wire = np.stack([reach * np.cos(around), reach * np.sin(around), 3.2 + 2.5 * np.sin(twist)], -1)
    board.add(shapes.tube(wire, 0.36, 10), x, y, ((0.82, 0.49, 0.31), "metal", 0.18), -90)
    board.outline(x, y, 19, 19)


def heat_sink(board: Board, x: float, y: float) -> None:
    """Black fins."""
    fins = _boxes((0.9, 14, 13), [(-13 + 3.25 * k, 0, 2) for k in range(9)])
    base = shapes.rounded_box((28, 14, 2.4), 0.3, 3)
    board.add(shapes.merged([fins, base]), x, y, ((0.12, 0.13, 0.16), "gloss", 0.3))
    board.outline(x, y, 31, 17)


def coin_cell(board: Board, x: float, y: float) -> None:
    """A lithium cell under a spring clip."""
    top = Print(20, 20, 14, (0.60, 0.60, 0.60))
    for line, text in enumerate(("+", "CR2032", "3 V")):
        top.text(10, 5.5 + 4.6 * line, text, 3.2, (0.30, 0.30, 0.31), "mm")
    disc = shapes.ring(np.zeros((90, 2)), shapes.circle(10.0, 90), 3.2)
    disc.uv[:] = disc.positions[:, :2] / 20 + 0.5
    board.add(disc, x, y, (top.texture(board.rng, 0.03), "metal", 0.3), 6, 0.8)
    holder = shapes.lathe(
        [(11.6, 0), (11.6, 2.2), (11.6, 2.2), (10.3, 2.2), (10.3, 2.2), (10.3, 0)]
    )
    board.add(holder, x, y, (EPOXY, "gloss", 0.3))
    clip = shapes.rounded_box((3.4, 9, 0.5), 0.2, 3).at(0, -7.5, 4.0)
    board.add(clip, x, y, (TIN, "metal", 0.25), 200)
    board.outline(x, y, 26, 26)


def pin_header(board: Board, x: float, y: float, count: int, turn: float) -> None:
    """Two rows of gold-plated pins: thin, and standing before everything behind them."""
    places = [
        (2.54 * (k - count / 2 + 0.5), side * 1.27, 0) for k in range(count) for side in (-1, 1)
    ]
    block = _boxes((2.4, 2.4, 2.4), places)
    pins = _boxes((0.62, 0.62, 8.6), [(a, b, 0.1) for a, b, _ in places])
    board.add(block, x, y, ((0.09, 0.09, 0.10), "gloss", 0.3), turn)
    board.add(pins, x, y, (GOLD, "metal", 0.18), turn)
    board.outline(x, y, 2.54 * count + 2, 7, turn)


def crystal(board: Board, x: float, y: float) -> None:
    """A drawn metal can with a printed top."""
    top = Print(11, 4.6, 20, (0.66, 0.66, 0.65))
    top.text(5.5, 2.3, "16.000", 2.0, (0.25, 0.25, 0.26), "mm")
    can = shapes.rounded_box((11, 4.6, 3.6), 1.2, 8)
    board.add(can, x, y, (top.texture(board.rng, 0.02), "metal", 0.22), 8, 0.3)
    board.outline(x, y, 13, 6.6, 8)


def led(board: Board, x: float, y: float, colour: Colour) -> None:
    """A domed plastic body with a flange."""
    dome = [(1.5 * np.cos(a), 3.2 + 1.5 * np.sin(a)) for a in np.linspace(0, np.pi / 2, 14)]
    profile = [(1.9, 0.4), (1.9, 1.2), (1.9, 1.2), (1.5, 1.25), (1.5, 1.25), (1.5, 3.2), *dome[1:]]
    board.add(shapes.lathe(profile, 64), x, y, (colour, "gloss", 0.07))
    board.outline(x, y, 5, 5)


def small_parts(board: Board) -> None:
    """Rows of surface-mounted resistors and capacitors."""
    rng = board.rng
    rows = [
        (-4, 131, 7, 0),
        (34, 146, 5, 90),
        (-24, 170, 8, 90),
        (26, 178, 6, 0),
        (-62, 248, 7, 0),
        (18, 96, 5, 0),
        (-70, 168, 8, 90),
        (60, 150, 7, 0),
        (-8, 92, 4, 0),
        (40, 198, 7, 0),
        (38, 100, 4, 90),
        (-58, 128, 6, 90),
        (62, 232, 8, 0),
        (-52, 232, 8, 0),
    ]
    for x0, y0, count, turn in rows:
        capacitor = rng.random() < 0.5
        ceramic = (0.66, 0.52, 0.36) if capacitor else (0.07, 0.07, 0.08)
        for k in range(count):
            c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
            x, y = x0 + 2.7 * k * c, y0 + 2.7 * k * s
            body = shapes.rounded_box((1.5, 2.2, 1.0 if capacitor else 0.55), 0.1, 2)
            ends = _boxes((1.56, 0.55, 1.06 if capacitor else 0.6), [(0, -1.1, 0), (0, 1.1, 0)])
            board.add(body, x, y, (ceramic, "gloss", 0.3), turn)
            board.add(ends, x, y, (TIN, "metal", 0.3), turn)
            for side in (-1.5, 1.5):
                size = (1.7, 1.2) if turn == 0 else (1.2, 1.7)
                board.pad(x - side * s, y + side * c, *size)
        board.label(x0 - 2.6, y0 - 2.6, f"R{rng.integers(1, 99)}")


def jumper_wires(board: Board) -> None:
    """Insulated wires that arch over the board from the pin header."""
    ends = [
        ((-50.0, 126.8), (-84, 214), (0.80, 0.16, 0.12)),
        ((-47.5, 127.4), (-78, 226), (0.92, 0.70, 0.12)),
        ((-45.0, 127.9), (-72, 240), (0.16, 0.42, 0.68)),
    ]
    along = np.array((0, 0, 0.12, 0.4, 0.75, 0.97, 1))[:, None]
    sag = [(0, 0, 6), (0, 0, 16), (-3, 0, 27), (-8, 0, 33), (-4, 0, 22), (0, 0, 8), (0, 0, 0)]
    for (x0, y0), (x1, y1), colour in ends:
        straight = np.array((x0, y0, 0)) + along * (x1 - x0, y1 - y0, 0)
        path = shapes.curve(straight + np.array(sag), 120)
        board.add(shapes.tube(path, 0.75, 16), 0, 0, (colour, "gloss", 0.25))
        plug = shapes.rounded_box((2.3, 2.3, 9), 0.3, 3)
        board.add(plug, x0, y0, ((0.10, 0.10, 0.11), "gloss", 0.3), 12, 3)
