"""Draws one slice, the image with labels over it, as PNG with square pixels in millimetres."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, distance_transform_edt

STRUCTURE_COLORS = (
    *("#E69F00", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#0072B2"),
    *("#740AFF", "#4C005C", "#2BCE48", "#426600", "#C20088", "#5EF1F2", "#FF0010", "#94FFB5", "#FFCC99", "#990000"),
    *("#8F7C00", "#003380", "#F0A3FF"),
)
"""Of structures: Okabe and Ito's palette (2008), which the colour-blind can tell apart, then of Green-Armytage's
alphabet (Colour: Design & Creativity 5, 2010) each time the one farthest from greys and from those before. After 20
they begin again, and numbers tell structures apart."""
_FILL = 0.35
LONG_SIDE = (320, 480)  # pixels
_OUTLINE = 2


@dataclass(frozen=True)
class Grid:
    """From voxels of a slice to pixels of a picture.

    Attributes:
        shape: Rows and columns of voxels.
        spacing_mm: Of rows and columns.
        physical: Whether the spacing is in millimetres; else in voxels.
        long_side: Fewest and most pixels of the longer side; in between, a voxel is one pixel at its finest.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    physical: bool = True
    long_side: tuple[int, int] = LONG_SIDE

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        return self.shape[0] * self.spacing_mm[0], self.shape[1] * self.spacing_mm[1]

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel."""
        finest = max(self.size_mm) / min(self.spacing_mm)
        return max(self.size_mm) / min(max(finest, self.long_side[0]), self.long_side[1])

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = (max(1, round(size / self.pixel_mm)) for size in self.size_mm)
        return height, width

    def enlarge(self, array: np.ndarray) -> np.ndarray:
        """Voxels as blocks of pixels."""
        rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(self.pixels, self.shape))
        return array[rows][:, columns]

    def scale_bar(self) -> tuple[float, int]:
        """Length of a round number of millimetres that is at most 40 % of the width, and the same in pixels."""
        longest = 0.4 * self.size_mm[1]
        decade = 10.0 ** np.floor(np.log10(longest))
        length = float(max(step * decade for step in (1, 2, 5) if step * decade <= longest))
        return length, max(1, round(length / self.pixel_mm))


def grey_levels(image: np.ndarray, grid: Grid) -> np.ndarray:
    """(height, width, 3) picture, smoothly enlarged; the window runs from the 1st to the 99th percentile."""
    # 64 levels: the eye sees no more beside each other, and the file is smaller by a third
    grey = ((grey_picture(image, grid) / 255.0 * 63).round() * (255 / 63)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def grey_picture(image: np.ndarray, grid: Grid, window: Sequence[float] = ()) -> np.ndarray:
    """(height, width) uint8 picture of a slice; ``window`` has the values of black and white, else its percentiles."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = window or np.percentile(values, (1, 99))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = np.full_like(values, 0.5) if high <= low else (values - low) / (high - low)
    enlarged = Image.fromarray(scaled.clip(0, 1)).resize(grid.pixels[::-1], Image.Resampling.BICUBIC)
    return (np.asarray(enlarged).clip(0, 1) * 255).round().astype(np.uint8)


def draw_labels(
    image: np.ndarray, masks: Sequence[np.ndarray], grid: Grid, edges: Sequence[str], mark: tuple[int, int]
) -> bytes:
    """A slice with its structures in colour over it and a scale bar; where colours repeat, each with its number from 1.

    Args:
        image: (rows, columns) image.
        masks: (rows, columns) of each structure, in the order of ``STRUCTURE_COLORS``; later ones lie on top.
        grid: Geometry.
        edges: Letters at the left, right, upper and lower edge; none where they are unknown.
        mark: Row and column of a voxel to draw a ring around.

    Returns:
        PNG.
    """
    plain = grey_levels(image, grid)
    canvas = plain.copy()
    for mask, name in zip(masks, cycle(STRUCTURE_COLORS)):
        inside, color = grid.enlarge(mask), np.array(ImageColor.getrgb(name))
        canvas[inside] = ((1 - _FILL) * plain[inside] + _FILL * color).round()
        canvas[_outline(inside)] = color
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    if len(masks) > len(STRUCTURE_COLORS):
        for number, mask in enumerate(masks, 1):
            if mask.any():
                depth = distance_transform_edt(np.pad(grid.enlarge(mask), 1))[1:-1, 1:-1]
                y, x = np.unravel_index(depth.argmax(), depth.shape)
                style: Any = {"fill": "white", "stroke_fill": "black", "stroke_width": 1, "font": _font(11)}
                draw.text((int(x), int(y)), str(number), anchor="mm", **style)
    _annotate(draw, grid, edges)
    y, x = ((i + 0.5) * pixels / n for i, pixels, n in zip(mark, grid.pixels, grid.shape))
    for shade, line in (("black", 4), ("white", 2)):  # a light ring on a dark one: seen on any colour
        r = 0.07 * max(grid.pixels) + line / 2 - 1
        draw.ellipse((x - r, y - r, x + r, y + r), outline=shade, width=line)
    stream = io.BytesIO()  # with a palette: a third of the size, and no difference to the eye
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _outline(mask: np.ndarray) -> np.ndarray:
    """The rim of a mask; not along the edge of the picture, where it only goes on."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=_OUTLINE, border_value=1) if mask.any() else mask


def _annotate(draw: ImageDraw.ImageDraw, grid: Grid, edges: Sequence[str]) -> None:
    height, width = grid.pixels
    style: dict[str, Any] = {"fill": "white", "stroke_fill": "black", "stroke_width": 2, "font": _font(17)}
    places = ((5, height / 2, "lm"), (width - 5, height / 2, "rm"), (width / 2, 4, "mt"), (width / 2, height - 5, "mb"))
    for letter, (x, y, anchor) in zip(edges, places):
        draw.text((x, y), letter, anchor=anchor, **style)
    length, pixels = grid.scale_bar()
    x, y = 10, height - 12
    draw.rectangle((x - 1, y - 1, x + pixels + 1, y + 4), fill="black")
    draw.rectangle((x, y, x + pixels, y + 3), fill="white")
    unit = "mm" if grid.physical else "pixels"
    draw.text((x, y - 5), f"{length:g} {unit}", anchor="ls", **{**style, "font": _font(15)})


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    package: Any = find_spec("matplotlib")  # whose import would take longer than all pictures of a small run
    data = Path(package.origin).parent / "mpl-data"
    return ImageFont.truetype(str(data / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"), size)
