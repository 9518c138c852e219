"""A folder of scans that was reviewed, and a browser."""

from __future__ import annotations

import numpy as np
import pytest

from tests.browser import chromium
from tests.runs.folders import (
    CLASSES,
    describe,
    random_case,
    write_image,
    write_json,
    write_prediction,
)
from tests.runs.predictions import SPACING_MM, reviewed

__all__ = ["chromium"]

SCANS = ("it's ü", "b", "no image", 'a "<b>"')


@pytest.fixture(scope="session")
def reviewed_scans(tmp_path_factory):
    """A reviewed folder of ``SCANS``, the first of 160 slices, the third without an image; and its
    list."""
    parent = tmp_path_factory.mktemp("reviewed scans")
    rng = np.random.default_rng(0)
    folder = parent / "predictions"
    images = parent / "images"
    folder.mkdir()
    images.mkdir()
    dataset, plans = describe(CLASSES, len(SCANS), ".nii.gz", "SimpleITKIO")
    write_json(folder / "dataset.json", dataset)
    write_json(folder / "plans.json", plans)
    write_json(
        folder / "predict_from_raw_data_args.json", {"list_of_lists_or_source_folder": str(images)}
    )
    for i, name in enumerate(SCANS):
        shape = (160 if i == 0 else 6, 14, 12)
        truth, probs, segmentation = random_case(rng, CLASSES, shape)
        if i == len(SCANS) - 1:  # a structure is missing: flagged
            segmentation[segmentation == 2] = 0
        write_prediction(folder, name, probs.astype("float32"), segmentation, SPACING_MM)
        if name != "no image":
            image = (100 * truth + rng.integers(0, 50, shape)).astype("int16")
            write_image(image, images / f"{name}_0000.nii.gz", SPACING_MM)
    return parent, reviewed(folder, parent / "out")
