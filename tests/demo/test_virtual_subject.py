"""Fields with exact marginals, labels with exactly the stated probabilities, invertible deformations."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.demo.virtual_subject import draw_labels, exponential_displacement, gaussian_field


def test_field_is_standard_normal_at_every_voxel():
    random = np.random.default_rng(0)
    draws = np.stack([gaussian_field((6, 5), 1.5, random) for _ in range(4000)])
    # standard error of a mean 1/sqrt(4000) = 0.016, of a variance sqrt(2/4000) = 0.022: five of them
    assert np.abs(draws.mean(0)).max() < 0.08
    assert np.abs(draws.var(0) - 1).max() < 0.12


def test_field_correlates_as_stated():
    random = np.random.default_rng(1)
    draws = np.stack([gaussian_field((40,), 2.0, random) for _ in range(4000)])
    correlation = np.mean(draws * np.roll(draws, 4, axis=1))
    assert correlation == pytest.approx(np.exp(-1), abs=0.02)


def test_field_without_smoothness_is_white():
    draws = np.stack([gaussian_field((50,), 0.0, np.random.default_rng(seed)) for seed in range(500)])
    assert abs(np.mean(draws[:, :-1] * draws[:, 1:])) < 0.05


@pytest.mark.parametrize("sigma_voxels", [0.0, 1.0])
def test_labels_follow_the_stated_probabilities_at_every_voxel(sigma_voxels):
    random = np.random.default_rng(2)
    probabilities = random.dirichlet([0.5, 1.0, 2.0, 0.3], size=(4, 3, 2)).transpose(3, 0, 1, 2)
    num_draws = 6000
    frequencies = np.zeros_like(probabilities)
    for _ in range(num_draws):
        labels = draw_labels(probabilities, sigma_voxels, random)
        frequencies += labels == np.arange(4).reshape(4, 1, 1, 1)
    frequencies /= num_draws
    standard_error = np.sqrt(probabilities * (1 - probabilities) / num_draws)
    # the largest of 96 deviations: 5 standard errors have odds below 1e-4
    assert (np.abs(frequencies - probabilities) <= 5 * standard_error + 1e-6).all()


def test_smooth_randomness_lets_neighbours_agree():
    probabilities = np.full((2, 30, 30), 0.5)

    def agreement(sigma_voxels):
        labels = draw_labels(probabilities, sigma_voxels, np.random.default_rng(3))
        return np.mean(labels[1:] == labels[:-1])

    assert agreement(0.0) == pytest.approx(0.5, abs=0.06)
    assert agreement(2.0) > 0.75


def test_a_certain_label_is_always_drawn():
    probabilities = np.zeros((3, 20, 20))
    probabilities[2] = 1
    assert (draw_labels(probabilities, 1.0, np.random.default_rng(4)) == 2).all()


def test_deformation_keeps_the_order_of_voxels():
    random = np.random.default_rng(5)
    velocity = np.stack([2.0 * gaussian_field((24, 24, 24), 4.0, random) for _ in range(3)])
    displacement = exponential_displacement(velocity)
    jacobian = np.stack([np.stack(np.gradient(one)) for one in displacement]) + np.eye(3).reshape(3, 3, 1, 1, 1)
    inner = jacobian[:, :, 1:-1, 1:-1, 1:-1]
    assert np.linalg.det(inner.transpose(2, 3, 4, 0, 1)).min() > 0
    assert np.abs(displacement).max() > 2


def test_opposite_velocity_inverts_the_deformation():
    random = np.random.default_rng(6)
    velocity = 1.5 * gaussian_field((200,), 12.0, random)[np.newaxis]
    there, back = exponential_displacement(velocity, 6)[0], exponential_displacement(-velocity, 6)[0]
    positions = np.arange(200.0)
    returned = positions + there + np.interp(positions + there, positions, back, period=200)
    assert np.abs(returned - positions).max() < 0.05
