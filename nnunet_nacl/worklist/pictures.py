"""Draws the pictures of a scan for the review list and for its own page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import slicing_axis
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.views import Views
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.overlap import bounding_box
from nnunet_nacl.nnunet.image_files import read_images
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trained_model import for_pictures
from nnunet_nacl.reports.rendering import STRUCTURE_COLORS
from nnunet_nacl.worklist.slices import Grid, View

MOST_SLICES = 64
LARGEST_PICTURES = 1_350_000
"""Characters of a scan's pictures: with text, style and script the page stays below 1.5 MB."""

_LONG_SIDE = (180, 240)  # fewest and most pixels of the pictures through the least certain place
_MOST_PIXELS = 320
_QUALITIES = (80, 65, 50, 35, 20)  # of JPEG, until the pictures are small enough
_BEYOND = 0.1  # of the structures' slices are shown on either side, at least one
_DOUBT_LEVELS = 16
_FILL = 0.35

_COLORS = np.array([(0, 0, 0), *map(ImageColor.getrgb, STRUCTURE_COLORS)], np.uint8)
_LINE_COLORS = [(0, 0, 0, 0), *((*color, 255) for color in _COLORS[1:].tolist())]
_DOUBT_COLORS = [
    (255, 0, 255, round(170 * level / (_DOUBT_LEVELS - 1))) for level in range(_DOUBT_LEVELS)
]
"""Clear where the network is certain, to magenta where the largest probability is a half or
less."""


def draw_scan(
    record: CaseRecord, case: Case, views: Views, data: PredictionFolder, *, with_page: bool
) -> CaseRecord:
    """The record with a picture through the least certain place, and the pictures of the scan's
    page.

    These are JSON: ``slices`` (number from 1, grey JPEG, PNG of outlines, PNG of low confidence,
    base64), the number that is shown ``first``, by structure the number of the slice that is
    ``least_certain`` of it, ``of`` all slices, ``axis`` (axial, ...; empty where unknown),
    ``edges`` (letters of the left, right, upper and lower edge), ``size`` of the outlines in
    pixels, and ``planes`` (name, PNG, size) through the least certain place. An image that was not
    read is looked for where nnU-Net's files say; without one there is no picture, nor are there any
    of the page unless they are asked for. On the plans depends how slices lie.
    """
    image, files = case.image, case.images
    try:
        files = files or (data.image(case.name),)
        image = for_pictures(read_images(data.reader, files[:1])[0][0]) if image is None else image
    except UserError:
        return record
    shape = case.segmentation.shape
    if image.shape != shape or views.place is None:
        return record
    axis, index = slicing_axis(case.geometry.spacing_mm), views.place.index
    others = (
        i
        for i in range(len(shape))
        if i != axis and min(n for j, n in enumerate(shape) if j != i) > 1
    )
    planes = [
        _through_place(case, index, image, across)
        for across in (axis, *(others if with_page else ()))
    ]
    place, picture, size = planes[0]
    place = ", ".join(filter(None, [place, f"at {case.labels.names[views.place.channel]}"]))
    pictures = b""
    if with_page:
        most = LARGEST_PICTURES - sum(len(png) for _, png, _ in planes)
        doubts = (
            zip(case.labels.names, views.variance_by_slice[axis].argmax(1).tolist())
            if views.variance_by_slice
            else ()
        )
        least_certain = {name: number + 1 for name, number in doubts}
        content = _slices(case, views, index, image, axis, most) | {
            "planes": planes,
            "least_certain": least_certain,
        }
        pictures = json.dumps(content).encode()
    return replace(
        record,
        place=place,
        picture=picture,
        size=size,
        image=str(files[0].absolute()),
        pictures=pictures,
    )


def _through_place(
    case: Case, index: tuple[int, ...], image: np.ndarray, axis: int
) -> tuple[str, str, tuple[int, int]]:
    """The slice across an axis through the least certain voxel: its name, picture (base64 PNG) and
    size in pixels."""
    ring = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    ring[tuple(value for i, value in enumerate(index) if i != axis)] = True
    view = View.around(
        (np.take(case.segmentation, index[axis], axis) != 0) | ring,
        axis,
        index[axis],
        case.geometry,
        _LONG_SIDE,
    )
    y, x = np.argwhere(view.flat(ring))[0].tolist()
    picture = draw_slice(
        view(image), view(case.segmentation), case.labels, view.grid, view.edges, (y, x)
    )
    return view.name(image.shape[axis]), _saved(picture, "PNG", optimize=True), picture.size


