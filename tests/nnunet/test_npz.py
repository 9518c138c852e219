"""Reading probabilities: what a large file may take beside its array."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from nnunet_nacl.case.labels import Labels
from nnunet_nacl.nnunet import npz


@pytest.mark.parametrize("large", [False, True])
def test_a_large_file_is_never_in_memory_beside_its_array(tmp_path, monkeypatch, large) -> None:
    path, labels = tmp_path / "case.npz", Labels(("background", "organ"), (0, 1), False, None, (0, 1))
    saved = np.random.default_rng(0).random((2, 40, 200, 250), np.float32)  # hardly compressible
    np.savez_compressed(path, probabilities=saved)
    assert path.stat().st_size > saved.nbytes / 2
    if large:
        monkeypatch.setattr(npz, "_MOST_AT_ONCE", path.stat().st_size // 2)
    tracemalloc.start()
    try:
        read = npz.read_probabilities(path, labels, saved.shape[1:], "segmentation")
        beside = tracemalloc.get_traced_memory()[1] - saved.nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(read, saved)
    assert (beside < saved.nbytes / 3) == large
