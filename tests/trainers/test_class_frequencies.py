"""Voxels are counted as by np.unique, a block at a time, and the biases are logarithms of their shares."""

from __future__ import annotations

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_nacl.cases.labels import Labels
from nnunet_nacl_trainers.class_frequencies import biases_at, class_frequencies, count_labels

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


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8])
@pytest.mark.parametrize("shape", [(1, 5, 17, 23), (1, 1, 40, 9)])
def test_blocks_hold_every_voxel_once(shape, dtype, tmp_path, monkeypatch) -> None:
    lowest = 0 if dtype is np.uint8 else -1
    values = np.random.default_rng(0).integers(lowest, 4, shape).astype(dtype)
    labels, counts = np.unique(np.maximum(values.astype(int), 0), return_counts=True)
    expected = counts[:3]  # the last of the four is ignored
    assert labels.tolist() == [0, 1, 2, 3]
    np.save(tmp_path / "values.npy", values)
    grid = {"chunks": (1, min(2, shape[1]), 16, 8), "blocks": (1, 1, 8, 8)}
    nnUNetDatasetBlosc2.save_case(values.astype(np.float32), values, {}, str(tmp_path / "case"), **grid)
    arrays = (
        nnUNetDatasetBlosc2(str(tmp_path)).load_case("case")[1],
        values,
        np.load(tmp_path / "values.npy", mmap_mode="r"),
    )
    monkeypatch.setattr("nnunet_nacl_trainers.class_frequencies._BLOCK_VOXELS", 512)
    for array in arrays:
        np.testing.assert_array_equal(count_labels(array, 3), expected)


@pytest.mark.parametrize(("block", "largest"), [(1, 4 * 16 * 16), (3000, 8 * 16 * 16)])
def test_no_more_than_a_block_is_in_memory(block: int, largest: int, monkeypatch) -> None:
    """Whole chunks, so that none is decompressed twice."""
    monkeypatch.setattr("nnunet_nacl_trainers.class_frequencies._BLOCK_VOXELS", block)
    array = Watched(np.ones((1, 9, 30, 31), np.int8), (1, 4, 16, 16))
    assert count_labels(array, 2).tolist() == [0, 9 * 30 * 31]
    assert array.largest == largest


def test_regions_share_what_is_labelled() -> None:
    counts = np.array([60, 30, 10])
    np.testing.assert_allclose(class_frequencies(counts, CLASSES), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(class_frequencies(counts, REGIONS), [0.4, 0.1])


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
