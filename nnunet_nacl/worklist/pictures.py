"""Draws the pictures of a scan for the review list and for its own page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import slicing_axis
from nnunet_nacl.cases.record import CaseRecord, PlacePicture
from nnunet_nacl.cases.views import VoxelUncertainty
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.image_files import read_images
from nnunet_nacl.nnunet.preprocessing import for_pictures
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.worklist.drawing import draw_slice, encode_picture
from nnunet_nacl.worklist.slice_stack import draw_slice_stack
from nnunet_nacl.worklist.slices import View

LARGEST_PICTURES_OF_PAGE = 1_350_000
"""Characters of a scan's pictures: with text, style and script the page stays below 1.5 MB."""

MOST_PLACES = 4
"""Of so many structures that need a look most the least certain place is drawn."""

_LONG_SIDE = (180, 240)  # fewest and most pixels of the pictures through the least certain place


class _Channel(NamedTuple):
    """The first channel of a scan, scaled to [0, 1], and its file."""

    values: np.ndarray
    file: Path


class PlaceOnPage(NamedTuple):
    """The least certain place of a structure, as the page of a scan shows it.

    Attributes:
        number: Of its slice, from 1.
        ring: Where it is in that slice: shares of the width and of the height.
        planes: Pictures through it, the values of a
            :class:`~nnunet_nacl.cases.record.PlacePicture` each.
    """

    number: int
    ring: tuple[float, float]
    planes: list[tuple[str, str, tuple[int, int]]]


def draw_scan(
    record: CaseRecord,
    case: Case,
    uncertainty: VoxelUncertainty,
    places: Mapping[str, tuple[int, ...]],
    dataset: Dataset,
    *,
    with_page: bool,
) -> CaseRecord:
    """The record with a picture through each least certain place, and those of the scan's page.

    The pictures of the page are JSON, :class:`~nnunet_nacl.worklist.slice_stack.SliceStack` with
    ``places``: by structure a :class:`PlaceOnPage`.

    Args:
        record: Of the scan.
        case: The scan. An image that was not read is looked for where nnU-Net's files say.
        uncertainty: Where the network is uncertain.
        places: By structure its least certain voxel, those first that need a look most.
        dataset: Reader and plans of the data set.
        with_page: Draw the pictures of the page.

    Returns:
        The record as it is where there is no image of the segmentation's shape, or no place.
    """
    channel = _find_first_channel(case, dataset)
    if channel is None or channel.values.shape != case.segmentation.shape or not places:
        return record
    image = channel.values
    axis = slicing_axis(case.geometry.spacing_mm)
    planes = {name: [_draw_plane(case, image, place, axis)] for name, place in places.items()}
    pictures = b""
    if with_page:
        other_axes = [other for other in range(image.ndim) if other != axis]
        for other in other_axes:
            if min(np.delete(image.shape, other)) > 1:
                for name, place in places.items():
                    planes[name].append(_draw_plane(case, image, place, other))
        pictures = _draw_page(case, uncertainty, image, places, planes)
    return replace(
        record,
        places={name: pictures_of_place[0] for name, pictures_of_place in planes.items()},
        image=str(channel.file.absolute()),
        pictures=pictures,
    )


def _find_first_channel(case: Case, dataset: Dataset) -> _Channel | None:
    """The image of a case; None where there is none, or it cannot be read."""
    files = case.images
    if not files:
        return None
    if case.image is not None:
        return _Channel(case.image, files[0])
    try:
        channels, _ = read_images(dataset.reader, files[:1])
    except UserError:  # the scan has no picture, and its page says so
        return None
    return _Channel(for_pictures(channels[0]), files[0])


def _draw_plane(case: Case, image: np.ndarray, place: tuple[int, ...], axis: int) -> PlacePicture:
    """The slice across an axis through the least certain voxel."""
    place_in_slice = tuple(index for other, index in enumerate(place) if other != axis)
    is_place = np.zeros(np.delete(image.shape, axis), bool)
    is_place[place_in_slice] = True
    is_labelled = np.take(case.segmentation, place[axis], axis) != 0
    view = View.around(is_labelled | is_place, axis, place[axis], case.geometry, _LONG_SIDE)
    picture = draw_slice(
        view(image),
        view(case.segmentation),
        case.labels,
        view.grid,
        view.edges,
        mark=view.find(place),
    )
    png = encode_picture(picture, "PNG", optimize=True)
    return PlacePicture(view.name(image.shape[axis]), png, picture.size)


def _draw_page(
    case: Case,
    uncertainty: VoxelUncertainty,
    image: np.ndarray,
    places: Mapping[str, tuple[int, ...]],
    planes: Mapping[str, list[PlacePicture]],
) -> bytes:
    """The pictures of the page as JSON.

    With one place it shows ``LARGEST_PICTURES_OF_PAGE`` characters at most.
    """
    sizes_of_planes = [sum(len(plane.png) for plane in drawn) for drawn in planes.values()]
    most_characters = LARGEST_PICTURES_OF_PAGE - max(sizes_of_planes)
    stack, rings = draw_slice_stack(
        case, uncertainty, image, list(places.values()), most_characters
    )
    axis = slicing_axis(case.geometry.spacing_mm)
    places_on_page = {}
    for (name, place), ring in zip(places.items(), rings):
        stored_planes = [astuple(plane) for plane in planes[name]]
        places_on_page[name] = PlaceOnPage(place[axis] + 1, ring, stored_planes)
    return json.dumps({**stack, "places": places_on_page}).encode()
