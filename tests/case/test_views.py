"""A case is looked at block by block, and what is said of it does not depend on the blocks."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.case.case import Case, Labels
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.measure import PROBABILITIES, Views, measure
from nnunet_nacl.case.probabilities import Probabilities
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.recall import THRESHOLDS, sensitive_labels

CROP = (slice(1, 11), slice(2, 13), slice(0, 9))
SHAPE = (12, 13, 10)
MAPS = ("confidence", "entropy", PROBABILITIES)


class Blocks(Probabilities):
    """Probabilities inside a crop, in blocks of a size."""

    def __init__(self, probs: np.ndarray, regions: bool, block_bytes: int) -> None:
        self.probs, self.regions, self.block_bytes = probs, regions, block_bytes
        self.shape, self.num_channels = probs.shape[1:], len(probs)

    crop = property(lambda self: CROP)

    def in_box(self, where):
        return self.probs[(slice(None), *where)]


def make_case(regions: bool, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    num, size = 3, tuple(part.stop - part.start for part in CROP)
    probs = np.zeros((num, *SHAPE), np.float32)
    probs[0] = not regions
    inside = rng.random((num, *size)) if regions else rng.dirichlet([3, 1, 1], size).transpose(3, 0, 1, 2)
    probs[(slice(None), *CROP)] = inside
    values = ((1, 2), (2,), (3,)) if regions else (0, 1, 2)
    labels = Labels(("a", "b/c", "d"), values, regions, None, (0, 1, 2, 3)[: 4 if regions else 3], (1, 2, 3))
    segmentation = np.zeros(SHAPE, np.uint8)
    segmentation[CROP] = rng.choice(
        len(labels.all_values), size, p=[0.7, 0.1, 0.1, 0.1] if regions else [0.8, 0.1, 0.1]
    )
    geometry = Geometry((3.0, 2.0, 1.0), np.diag([1.0, 2.0, 3.0, 1.0]))
    return Case("case", labels, geometry, segmentation, Blocks(probs, regions, 1 << 30))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_blocks_make_no_difference(regions, calibrated) -> None:
    case = make_case(regions)
    probs, num = case.probabilities.probs, 3 if regions else 2
    calibration = LogOddsMap(np.full((1, num), 0.7), np.full((1, num), 0.2), regions)
    made = []
    for block_bytes in (1 << 30, 3000, 1):
        source = Blocks(probs, regions, block_bytes)
        assert len(list(source.boxes(CROP))) == {1 << 30: 1, 3000: 5, 1: 10}[block_bytes]
        views = Views.of(case, MAPS, [float(THRESHOLDS[130])] * num)
        of_case = replace(case, probabilities=source), calibration if calibrated else None
        made.append((views, measure(*of_case, views, findings=case.labels.foreground)))
    (first, expected), *others = made
    assert list(first.maps)[2:] == ["probability_0_a", "probability_1_b-c", "probability_2_d"]
    of_network = probs, case.labels.channels_of(case.segmentation), first.limits, regions
    np.testing.assert_array_equal(first.sensitive, sensitive_labels(*of_network))
    if calibrated:
        rows = expected.structures
        assert rows.network_volume.iloc[0] != pytest.approx(rows.predicted_volume.iloc[0], rel=0.01)
    for views, record in others:
        assert views.place == first.place
        np.testing.assert_array_equal(views.sensitive, first.sensitive)
        for name, values in first.maps.items():
            np.testing.assert_allclose(views.maps[name], values, rtol=1e-6, atol=1e-6)
        assert record.scan | {"unit": 0} == pytest.approx(expected.scan | {"unit": 0}, nan_ok=True)
        pd.testing.assert_frame_equal(record.structures, expected.structures, rtol=1e-6)
        for found, same in zip(record.findings, expected.findings):
            assert len(found.found) == len(same.found) > 0
            assert found.found[0].mean_probability == pytest.approx(same.found[0].mean_probability)


def test_a_large_case_is_never_whole_in_memory() -> None:
    """Calibrated and measured, in a small share of the memory that its probabilities take."""
    probs = np.random.default_rng(0).random((16, 96, 96, 96), np.float32)
    probs /= probs.sum(0)
    case = make_case(False)
    labels = Labels(tuple(map(str, range(16))), tuple(range(16)), False, None, tuple(range(16)))
    source = type("Whole", (Blocks,), {"crop": property(lambda self: tuple(slice(0, 96) for _ in range(3)))})
    calibration = LogOddsMap(np.full((1, 15), 0.7), np.zeros((1, 15)))
    case = replace(
        case, labels=labels, segmentation=probs.argmax(0).astype(np.uint8), probabilities=source(probs, False, 1 << 20)
    )
    tracemalloc.start()
    try:
        measure(case, calibration)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < probs.nbytes / 2
