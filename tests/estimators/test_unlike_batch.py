"""A batch unlike the calibration scans: how it is counted, what is named, what stands out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from nnunet_nacl.estimators.unlike_batch import (
    LEVEL_OF_BATCH,
    UnlikeScans,
    batch_p_value,
    batch_probability,
    find_numbers_that_differ,
    find_stand_outs,
    find_unlike_batch,
)
from tests.estimators.test_unlike import NAMES, learned


@pytest.fixture
def like():
    """60 calibration scans with four numbers."""
    return learned(np.random.default_rng(0).normal(size=(60, 4)))


def test_batches_share_their_calibration_scans():
    assert batch_probability(4, 20, 60, 0.05) == pytest.approx(0.032, abs=5e-4)
    assert binom.sf(3, 20, 3 / 61) == pytest.approx(0.016, abs=1e-3)  # were they independent
    assert batch_probability(0, 20, 60, 0.05) == 1
    assert math.isnan(batch_probability(1, 20, 18, 0.05))


def test_a_batch_is_counted(like):
    rng = np.random.default_rng(1)
    near = [*rng.normal(size=(20, 4))]
    far = [*rng.normal(8, 1, size=(4, 4))]
    n_near = UnlikeScans.of(like, near, range(20), 0.05).n_unlike
    batch = UnlikeScans.of(like, [*near, *far], range(24), 0.05)
    assert batch.n_scans == 24
    assert batch.n_unlike == n_near + 4
    assert batch.n_patients == 60
    assert batch.probability == batch_probability(n_near + 4, 24, 60, 0.05)
    assert f"{n_near + 4} of 24 are unlike" in batch.text
    assert UnlikeScans.of(like, [], [], 0.05).text == ""


def test_a_batch_of_20_scans_is_compared_as_a_whole(like):
    near = np.random.default_rng(1).normal(size=(20, 4))
    assert batch_p_value(like, near, range(20)) > 0.01
    assert batch_p_value(like, near + 8, range(20)) < 1e-9
    assert math.isnan(batch_p_value(like, near[:19] + 8, range(19)))


def test_unlike_scans_of_one_patient_count_once(like):
    far = np.full((8, 4), 100.0)
    near = np.zeros((12, 4))
    batch = UnlikeScans.of(like, [*far, *near], [0] * 8 + list(range(1, 13)), 0.05)
    assert batch.n_unlike == 8
    assert batch.probability == batch_probability(1, 13, 60, 0.05)


def test_more_scans_of_the_same_patients_say_no_more(like):
    batch = np.random.default_rng(1).normal(1, 1, size=(20, 4))
    patients = np.arange(20)
    once = batch_p_value(like, batch, patients)
    assert batch_p_value(like, np.repeat(batch, 3, axis=0), np.repeat(patients, 3)) == once


def test_the_numbers_that_differ_are_named_the_clearest_first(like):
    batch = np.random.default_rng(1).normal(size=(30, 4))
    batch[:, 0] += 1.5  # noise
    batch[:, 1] += 8  # the logarithm of a spacing
    assert find_numbers_that_differ(like, batch, range(30)) == ["spacing along z", "noise"]


def test_a_number_that_a_side_lacks_is_not_compared(like):
    batch = np.random.default_rng(1).normal(9, 1, size=(30, 4))
    batch[:, :3] = math.nan
    assert find_numbers_that_differ(like, batch, range(30)) == ["volume of heart"]


def test_at_most_one_scan_of_twenty_stands_out_of_its_batch():
    batch = np.random.default_rng(1).uniform(-1, 1, size=(40, 4))
    cases = [f"scan {i}" for i in range(40)]
    assert find_stand_outs(NAMES, batch, cases, cases) == []
    batch[[3, 8]] += [[20], [-30]]
    assert find_stand_outs(NAMES, batch, cases, cases) == ["scan 8", "scan 3"]
    batch[5] += 90
    assert find_stand_outs(NAMES, batch, cases, cases) == ["scan 5", "scan 8"]


def test_scans_of_one_patient_do_not_hide_each_other():
    batch = np.random.default_rng(1).uniform(-1, 1, size=(120, 4))
    batch[:6] = batch[0] + 20
    cases = [f"scan {i}" for i in range(120)]
    patients = [max(i, 5) for i in range(120)]
    assert set(find_stand_outs(NAMES, batch, cases, patients)) == set(cases[:6])
    assert find_stand_outs(NAMES, batch, cases, cases) == []


def test_only_a_batch_that_differs_is_found(like):
    rng = np.random.default_rng(2)
    cases = [f"scan {i}" for i in range(40)]
    patients = [i // 2 for i in range(40)]
    near = rng.normal(size=(40, 4))
    far = rng.normal(5, 1, size=(40, 4))
    p_near = batch_p_value(like, near, patients)
    assert find_unlike_batch(like, near, cases, patients, p_near) is None
    assert find_unlike_batch(like, near, cases, patients, math.nan) is None
    p_far = batch_p_value(like, far, patients)
    batch = find_unlike_batch(like, far, cases, patients, p_far)
    assert batch is not None
    assert (batch.n_scans, batch.n_patients, batch.stand_outs) == (40, 20, [])
    assert batch.p < LEVEL_OF_BATCH
    assert len(batch.numbers) == 3
    assert batch.differences.startswith(batch.numbers[0])
