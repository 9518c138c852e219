"""What workers draw of a scan for the review list and the scan's page, while they have its image."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from nnunet_nacl.case.geometry import slicing_axis
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.nnunet.image_files import read_images
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessed_case import for_pictures
from nnunet_nacl.numbers.surface import bounding_box
from nnunet_nacl.review.review_list import pictures_of
from nnunet_nacl.review.reviewed_case import FinishedCase, ReviewedCase
from nnunet_nacl.review.slices import View
from nnunet_nacl.show.drawing import STRUCTURE_COLORS, draw_labels, grey_picture

MOST_SLICES = 64
LARGEST_PICTURES = 1_350_000
"""Characters of a scan's pictures: with text, style and script the page stays below 1.5 MB."""

_LONG_SIDE = (180, 240)  # fewest and most pixels of the pictures through the least certain place
_MOST_PIXELS = 320
_QUALITIES = (80, 65, 50, 35, 20)  # of JPEG, until the pictures are small enough
_BEYOND = 0.1  # of the structures' slices are shown on either side, at least one
_DOUBT_LEVELS = 16


def draw_scan(
    output: Path | None,
    folder: PredictionFolder,
    reviewed: ReviewedCase,
    image: np.ndarray | None = None,
    files: Sequence[Path] = (),
) -> tuple[FinishedCase, tuple[Path, ...]]:
    """What is kept of a case, with a picture through the least certain place; and the file with those of its page.

    That is JSON: ``slices`` (number from 1, grey JPEG, PNG of outlines, PNG of low confidence, base64), the number that
    is shown ``first``, ``of`` all slices, ``axis`` (axial, ...; empty where unknown), ``edges`` (letters of the left,
    right, upper and lower edge), ``size`` of the outlines in pixels, and ``planes`` (name, PNG, size) through the least
    certain place. There is none without an image.

    Args:
        output: Folder of the run; None draws no slices.
        folder: Of the data set, on whose plans the direction of the slices depends.
        reviewed: The case, its segmentation and row.
        image: Of the case, see :func:`for_pictures`; None reads it.
        files: Of the image; none looks where nnU-Net's files say. Where it is not there, there is no picture.
    """
    name, shape = reviewed.case.name, reviewed.case.segmentation.shape
    try:
        files = files or folder.images(name)
        image = for_pictures(read_images(folder.reader, files[:1])[0][0]) if image is None else image
    except UserError:
        return reviewed.finished, ()
    if image.shape != shape:
        return reviewed.finished, ()
    axis = slicing_axis(reviewed.case.geometry.spacing_mm, folder.plans)
    view, png = _through_place(reviewed, image, axis)
    structure = reviewed.case.labels.names[reviewed.place.channel]
    finished = replace(
        reviewed.finished,
        place=", ".join(filter(None, [view.name(shape[axis]), f"at {structure}"])),
        picture=_base64(png),
        size=view.grid.pixels[::-1],
        image=str(files[0].absolute()),
    )
    if output is None:
        return finished, ()
    planes = [[view.name(shape[axis]), finished.picture, finished.size]]
    for across in range(len(shape)):
        if across != axis and min(n for i, n in enumerate(shape) if i != across) > 1:
            plane, png = _through_place(reviewed, image, across)
            planes.append([plane.name(shape[across]), _base64(png), plane.grid.pixels[::-1]])
    view, drawn = _draw_slices(reviewed, image, axis, LARGEST_PICTURES - sum(len(png) for _, png, _ in planes))
    content = {
        "slices": drawn,
        "first": view.index + 1,
        "of": shape[axis],
        "axis": view.plane,
        "edges": view.edges,
        "size": view.grid.pixels[::-1],
        "planes": planes,
    }
    write_atomically(path := output / pictures_of(name), json.dumps(content))
    return finished, (path,)


def _through_place(reviewed: ReviewedCase, image: np.ndarray, axis: int) -> tuple[View, bytes]:
    """The slice across an axis through the least certain voxel, with the segmentation over it and a ring around it."""
    case, index = reviewed.case, reviewed.place.index
    where = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    where[tuple(value for i, value in enumerate(index) if i != axis)] = True
    occupied = (np.take(case.segmentation, index[axis], axis) != 0) | where
    view = View.around(occupied, axis, index[axis], case.geometry, _LONG_SIDE)
    [mark] = np.argwhere(view.flat(where)).tolist()
    masks = [case.labels.mask(view(case.segmentation), channel) for channel in case.labels.foreground]
    grey = view.flat(_slice(image, axis, index[axis]))
    return view, draw_labels(grey, masks, view.grid, view.edges, (mark[0], mark[1]))


