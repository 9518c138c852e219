"""Statistics against closed forms, scipy, slow transcriptions, and what holds for any input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.statistics import (
    bin_accuracy_bands,
    difference_of_means,
    holm,
    mean_interval,
    paired_difference,
    sign_flip_p,
    smallest_sign_flip_p,
    verdict_of,
    wilcoxon_p,
)
from tests.comparison import slow

OPTIONS = {"n_bootstrap": 300, "seed": 1}
NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "mean"), [([], NAN), ([NAN, NAN], NAN), ([2.0], 2), ([NAN, 2.0], 2)]
)
def test_too_few_values_have_no_interval(values, mean):
    interval = mean_interval(values, **OPTIONS)
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert interval.mean == pytest.approx(mean, nan_ok=True)


def test_patients_are_drawn_with_all_their_cases():
    # patient a has three cases of value 0, b one of value 1: draws aa, ab, ba, bb have the means 0,
    # 1/4, 1/4, 1
    interval = mean_interval([0, NAN, 0, 1, 0], groups=["a", "b", "a", "b", "a"], **OPTIONS)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0, 1)
    alone = mean_interval([0, 1], groups=["a", "a"], **OPTIONS)
    assert alone.mean == 0.5 and math.isnan(alone.low)


def test_pairs_need_both_values():
    paired = paired_difference([1, NAN, 3, 4], [2, 5, NAN, 2], **OPTIONS)
    assert (paired["n"], paired["difference"]) == (2, -0.5)
    assert (paired["mean_reference"], paired["mean"]) == (2.5, 2)
    assert (paired["n_better"], paired["n_worse"]) == (1, 1)
    assert math.isnan(paired["p"])


@settings(max_examples=30)
@given(st.lists(st.integers(-20, 20).filter(bool), min_size=6, max_size=9))
def test_wilcoxon_enumerates_all_signs(differences):
    assert wilcoxon_p([d / 10 for d in differences]) == pytest.approx(slow.wilcoxon(differences))


def test_what_differs_by_rounding_alone_is_a_tie():
    reference = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    values = reference + 0.1  # differ in the last place
    assert len(set(values - reference)) > 1
    paired = paired_difference(reference, values, **OPTIONS)
    assert paired["p_wilcoxon"] == wilcoxon_p(np.ones(8)) == slow.wilcoxon([1] * 8)
    assert paired["p"] == 2 / 2**8  # one and all flips
    paired = paired_difference(reference, values - 0.1, **OPTIONS)
    assert np.any(values - 0.1 != reference)
    assert (paired["p"], paired["p_wilcoxon"], paired["n_equal"]) == (1, 1, 8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=6, max_size=9))
def test_all_flips_of_few_patients_are_those_of_scipy(sums):
    differences = np.array(sums) / 10
    expected = scipy.stats.permutation_test(
        (differences,),
        lambda flipped, axis: abs(flipped.sum(axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
    )
    assert sign_flip_p([*differences, NAN], seed=0) == expected.pvalue


def test_flips_of_many_patients_are_drawn_and_the_data_count_as_one_of_them():
    rng = np.random.default_rng(3)
    sums = rng.normal(0.3, 1, 40)
    p = sign_flip_p(sums, seed=1)
    z = abs(sums.sum()) / np.sqrt((sums**2).sum())
    assert p == pytest.approx(2 * scipy.stats.norm.sf(z), abs=0.01)
    assert p == sign_flip_p(sums, seed=1)
    assert p != sign_flip_p(sums, seed=2)
    assert sign_flip_p(np.ones(40), seed=1) == 1 / 10_001 == smallest_sign_flip_p(40)
    assert sign_flip_p(np.ones(13), seed=1) == 2 / 2**13 == smallest_sign_flip_p(13)
    assert math.isnan(sign_flip_p(np.ones(5), seed=1))


def test_the_test_is_of_the_mean_that_is_shown_also_where_most_patients_are_against_it():
    """A little worse in 19 cases, far better in one: ranks say worse, the mean better."""
    paired = paired_difference([1.0] * 20, [*np.linspace(1.1, 1.2, 19), -9.0], **OPTIONS)
    assert paired["difference"] < 0
    assert (paired["n_better"], paired["n_worse"]) == (1, 19)
    assert paired["p_wilcoxon"] < 0.001
    assert paired["p"] == 1  # the one outweighs all: no flip takes the mean nearer to 0


@pytest.mark.parametrize(
    ("difference", "p", "higher_is_better", "verdict"),
    [
        (0.1, 0.049, True, "better"),
        (0.1, 0.049, False, "worse"),
        (-0.1, 0.049, False, "better"),
        (-0.1, 0.049, True, "worse"),
        (-0.1, 0.05, True, "none"),
        (-0.1, NAN, True, "untested"),
    ],
)
def test_a_verdict_is_the_side_of_a_difference_whose_test_rejects(
    difference, p, higher_is_better, verdict
):
    assert verdict_of(difference, p, higher_is_better=higher_is_better) == verdict


def test_wilcoxon_drops_zeros_and_undefined():
    differences = [0.3, -0.1, 0.5, 0.7, 0.2, 0.9, 0.4]
    assert wilcoxon_p([*differences, NAN]) == wilcoxon_p(differences)
    expected = scipy.stats.wilcoxon([*differences, 0.0, 0.0], zero_method="wilcox").pvalue
    assert wilcoxon_p([*differences, 0.0, 0.0]) == expected
    assert wilcoxon_p(np.zeros(8)) == 1 and math.isnan(wilcoxon_p(np.zeros(5)))


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferroni_over_what_is_tested(p_values):
    corrected = holm([*p_values, NAN])
    assert corrected[:-1] == pytest.approx(slow.holm(p_values)) and math.isnan(corrected[-1])


def test_bands_hold_the_pooled_accuracy_and_are_undefined_in_an_empty_bin():
    rng = np.random.default_rng(0)
    count = rng.integers(0, 50, (30, 4))
    count[:, 3] = 0
    correct = rng.binomial(count, 0.7)
    low, high = bin_accuracy_bands(count, correct, **OPTIONS)
    pooled = correct[:, :3].sum(0) / count[:, :3].sum(0)
    assert (low[:3] <= pooled).all()
    assert (pooled <= high[:3]).all()
    assert np.isnan([low[3], high[3]]).all()


def test_a_single_case_has_no_bands():
    assert np.isnan(bin_accuracy_bands([[10]], [[5]], **OPTIONS)).all()


def test_bands_are_of_cases_not_of_voxels():
    # one case always right, one always wrong: voxels alone would leave the accuracy near 1/2
    low, high = bin_accuracy_bands([[1000], [1000]], [[1000], [0]], **OPTIONS)
    assert (low[0], high[0]) == (0, 1)


def test_the_cases_of_a_patient_flip_together_and_count_once_for_wilcoxon():
    groups = ["a", "b", "a", "c", "d", "e", "f", "g"]
    values = np.array([1.0, 2.0, -4.0, 3.0, np.nan, 5.0, 6.0, 7.0])
    found = paired_difference(
        np.zeros(8), values, n_bootstrap=2000, seed=0, groups=groups, higher_is_better=True
    )
    means = np.array([-1.5, 2.0, 3.0, 5.0, 6.0, 7.0])
    assert (found["n"], found["n_patients"]) == (7, 6)
    assert (found["n_better"], found["n_worse"], found["n_equal"]) == (5, 1, 0)
    assert found["difference"] == np.nanmean(values)
    assert found["p"] == sign_flip_p([-3.0, 2.0, 3.0, 5.0, 6.0, 7.0], seed=0) != 2 / 2**6
    assert found["p_wilcoxon"] == wilcoxon_p(means) != found["p"]
    interval = mean_interval(values, n_bootstrap=2000, seed=0, groups=groups)
    assert (found["low"], found["high"]) == (interval.low, interval.high)


def test_means_may_be_over_other_cases_before_and_after():
    before = [0.5, NAN, 0.7]
    after = [0.6, 0.0, 0.9]  # the second structure was invented: it counts 0 now
    groups = ["a", "b", "c"]
    found = difference_of_means(before, after, groups=groups, **OPTIONS)
    assert found.mean == pytest.approx(0.5 - 0.6)
    assert found.low < found.mean < found.high
    same = difference_of_means([0.5, 0.7], [0.6, 0.9], groups=["a", "b"], **OPTIONS)
    paired = mean_interval([0.1, 0.2], **OPTIONS)
    assert vars(same) == pytest.approx(vars(paired))
    alone = difference_of_means(before, after, groups=["a"] * 3, **OPTIONS)
    assert alone.mean == found.mean and math.isnan(alone.low)
