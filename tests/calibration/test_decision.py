"""The decision: optimal where an exhaustive search can tell, never worse than the argmax, and as RankSEG decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.metrics.expected_dice import count_expected, expected_dice
from tests.reference import decision as reference

NESTED, ORDER = ((1, 2, 3), (2, 3), (3,)), (1, 2, 3)
CYCLE = [[0.2, 0.1, 0.0, 0.0], [0.2, 0.4, 0.7, 0.1], [0.6, 0.5, 0.3, 0.9]]  # two states take turns


@st.composite
def probabilities(draw, classes=st.integers(2, 4), voxels=st.integers(1, 7)):
    """(K, N) with tenths as values, so that ties and exact halves occur."""
    num_classes, size = draw(classes), draw(voxels)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.dirichlet(np.full(num_classes, draw(st.sampled_from([0.3, 1.0, 3.0]))), size)
    return np.array([rng.multinomial(10, row) for row in weights]).T / 10


@settings(max_examples=60)
@given(probabilities())
def test_the_best_of_the_states_that_the_formula_goes_through(probs):
    def best(probs: np.ndarray) -> float:
        states = reference.rounds(probs, 6)
        return max(np.nansum(reference.expected_dice(probs, s, reference.classes(len(probs)))) for s in states)

    # where rounding breaks a tie of the rounds, the path is not the formula's alone
    rng = np.random.default_rng(0)
    nearby = [best(probs * (1 + 1e-12 * rng.standard_normal(probs.shape))) for _ in range(8)]
    assume(np.ptp([best(probs), *nearby]) < 1e-9)
    decision = decide(probs, max_rounds=6)
    assert np.nansum(decision.after.dice) == pytest.approx(best(probs), abs=1e-9)


@settings(max_examples=60)
@given(probabilities(), st.booleans())
def test_what_is_said_of_it_is_what_was_done(probs, regions):
    keywords = {}
    if regions:
        probs = np.cumsum(probs[:0:-1], 0)[::-1].clip(0, 1)
        keywords = {"regions": NESTED[-len(probs) :], "region_labels": ORDER[-len(probs) :]}
    decision = decide(probs, **keywords)
    structures = NESTED[-len(probs) :] if regions else tuple((k,) for k in range(1, len(probs)))
    for i, values in enumerate(structures):
        was, is_now = np.isin(decision.argmax, values), np.isin(decision.segmentation, values)
        assert (decision.gained[i], decision.lost[i]) == ((is_now & ~was).sum(), (was & ~is_now).sum())
        assert was.any() or not is_now.any()  # what was absent stays absent
        assert (i in decision.removed) == (was.any() and not is_now.any())
    assert decision.n_changed == np.count_nonzero(decision.argmax != decision.segmentation)
    for sums, labels in ((decision.before, decision.argmax), (decision.after, decision.segmentation)):
        again = count_expected(probs, labels, regions=structures if regions else None)
        np.testing.assert_allclose(sums.dice, again.dice, rtol=1e-12)


def test_a_cycle_ends_on_its_best_state():
    probs = np.array(CYCLE)
    states = [state.tolist() for state in reference.rounds(probs, 4)]
    assert states[2] == states[4] != states[3]  # it does cycle
    totals = [np.nansum(expected_dice(probs, np.array(state))) for state in states]
    decision = decide(probs)
    assert decision.rounds < 5 and np.nansum(decision.after.dice) == pytest.approx(max(totals))


@settings(max_examples=60)
@given(probabilities(classes=st.just(2), voxels=st.integers(1, 9)), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]))
def test_one_structure_gets_the_best_f_beta_of_all_segmentations(probs, beta):
    found = np.nansum(decide(probs, beta=beta).after.fbeta(beta))
    assert found == pytest.approx(reference.largest_total(probs, beta), abs=1e-12)


@settings(max_examples=40)
@given(probabilities(voxels=st.integers(1, 5)), st.sampled_from([0.5, 1.0, 2.0]))
def test_f_beta_between_the_argmax_and_the_best_of_all_segmentations(probs, beta):
    decision = decide(probs, beta=beta)
    before, after = (np.nansum(sums.fbeta(beta)) for sums in (decision.before, decision.after))
    assert before - 1e-12 <= after <= reference.largest_total(probs, beta) + 1e-12
    again = reference.expected_dice(probs, decision.segmentation, reference.classes(len(probs)), beta)
    np.testing.assert_allclose(decision.after.fbeta(beta), again, rtol=1e-12)


@pytest.mark.parametrize("regions", [False, True])
def test_beta_moves_the_threshold_and_beta_1_is_dice_bit_for_bit(regions):
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 0.6, 5000)
    probs, keywords = (p[None], {"regions": ((1,),), "region_labels": (1,)}) if regions else (np.stack([1 - p, p]), {})
    sizes = []
    for beta in (0.5, 1.0, 2.0):
        decision = decide(probs, beta=beta, **keywords)
        threshold = decision.after.fbeta(beta)[0] / (1 + beta**2)
        np.testing.assert_array_equal(decision.segmentation, p > threshold)
        sizes.append(decision.after.chosen[0])
    assert sizes[0] < sizes[1] < sizes[2]
    dice, same = decide(probs, **keywords), decide(probs, beta=1.0, **keywords)
    np.testing.assert_array_equal(dice.segmentation, same.segmentation)
    np.testing.assert_array_equal(
        same.after.fbeta(1.0), 2 * dice.after.common / (dice.after.expected + dice.after.chosen)
    )


@settings(max_examples=60)
@given(
    probabilities(classes=st.just(2), voxels=st.integers(1, 8)), st.integers(0, 20), st.sampled_from([0.5, 1.0, 2.0])
)
def test_where_presence_is_known_one_structure_is_as_good_as_the_best_of_all_segmentations(probs, chance, beta):
    decision = decide(probs, present=[chance / 20], beta=beta)
    found = reference.worth(decision.after.fbeta(beta), [chance / 20])
    assert found == pytest.approx(reference.largest_worth(probs, [chance / 20], beta), abs=1e-12)


@settings(max_examples=60)
@given(probabilities(voxels=st.integers(1, 5)), st.data())
def test_with_presence_between_the_argmax_and_the_best_and_by_its_rule(probs, data):
    present = [data.draw(st.sampled_from([math.nan, 0.0, 0.3, 0.6, 0.9, 1.0])) for _ in probs[1:]]
    decision = decide(probs, present=present)
    before, after = (reference.worth(sums.dice, present) for sums in (decision.before, decision.after))
    assert before - 1e-12 <= after
    if not np.isnan(present).any():
        assert after <= reference.largest_worth(probs, present) + 1e-12
    for i in decision.added:
        assert present[i] * decision.after.dice[i] > 1 - present[i]  # NaN would fail
    again = reference.expected_dice(probs, decision.segmentation, reference.classes(len(probs)))
    np.testing.assert_allclose(decision.after.dice, again, rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "chance", "taken"),
    [
        # E of the first m voxels is 2 (.4, .8, .9)_m / (.9 + m): .421, .552, .462. So two, if P > 1 / 1.552 = .6444
        ([0.4, 0.4, 0.1], 0.65, [1, 1, 0]),
        ([0.4, 0.4, 0.1], 0.64, [0, 0, 0]),
        ([0.4, 0.4, 0.1], math.nan, [0, 0, 0]),
        # here 2 * 1.2 / (1.3 + 2) = .727 of two voxels is the largest: they stay if P > 1 / 1.727 = .579
        ([0.6, 0.6, 0.1], 0.57, [0, 0, 0]),
        ([0.6, 0.6, 0.1], math.nan, [1, 1, 0]),
        # the argmax has one voxel of E = 1.2 / 2.4 = .5, all three 2 * 1.4 / (1.4 + 3) = .636: P > 1 / 1.636 = .611
        ([0.6, 0.4, 0.4], 0.62, [1, 1, 1]),
        ([0.6, 0.4, 0.4], 0.60, [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("regions", [False, True])
def test_presence_by_hand(p, chance, taken, regions):
    p = np.array(p)
    probs, keywords = (p[None], {"regions": ((1,),), "region_labels": (1,)}) if regions else (np.stack([1 - p, p]), {})
    decision = decide(probs, present=[chance], **keywords)
    assert decision.segmentation.tolist() == taken
    assert (decision.added, decision.removed) == tuple(
        (0,) if change else () for change in (max(taken) > max(decision.argmax), max(taken) < max(decision.argmax))
    )


def test_an_added_structure_takes_voxels_from_another_where_both_together_gain():
    # one large structure, and a small one of .45 inside it that is never the most probable class
    p = np.zeros((3, 1000))
    p[1, :400], p[2, 380:400] = 0.98, 0.45
    p[1, 380:400] = 0.5
    p[0] = 1 - p.sum(0)
    plain, known = decide(p), decide(p, present=[math.nan, 0.8])
    assert (plain.segmentation == 2).sum() == 0 and known.added == (1,)
    np.testing.assert_array_equal(np.flatnonzero(known.segmentation == 2), np.arange(380, 400))
    assert (known.segmentation == 1).sum() == 380 and np.nansum(known.after.dice) > np.nansum(plain.after.dice)


def test_a_region_is_added_inside_another():
    p = np.zeros((3, 50))
    p[0, :30], p[1, :20], p[2, :6] = 0.9, 0.8, 0.4
    keywords = {"regions": NESTED, "region_labels": ORDER}
    assert decide(p, **keywords).segmentation.max() == 2
    known = decide(p, present=[math.nan, math.nan, 0.9], **keywords)
    assert known.added == (2,)
    np.testing.assert_array_equal(known.segmentation, np.repeat([3, 2, 1, 0], [6, 14, 10, 20]))


def test_no_round_gives_the_argmax_with_ties_to_the_lower_class():
    probs = np.array([[0.4, 0.2, 0.2], [0.4, 0.4, 0.3], [0.2, 0.4, 0.5]])
    assert decide(probs, max_rounds=0).segmentation.tolist() == [0, 1, 2]


def test_regions_are_decided_one_by_one_and_painted_in_order():
    rng = np.random.default_rng(2)
    logits = gaussian_filter(rng.normal(size=(3, 20, 20)), (0, 2, 2)) * 20
    probs = 1 / (1 + np.exp(-logits))  # not nested: the order of painting matters
    decision = decide(probs, regions=NESTED, region_labels=ORDER)
    np.testing.assert_array_equal(decision.argmax, reference.paint(probs, [0.5] * 3, ORDER))
    structures = dict(enumerate(NESTED))
    thresholds, states = [0.5] * 3, [reference.paint(probs, [0.5] * 3, ORDER)]
    for _ in range(20):
        alone = [reference.expected_dice(probs, p > t, {i: (1,)})[0] for i, (p, t) in enumerate(zip(probs, thresholds))]
        thresholds = [e / 2 for e in alone]
        states.append(reference.paint(probs, thresholds, ORDER))
    totals = [sum(reference.expected_dice(probs, state, structures)) for state in states]
    np.testing.assert_array_equal(decision.segmentation, states[int(np.argmax(totals))])
    assert np.nansum(decision.after.dice) == pytest.approx(max(totals)) and max(totals) > totals[0]


def test_a_region_that_was_painted_over_does_not_come_back():
    # region (1,) lies under region (2,) wherever it is above a half; where only 0.4 of it is left, it would show
    probs = np.array([[0.6, 0.4, 0.4, 0.0], [0.9, 0.0, 0.0, 0.0]])
    decision = decide(probs, regions=((1,), (2,)), region_labels=(1, 2))
    assert decision.segmentation.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_and_more_than_one_block(dtype):
    probs = smooth_probabilities(np.random.default_rng(1), 3, (70, 70, 70))
    decision, other = decide(probs), decide(torch.from_numpy(probs).to(dtype))
    assert probs.size > 3 * (1 << 18) and decision.n_changed > 0
    tolerance = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float64: 1e-5}[dtype]
    assert np.count_nonzero(decision.segmentation != other.segmentation) < 3 * tolerance * decision.segmentation.size
    assert other.after.dice == pytest.approx(decision.after.dice, abs=tolerance)


def test_agrees_with_rankseg_in_mean_dice():
    """Its reciprocal-moment solver, on truths that are drawn from the probabilities, voxels beside each other alike."""
    rankseg = pytest.importorskip("rankseg")
    solver = rankseg.RankSEG(metric="dice", solver="RMA", output_mode="multiclass")
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        probs = smooth_probabilities(rng, int(rng.integers(2, 5)), (32, 32, 32))
        ours, theirs = decide(probs), solver.predict(torch.from_numpy(probs)[None])[0].numpy()
        level = gaussian_filter(rng.normal(size=probs.shape[1:]), 1.5)
        level = level.argsort(axis=None).argsort().reshape(level.shape) / level.size  # uniform, so that p is right
        truth = (level > np.cumsum(probs[:-1], 0)).sum(0)
        found.append([mean_dice(truth, s, len(probs)) for s in (ours.argmax, ours.segmentation, theirs)])
    argmax, ours, theirs = np.mean(found, 0)
    assert ours == pytest.approx(theirs, abs=3e-4)
    assert ours > argmax + 3e-4


def smooth_probabilities(rng, num_classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Blurred outlines, most of it background, as a network's."""
    fields = np.stack([gaussian_filter(rng.normal(size=shape), 3) for _ in range(num_classes)])
    logits = 7 * fields / fields.std()
    logits[0] += 5
    probs = np.exp(logits - logits.max(0))
    return (probs / probs.sum(0)).astype(np.float32)


