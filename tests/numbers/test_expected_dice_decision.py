"""The decision: optimal where an exhaustive search can tell, never worse than the argmax, and as RankSEG decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from nnunet_nacl import decide_for_dice
from nnunet_nacl.numbers.expected_dice import expected_dice
from tests.reference import decision as reference


@st.composite
def probabilities(draw, classes=st.integers(2, 4), voxels=st.integers(1, 7)):
    """(K, N) with tenths as values, so that ties and exact halves occur."""
    num_classes, size = draw(classes), draw(voxels)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.dirichlet(np.full(num_classes, draw(st.sampled_from([0.3, 1.0, 3.0]))), size)
    return np.array([rng.multinomial(10, row) for row in weights]).T / 10


def total(probs, labels) -> float:
    return float(np.nansum(expected_dice(probs, labels)))


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
    assert total(probs, decide_for_dice(probs, max_rounds=6)) == pytest.approx(best(probs), abs=1e-9)


@settings(max_examples=60)
@given(probabilities(classes=st.just(2), voxels=st.integers(1, 9)))
def test_one_structure_gets_the_best_of_all_segmentations(probs):
    assert total(probs, decide_for_dice(probs)) == pytest.approx(reference.largest_total(probs), abs=1e-12)


@settings(max_examples=60)
@given(probabilities(voxels=st.integers(1, 5)))
def test_between_the_argmax_and_the_best_and_what_is_absent_stays_absent(probs):
    argmax, decided = decide_for_dice(probs, max_rounds=0), decide_for_dice(probs)
    np.testing.assert_array_equal(argmax, probs.argmax(0))
    assert total(probs, argmax) - 1e-12 <= total(probs, decided) <= reference.largest_total(probs) + 1e-12
    assert set(np.unique(decided)) <= set(np.unique(argmax)) | {0}


def test_half_precision_and_more_than_one_block():
    probs = smooth_probabilities(np.random.default_rng(1), 3, (70, 70, 70))
    decided, other = decide_for_dice(probs), decide_for_dice(torch.from_numpy(probs).half())
    assert probs.size > 3 * (1 << 18) and (decided != probs.argmax(0)).any()
    assert np.count_nonzero(decided != other) < 3e-3 * decided.size


def test_agrees_with_rankseg_in_mean_dice():
    """Its reciprocal-moment solver, on truths that are drawn from the probabilities, voxels beside each other alike."""
    rankseg = pytest.importorskip("rankseg")
    solver = rankseg.RankSEG(metric="dice", solver="RMA", output_mode="multiclass")
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        probs = smooth_probabilities(rng, int(rng.integers(2, 5)), (32, 32, 32))
        ours, theirs = decide_for_dice(probs), solver.predict(torch.from_numpy(probs)[None])[0].numpy()
        level = gaussian_filter(rng.normal(size=probs.shape[1:]), 1.5)
        level = level.argsort(axis=None).argsort().reshape(level.shape) / level.size  # uniform, so that p is right
        truth = (level > np.cumsum(probs[:-1], 0)).sum(0)
        found.append([mean_dice(truth, s, len(probs)) for s in (probs.argmax(0), ours, theirs)])
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
    ("probs", "message"), [(np.ones((2, 3), int), "floating point"), (np.full((2, 3), 0.9), "sum to 1.8")]
)
def test_what_cannot_be_used_is_named(probs, message):
    with pytest.raises(ValueError, match=message):
        decide_for_dice(probs)
