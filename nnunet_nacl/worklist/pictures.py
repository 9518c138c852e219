"""Draws the pictures of a scan for the review list and for its own page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import slicing_axis
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.views import Views
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.image_files import read_images
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.preprocessing import for_pictures
from nnunet_nacl.worklist.drawing import draw_slice, encode_picture
from nnunet_nacl.worklist.slice_stack import draw_slice_stack
from nnunet_nacl.worklist.slices import View

LARGEST_PICTURES = 1_350_000
"""Characters of a scan's pictures: with text, style and script the page stays below 1.5 MB."""

_LONG_SIDE = (180, 240)  # fewest and most pixels of the pictures through the least certain place


class _Channel(NamedTuple):
    """The first channel of a scan, scaled to [0, 1], and its file."""

    values: np.ndarray
    file: Path


class _Plane(NamedTuple):
    """A slice through the least certain place: its name, PNG in base64, and width and height."""

    name: str
    png: str
    size: tuple[int, int]


def draw_scan(
    record: CaseRecord, case: Case, views: Views, data: PredictionFolder, *, with_page: bool
) -> CaseRecord:
    """The record with a picture through the least certain place, and those of the scan's page.

    The pictures of the page are JSON, :class:`~nnunet_nacl.worklist.slice_stack.SliceStack` with
    ``planes`` (name, PNG, size) through the least certain place, and by structure the number of the
    slice that is ``least_certain`` of it.

    Args:
        record: Of the scan.
        case: The scan. An image that was not read is looked for where nnU-Net's files say.
        views: Where the network is uncertain.
        data: Reader and plans of the data set.
        with_page: Draw the pictures of the page.

    Returns:
        The record as it is where there is no image of the segmentation's shape, or no place.
    """
    channel = _find_first_channel(case, data)
    if channel is None or channel.values.shape != case.segmentation.shape or views.place is None:
        return record
    image = channel.values
    place = views.place.index
    axis = slicing_axis(case.geometry.spacing_mm)
    planes = [_draw_plane(case, image, place, axis)]
    pictures = b""
    if with_page:
        for other in range(image.ndim):
            if other != axis and min(np.delete(image.shape, other)) > 1:
                planes.append(_draw_plane(case, image, place, other))
        pictures = _draw_page(case, views, image, place, axis, planes)
    name_of_structure = case.labels.names[views.place.channel]
    texts = [planes[0].name, f"at {name_of_structure}"]
    return replace(
        record,
        place=", ".join(text for text in texts if text),
        picture=planes[0].png,
        size=planes[0].size,
        image=str(channel.file.absolute()),
        pictures=pictures,
    )


def _find_first_channel(case: Case, data: PredictionFolder) -> _Channel | None:
    """The image of a case; None where there is none, or it cannot be read."""
    try:
        files = case.images or (data.image(case.name),)
        if case.image is not None:
            return _Channel(case.image, files[0])
        channels, _ = read_images(data.reader, files[:1])
    except UserError:  # the scan has no picture, and its page says so
        return None
    return _Channel(for_pictures(channels[0]), files[0])


def _draw_plane(case: Case, image: np.ndarray, place: tuple[int, ...], axis: int) -> _Plane:
    """The slice across an axis through the least certain voxel."""
    place_in_slice = tuple(index for other, index in enumerate(place) if other != axis)
    is_place = np.zeros(np.delete(image.shape, axis), bool)
    is_place[place_in_slice] = True
    is_labelled = np.take(case.segmentation, place[axis], axis) != 0
    view = View.around(is_labelled | is_place, axis, place[axis], case.geometry, _LONG_SIDE)
    row, column = np.argwhere(view.flat(is_place))[0].tolist()
    picture = draw_slice(
        view(image), view(case.segmentation), case.labels, view.grid, view.edges, (row, column)
    )
    png = encode_picture(picture, "PNG", optimize=True)
    return _Plane(view.name(image.shape[axis]), png, picture.size)


def _draw_page(
    case: Case,
    views: Views,
    image: np.ndarray,
    place: tuple[int, ...],
    axis: int,
    planes: list[_Plane],
) -> bytes:
    """The pictures of the page as JSON, no larger than ``LARGEST_PICTURES``."""
    most_characters = LARGEST_PICTURES - sum(len(plane.png) for plane in planes)
    stack = draw_slice_stack(case, views, image, place, axis, most_characters)
    least_certain: dict[str, int] = {}
    if views.variance_by_slice is not None:
        indices = views.variance_by_slice.argmax(axis=1).tolist()
        for name, index in zip(case.labels.names, indices):
            least_certain[name] = index + 1
    return json.dumps({**stack, "planes": planes, "least_certain": least_certain}).encode()
