"""Scenes of the small world, and how they are drawn.

Dimensions: B images, H = W = `SIZE` pixels. Lengths are in pixels, x grows to the right, y downwards;
colours are RGB in [0, 1].

The geometry lets a small model learn shapes: they are large and of different areas, so that the shape accounts for
about a third of the latents' variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SIZE = 64
OFFSET = 11.0  # distance of the four outer positions from the centre
JITTER = 1.5  # the centre moves by U(-JITTER, JITTER) on either axis
RADIUS = (16.6, 19.4)
RING_HOLE = 0.55  # inner over outer radius

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.16, 0.16),
    "yellow": (0.99, 0.82, 0.10),
    "green": (0.13, 0.66, 0.24),
    "cyan": (0.10, 0.80, 0.88),
    "blue": (0.15, 0.30, 0.92),
    "magenta": (0.88, 0.18, 0.76),
}
SHAPES = ("square", "triangle", "plus", "ring")
POSITIONS: dict[str, tuple[float, float]] = {
    "center": (0.0, 0.0),
    "left": (-OFFSET, 0.0),
    "right": (OFFSET, 0.0),
    "top": (0.0, -OFFSET),
    "bottom": (0.0, OFFSET),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "white": (0.95, 0.95, 0.95),
    "gray": (0.52, 0.53, 0.55),
    "black": (0.10, 0.10, 0.12),
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One object on a plain background. `dx`, `dy` and `radius` are in pixels and are never named in a caption."""

    colour: str
    shape: str
    position: str
    background: str
    dx: float
    dy: float
    radius: float

    def value(self, attribute: str) -> str:
        """The value of one of `ATTRIBUTES`."""
        return getattr(self, attribute)


def sample_scenes(count: int, generator: torch.Generator) -> list[Scene]:
    """`count` scenes, every attribute uniform and independent."""
    picks = {
        name: torch.randint(len(values), (count,), generator=generator).tolist() for name, values in ATTRIBUTES.items()
    }
    noise = torch.rand(count, 3, generator=generator).tolist()
    scenes = []
    for n in range(count):
        named = {name: values[picks[name][n]] for name, values in ATTRIBUTES.items()}
        u, v, w = noise[n]
        radius = RADIUS[0] + w * (RADIUS[1] - RADIUS[0])
        scenes.append(Scene(**named, dx=(2 * u - 1) * JITTER, dy=(2 * v - 1) * JITTER, radius=radius))
    return scenes


def distance(shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Signed distance (pixels, negative inside) to a shape whose bounding box is centred at the origin.

    Args:
        shape: one of `SHAPES`.
        x, y: pixel coordinates relative to the centre, shape (B, H, W).
        radius: R, broadcasts to (B, H, W). Square: half-side 0.85 R; triangle: half-base 1.05 R, height
            1.7 R; plus: arm R, half-width 0.33 R; ring: from `RING_HOLE` R to R.

    Raises:
        ValueError: the shape is not known.
    """
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85 * radius
    if shape == "triangle":
        half_base, height = 1.05, 1.7
        slope = (half_base**2 + height**2) ** 0.5
        sides = (x.abs() * height + (-y - 0.85 * radius) * half_base) / slope
        return torch.maximum(y - 0.85 * radius, sides + 0.0 * radius)
    if shape == "plus":
        upright = torch.maximum(x.abs() - 0.33 * radius, y.abs() - radius)
        across = torch.maximum(y.abs() - 0.33 * radius, x.abs() - radius)
        return torch.minimum(upright, across)
    if shape == "ring":
        length = (x * x + y * y).sqrt()
        return torch.maximum(length - radius, RING_HOLE * radius - length)
    raise ValueError(f"shape {shape!r} is not known; available: {', '.join(SHAPES)}")


def coverage(shape: str, centre_x: torch.Tensor, centre_y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The share of each pixel that a shape covers, in [0, 1], anti-aliased: (B, SIZE, SIZE).

    Args:
        centre_x, centre_y, radius: pixels, shape (B,); the image's corner is (0, 0).
    """
    grid = torch.arange(SIZE, dtype=torch.float32) + 0.5
    x = grid[None, None, :] - centre_x[:, None, None]
    y = grid[None, :, None] - centre_y[:, None, None]
    x, y = torch.broadcast_tensors(x, y)
    return (0.5 - distance(shape, x, y, radius[:, None, None])).clamp(0.0, 1.0)


def masks(scenes: list[Scene]) -> torch.Tensor:
    """The share of each pixel that the objects of scenes cover, (B, 1, SIZE, SIZE) in [0, 1]."""
    found = torch.empty(len(scenes), 1, SIZE, SIZE)
    for shape in SHAPES:
        rows = [n for n, scene in enumerate(scenes) if scene.shape == shape]
        if not rows:
            continue
        at = torch.tensor([[POSITIONS[scenes[n].position][k] for k in (0, 1)] for n in rows])
        at = at + torch.tensor([[scenes[n].dx, scenes[n].dy] for n in rows]) + SIZE / 2
        radius = torch.tensor([scenes[n].radius for n in rows])
        found[rows, 0] = coverage(shape, at[:, 0], at[:, 1], radius)
    return found


def render(scenes: list[Scene]) -> torch.Tensor:
    """Images of scenes, (B, 3, SIZE, SIZE) in [0, 1]."""
    colour = torch.tensor([COLOURS[scene.colour] for scene in scenes])[:, :, None, None]
    background = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes])[:, :, None, None]
    return background + masks(scenes) * (colour - background)