def _draw_slices(
    reviewed: ReviewedCase, image: np.ndarray, axis: int, most: int
) -> tuple[View, list[tuple[int, str, str, str]]]:
    """Slices through the structures, evenly spaced and with the least certain place, in at most so many characters.

    Every slice shows the same part of the image in the same grey window. Layers have the size that they need: grey and
    doubt a pixel a voxel, outlines finer.
    """
    case, index = reviewed.case, reviewed.place.index
    box = bounding_box(case.segmentation != 0) or tuple(slice(0, n) for n in image.shape)
    box = tuple(slice(min(part.start, i), max(part.stop, i + 1)) for part, i in zip(box, index))
    occupied = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    occupied[tuple(part for i, part in enumerate(box) if i != axis)] = True
    view = View.around(occupied, axis, index[axis], case.geometry, (_MOST_PIXELS, _MOST_PIXELS))
    small = replace(view.grid, long_side=(1, _MOST_PIXELS))
    beyond = max(1, round(_BEYOND * (box[axis].stop - box[axis].start)))
    ends = max(box[axis].start - beyond, 0), min(box[axis].stop + beyond, image.shape[axis]) - 1
    numbers = np.unique(np.linspace(*ends, min(MOST_SLICES, ends[1] - ends[0] + 1)).round().astype(int))
    numbers[np.abs(numbers - index[axis]).argmin()] = index[axis]
    values = [view.flat(_slice(image, axis, number)) for number in numbers]
    window = np.percentile(np.stack([value[::2, ::2] for value in values]), (1, 99)).tolist()
    greys = [grey_picture(value, small, window) for value in values]
    layers = []
    for number in numbers.tolist():
        labels, doubt = (replace(view, index=number)(array) for array in (case.segmentation, reviewed.doubt))
        lines = _outlines(view.grid.enlarge(labels), case.labels)
        scaled = (small.enlarge(doubt) * (2 * (_DOUBT_LEVELS - 1))).round().clip(0, _DOUBT_LEVELS - 1)
        layers.append((lines, _palette(scaled.astype(np.uint8), DOUBT_COLORS)))
    while True:
        for quality in _QUALITIES:
            drawn = [
                (number + 1, _saved(Image.fromarray(grey), "JPEG", quality=quality), *pair)
                for number, grey, pair in zip(numbers.tolist(), greys, layers)
            ]
            if sum(len(layer) for _, *three in drawn for layer in three) <= most:
                return view, drawn
        kept = np.flatnonzero(numbers == index[axis])[0] % 2  # every second, the least certain one among them
        numbers, greys, layers = numbers[kept::2], greys[kept::2], layers[kept::2]


_LINE_COLORS = [(0, 0, 0, 0), *((*ImageColor.getrgb(color), 255) for color in STRUCTURE_COLORS)]
DOUBT_COLORS = [(255, 0, 255, round(170 * level / (_DOUBT_LEVELS - 1))) for level in range(_DOUBT_LEVELS)]
"""Clear where the network is certain, to magenta where the largest probability is a half or less."""


def _outlines(labels: np.ndarray, names: Labels) -> str:
    """The rims of the structures in a label map, base64 PNG: voxels with a neighbour that is not inside."""
    lines = np.zeros(labels.shape, np.uint8)
    for channel, color in zip(names.foreground, cycle(range(1, len(_LINE_COLORS)))):
        inside = names.mask(labels, channel)
        if inside.any():
            core = inside.copy()
            for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
                core[here] &= inside[there]
                core[there] &= inside[here]
            np.putmask(lines, inside & ~core, color)
    return _palette(lines, _LINE_COLORS[: len(names.foreground) + 1])  # few colours take few bits a pixel


def _palette(indices: np.ndarray, colors: Sequence[tuple[int, int, int, int]]) -> str:
    picture = Image.fromarray(indices)
    picture.putpalette([value for *rgb, _ in colors for value in rgb])
    return _saved(picture, "PNG", compress_level=4, transparency=bytes(alpha for *_, alpha in colors))


def _saved(picture: Image.Image, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return _base64(stream.getvalue())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _slice(image: np.ndarray, axis: int, index: int) -> np.ndarray:
    return np.take(image, index, axis).astype(np.float32)