def mean_dice(truth, segmentation, num_classes: int) -> float:
    overlaps = ((truth == k, segmentation == k) for k in range(1, num_classes))
    return float(np.mean([2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in overlaps]))


@pytest.mark.parametrize(
    ("probs", "keywords", "message"),
    [
        (np.ones((2, 3), int), {}, "floating point"),
        (np.full((1, 3), 0.5), {}, "at least two channels"),
        (np.full((2, 3), 0.9), {}, "sum to 1.8"),
        (np.full((2, 3), 0.5), {"beta": 0.0}, "beta must be a positive number, got 0.0"),
        (np.full((2, 3), 0.5), {"beta": float("nan")}, "beta must be"),
        (np.full((2, 3), 0.5), {"present": [0.5, 0.5]}, "for each of 1 structures, got .0.5, 0.5."),
        (np.full((2, 3), 0.5), {"present": [1.1]}, "must hold a probability"),
        (np.full((2, 3), 0.5), {"regions": NESTED}, "belong together"),
        (np.full((2, 3), 0.5), {"regions": NESTED, "region_labels": ORDER}, "3 regions for 2 channels"),
        (np.full((3, 3), 0.5), {"regions": NESTED, "region_labels": (1, 2)}, "one label"),
    ],
)
def test_what_cannot_be_used_is_named(probs, keywords, message):
    with pytest.raises(ValueError, match=message):
        decide(probs, **keywords)
