"""How an image differs from the training's, where the calibration scans differ as well."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.calibration.map_parts import MapQuality
from nnunet_nacl.estimators.unlike import CalibrationProfiles
from tests.worklist.records import record

NAMES = ["noise", "log spacing along y", "log size along y"]
SAID = ("size along y 120 mm (training 60 to 90)", "spacing along y 3 mm (training 1)")


def knowing(sizes_mm: list[float]) -> MapQuality:
    """With calibration scans of these sizes, voxels of 1 mm."""
    values = np.array([[0.1, 0.0, math.log(size)] for size in sizes_mm])
    profiles = CalibrationProfiles.learn(NAMES, values, range(len(sizes_mm)))
    return MapQuality(profiles=profiles)


@pytest.fixture
def scan():
    """120 mm long, with voxels of 3 mm."""
    return record("scan", profile=(0.1, math.log(3), math.log(120)), differences=SAID)


@pytest.mark.parametrize(
    ("sizes_mm", "left"),
    [([80, 130], SAID[1:]), ([80, 110], SAID[1:]), ([80, 100], SAID), ([130, 140], SAID[1:])],
)
def test_what_calibration_scans_have_too_is_no_difference(scan, sizes_mm, left):
    """Ranges reach a tenth farther: 120 mm lies beyond 100 mm, and not beyond 110."""
    assert knowing(sizes_mm).differences(scan) == list(left)


def test_a_difference_that_no_profile_holds_stays(scan):
    other = record("scan", profile=scan.profile, differences=("channels lie apart by 3 mm",))
    assert knowing([80, 130]).differences(other) == ["channels lie apart by 3 mm"]


def test_without_calibration_scans_all_differences_stay(scan):
    assert MapQuality().differences(scan) == list(SAID)
