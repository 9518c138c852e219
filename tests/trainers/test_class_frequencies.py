"""The biases are logarithms of the classes' shares."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl_trainers.class_frequencies import biases_at


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
