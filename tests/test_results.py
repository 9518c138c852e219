"""research/results: pages hold what results.csv has, and the quick fits of measure.py are those of the package."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
import torch

from nnunet_nacl.calibration.fitting import fit_affine
from nnunet_nacl.calibration.voxels import Voxels
from tests.pages import ROOT

sys.path.insert(0, str(ROOT / "research" / "results"))  # its scripts import each other
cases, measure, render, rows, tables = map(import_module, ("cases", "measure", "render", "rows", "tables"))


def test_a_statistic_is_that_of_scikit_learn_and_of_a_look_at_the_list() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    trust, bad, weights = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.3, rng.integers(0, 3, (4, 60)).astype(float)
    expected = [metrics.roc_auc_score(bad, -trust, sample_weight=each) for each in weights]
    assert measure.auroc(weights, trust, bad) == pytest.approx(expected)
    # ten scans, bad ones at places 0, 2 and 5: two thirds of them are seen after three scans, all after six
    bad, trust = np.isin(np.arange(10), (0, 2, 5)), np.arange(10) / 10
    assert measure.flagged_to_find(np.ones((1, 10)), trust, bad, 2 / 3) == pytest.approx(0.3)
    assert measure.flagged_to_find(np.ones((1, 10)), trust, bad) == pytest.approx(0.6)


def test_the_error_of_calibrated_voxels_is_no_more_than_chance_left() -> None:
    rng = np.random.default_rng(0)
    count = np.full((50, 3), 20.0)
    confidence, correct = count * [0.2, 0.5, 0.8], rng.binomial(20, [0.2, 0.5, 0.8], (50, 3))
    row = rows.pooled_gap_row(count, confidence, correct, [str(i) for i in range(50)])
    assert row["low"] == 0 and row["value"] < np.abs(confidence - correct).sum(0).sum() / count.sum()
    assert rows.pooled_gap_row(count, confidence + 0.1 * count, correct, range(50))["value"] == pytest.approx(
        0.1, abs=0.02
    )


def test_voxels_put_together_teach_the_same_map() -> None:
    rng, found = np.random.default_rng(0), []
    for n in (1000, 3000):
        odds = torch.from_numpy(rng.normal(0, 3, (1, n))).float()
        target = torch.from_numpy(rng.random(n)) < torch.sigmoid(odds[0] / 2)
        weights = torch.from_numpy(rng.integers(1, 5, n)).double()
        found.append(Voxels(odds, (odds[0] > 0).long(), target.long(), weights))
    merged = cases.pooled([cases.on_grid(each) for each in found])
    assert merged.log_odds.shape[1] < 1000
    slopes = [fit_affine(each, "temperature").own_slopes.item() for each in (found, [merged])]
    assert slopes[0] == pytest.approx(slopes[1], abs=0.002)
