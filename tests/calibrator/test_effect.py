"""What calibration changes: means over cases, and confidence against accuracy over the voxels of
all cases."""

import math

import numpy as np
import pytest

from nnunet_nacl.calibrator.effect import changes, pooled_changes
from nnunet_nacl.metrics.binning import BinStats


def case(n: int, confidence: float, accuracy: float) -> BinStats:
    """A case whose voxels all have one confidence, in a bin of its own."""
    stats = {name: np.zeros((1, 10)) for name in ("count", "confidence", "correct")}
    for name, value in (("count", n), ("confidence", n * confidence), ("correct", n * accuracy)):
        stats[name][0, int(confidence * 10)] = value
    by_class = {
        name: np.zeros((2, 10)) for name in ("class_count", "class_confidence", "class_positive")
    }
    return BinStats(**stats, **by_class, nll=np.zeros(1), brier=np.zeros(1))


def test_noise_of_small_cases_cancels_in_the_pooled_error():
    # two cases at a confidence of .75, right in 10 of 10 and 5 of 10: each is off by .25, together
    # they are not
    before, after = (
        [case(10, 0.95, 1.0), case(10, 0.95, 0.5)],
        [case(10, 0.75, 1.0), case(10, 0.75, 0.5)],
    )
    found = pooled_changes(before, after)
    assert found["pooled ECE predicted"]["before"]["mean"] == pytest.approx(0.2)
    assert found["pooled ECE predicted"]["after"]["mean"] == pytest.approx(0)
    assert found["confidence predicted"]["difference"]["mean"] == pytest.approx(-0.2)
    assert found["accuracy predicted"]["difference"]["mean"] == 0
    # of the draws of two cases, a quarter holds the second alone: .45 off before, .25 after
    assert found["pooled ECE predicted"]["before"]["high"] == pytest.approx(0.45)
    assert found["confidence predicted"]["difference"]["low"] == pytest.approx(-0.2)


def test_patients_are_drawn_with_all_their_cases_and_one_has_no_interval():
    cases = [case(10, 0.95, 1.0), case(10, 0.95, 0.5), case(0, 0.5, 1.0)]
    found = pooled_changes(cases, cases, ["a", "a", "a"])["pooled ECE predicted"]
    assert (found["n"], found["before"]["mean"]) == (2, pytest.approx(0.2))
    assert math.isnan(found["before"]["low"])
    assert math.isnan(
        pooled_changes(cases[2:], cases[2:])["pooled ECE predicted"]["before"]["mean"]
    )
    # b has no voxels: a draw of b alone has no value
    drawn = pooled_changes(cases, cases, ["a", "a", "b"])["pooled ECE predicted"]
    assert drawn["before"]["low"] == drawn["before"]["high"] == pytest.approx(0.2)


def test_changes_are_means_over_the_cases_where_both_are_defined():
    nan = math.nan
    found = changes({"NLL": [0.5, nan, 0.25, 0.75]}, {"NLL": [0.25, 0.1, nan, 0.25]})["NLL"]
    assert (found["n"], found["before"]["mean"], found["after"]["mean"]) == (2, 0.625, 0.25)
    assert found["difference"]["mean"] == -0.375 and found["difference"]["low"] == -0.5
    apart = changes({"NLL": [0.5, 0.75]}, {"NLL": [0.25, 0.25]}, patients=["one", "one"])["NLL"]
    assert math.isnan(apart["difference"]["low"])  # one patient: no interval
