"""Ranks against the paper's figure and scipy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from nnunet_nacl_paper.ranks import case_ranks, mean_case_ranks, rank_values, sum_ranks

DATA = Path(__file__).parent / "data"
BETTER = {"dsc": "higher", "hd": "lower", "ece": "lower", "cece": "lower"}
VALUES = st.lists(st.integers(0, 4), min_size=2, max_size=7)


def published() -> tuple[list[str], dict[str, np.ndarray], dict[str, dict[str, int]]]:
    """Methods, means by metric (data set x method) and the sum-ranks of figure 2a by metric and
    method."""
    rows = list(csv.DictReader((DATA / "dataset_means.csv").open()))
    figure = list(csv.DictReader((DATA / "sum_ranks.csv").open()))
    methods = [name for name in figure[0] if name != "metric"]
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    by_key = {(row["dataset"], row["method"]): row for row in rows}
    means = {
        metric: np.array(
            [[float(by_key[dataset, method][metric]) for method in methods] for dataset in datasets]
        )
        for metric in BETTER
    }
    ranks = {
        row["metric"].lower(): {method: int(row[method]) for method in methods} for row in figure
    }
    return methods, means, ranks


def test_sum_ranks_of_the_paper():
    methods, means, figure = published()
    assert means["dsc"].shape == (6, 7)
    ours = {
        metric: dict(zip(methods, sum_ranks(means[metric], BETTER[metric]))) for metric in BETTER
    }
    assert [ours[metric]["NACL"] for metric in BETTER] == [6, 9, 7, 10]
    assert sum(ours[metric]["NACL"] for metric in BETTER) == figure["total"]["NACL"] == 32
    # the printed means are rounded, so near ties may fall the other way
    for metric in BETTER:
        for method in methods:
            assert abs(ours[metric][method] - figure[metric][method]) <= 2, (metric, method)
    for method in methods:
        assert abs(sum(ours[metric][method] for metric in BETTER) - figure["total"][method]) <= 2, (
            method
        )


@settings(max_examples=60)
@given(VALUES, st.sampled_from(["lower", "higher"]), st.sampled_from(["min", "average"]))
def test_ranks_agree_with_scipy(values, better, ties):
    [ours] = rank_values(np.array([values], float), better=better, ties=ties)
    signed = np.array(values, float) * (-1 if better == "higher" else 1)
    assert ours.tolist() == rankdata(signed, method=ties).tolist()


def test_what_differs_by_rounding_alone_shares_its_rank():
    assert case_ranks(np.array([[0.1 + 0.2, 0.3, 0.2]]), "lower").tolist() == [[2.5, 2.5, 1]]


def test_what_is_undefined_for_one_is_ranked_for_none():
    values = np.array([[1, 2], [np.nan, 2], [4, 3]])
    ranks = case_ranks(values, "lower")
    assert ranks[[0, 2]].tolist() == [[1, 2], [2, 1]] and np.isnan(ranks[1]).all()
    assert sum_ranks(values, "lower").tolist() == [3, 3]
    assert np.isnan(sum_ranks(values[1:2], "lower")).all()
    [first, second] = mean_case_ranks([ranks], n_bootstrap=100, seed=0)
    assert (first.mean, first.n, second.mean) == (1.5, 2, 1.5)


def test_all_cases_of_a_patient_are_drawn_together():
    rng = np.random.default_rng(0)
    ranks = case_ranks(rng.normal(size=(12, 3)), "lower")
    own = mean_case_ranks([ranks], n_bootstrap=2000, seed=3)
    assert own == mean_case_ranks(
        [ranks], n_bootstrap=2000, seed=3, groups=[[f"{i:02d}" for i in range(12)]]
    )
    twice = np.repeat(ranks, 2, axis=0)  # two images of each, in everything alike
    grouped = mean_case_ranks(
        [twice], n_bootstrap=2000, seed=3, groups=[[f"{i // 2:02d}" for i in range(24)]]
    )
    for one, other in zip(grouped, own):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert [one.n for one in grouped] == [24] * 3
    [single, *_] = mean_case_ranks([twice[:2]], n_bootstrap=200, seed=3, groups=[["a", "a"]])
    assert np.isnan(single.low) and single.n == 2
