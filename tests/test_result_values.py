"""Statistics of the results' pages, in closed form and by enumeration, on tiny values."""

from __future__ import annotations

import importlib
import itertools
import json
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, t

from nnunet_nacl.calibration.quality_report import aurc
from nnunet_nacl.metrics.detection import auroc, false_alarms
from nnunet_nacl.runs.held_out_presence import alarms_by_sensitivity
from tests.pages import RESULTS

sys.path.insert(0, str(RESULTS))
try:
    list_promises, list_scores, table_kinds, tables_list, tables_trainings, values = (
        importlib.import_module(name)
        for name in ("list_promises", "list_scores", "table_kinds", "tables_list", "tables_trainings", "values")
    )
finally:
    sys.path.remove(str(RESULTS))

RNG = np.random.default_rng(0)


def whole(trust, risk, bad=None) -> np.ndarray:
    """The statistics of every scan once."""
    trust, risk = np.array(trust, float), np.array(risk, float)
    bad = risk > np.median(risk) if bad is None else np.array(bad)
    return list_scores.order_statistics(trust, risk, bad, np.ones((1, len(risk))))[0]


def test_areas_by_hand() -> None:
    # risks in order .1, .5, .3: sums .1, .6, .9
    found = whole([0.9, 0.5, 0.7], [0.1, 0.3, 0.5], [False, False, True])
    assert found == pytest.approx([(0.1 + 0.6 / 2 + 0.9 / 3) / 3, (0.1 + 0.6 + 0.9) / 9, 1 / 2])


def test_random_order_is_the_mean_over_all_orders() -> None:
    risk = np.array([0.1, 0.4, 0.5, 0.9])
    orders = [whole(order, risk) for order in itertools.permutations(range(4))]
    assert whole(np.zeros(4), risk) == pytest.approx(np.mean(orders, axis=0))
    assert whole(np.zeros(4), risk)[:2] == pytest.approx([risk.mean(), risk.mean() * 5 / 8])


def test_scans_that_are_drawn_several_times_count_so_often() -> None:
    n = 12
    trust, risk = RNG.integers(0, 5, n).astype(float), RNG.random(n)
    trust[0], bad, counts = -np.inf, risk > np.median(risk), RNG.integers(0, 3, (20, n))
    drawn = list_scores.order_statistics(trust, risk, bad, counts)
    for row, times in zip(drawn, counts):
        t, r, b = (np.repeat(of, times) for of in (trust, risk, bad))
        assert row[[0, 2]] == pytest.approx([aurc(t, r), auroc(-t, b)], nan_ok=True)
        assert list_scores.risk_coverage(t, r).mean() == pytest.approx(row[0])
    assert np.isnan(list_scores.order_statistics(trust, risk, bad, counts * ~bad)[:, 2]).all()


def test_patients_are_drawn_whole() -> None:
    patient = ["a", "b", "a", "c", "a"]
    for places in itertools.islice(values.resamples(patient), 50):
        times = np.bincount(places, minlength=5)
        assert times[0] == times[2] == times[4] and times[0] + times[1] + times[3] == 3


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    x = np.append(RNG.normal(size=200), np.nan)
    rows = pd.DataFrame({"x": x, "patient": np.arange(201).astype(str)})
    middle, low, high = values.draws_of(rows, values.mean_of("x"))
    error = np.nanstd(x) / np.sqrt(200)
    assert [middle, (high - low) / 3.92] == pytest.approx([np.nanmean(x), error], rel=0.1)
    assert values.interval(rows.assign(x=np.nan), values.mean_of("x")) == ""


def test_crps_is_the_integral_of_the_squared_distance() -> None:
    x, weight, true = np.array([1.0, 3.0, 3.5]), np.array([0.5, 0.2, 0.3]), 2.0
    middles = np.arange(0.0005, 5, 0.001)
    below = (weight * (x <= middles[:, None])).sum(axis=1)
    assert list_promises.crps(x, weight, true) == pytest.approx(np.sum((below - (middles >= true)) ** 2) * 0.001)
    assert list_promises.crps(np.array([5.0]), np.ones(1), true) == 3


def test_clopper_pearson_counts_patients() -> None:
    for k in (0, 7, 20):
        expected = binomtest(k, 20).proportion_ci(0.95, method="exact")
        assert list_promises.clopper_pearson(k / 20, 20) == pytest.approx((expected.low, expected.high))
    lower, upper = (list_promises.clopper_pearson(k / 20, 20) for k in (7, 8))
    between = list_promises.clopper_pearson(7.5 / 20, 20)
    assert lower[0] < between[0] < upper[0] and lower[1] < between[1] < upper[1]


# --- a study of one structure, three folds of twelve scans and an average ---


