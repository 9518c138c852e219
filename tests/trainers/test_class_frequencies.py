"""Voxels are counted as by np.unique, a block at a time, and the biases are logarithms of their shares."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.io.labels import Labels
from nnunet_nacl_trainers.class_frequencies import biases_at, count_labels

CLASSES = Labels(("background", "a", "b"), (0, 1, 2), False, 3, (0, 1, 2))
REGIONS = Labels(("whole", "core"), ((1, 2), 2), True, 3, (0, 1, 2), (1, 2))


class Watched:
    """An array of blosc2's kind that knows the largest part that was read of it."""

    def __init__(self, values: np.ndarray, chunks: tuple[int, ...]) -> None:
        self._values, self.shape, self.chunks, self.largest = values, values.shape, chunks, 0

    def __getitem__(self, index) -> np.ndarray:
        part = self._values[index]
        self.largest = max(self.largest, part.size)
        return part


@pytest.mark.parametrize(("block", "largest"), [(1, 4 * 16 * 16), (3000, 8 * 16 * 16)])
def test_no_more_than_a_block_is_in_memory(block: int, largest: int, monkeypatch) -> None:
    """Whole chunks, so that none is decompressed twice."""
    monkeypatch.setattr("nnunet_nacl_trainers.class_frequencies._BLOCK_VOXELS", block)
    array = Watched(np.ones((1, 9, 30, 31), np.int8), (1, 4, 16, 16))
    assert count_labels(array, 2).tolist() == [0, 9 * 30 * 31]
    assert array.largest == largest


@pytest.mark.parametrize(
    ("frequencies", "regions", "expected"),
    [
        ([0.6, 0.3, 0.1], False, np.log([1, 1 / 2, 1 / 6])),
        ([0.2, 0.7, 0.1], False, np.log([2 / 7, 1, 1 / 7])),
        ([0.9, 0.0, 0.1], False, np.log([1, 1 / 9, 1 / 9])),
        ([1.0, 0.0, 0.0], False, [0, 0, 0]),
        ([0.0, 0.0, 0.0], False, [0, 0, 0]),
        ([0.4, 0.1], True, np.log([4 / 6, 1 / 9])),
        ([0.4, 0.0], True, np.log([4 / 6, 0.4])),
        ([1.0, 0.1], True, np.log([10, 1 / 9])),
        ([0.0, 0.0], True, [0, 0]),
    ],
)
def test_biases(frequencies, regions, expected) -> None:
    biases = biases_at(np.array(frequencies), regions)
    np.testing.assert_allclose(biases, expected, atol=1e-12)
    assert np.isfinite(biases).all()
