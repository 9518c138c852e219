"""Draws the slices that the page of a scan lets its reader scroll through."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import NamedTuple, TypedDict

import numpy as np
from PIL import Image

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import slicing_axis
from nnunet_nacl.cases.probabilities import Box
from nnunet_nacl.cases.views import VoxelUncertainty
from nnunet_nacl.metrics.grid import bounding_box
from nnunet_nacl.worklist.drawing import COLORS, encode_picture, grey_picture, paint_structures
from nnunet_nacl.worklist.slices import Grid, View

MOST_SLICES = 64

_LONG_SIDE = 320  # most pixels
_JPEG_QUALITIES = (80, 65, 50, 35, 20)  # one after the other, until pictures are small enough
_BEYOND = 0.1  # share of the structures' slices that is shown on either side, at least one slice
_UNCERTAINTY_LEVELS = 16

_CLEAR = (0, 0, 0, 0)
_OUTLINE_COLORS = [_CLEAR, *((*color, 255) for color in COLORS[1:].tolist())]
_UNCERTAINTY_COLORS = [
    (255, 0, 255, round(170 * level / (_UNCERTAINTY_LEVELS - 1)))
    for level in range(_UNCERTAINTY_LEVELS)
]
"""Clear where the network is certain, to magenta where the largest probability is a half or
less."""


class DrawnSlice(NamedTuple):
    """One slice, each picture as a file in base64.

    Attributes:
        number: Of the slice, from 1.
        grey: JPEG of the image.
        outlines: PNG of the structures' outlines, else clear.
        uncertainty: PNG of low confidence, else clear.
    """

    number: int
    grey: str
    outlines: str
    uncertainty: str


class SliceStack(TypedDict):
    """Slices of a scan, in JSON values.

    Attributes:
        slices: A :class:`DrawnSlice` for each.
        of: How many slices the image has.
        axis: ``axial``, ``coronal`` or ``sagittal``; empty where that is unknown.
        edges: Letters of the left, right, upper and lower edge.
        size: Width and height of the outlines in pixels; other pictures are enlarged to it.
    """

    slices: list[DrawnSlice]
    of: int
    axis: str
    edges: tuple[str, ...]
    size: tuple[int, int]


class _Layers(NamedTuple):
    """A slice before its grey picture is compressed."""

    number: int
    grey: Image.Image
    outlines: str
    uncertainty: str


def draw_slice_stack(
    case: Case,
    voxel_uncertainty: VoxelUncertainty,
    image: np.ndarray,
    places: Sequence[tuple[int, ...]],
    most_characters: int,
) -> tuple[SliceStack, list[tuple[float, float]]]:
    """Draw slices through the structures, evenly spaced and with the least certain places.

    All show the same part of the image in the same grey window. Grey values and uncertainty have
    one pixel a voxel, outlines are finer. Outlines of sensitive labels are dotted.

    Args:
        case: The scan.
        voxel_uncertainty: Its uncertainty and sensitive labels.
        image: (*spatial) first channel.
        places: Indices of the least certain voxels.
        most_characters: That all pictures may take; to this end the quality of the grey pictures is
            lowered, then every second slice is left out.

    Returns:
        The slices, and where each place is in its slice: shares of the width and of the height.
    """
    axis = slicing_axis(case.geometry.spacing_mm)
    box = _find_box(case, voxel_uncertainty.sensitive, places)
    view = _view_box(case, box, axis)
    grid_of_voxels = replace(view.grid, long_side=(1, _LONG_SIDE))
    with_places = {place[axis] for place in places}
    indices = _choose_slices(box[axis], with_places, image.shape[axis])
    shown = [replace(view, index=index) for index in indices]
    values = [slice_view(image).astype(np.float32) for slice_view in shown]
    window = _find_grey_window(values)
    layers = []
    for slice_view, slice_values in zip(shown, values):
        grey = Image.fromarray(grey_picture(slice_values, grid_of_voxels, window))
        outlines = _draw_outlines(case, voxel_uncertainty.sensitive, slice_view)
        uncertainty = _draw_uncertainty(slice_view(voxel_uncertainty.uncertainty), grid_of_voxels)
        layers.append(_Layers(slice_view.index + 1, grey, outlines, uncertainty))
    height, width = view.grid.pixels
    stack: SliceStack = {
        "slices": _compress(layers, {index + 1 for index in with_places}, most_characters),
        "of": image.shape[axis],
        "axis": view.plane,
        "edges": view.edges,
        "size": (width, height),
    }
    return stack, [_find_in_slice(view, place) for place in places]


def _find_in_slice(view: View, place: tuple[int, ...]) -> tuple[float, float]:
    """Where a voxel is in the picture of its slice: shares of the width and of the height."""
    row, column = view.find(place)
    n_rows, n_columns = view.grid.shape
    return (column + 0.5) / n_columns, (row + 0.5) / n_rows


def _find_box(case: Case, sensitive: np.ndarray | None, places: Sequence[tuple[int, ...]]) -> Box:
    """The box around all labels and the least certain places; without labels the whole image."""
    is_labelled = case.segmentation != 0
    if sensitive is not None:
        is_sensitive = sensitive != 0
        if case.labels.regions:
            is_sensitive = is_sensitive.any(axis=0)
        is_labelled |= is_sensitive
    box = bounding_box(is_labelled)
    if box is None:
        return tuple(slice(0, n) for n in case.segmentation.shape)
    with_places = []
    for part, indices in zip(box, zip(*places)):
        start = min(part.start, *indices)
        stop = max(part.stop, max(indices) + 1)
        with_places.append(slice(start, stop))
    return tuple(with_places)


def _view_box(case: Case, box: Box, axis: int) -> View:
    """The view of the first slice of a box, with what surrounds the box."""
    shape_of_slice = np.delete(case.segmentation.shape, axis)
    occupied = np.zeros(shape_of_slice, bool)
    occupied[tuple(part for other, part in enumerate(box) if other != axis)] = True
    long_side = (_LONG_SIDE, _LONG_SIDE)
    return View.around(occupied, axis, box[axis].start, case.geometry, long_side)


def _choose_slices(labelled: slice, with_places: Set[int], n_slices: int) -> list[int]:
    """Indices of the slices that are shown, evenly spaced.

    Args:
        labelled: Range of the slices with labels.
        with_places: Indices of slices that are shown in any case, in place of the nearest.
        n_slices: Of the image.
    """
    beyond = max(1, round(_BEYOND * (labelled.stop - labelled.start)))
    first = max(labelled.start - beyond, 0)
    last = min(labelled.stop + beyond, n_slices) - 1
    n_shown = min(MOST_SLICES, last - first + 1)
    indices = np.unique(np.linspace(first, last, n_shown).round().astype(int))
    shown = set(indices.tolist())
    for index in sorted(with_places - shown):
        nearest = min(shown - with_places, key=lambda other: abs(other - index))
        shown.remove(nearest)
        shown.add(index)
    return sorted(shown)


def _find_grey_window(slices: Sequence[np.ndarray]) -> list[float]:
    """The 1st and 99th percentile of all slices together, by every second voxel of each axis."""
    return np.percentile(np.stack([values[::2, ::2] for values in slices]), (1, 99)).tolist()


def _draw_outlines(case: Case, sensitive: np.ndarray | None, view: View) -> str:
    """PNG with the outlines of the structures, and dotted ones of sensitive labels."""
    label_map = view.grid.enlarge(view(case.segmentation))
    _, rims = paint_structures(label_map, case.labels, 1)
    if sensitive is not None:
        if case.labels.regions:
            masks = [view.grid.enlarge(view(mask)) for mask in sensitive]
            _, wider_rims = paint_structures(np.stack(masks), case.labels, 1)
        else:
            wider_label_map = view.grid.enlarge(view(sensitive))
            _, wider_rims = paint_structures(wider_label_map, case.labels, 1)
        is_dot = np.indices(rims.shape).sum(axis=0) % 4 < 2
        np.copyto(rims, wider_rims, where=(rims == 0) & is_dot)
    # few colours take few bits a pixel
    return _encode_palette(rims, _OUTLINE_COLORS[: len(case.labels.foreground) + 1])


def _draw_uncertainty(uncertainty: np.ndarray, grid: Grid) -> str:
    """PNG of (rows, columns) uncertainty, from 0 to 1 and full from a half on, in few levels."""
    highest = _UNCERTAINTY_LEVELS - 1
    levels = (grid.enlarge(uncertainty) * (2 * highest)).round().clip(0, highest)
    return _encode_palette(levels.astype(np.uint8), _UNCERTAINTY_COLORS)


def _encode_palette(indices: np.ndarray, colors: Sequence[Sequence[int]]) -> str:
    """PNG of a picture of indices of colours, each red, green, blue and opacity."""
    picture = Image.fromarray(indices)
    opacities = bytes(color[3] for color in colors)
    picture.putpalette([value for color in colors for value in color[:3]])
    return encode_picture(picture, "PNG", compress_level=4, transparency=opacities)


def _compress(
    layers: list[_Layers], with_places: Set[int], most_characters: int
) -> list[DrawnSlice]:
    """Slices in so many characters, those of the numbers ``with_places`` among them."""
    while True:
        for quality in _JPEG_QUALITIES:
            slices = _encode_slices(layers, quality, most_characters)
            if slices is not None:
                return slices
        others = [one.number for one in layers if one.number not in with_places]
        kept = with_places | set(others[1::2])
        layers = [one for one in layers if one.number in kept]


def _encode_slices(
    layers: list[_Layers], quality: int, most_characters: int
) -> list[DrawnSlice] | None:
    """Slices with grey JPEG pictures of a quality; None if they have too many characters."""
    remaining_characters = most_characters
    for slice_layers in layers:
        remaining_characters -= len(slice_layers.outlines) + len(slice_layers.uncertainty)
    slices = []
    for number, grey, outlines, uncertainty in layers:
        jpeg = encode_picture(grey, "JPEG", quality=quality)
        remaining_characters -= len(jpeg)
        if remaining_characters < 0:
            return None
        slices.append(DrawnSlice(number, jpeg, outlines, uncertainty))
    return slices
