"""Surface distances against medpy."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.metrics.surfaces import assd, hausdorff, surface_distances


def blob(rng, shape, radius):
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    centre = rng.uniform(-0.4, 0.4, size=(len(shape),) + (1,) * len(shape))
    return (((grid - centre) ** 2).sum(0) < radius**2) ^ (rng.random(shape) < 0.02)


@pytest.mark.parametrize("shape", [(14, 20, 17), (25, 31), (1, 12, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_medpy_distances(shape, seed):
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(seed)
    truth = blob(rng, shape, 0.6)
    predicted = blob(rng, shape, 0.5)
    spacing = tuple(rng.uniform(0.4, 3.0, len(shape)))
    distances = surface_distances(truth, predicted, spacing)
    # medpy takes a single slice for surface all over
    spacing = [spacing[a] for a, n in enumerate(shape) if n > 1]
    truth = truth.squeeze()
    predicted = predicted.squeeze()
    assert hausdorff(distances) == pytest.approx(binary.hd95(predicted, truth, spacing), abs=1e-9)
    assert hausdorff(distances, 100) == pytest.approx(
        binary.hd(predicted, truth, spacing), abs=1e-9
    )
    assert assd(distances) == pytest.approx(binary.assd(predicted, truth, spacing), abs=1e-9)


def test_there_is_no_distance_to_an_empty_mask():
    truth = np.array([1, 1, 0, 0, 1], bool)
    distances = surface_distances(truth, np.zeros(5, bool), (1.0,))
    assert not len(distances)
    assert np.isnan([hausdorff(distances), assd(distances)]).all()


def test_masks_of_different_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        surface_distances(np.ones(3, bool), np.ones(4, bool))