def study(root, dice: np.ndarray, predicted: np.ndarray) -> list:
    """Folder of a network whose scans have these Dice and predicted Dice, (4, 12) each, the average last."""
    folder = root / "Dataset030_DRIVE" / "DiceCE_2epochs"
    for place, networks in (("folds", ["fold_0", "fold_1", "fold_2"]), ("outer", ["average"])):
        (folder / place).mkdir(parents=True)
        first = 0 if place == "folds" else 3
        rows = pd.DataFrame(
            {
                "network": np.repeat(networks, 12),
                "case": [f"{place}_{i}" for i in range(12 * len(networks))],
                "structure": "vessel",
                "Dice": dice[first : first + len(networks)].ravel(),
                "predicted Dice": predicted[first : first + len(networks)].ravel(),
            }
        )
        rows["true volume"] = 100 + np.arange(len(rows)) % 7
        rows["volume"], rows["predicted volume"] = rows["true volume"] + 5, rows["true volume"] + 2
        rows["voxel"], rows["present probability"], rows["largest probability"] = 1, np.nan, 1
        for name in ("Dice", "volume"):
            rows[f"{name} low"], rows[f"{name} high"] = rows[f"predicted {name}"] - 0.1, rows[f"predicted {name}"] + 0.1
        rows.to_csv(folder / place / "structures.csv", index=False)
        scans = rows[["network", "case"]].assign(entropy=1 - rows["predicted Dice"], confidence=rows["predicted Dice"])
        scans.assign(**{"unusual volume": 1.0}).to_csv(folder / place / "scans.csv", index=False)
    return folder


DICE = RNG.uniform(0.6, 0.9, (4, 12)).round(3)


def test_flags_by_hand(tmp_path) -> None:
    # bad in fold i: .50 + .001 i, .51 + .001 i, ... .59 + .001 i; of 20 bad ones of the other folds -find 0.9 may lose
    # 1.1, so the second highest is the limit: .591 for fold 0, .590 for the others, which each lose their highest
    bad = 0.5 + 0.01 * np.arange(10) + 0.001 * np.arange(3)[:, None]
    dice = np.vstack([np.hstack([bad, np.full((3, 2), 0.9)]), [*np.arange(0.5, 0.58, 0.01), *[0.9] * 4]])
    folder = study(tmp_path, dice, dice)
    rows = {row[0]: row[1:] for row in table_kinds.rows_of_table(tables_list.flags([folder]))[1:]}

    def share(k: int, n: int) -> str:
        low, high = binomtest(k, n).proportion_ci(method="exact")
        return f"{k / n:.2f} [{low:.2f}, {high:.2f}]"

    assert rows["DRIVE, folds, -find 0.9"] == ["0.83", "0.78", share(28, 30), share(2, 36)]
    assert rows["DRIVE, folds, -find 0.95"] == ["0.83", "0.81", share(29, 30), share(1, 36)]
    assert rows["DRIVE, average, outer, -find 0.9"] == ["0.67", "0.67", share(8, 8), share(0, 12)]
    assert rows["DRIVE, average, outer, own threshold, -find 0.9"] == ["0.67", "", "", ""]  # 8 bad, 9 are needed


def test_a_perfect_score_orders_as_the_truth(tmp_path) -> None:
    folder = study(tmp_path, DICE, DICE)
    drawn = list_scores.order_draws(folder, "average")
    assert np.array_equal(drawn["the list"], drawn["oracle"], equal_nan=True)
    assert drawn["the list"][0] == pytest.approx([aurc(DICE[3], 1 - DICE[3]), drawn["oracle"][0, 1], 1])
    header, row = table_kinds.rows_of_table(tables_list.order_differences([folder]))[::2]
    assert row[header.index("entropy")] == "+0.000 [+0.000, +0.000]" and "members' Dice" not in header


def test_regression_of_fold_cases_has_not_seen_them(tmp_path) -> None:
    predicted = RNG.uniform(0.6, 0.9, (4, 12))
    changed = DICE.copy()
    changed[1] = 1 - changed[1]
    before, after = (study(tmp_path / name, dice, predicted) for name, dice in (("a", DICE), ("b", changed)))
    old, new = (list_scores.regression(folder, "folds").reshape(3, 12) for folder in (before, after))
    assert old[1] == pytest.approx(new[1]) and not np.allclose(old[[0, 2]], new[[0, 2]])


