"""A structure is in as many new scans as the probability of its presence says."""

from __future__ import annotations

import numpy as np

from nnunet_nacl.estimators.presence import LearnedProbability
from tests.guarantees.simulation import DRAWS, is_at_most

N_KNOWN = 20
N_NEW = 40


def draw_scans(
    rng: np.random.Generator, n_patients: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of scans, whether each has the structure, and to whom it belongs.

    A patient has one to ``most`` scans. Whether they have the structure, and by how much features
    are off, is alike in the scans of a patient.
    """
    patient = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    is_sick = rng.random(n_patients) < 0.5
    is_alike = rng.random(len(patient)) < 0.9
    is_present = is_sick[patient] == is_alike
    noise = rng.normal(size=(n_patients, 2))[patient] + rng.normal(0, 0.3, (len(patient), 2))
    return noise + is_present[:, None], is_present, patient


def test_a_sure_probability_of_presence_is_wrong_hardly_more_often_than_it_says():
    """Sure is 0.2 or less, and 0.8 or more.

    Nothing is proved of a logistic regression: by trial, with 20 patients of up to ten
    scans, 0.135 of the sure probabilities are wrong where 0.114 is said; were each scan to count as
    a patient, 0.174 where 0.089 is said.
    """
    rng = np.random.default_rng(0)
    said = np.empty((DRAWS, N_NEW))
    is_wrong = np.empty((DRAWS, N_NEW), bool)
    for draw in range(DRAWS):
        learned = LearnedProbability.fit(*draw_scans(rng, N_KNOWN, most=10))
        features, is_present, _ = draw_scans(rng, N_NEW, most=1)
        probability = learned.predict(features)
        said[draw] = np.minimum(probability, 1 - probability)
        is_wrong[draw] = is_present != (probability > 0.5)
    is_sure = said <= 0.2
    excess = ((is_wrong - said) * is_sure).sum(axis=1) / is_sure.sum(axis=1).mean()
    assert is_at_most(excess, 0.04)
