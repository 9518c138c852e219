"""Which connected components a segmentation finds: by hand, by slow flooding, and by panoptica."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.findings import compare_components, label_components, structure_boxes
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.metrics.overlap import FoundComponents
from tests.reference.components import found_components

IGNORED = 9
CLASSES = Labels(("background", "organ", "lesion"), (0, 1, 2), False, IGNORED, (0, 1, 2))
REGIONS = Labels(("whole", "core"), ((1, 2), 2), True, None, (0, 1, 2), (1, 2))
LESION = "2"


def measured_components(
    truth: list, segmentation: list, labels: Labels = CLASSES, structure: str = LESION
) -> tuple[float, float, float, float]:
    """Of one layer: true components, share that is touched, false components, F1."""
    segmented = np.array([segmentation], np.uint8)
    n_channels = len(labels.values)
    probs = np.full((n_channels, *segmented.shape), 1 / n_channels, np.float32)
    case = Case(
        "a",
        labels,
        Geometry((1.0, 1.0, 1.0), np.eye(4)),
        segmented,
        SavedProbabilities(probs, labels.regions),
        truth=np.array([truth], np.uint8),
    )
    row = measure(case).structures.loc[structure]
    return (row.true_pieces, row.component_recall, row.false_components, row.component_F1)


def test_touched_and_false_components_by_hand():
    truth = [
        [2, 0, 2, 0, 0, 2, 2, 2, 0],
        [0, 2, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [2, 0, 2, 0, 0, 1, 0, 0, 0],
    ]
    segmentation = [
        [0, 0, 0, 0, 0, 2, 0, 2, 0],  # two touch one true component
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
        [2, 2, 2, 0, 0, 2, 0, 0, 2],  # one touches two; two lie on no lesion, one on an organ
    ]
    # the three in the corner are one, and missed: F1 = 2 * 3 / (2 * 3 + 1 + 2)
    assert measured_components(truth, segmentation) == (4, 3 / 4, 2, pytest.approx(6 / 9))


@pytest.mark.parametrize(
    ("truth", "segmentation", "expected"),
    [
        ([2, 0, 2], [0, 0, 0], (2, 0, 0, 0)),
        ([0, 0, 0], [2, 0, 2], (0, math.nan, 2, 0)),
        ([0, 0, 0], [0, 0, 0], (0, math.nan, 0, math.nan)),
    ],
)
def test_a_side_without_components(truth, segmentation, expected):
    assert measured_components([truth], [segmentation]) == pytest.approx(expected, nan_ok=True)


def test_ignored_voxels_belong_to_no_component():
    truth = [2, 9, 0, 0, 9, 9, 0, 9, 0]
    segmentation = [0, 2, 0, 0, 2, 0, 2, 2, 2]
    # the first two predicted ones are ignored, the last is two without its middle
    assert measured_components([truth], [segmentation]) == (1, 0, 2, 0)


def test_components_of_a_region_are_those_of_its_labels_together():
    truth = [1, 2, 0, 2, 0]
    segmentation = [1, 0, 0, 1, 0]
    whole = measured_components([truth], [segmentation], REGIONS, REGIONS.key(0))
    core = measured_components([truth], [segmentation], REGIONS, REGIONS.key(1))
    assert whole == (2, 1, 0, 1)
    assert core == (2, 0, 0, 0)


def find(truth: np.ndarray, predicted: np.ndarray) -> FoundComponents:
    """Of two masks."""
    sides = []
    for mask in (truth, predicted):
        label_map = np.where(mask, 2, 0).astype(np.int16)
        box = structure_boxes(label_map, CLASSES)[2]
        sides.append(label_components(label_map, CLASSES, 2, box))
    return compare_components(*sides)


@st.composite
def pairs_of_masks(draw) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=4))
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


@given(pairs_of_masks())
def test_found_components_are_those_of_slow_flooding(masks):
    found = find(*masks)
    assert found == found_components(*masks)
    # what is missed one way round is false the other way round
    swapped = find(*reversed(masks))
    assert (found.true - found.touched, found.false) == (
        swapped.false,
        swapped.true - swapped.touched,
    )
    assert 0 <= found.touched <= found.true


def random_blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes of one to four voxels a side, some of which touch each other."""
    mask = np.zeros(shape, bool)
    for _ in range(rng.integers(3, 25)):
        corner = rng.integers(0, shape)
        size = rng.integers(1, 5, len(shape))
        mask[tuple(slice(start, start + length) for start, length in zip(corner, size))] = True
    return mask


def test_missed_and_false_components_are_those_of_panoptica():
    """panoptica gives each predicted component one true one: where several predicted ones may share
    a true one, those without are false; with the sides exchanged these are the missed ones."""
    panoptica = pytest.importorskip(
        "panoptica", reason="pip install --no-deps panoptica ruamel.yaml 'plotly<6'"
    )
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.SEMANTIC,
        instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(
            cca_backend=panoptica.CCABackend.cc3d
        ),
        instance_matcher=panoptica.NaiveThresholdMatching(
            matching_metric=panoptica.Metric.IOU,
            matching_threshold=0.0,
            strict_threshold=True,
            allow_many_to_one=True,
        ),
        instance_metrics=[panoptica.Metric.IOU],
        global_metrics=[],
    )

    def count_false(truth: np.ndarray, predicted: np.ndarray) -> int:
        result = evaluator.evaluate(predicted.astype(np.uint8), truth.astype(np.uint8))
        return result["ungrouped"].fp

    rng = np.random.default_rng(0)
    n_shared = 0
    for shape in ((14, 20, 24), (9, 30, 16), (40, 40)):
        for _ in range(4):
            truth = random_blobs(rng, shape)
            predicted = random_blobs(rng, shape)
            found = find(truth, predicted)
            assert found.false == count_false(truth, predicted)
            assert found.true - found.touched == count_false(predicted, truth)
            n_shared += found.touched
    assert n_shared > 10
