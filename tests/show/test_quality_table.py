"""The quality that probabilities promise, as a comparison reports it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.cases.quality_block import CaseQuality
from nnunet_nacl.comparison.learned_dice import PredictedDice, cross_fitted
from nnunet_nacl.comparison.quality_report import quality_report
from nnunet_nacl.show.quality_figures import quality_figures
from nnunet_nacl.show.quality_table import quality_tables
from tests.comparison.synthetic import STRUCTURES, make_comparison

NAN = float("nan")


def make_quality(expected, true, entropy=0.1) -> CaseQuality:
    pair = dict(zip("12", expected)), dict(zip("12", true))
    return CaseQuality(*pair, entropy, 1 - entropy)


def test_numbers_of_a_method():
    cases = [
        make_quality((0.9, 0.8), (0.8, 0.9), 0.1),  # lowest 0.8, 0.8
        make_quality((0.6, NAN), (0.5, NAN), 0.4),  # 0.6, 0.5
        make_quality((0.7, 0.9), (0.9, 0.7), 0.2),  # 0.7, 0.7
        make_quality((NAN, NAN), (0.0, NAN), NAN),  # nothing predicted, something there
    ]
    found = quality_report(cases, 0.75)
    assert found["MAE expected"] == pytest.approx(np.mean([0.1, 0.1, 0.1, 0.2, 0.2]))
    assert (found["n_cases"], found["n_bad"]) == (4, 3) and found["orders"]["expected Dice"]["rho"] == 1
    # of 4 cases 5 to 20 % is one: that without any prediction; 50 % finds another one of three
    assert [row.caught for row in found["workload"]] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # risks in the order of trust 0.2, 0.3, 0.5: running means 0.2, 0.25, 1/3
    assert found["orders"]["expected Dice"]["AURC"] == pytest.approx((0.2 + 0.25 + 1 / 3) / 3)
    columns = [{"1": np.full(4, value), "2": np.full(4, value)} for value in (0.7, 0.6, 0.8)]
    found = quality_report(cases, 0.75, columns)
    assert found["MAE predicted"] == pytest.approx(np.mean([0.1, 0.2, 0.2, 0.2, 0, 0.7]))
    assert (found["coverage"].share, found["coverage"].n) == (2 / 6, 6)  # the 0.8 and the 0.7, ends included


def test_no_case_teaches_its_own_part():
    rng = np.random.default_rng(0)
    expected, parts = rng.uniform(0.5, 0.9, 30), [i // 3 for i in range(30)]
    cases = [make_quality((e, e), (e - 0.1 + rng.normal(0, 0.02), e)) for e in expected]
    before = cross_fitted(cases, parts, range(30), 0.1)
    other = [
        replace(case, true={"1": 0.0, "2": case.true["2"]}) if i // 3 == 4 else case for i, case in enumerate(cases)
    ]
    after = cross_fitted(other, parts, range(30), 0.1)
    same = before.estimate["1"] == after.estimate["1"]
    assert same[12:15].all() and not same[:12].any() and not same[15:].any()
    assert np.array_equal(before.low["2"], after.low["2"]) and (before.low["1"] <= before.estimate["1"]).all()


def test_frames_of_a_patient_count_as_one():
    rng = np.random.default_rng(0)
    patients, expected = list("abcdefghijklmnop"), rng.uniform(0.5, 0.9, 16)
    cases = [make_quality((e, e), (e - 0.1 + rng.normal(0, 0.02), e + rng.normal(0, 0.1))) for e in expected]
    parts = [i % 4 for i in range(16)]
    once, twice = cross_fitted(cases, parts, patients, 0.1), cross_fitted(cases * 2, parts * 2, patients * 2, 0.1)
    apart = cross_fitted(cases * 2, parts * 2, range(32), 0.1)
    for name in ("low", "high"):
        assert abs(getattr(twice, name)["2"][:16] - getattr(once, name)["2"]).max() < 0.01
    assert (apart.high["2"] - apart.low["2"]).mean() < 0.95 * (once.high["2"] - once.low["2"]).mean()


def test_tables_and_figures_of_those_that_tell(tmp_path):
    comparison = make_comparison({"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 2.0})
    assert quality_tables(comparison, {}, 0.8) == []
    [dataset] = comparison.datasets
    block = {"unit": "ml", "entropy": 0.2, "confidence": 0.8}
    values = {"expected_dice": 0.5, "expected_volume": 1.0, "volume": 1.0, "true_volume": None}
    blocks = {"quality": block | {"structures": dict.fromkeys(STRUCTURES, values)}}
    dataset.results["nnUNetTrainerCE"][:] = [replace(c, blocks=blocks) for c in dataset.results["nnUNetTrainerCE"]]
    quality, workload = quality_tables(comparison, {}, 0.8)
    assert [row[0] for row in quality.rows] == [row[0] for row in workload.rows] == ["CE"]
    assert "MAE predicted" not in quality.columns and "of stock: evaluate again" in quality.caption
    error = np.mean([abs(dice - 0.5) for case in dataset.results["nnUNetTrainerCE"] for dice in case.dice.values()])
    assert quality.rows[0][1].value == pytest.approx(error)
    columns = [dict.fromkeys(STRUCTURES, np.full(len(dataset.cases), value)) for value in (0.5, 0.0, 1.0)]
    predicted = {dataset.name: {"nnUNetTrainerCE": PredictedDice(*columns, 0.9)}}
    quality, _ = quality_tables(comparison, predicted, 0.8)
    n = 2 * len(dataset.cases)
    assert quality.columns[2:4] == ["MAE predicted", "coverage"] and quality.rows[0][3].text == f"100 % of {n}"
    [figure] = quality_figures(comparison, predicted)
    assert f"Anterior {len(dataset.cases)} of {len(dataset.cases)} cases" in figure.alt
    assert figure.draw(tmp_path / "a.png", title=figure.title, subtitle=figure.subtitle).is_file()