def draw_slice(
    image: np.ndarray,
    labels: np.ndarray,
    structures: Labels,
    grid: Grid,
    edges: Sequence[str],
    mark: tuple[int, int],
) -> Image.Image:
    """A slice with its structures in colour over it and a scale bar; where colours repeat, with
    numbers from 1.

    Args:
        image: (rows, columns) image; the grey window runs from its 1st to its 99th percentile.
        labels: (rows, columns) label map.
        structures: What the labels are, in the order of the colours; later ones lie on top.
        grid: From voxels to pixels.
        edges: Letters at the left, right, upper and lower edge; none where they are unknown.
        mark: Row and column of a voxel to draw a ring around.
    """
    # 64 levels of grey: the eye sees no more beside each other, and the file is smaller by a third
    grey = (
        ((grey_picture(image, grid) / 255.0 * 63).round() * (255 / 63))
        .round()
        .astype(np.uint8)[..., None]
    )
    inside, rims = painted(grid.enlarge(labels), structures, 2)
    canvas = np.where(
        inside[..., None] > 0, ((1 - _FILL) * grey + _FILL * _COLORS[inside]).round(), grey
    )
    canvas = np.where(rims[..., None] > 0, _COLORS[rims], canvas).astype(np.uint8)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    if len(structures.foreground) > len(STRUCTURE_COLORS):
        for number, channel in enumerate(structures.foreground, 1):
            mask = structures.mask(grid.enlarge(labels), channel)
            if mask.any():
                depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
                y, x = np.unravel_index(depth.argmax(), depth.shape)
                style: dict[str, Any] = {
                    "stroke_fill": "black",
                    "stroke_width": 1,
                    "font": _font(11),
                }
                draw.text((int(x), int(y)), str(number), anchor="mm", fill="white", **style)
    _annotate(draw, grid, edges)
    y, x = ((i + 0.5) * pixels / n for i, pixels, n in zip(mark, grid.pixels, grid.shape))
    # a light ring on a dark one: seen on any colour
    for shade, line in (("black", 4), ("white", 2)):
        r = 0.07 * max(grid.pixels) + line / 2 - 1
        draw.ellipse((x - r, y - r, x + r, y + r), outline=shade, width=line)
    # a palette: a third of the size, and no difference to the eye
    return picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def grey_picture(image: np.ndarray, grid: Grid, window: Sequence[float] = ()) -> np.ndarray:
    """(height, width) uint8 picture of a slice; ``window``: the values of black and white, by
    default percentiles."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = window or np.percentile(values, (1, 99))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = np.full_like(values, 0.5) if high <= low else (values - low) / (high - low)
    enlarged = Image.fromarray(scaled.clip(0, 1)).resize(
        grid.pixels[::-1], Image.Resampling.BICUBIC
    )
    return (np.asarray(enlarged).clip(0, 1) * 255).round().astype(np.uint8)


def painted(labels: np.ndarray, structures: Labels, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of the colour, from 1, of each pixel of a label map, and of the structures' rims; 0
    where there is none.

    In place of a label map (R, rows, columns) masks of regions may be given. A rim has so many
    pixels of ``width``, and none along the edge of the picture, where the structure only goes on.
    """
    if labels.ndim == 2 and not structures.regions:
        return _paint_classes(labels, structures, width)
    inside = np.zeros(labels.shape[-2:], np.uint8)
    rims = np.zeros(labels.shape[-2:], np.uint8)
    for channel, color in zip(structures.foreground, _structure_colors()):
        mask = labels[channel] if labels.ndim == 3 else structures.mask(labels, channel)
        if not mask.any():
            continue
        core = mask
        for _ in range(width):
            core = _erode(core)
        np.putmask(inside, mask, color)
        np.putmask(rims, mask & ~core, color)
    return inside, rims


