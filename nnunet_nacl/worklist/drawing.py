"""Draws slices as pictures: grey values, structures in colour, letters at the edges, a scale
bar."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.utilities.rendering import STRUCTURE_COLORS
from nnunet_nacl.worklist.slices import Grid

COLORS = np.array([(0, 0, 0), *map(ImageColor.getrgb, STRUCTURE_COLORS)], np.uint8)
"""(1 + colours, 3) red, green and blue of the structures' colours by their number, from 1."""

_FILL = 0.35  # opacity of the colour within a structure
_GREY_LEVELS = 64  # the eye sees no more beside each other, and the file is smaller by a third
_RING_RADIUS = 0.07  # of the longer side of the picture
_HALF_LETTER = 11  # pixels from the middle of a letter at an edge to what lies beside it
_LEAST_SIDE = 96  # pixels, so that letters, scale bar and its length do not lie on each other


def draw_slice(
    image: np.ndarray,
    label_map: np.ndarray,
    labels: Labels,
    grid: Grid,
    edges: Sequence[str],
    mark: tuple[int, int],
) -> Image.Image:
    """A slice with its structures in colour over it and a scale bar.

    Where there are more structures than colours, each also has its number, from 1. A thin slice
    lies in the middle of a black picture, which has room for what is written on it.

    Args:
        image: (rows, columns) image; the grey window runs from its 1st to its 99th percentile.
        label_map: (rows, columns) label map.
        labels: What the labels are, in the order of the colours; later ones lie on top.
        grid: From voxels to pixels.
        edges: Letters at the left, right, upper and lower edge; none where they are unknown.
        mark: Row and column of a voxel to draw a ring around.
    """
    enlarged_labels = grid.enlarge(label_map)
    grey = _reduce_grey_levels(grey_picture(image, grid))
    inside, rims = paint_structures(enlarged_labels, labels, 2)
    picture = Image.fromarray(_overlay_colors(grey, inside, rims))
    draw = ImageDraw.Draw(picture)
    if len(labels.foreground) > len(STRUCTURE_COLORS):
        _write_numbers(draw, enlarged_labels, labels)
    _draw_ring(draw, grid, mark)
    picture = _widen_thin_picture(picture)
    draw = ImageDraw.Draw(picture)
    _write_edges(draw, picture.size, edges)
    _draw_scale_bar(draw, picture.size, grid, has_letters=bool(edges))
    # a palette: a third of the size, and no difference to the eye
    return picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def grey_picture(image: np.ndarray, grid: Grid, window: Sequence[float] = ()) -> np.ndarray:
    """(height, width) uint8 picture of a slice.

    ``window`` are the values of black and white; without, the 1st and 99th percentiles.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    black, white = window or np.percentile(values, (1, 99))
    if white <= black:
        black = float(values.min())
        white = float(values.max())
    scaled: np.ndarray = (
        (values - black) / (white - black) if white > black else np.full_like(values, 0.5)
    )
    height, width = grid.pixels
    enlarged = Image.fromarray(scaled.clip(0, 1)).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(enlarged).clip(0, 1) * 255).round().astype(np.uint8)


def _reduce_grey_levels(grey: np.ndarray) -> np.ndarray:
    """The picture in so many levels of grey, still from 0 to 255."""
    level = (grey / 255.0 * (_GREY_LEVELS - 1)).round()
    return (level * (255 / (_GREY_LEVELS - 1))).round().astype(np.uint8)


def _overlay_colors(grey: np.ndarray, inside: np.ndarray, rims: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 picture; arguments are a picture and numbers of colours."""
    grey = grey[..., np.newaxis]
    tinted = ((1 - _FILL) * grey + _FILL * COLORS[inside]).round()
    canvas = np.where(inside[..., np.newaxis] > 0, tinted, grey)
    canvas = np.where(rims[..., np.newaxis] > 0, COLORS[rims], canvas)
    return canvas.astype(np.uint8)


def _write_numbers(draw: ImageDraw.ImageDraw, label_map: np.ndarray, labels: Labels) -> None:
    """The number of each structure, from 1, where it is deepest."""
    for number, channel in enumerate(labels.foreground, 1):
        mask = labels.mask(label_map, channel)
        if not mask.any():
            continue
        depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        draw.text(
            (int(x), int(y)),
            str(number),
            anchor="mm",
            fill="white",
            stroke_fill="black",
            stroke_width=1,
            font=_font(11),
        )


def _widen_thin_picture(picture: Image.Image) -> Image.Image:
    """The picture, with black at both sides where it is narrower or lower than ``_LEAST_SIDE``."""
    size = (max(picture.width, _LEAST_SIDE), max(picture.height, _LEAST_SIDE))
    widened = Image.new("RGB", size)
    position = ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2)
    widened.paste(picture, position)
    return widened


