"""A small ball of a brain, so that tests need neither nilearn nor its template."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.demo.virtual_subject import Template, tissue_probabilities


@pytest.fixture(scope="session")
def small_template() -> Template:
    """A ball with a white core, a grey shell and fluid around, with soft borders, 4 mm voxels."""
    shape = (40, 44, 40)
    radius = np.linalg.norm(np.indices(shape) - np.array([19.5, 21.5, 19.5]).reshape(3, 1, 1, 1), axis=0)

    def ball(size):
        return 1 / (1 + np.exp((radius - size) / 0.7))

    probabilities = tissue_probabilities(ball(17.0), ball(14.0) - ball(9.0), ball(9.0))
    t1 = np.tensordot(np.array([0.0, 0.2, 0.6, 0.9]), probabilities, axes=1).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-80, -90, -70)
    return Template(t1, probabilities, affine)
