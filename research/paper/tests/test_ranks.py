"""Ranks against the paper's figure and scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from nnunet_nacl_paper.ranks import case_ranks, mean_case_ranks, rank_values, sum_ranks

DATA = Path(__file__).parent / "data"
BETTER = {"dsc": "higher", "hd": "lower", "ece": "lower", "cece": "lower"}
VALUES = st.lists(st.integers(0, 4), min_size=2, max_size=7)


def published() -> tuple[list[str], dict[str, np.ndarray], dict[str, dict[str, int]]]:
    """What the paper prints.

    Returns:
        Methods; means by metric (data set x method); sum-ranks of figure 2a by metric and method.
    """
    figure = pd.read_csv(DATA / "sum_ranks.csv", index_col="metric")
    methods = list(figure.columns)
    rows = pd.read_csv(DATA / "dataset_means.csv")
    means = {}
    for metric in BETTER:
        table = rows.pivot(index="dataset", columns="method", values=metric)
        means[metric] = table[methods].to_numpy()
    ranks = {metric.lower(): row.to_dict() for metric, row in figure.iterrows()}
    return methods, means, ranks


def test_sum_ranks_of_the_paper():
    methods, means, figure = published()
    assert means["dsc"].shape == (6, 7)
    ours = pd.DataFrame(
        {metric: sum_ranks(means[metric], better) for metric, better in BETTER.items()},
        index=methods,
    )
    assert ours.loc["NACL"].tolist() == [6, 9, 7, 10]
    ours["total"] = ours.sum(axis="columns")
    assert ours.loc["NACL", "total"] == figure["total"]["NACL"] == 32
    # the printed means are rounded, so near ties may fall the other way
    difference = ours - pd.DataFrame(figure)[ours.columns]
    assert difference.abs().max(axis=None) <= 2


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
    assert ranks[[0, 2]].tolist() == [[1, 2], [2, 1]]
    assert np.isnan(ranks[1]).all()
    assert sum_ranks(values, "lower").tolist() == [3, 3]
    assert np.isnan(sum_ranks(values[1:2], "lower")).all()
    [first, second] = mean_case_ranks([ranks], n_bootstrap=100, seed=0)
    assert (first.mean, first.n, second.mean) == (1.5, 2, 1.5)


def test_all_cases_of_a_patient_are_drawn_together():
    rng = np.random.default_rng(0)
    ranks = case_ranks(rng.normal(size=(12, 3)), "lower")
    patients = [f"{i:02d}" for i in range(12)]
    own = mean_case_ranks([ranks], n_bootstrap=2000, seed=3)
    assert own == mean_case_ranks([ranks], n_bootstrap=2000, seed=3, groups=[patients])

    two_alike = np.repeat(ranks, 2, axis=0)
    groups = [np.repeat(patients, 2).tolist()]
    grouped = mean_case_ranks([two_alike], n_bootstrap=2000, seed=3, groups=groups)
    for interval, expected in zip(grouped, own):
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
        assert interval.n == 24


def test_cases_of_one_patient_have_no_interval():
    ranks = np.array([[1.0, 2.0], [2.0, 1.0]])
    [first, _] = mean_case_ranks([ranks], n_bootstrap=200, seed=3, groups=[["a", "a"]])
    assert np.isnan(first.low)
    assert first.n == 2
