"""Building blocks of a scene: textured meshes and soft boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shapes import Mesh
from textures import Colour, Texture

Finish = Literal["matte", "gloss", "metal"]


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh and its surface: sRGB colour or texture, finish, roughness (GGX alpha)."""

    mesh: Mesh
    colour: Colour | Texture
    finish: Finish = "matte"
    roughness: float = 0.0

    @property
    def surface(self) -> tuple[Colour | Texture, Finish, float]:
        """Everything but the mesh, to dress a moved copy of it."""
        return self.colour, self.finish, self.roughness


@dataclass(frozen=True)
class Softbox:
    """A rectangular light, facing its target; radiance relative to a white that shows as 1."""

    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    width_m: float
    height_m: float
    radiance: Colour


@dataclass(frozen=True)
class Bulb:
    """A luminous sphere; radiance relative to a white that shows as 1."""

    position_m: tuple[float, float, float]
    radius_m: float
    radiance: Colour
