"""How unusual the worst predicted Dice of a scan is: against slow loops, and how many new scans it flags."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.calibration.scan_score import ScanScores
from nnunet_nacl.json_files import decode, encode


def slow_rank(values: list[float], patients: list[str], x: float) -> float:
    """F(x): the share at the held-out values, linear in between; below, it falls with the distance from the lowest."""
    known = [(v, p) for v, p in zip(values, patients) if v == v]
    names = {p for _, p in known}

    def share(limit: float) -> float:
        of_patients = [[v <= limit for v, p in known if p == name] for name in names]
        return sum(sum(below) / len(below) for below in of_patients) / len(names)

    places = sorted({v for v, _ in known})
    if x >= places[-1]:
        return 1.0
    if x < places[0]:
        own = [[v for v, p in known if p == name] for name in names]
        mean = np.mean([np.mean(values) for values in own])
        spread = 0.001 + math.sqrt(np.mean([np.mean([(v - mean) ** 2 for v in values]) for values in own]))
        return share(places[0]) * spread / (spread + places[0] - x)
    low = max(place for place in places if place <= x)
    high = min(place for place in places if place > x)
    return share(low) + (share(high) - share(low)) * (x - low) / (high - low)


def test_ranks_and_the_lowest_tenth_as_slow_loops_have_them() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in rng.integers(0, 13, 30)]  # several cases each
    predicted = {key: rng.uniform(0.2, 1, 30).round(2) for key in "123"}
    predicted["2"][[0, 4, 7]] = math.nan
    predicted["3"][:] = math.nan  # no held-out scan has it
    scores = decode(ScanScores, encode(ScanScores.learn(predicted, patients)), "file")
    for x in (0.0, 0.1, 0.333, float(predicted["1"][3]), 1.0):
        assert scores.rank("1", x) == pytest.approx(slow_rank(predicted["1"].tolist(), patients, x))
    assert all(math.isnan(scores.rank(*of)) for of in (("3", 0.5), ("4", 0.5), ("1", math.nan)))

    own = []
    for i, name in enumerate(patients):
        others = [j for j, other in enumerate(patients) if other != name]
        held_out = [patients[j] for j in others]
        ranks = [
            slow_rank(predicted[key][others].tolist(), held_out, predicted[key][i])
            for key in "12"
            if predicted[key][i] == predicted[key][i]
        ]
        own.append((min(ranks), 1 / patients.count(name) / len(set(patients))))
    score = min(s for s, _ in own if sum(weight for other, weight in own if other <= s) >= 0.1 - 1e-9)
    assert scores.lowest_tenth == pytest.approx(score)


@pytest.mark.parametrize("structures", [1, 5, 60])
def test_a_tenth_of_new_scans_is_flagged_however_many_structures_there_are(structures) -> None:
    """And one that is far off always is, though most of the held-out scans are the lowest in some structure."""
    rng, flagged, n_new = np.random.default_rng(1), 0, 50
    for _ in range(40):
        held_out, new = rng.beta(9, 2, (40, structures)), rng.beta(9, 2, (n_new, structures))
        scores = ScanScores.learn({str(i): column for i, column in enumerate(held_out.T)}, range(40))
        of_new = [min(scores.rank(str(i), x) for i, x in enumerate(scan)) for scan in new]
        flagged += sum(score < scores.lowest_tenth for score in of_new)
        new[0, 0] = 0.01
        assert min(scores.rank(str(i), x) for i, x in enumerate(new[0])) < scores.lowest_tenth
    assert 0.06 < flagged / (40 * n_new) < 0.13


def test_far_below_means_far_for_this_structure() -> None:
    """A structure that is alike in all and fails is odder than one that varies and is a little lower than ever."""
    alike, varying = 0.95 + 0.005 * np.arange(10) / 10, 0.3 + 0.6 * np.arange(10) / 10
    scores = ScanScores.learn({"alike": alike, "varying": varying}, range(10))
    assert scores.rank("alike", 0.8) < scores.rank("varying", 0.1) < 0.1 == scores.rank("alike", 0.95)


def test_nothing_is_known_without_structures_or_other_patients() -> None:
    assert math.isnan(ScanScores.learn({}, ["a", "b"]).lowest_tenth)
    assert math.isnan(ScanScores.learn({"1": np.array([0.5, 0.7])}, ["a", "a"]).lowest_tenth)
    with pytest.raises(ValueError, match="the same scans"):
        ScanScores({"1": [0.5]}, np.arange(2))