def _paint_classes(
    labels: np.ndarray, structures: Labels, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same of a label map of classes, which do not overlap: all at once, however many there
    are."""
    colors_by_value = np.zeros(1 + max(labels.max(initial=0), max(structures.all_values)), np.uint8)
    for channel, color in zip(structures.foreground, _structure_colors()):
        colors_by_value[structures.values[channel]] = color
    inside = colors_by_value[labels]
    core = np.ones(labels.shape, bool)  # whether all pixels beside one have its label
    same_in_column = labels[1:] == labels[:-1]
    same_in_row = labels[:, 1:] == labels[:, :-1]
    core[1:] &= same_in_column
    core[:-1] &= same_in_column
    core[:, 1:] &= same_in_row
    core[:, :-1] &= same_in_row
    for _ in range(width - 1):
        core = _erode(core)
    return inside, np.where(core, 0, inside)


def _structure_colors() -> Iterator[int]:
    """Numbers of the colours of structures in their order, from 1; where these end they begin
    again."""
    return cycle(range(1, len(_COLORS)))


def _erode(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask whose neighbours in row and column lie in it, as far as there are
    any."""
    core = mask.copy()
    core[1:] &= mask[:-1]
    core[:-1] &= mask[1:]
    core[:, 1:] &= mask[:, :-1]
    core[:, :-1] &= mask[:, 1:]
    return core


def _slices(
    case: Case, views: Views, index: tuple[int, ...], image: np.ndarray, axis: int, most: int
) -> dict[str, Any]:
    """Slices through the structures, evenly spaced and with the least certain place, in at most so
    many characters.

    One part of the image in one grey window: grey and doubt a pixel a voxel, outlines finer;
    dotted: what misses less.
    """
    sensitive, doubt, labelled = views.sensitive, views.uncertainty, case.segmentation != 0
    if sensitive is not None:
        labelled |= sensitive.any(0) if case.labels.regions else sensitive != 0
    box = bounding_box(labelled) or tuple(slice(0, n) for n in image.shape)
    box = tuple(slice(min(part.start, i), max(part.stop, i + 1)) for part, i in zip(box, index))
    occupied = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    occupied[tuple(part for i, part in enumerate(box) if i != axis)] = True
    view = View.around(occupied, axis, index[axis], case.geometry, (_MOST_PIXELS, _MOST_PIXELS))
    small = replace(view.grid, long_side=(1, _MOST_PIXELS))
    beyond = max(1, round(_BEYOND * (box[axis].stop - box[axis].start)))
    ends = max(box[axis].start - beyond, 0), min(box[axis].stop + beyond, image.shape[axis]) - 1
    numbers = np.unique(
        np.linspace(*ends, min(MOST_SLICES, ends[1] - ends[0] + 1)).round().astype(int)
    )
    numbers[np.abs(numbers - index[axis]).argmin()] = index[axis]
    shown = [replace(view, index=number) for number in numbers.tolist()]
    values = [at(image).astype(np.float32) for at in shown]
    window = np.percentile(np.stack([value[::2, ::2] for value in values]), (1, 99)).tolist()
    layers: list[tuple[int, Any, str, str]] = []
    for at, value in zip(shown, values):
        _, rims = painted(view.grid.enlarge(at(case.segmentation)), case.labels, 1)
        if sensitive is not None:
            parts = sensitive if case.labels.regions else [sensitive]
            wider = np.stack([view.grid.enlarge(at(part)) for part in parts])
            _, others = painted(wider if case.labels.regions else wider[0], case.labels, 1)
            np.copyto(rims, others, where=(rims == 0) & (np.indices(rims.shape).sum(0) % 4 < 2))
        scaled = (
            (small.enlarge(at(doubt)) * (2 * (_DOUBT_LEVELS - 1)))
            .round()
            .clip(0, _DOUBT_LEVELS - 1)
        )
        # few colours take few bits a pixel
        lines = _palette(rims, _LINE_COLORS[: len(case.labels.foreground) + 1])
        grey = Image.fromarray(grey_picture(value, small, window))
        layers.append((at.index + 1, grey, lines, _palette(scaled.astype(np.uint8), _DOUBT_COLORS)))
    about = {
        "first": view.index + 1,
        "of": image.shape[axis],
        "axis": view.plane,
        "edges": view.edges,
    }
    while True:
        for quality in _QUALITIES:
            drawn = [
                (n, _saved(grey, "JPEG", quality=quality), lines, clouds)
                for n, grey, lines, clouds in layers
            ]
            if (
                sum(len(grey) + len(lines) + len(clouds) for _, grey, lines, clouds in drawn)
                <= most
            ):
                return {"slices": drawn, **about, "size": view.grid.pixels[::-1]}
        kept = next(i for i, (n, *_) in enumerate(layers) if n == view.index + 1) % 2
        layers = layers[kept::2]  # every second, the least certain one among them


def _palette(indices: np.ndarray, colors: Sequence[Sequence[int]]) -> str:
    picture = Image.fromarray(indices)
    picture.putpalette([value for color in colors for value in color[:3]])
    return _saved(
        picture, "PNG", compress_level=4, transparency=bytes(color[3] for color in colors)
    )


def _saved(picture: Image.Image, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return base64.b64encode(stream.getvalue()).decode()


def _annotate(draw: ImageDraw.ImageDraw, grid: Grid, edges: Sequence[str]) -> None:
    """Letters at the edges, and a scale bar."""
    height, width = grid.pixels
    style: dict[str, Any] = {
        "fill": "white",
        "stroke_fill": "black",
        "stroke_width": 2,
        "font": _font(17),
    }
    places = (
        (5, height / 2, "lm"),
        (width - 5, height / 2, "rm"),
        (width / 2, 4, "mt"),
        (width / 2, height - 5, "mb"),
    )
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
    # whose import would take longer than all pictures of a small run
    package: Any = find_spec("matplotlib")
    data = Path(package.origin).parent / "mpl-data"
    return ImageFont.truetype(str(data / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"), size)
