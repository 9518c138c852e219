"""The picture of a case in the list: the slice through the place where the network is least certain."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.companion_files import read_image
from nnunet_nacl.io.geometry import slicing_axis
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.prediction.preprocessed_case import CompactImage
from nnunet_nacl.review.reviewed_case import FinishedCase, ReviewedCase
from nnunet_nacl.show.drawing import draw_labels
from nnunet_nacl.show.slices import Plane, View

_LONG_SIDE = (180, 240)  # pixels


def draw_thumbnail(folder: PredictionFolder, reviewed: ReviewedCase, image: CompactImage | None = None) -> FinishedCase:
    """What is kept of a case: the first channel with the segmentation over it, a ring around the least certain voxel.

    Args:
        folder: Of the data set, on whose plans the direction of the slice depends.
        reviewed: The case, its segmentation and row.
        image: Of the case; None reads it. Where it is not where nnU-Net's files say, there is no picture.
    """
    if image is None:
        try:
            channel = read_image(folder, reviewed.case.name, 0, reviewed.case.segmentation.shape)
        except UserError:
            return reviewed.finished
        image = CompactImage(channel[None])
    geometry, labels, index = reviewed.case.geometry, reviewed.case.labels, reviewed.place.index
    axis = slicing_axis(geometry.spacing_mm, folder.plans)
    plane = Plane.across(axis, geometry)
    where = np.zeros([n for i, n in enumerate(image.shape) if i != axis], bool)
    where[tuple(value for i, value in enumerate(index) if i != axis)] = True
    occupied = (plane.cut(reviewed.case.segmentation, index[axis]) != 0) | plane.turn(where)
    view = View.around(occupied, plane, index[axis], geometry, _LONG_SIDE)
    masks = [labels.mask(view(reviewed.case.segmentation), channel) for channel in labels.foreground]
    [[row, column]] = np.argwhere(view.flat(where)).tolist()
    grey = view.flat(image.slice(axis, index[axis]))
    png = draw_labels(grey, masks, view.grid, edges=plane.edges, mark=(row, column))
    height, width = view.grid.pixels
    where_shown = [view.name(image.shape[axis]), f"at {labels.names[reviewed.place.channel]}"]
    picture = base64.b64encode(png).decode()
    return replace(reviewed.finished, place=", ".join(filter(None, where_shown)), picture=picture, size=(width, height))