def _write_edges(draw: ImageDraw.ImageDraw, size: tuple[int, int], edges: Sequence[str]) -> None:
    """Letters at the left, right, upper and lower edge of a picture of that width and height."""
    width, height = size
    positions = (
        (5, height / 2, "lm"),
        (width - 5, height / 2, "rm"),
        (width / 2, 4, "mt"),
        (width / 2, height - 5, "mb"),
    )
    for letter, (x, y, anchor) in zip(edges, positions):
        _write_white(draw, (x, y), letter, anchor, 17)


def _draw_scale_bar(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], grid: Grid, has_letters: bool
) -> None:
    """A bar of a round length in the lower left corner, and that length.

    In a narrow picture, of that width and height, both lie above the letter at its lower edge.
    """
    width, height = size
    bar = grid.scale_bar()
    unit = "mm" if grid.physical else "pixels"
    text = f"{bar.length:g} {unit}"
    x = 10
    y = height - 12
    right_end = x + max(bar.pixels, _font(15).getlength(text))
    if has_letters and right_end > width / 2 - _HALF_LETTER:
        y -= 2 * _HALF_LETTER
    draw.rectangle((x - 1, y - 1, x + bar.pixels + 1, y + 4), fill="black")
    draw.rectangle((x, y, x + bar.pixels, y + 3), fill="white")
    _write_white(draw, (x, y - 5), text, "ls", 15)


def _write_white(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, anchor: str, size: int
) -> None:
    """White text with a dark rim, which is seen on any grey."""
    draw.text(
        position,
        text,
        anchor=anchor,
        fill="white",
        stroke_fill="black",
        stroke_width=2,
        font=_font(size),
    )


def _draw_ring(draw: ImageDraw.ImageDraw, grid: Grid, mark: tuple[int, int]) -> None:
    """A light ring on a dark one around a voxel: it is seen on any colour."""
    height, width = grid.pixels
    n_rows, n_columns = grid.shape
    y = (mark[0] + 0.5) * height / n_rows
    x = (mark[1] + 0.5) * width / n_columns
    for shade, line_width in (("black", 4), ("white", 2)):
        radius = _RING_RADIUS * max(height, width) + line_width / 2 - 1
        ring = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(ring, outline=shade, width=line_width)


def paint_structures(
    label_map: np.ndarray, labels: Labels, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number of the colour of each pixel within the structures, and on their rims.

    Args:
        label_map: (rows, columns) label map, or (R, rows, columns) masks of regions.
        labels: What the labels are; later ones lie on top.
        width: Pixels of a rim. There is none along the edge of the picture, where the structure
            only goes on.

    Returns:
        Two (rows, columns) uint8 arrays; colours count from 1, and 0 is no structure.
    """
    if label_map.ndim == 2 and not labels.regions:
        return _paint_classes(label_map, labels, width)
    inside = np.zeros(label_map.shape[-2:], np.uint8)
    rims = np.zeros(label_map.shape[-2:], np.uint8)
    for channel, color in zip(labels.foreground, _structure_colors()):
        mask = label_map[channel] if label_map.ndim == 3 else labels.mask(label_map, channel)
        if not mask.any():
            continue
        core = mask
        for _ in range(width):
            core = _erode(core)
        np.putmask(inside, mask, color)
        np.putmask(rims, mask & ~core, color)
    return inside, rims


def _paint_classes(
    label_map: np.ndarray, labels: Labels, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a label map of classes, which do not overlap: all at once, however many."""
    highest_label = max(label_map.max(initial=0), max(labels.all_values))
    color_of_label = np.zeros(1 + highest_label, np.uint8)
    for channel, color in zip(labels.foreground, _structure_colors()):
        color_of_label[labels.values[channel]] = color
    inside = color_of_label[label_map]
    core = np.ones(label_map.shape, bool)  # whether all pixels beside one have its label
    same_in_column = label_map[1:] == label_map[:-1]
    same_in_row = label_map[:, 1:] == label_map[:, :-1]
    core[1:] &= same_in_column
    core[:-1] &= same_in_column
    core[:, 1:] &= same_in_row
    core[:, :-1] &= same_in_row
    for _ in range(width - 1):
        core = _erode(core)
    return inside, np.where(core, 0, inside)


def _structure_colors() -> Iterator[int]:
    """Numbers of the colours of structures in their order, from 1, over and over."""
    return cycle(range(1, len(COLORS)))


def _erode(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask whose neighbours in row and column, as far as there are any, lie in
    it."""
    core = mask.copy()
    core[1:] &= mask[:-1]
    core[:-1] &= mask[1:]
    core[:, 1:] &= mask[:, :-1]
    core[:, :-1] &= mask[:, 1:]
    return core


def encode_picture(picture: Image.Image, file_format: str, **options: object) -> str:
    """The file of a picture in base64; options are those of Pillow's format."""
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return base64.b64encode(stream.getvalue()).decode()


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib.

    Matplotlib itself is not imported: that takes longer than all pictures of a small run.
    """
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ImportError("Matplotlib is not installed: install nnunet_nacl again.")
    fonts = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), size)
