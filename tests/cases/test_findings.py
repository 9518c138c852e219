"""Findings of a case: components, their place in the scan's space, and their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from scipy import ndimage

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.findings import MAX_FINDINGS, StructureFindings
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.estimators.log_odds_map import map_from_tables

CLASSES = Labels(("background", "organ", "lesion"), (0, 1, 2), False, 9, (0, 1, 2))
REGIONS = Labels(("whole", "core"), ((1, 2), 2), True, None, (0, 1, 2), (1, 2))
SPACING = (3.0, 2.0, 1.0)


def case_of(segmentation, labels=CLASSES, probs=None, geometry=None) -> Case:
    segmentation = np.asarray(segmentation).astype(np.uint8)
    if probs is None:
        probs = np.stack([np.full(segmentation.shape, 1 / 3)] * 3)
    return Case(
        "a",
        labels,
        geometry or Geometry(SPACING, np.diag([1.0, 2.0, 3.0, 1.0])),
        segmentation,
        SavedProbabilities(np.asarray(probs, np.float32), labels.regions),
    )


def find_components(case: Case, *channels: int, calibration=None) -> tuple[StructureFindings, ...]:
    """The findings of a case; of all structures where none is named."""
    return measure(case, calibration, findings=channels or case.labels.foreground).findings


def test_two_components_by_hand():
    segmentation = np.zeros((2, 4, 6), int)
    segmentation[0, 0, 0] = segmentation[1, 1, 1] = 2  # they touch at a corner
    segmentation[0, 3, 4:] = 2
    segmentation[1, 3, 5] = 1
    probs = np.zeros((3, 2, 4, 6))
    probs[2, 0, 0, 0] = 0.9
    probs[2, 1, 1, 1] = 0.5
    probs[2, 0, 3, 4:] = 0.6
    probs[0] = 1 - probs.sum(0)
    organ, lesion = find_components(case_of(segmentation, probs=probs))
    assert (organ.name, len(organ.found)) == ("organ", 1)
    first, second = lesion.found
    assert lesion.n_more == 0 and (first.voxels, first.volume) == (2, pytest.approx(0.012))
    assert (first.mean_probability, first.max_probability) == pytest.approx((0.7, 0.9))
    assert first.centre_mm == pytest.approx((0.5, 1.0, 1.5))  # x, y, z
    assert second.voxels == 2 and second.centre_mm == pytest.approx((4.5, 6.0, 0.0))
    assert find_components(case_of(segmentation, probs=probs), 2) == (lesion,)


def test_components_in_blocks_are_those_of_one_mask_after_the_other():
    """Also those of one voxel, and those whose largest probability several voxels have."""
    rng = np.random.default_rng(0)
    segmentation = np.where(rng.random((6, 9, 10)) < 0.06, 2, 0)
    segmentation[1:5, 2:4, 3] = 2  # lies in several blocks
    lesion_probability = rng.choice([0.25, 0.5, 0.75], segmentation.shape)
    probs = np.stack([1 - lesion_probability, 0 * lesion_probability, lesion_probability])
    component_map, n_components = ndimage.label(segmentation == 2, np.ones((3, 3, 3)))
    expected = []
    for number in range(1, n_components + 1):
        is_inside = component_map == number
        inside = lesion_probability[is_inside]
        z, y, x = np.argwhere(is_inside).mean(axis=0)
        centre_mm = (x, 2 * y, 3 * z)
        expected.append((len(inside), inside.mean(), inside.max(), *centre_mm))
    expected.sort(key=lambda component: component[0], reverse=True)  # of equals the first
    assert expected[-1][0] == 1 and expected[0][2] == 0.75

    case = case_of(segmentation, probs=probs)
    case.probabilities.block_bytes = 1  # a layer is a block
    [lesion] = find_components(case, 2)
    found = [
        (one.voxels, one.mean_probability, one.max_probability, *one.centre_mm)
        for one in lesion.found
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_findings_are_calibrated():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([2, 1, 1], (5, 8, 7)).transpose(3, 0, 1, 2).astype(np.float32)
    case = case_of(rng.choice(3, (5, 8, 7), p=[0.9, 0.05, 0.05]), probs=probs)
    calibration = map_from_tables(np.full((3, 2), 0.5), np.array([[0.3, -0.2]] * 3))
    mapped = case_of(case.segmentation, probs=calibration(probs))
    found = (
        find_components(case, calibration=calibration),
        find_components(mapped),
        find_components(case),
    )
    for of_structure in zip(*found):
        for finding, expected, raw in zip(*(of.found for of in of_structure)):
            assert finding.mean_probability == pytest.approx(expected.mean_probability)
            assert abs(finding.mean_probability - raw.mean_probability) > 1e-3


def test_regions_overlap_each_other():
    segmentation = np.array([[[1, 2, 1, 0, 1]]])
    probs = np.array([[0.9, 0.8, 0.7, 0.1, 0.6], [0.1, 0.6, 0.2, 0, 0]]).reshape(2, 1, 1, 5)
    whole, core = find_components(case_of(segmentation, labels=REGIONS, probs=probs))
    assert [one.voxels for one in whole.found] == [3, 1] and [one.voxels for one in core.found] == [
        1
    ]
    assert whole.found[0].mean_probability == pytest.approx(0.8)
    assert core.found[0].mean_probability == pytest.approx(0.6)


@pytest.mark.parametrize(
    "reader", ["SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"]
)
def test_centres_are_where_simpleitk_says(reader, tmp_path):
    image = sitk.GetImageFromArray(np.zeros((5, 6, 7), np.uint8))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-30.0, 11.0, 7.0))
    tilt = np.deg2rad(20)
    image.SetDirection((-np.cos(tilt), np.sin(tilt), 0, np.sin(tilt), np.cos(tilt), 0, 0, 0, 1))
    for x in (1, 2):
        image[x, 4, 3] = 2
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    array, properties = recursive_find_reader_writer_by_name(reader)().read_seg(
        str(tmp_path / "a.nii.gz")
    )
    [lesion] = find_components(case_of(array[0], geometry=Geometry.of(properties)), 2)
    expected = image.TransformContinuousIndexToPhysicalPoint((1.5, 4.0, 3.0))
    assert lesion.found[0].centre_mm == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("geometry", "centre", "size"),
    [
        (
            Geometry((1998.0, 2.0, 1.0), np.array([[1.0, 0, 10], [0, 2, 20], [0, 0, 1]])),
            (10.5, 24.0),
            4.0,
        ),
        (Geometry((999.0, 1.0, 1.0)), (0.5, 2.0), 2.0),  # a picture
    ],
)
def test_images_in_2d_have_areas_and_two_coordinates(geometry, centre, size):
    segmentation = np.zeros((1, 4, 4), int)
    segmentation[0, 2, :2] = 2
    [found] = find_components(case_of(segmentation, geometry=geometry), 2)[0].found
    assert found.centre_mm == pytest.approx(centre) and found.volume == pytest.approx(size)


def test_nothing_found_and_far_too_much():
    assert find_components(case_of(np.zeros((2, 3, 4), int)), 2) == (StructureFindings("lesion"),)
    dots = np.zeros((1, 60, 60), int)
    dots[0, ::3, ::3] = 2
    dots[0, 0, 1] = 2
    many = find_components(case_of(dots), 2)[0]
    assert (
        len(many.found) == MAX_FINDINGS
        and many.n_more == 400 - MAX_FINDINGS
        and many.found[0].voxels == 2
    )
