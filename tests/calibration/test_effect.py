"""What calibration changes: means over cases, and confidence against accuracy over the voxels of
all cases."""

import math

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.calibration.effect import Change, changes, pooled_changes
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.statistics import paired_difference
from nnunet_nacl.utilities.json_files import decode


def case(n: int, confidence: float, accuracy: float) -> BinStats:
    """A case whose voxels all have one confidence, in a bin of its own."""
    in_bin = np.zeros((1, 10))
    in_bin[0, int(confidence * 10)] = 1
    by_class = np.zeros((2, 10))
    return BinStats(
        count=n * in_bin,
        confidence=n * confidence * in_bin,
        correct=n * accuracy * in_bin,
        class_count=by_class,
        class_confidence=by_class,
        class_positive=by_class,
        nll=np.zeros(1),
        brier=np.zeros(1),
    )


def test_noise_of_small_cases_cancels_in_the_pooled_error():
    # two cases at a confidence of .75, right in 10 of 10 and 5 of 10: each is off by .25, together
    # they are not
    before = [case(10, 0.95, 1.0), case(10, 0.95, 0.5)]
    after = [case(10, 0.75, 1.0), case(10, 0.75, 0.5)]
    found = pooled_changes(before, after)
    assert found["pooled ECE predicted"].before.mean == pytest.approx(0.2)
    assert found["pooled ECE predicted"].after.mean == pytest.approx(0)
    assert found["confidence predicted"].difference.mean == pytest.approx(-0.2)
    assert found["accuracy predicted"].difference.mean == 0
    # of the draws of two cases, a quarter holds the second alone: .45 off before, .25 after
    assert found["pooled ECE predicted"].before.high == pytest.approx(0.45)
    assert found["confidence predicted"].difference.low == pytest.approx(-0.2)


def test_one_patient_has_a_pooled_value_and_no_interval():
    cases = [case(10, 0.95, 1.0), case(10, 0.95, 0.5), case(0, 0.5, 1.0)]
    change = pooled_changes(cases, cases, ["a", "a", "a"])["pooled ECE predicted"]
    assert change.n == 2
    assert change.before.mean == pytest.approx(0.2)
    assert math.isnan(change.before.low)


def test_cases_without_voxels_have_no_pooled_value():
    empty = [case(0, 0.5, 1.0)]
    assert math.isnan(pooled_changes(empty, empty)["pooled ECE predicted"].before.mean)


def test_patients_are_drawn_with_all_their_cases():
    # b has no voxels: a draw of b alone has no value
    cases = [case(10, 0.95, 1.0), case(10, 0.95, 0.5), case(0, 0.5, 1.0)]
    drawn = pooled_changes(cases, cases, ["a", "a", "b"])["pooled ECE predicted"]
    assert drawn.before.low == drawn.before.high == pytest.approx(0.2)


def test_changes_are_means_over_the_cases_where_both_are_defined():
    before = pd.DataFrame({"NLL": [0.5, math.nan, 0.25, 0.75]})
    after = pd.DataFrame({"NLL": [0.25, 0.1, math.nan, 0.25]})
    change = changes(before, after)["NLL"]
    assert (change.n, change.before.mean, change.after.mean) == (2, 0.625, 0.25)
    assert change.difference.mean == -0.375
    assert change.difference.low == -0.5


def test_the_change_of_one_patient_has_no_interval():
    before = pd.DataFrame({"NLL": [0.5, 0.75]})
    after = pd.DataFrame({"NLL": [0.25, 0.25]})
    change = changes(before, after, patients=["one", "one"])["NLL"]
    assert math.isnan(change.difference.low)


def test_a_change_is_tested_over_patients_as_in_a_comparison():
    before = pd.DataFrame({"NLL": np.linspace(0.5, 0.9, 12)})
    after = before - np.linspace(0.1, 0.2, 12)[:, None]
    change = changes(before, after)["NLL"]
    assert change.p == paired_difference(before.NLL, after.NLL, n_bootstrap=10, seed=0)["p"]
    assert change.p == 2 / 2**12
    assert change.verdict == "better"  # lower is
    assert changes(after, before)["NLL"].verdict == "worse"
    patients = [str(i // 2) for i in range(12)]
    assert changes(before, after, patients)["NLL"].p == 2 / 2**6
    alternating = before + np.tile([0.1, -0.1], 6)[:, None]
    assert changes(before, alternating)["NLL"].verdict == "none"


def test_a_change_that_an_earlier_version_stored_was_not_tested():
    interval = {"mean": -0.1, "low": -0.2, "high": -0.05}
    stored = {"before": interval, "after": interval, "difference": interval, "n": 12}
    for document in (stored, stored | {"p": None}):
        assert decode(Change, document, "calibration_map.json").verdict == "untested"