def test_volumes_and_their_intervals(tmp_path) -> None:
    folder = study(tmp_path, DICE, DICE)
    rows = list_promises.volume_rows(folder, "folds")
    first = rows.iloc[0]
    others = rows[rows["network"] != "fold_0"]
    errors = -2 / (others["predicted volume"] + 1)
    atoms = first["predicted volume"] + errors.to_numpy() * (first["predicted volume"] + 1)
    expected = np.abs(atoms - first["true volume"]).mean() - np.abs(np.subtract.outer(atoms, atoms)).mean() / 2
    assert [first["CRPS"], first["off"]] == pytest.approx([expected, 5])
    assert first[["predicted relative", "relative"]].tolist() == pytest.approx([0.02, 0.05])
    cells = table_kinds.rows_of_table(tables_list.coverage([folder]))[1]
    low, high = list_promises.clopper_pearson(1.0, 36)
    assert cells[:4] == ["DRIVE, folds, vessel", "36 (36)", f"1.00 [{low:.2f}, {high:.2f}]", "0.20"]
    assert cells[5].startswith("0.00 [0.00, ")


def test_false_alarms_are_those_of_the_product() -> None:
    keys = {"network": "average", "structure": "infarct"}
    structures = pd.DataFrame({"case": ["a", "b", "c"], "patient": ["a", "b", "c"], "true parts": [2, 0, 1], **keys})
    found = pd.DataFrame(
        {
            "case": ["a", "a", "a", "b", "c"],
            "p": [0.9, 0.4, 0.6, 0.7, 0.2],
            "overlaps": ["1;2", "2", np.nan, np.nan, "1"],
        }
    ).assign(**keys)
    of_scans = list_promises.searched(structures, found, "p")
    ours = false_alarms(np.concatenate(of_scans["best"]), np.concatenate(of_scans["false"]), 3)
    overlaps = [[1, 2], [2], [], [], [1]]
    expected = alarms_by_sensitivity(
        found["p"].to_numpy(), found["overlaps"].notna().to_numpy(), [0, 0, 0, 1, 2], overlaps, [2, 0, 1]
    )
    assert {str(share): value for share, value in ours.items()} == expected
    assert expected["0.8"] == pytest.approx(2 / 3)


def test_an_interval_over_trainings_is_that_of_the_spread_within_folds() -> None:
    folds = ["fold_0"] * 3 + ["fold_1"]
    first, second = (pd.DataFrame({"network": folds, "value": of}) for of in ([1.0, 2, 3, 10], [2.0, 3, 7, 6]))
    middle, low, high = tables_trainings.over_trainings([first, second])
    assert middle == pytest.approx((16 / 4 + 18 / 4) / 2)
    # means 2 and 4 of the one fold, variance 2; 10 and 6 of the other, variance 8; shares 3/4 and 1/4; two trainings
    parts = np.array([0.75**2 * 2, 0.25**2 * 8]) / 2
    half = t.ppf(0.975, parts.sum() ** 2 / (parts**2).sum()) * np.sqrt(parts.sum())
    assert (low, high) == pytest.approx((middle - half, middle + half))
    assert tables_trainings.over_trainings([first, first]) == pytest.approx([4.0] * 3)
    alone = [rows[rows["network"] == "fold_0"] for rows in (first, second)]
    assert np.isnan(tables_trainings.over_trainings(alone)[1:]).all()
    assert np.isnan(tables_trainings.over_trainings([first])[1:]).all()


def test_trainers_are_named_by_what_differs() -> None:
    names = ["DiceCE_100epochs_50iters", "DiceCE_anneal_100epochs_50iters", "NACL_100epochs_50iters_adam"]
    assert values.labels_of(names) == ["Dice + CE (stock)", "Dice + CE, annealed", "NACL, adam"]


def test_scans_whose_other_side_was_in_the_training_are_left_out() -> None:
    known = values._fold_of("Dataset004_Hippocampus")
    of_patient = known.groupby("patient")["fold"].agg(list)
    both = of_patient[of_patient.map(len) == 2]
    apart = both[both.map(lambda folds: len(set(folds)) == 2)].index
    together = both.index.difference(apart)
    outer = json.loads((values.SPLITS / "Dataset004_Hippocampus" / "outer_test.json").read_text(encoding="utf-8"))
    rows = pd.concat([known[["case"]], pd.DataFrame({"case": outer})])
    rows = values.with_patients(rows, "Dataset004_Hippocampus")
    left = set(values.unseen(rows, "Dataset004_Hippocampus")["case"])
    of = known.set_index("patient")["case"]
    assert not left & set(of[apart]) and set(of[together]) <= left
    sides = rows[rows["case"].isin(outer)].set_index("case")["patient"].isin(known["patient"])
    assert set(outer) - left == set(sides[sides].index) and 0 < sides.sum() < len(outer)
    acdc = values._fold_of("Dataset027_ACDC")  # both frames of a patient are in one fold
    assert len(values.unseen(acdc, "Dataset027_ACDC")) == len(acdc) == 2 * acdc["patient"].nunique()
    assert values.unseen(rows, "Dataset030_DRIVE") is rows
