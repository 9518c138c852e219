"""The labels that are chosen for expected Dice: against all label maps, and rankseg's solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from nnunet_nacl import decide_for_dice
from nnunet_nacl.metrics.expected_dice import expected_dice
from tests.reference import decision as reference


@st.composite
def probabilities(draw):
    """(K, N) with tenths as values, so that ties and exact halves occur."""
    num_classes, size = draw(st.sampled_from([(2, 8), (2, 5), (3, 5), (4, 4), (4, 1)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weights = rng.dirichlet(np.full(num_classes, draw(st.sampled_from([0.3, 1.0, 3.0]))), size)
    return np.array([rng.multinomial(10, row) for row in weights]).T / 10


def total(probs, labels) -> float:
    return float(np.nansum(expected_dice(probs, labels)))


@settings(max_examples=60)
@given(probabilities())
def test_one_structure_gets_the_best_of_all_labels_and_several_between_the_argmax_and_it(probs):
    argmax, decided = decide_for_dice(probs, max_rounds=0), decide_for_dice(probs)
    np.testing.assert_array_equal(argmax, probs.argmax(0))
    best = reference.largest_total(probs)
    assert (
        (best if len(probs) == 2 else total(probs, argmax)) - 1e-12
        <= total(probs, decided)
        <= best + 1e-12
    )
    assert set(np.unique(decided)) <= set(np.unique(argmax)) | {0}


def test_half_precision_and_more_than_one_block():
    probs = smooth_probabilities(np.random.default_rng(1), 3, (70, 70, 70))
    decided, other = decide_for_dice(probs), decide_for_dice(torch.from_numpy(probs).half())
    assert probs.size > 3 * (1 << 18) and (decided != probs.argmax(0)).any()
    assert np.count_nonzero(decided != other) < 3e-3 * decided.size


def test_a_negative_number_of_rounds_is_refused():
    with pytest.raises(ValueError, match="max_rounds must be at least 0, got -1"):
        decide_for_dice(np.full((2, 3), 0.5), max_rounds=-1)


def test_agrees_with_rankseg_in_mean_dice():
    """Its reciprocal-moment solver, on truths that are drawn from the probabilities, voxels beside
    each other alike."""
    rankseg = pytest.importorskip("rankseg")
    solver = rankseg.RankSEG(metric="dice", solver="RMA", output_mode="multiclass")
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        probs = smooth_probabilities(rng, int(rng.integers(2, 5)), (32, 32, 32))
        ours, theirs = (
            decide_for_dice(probs),
            solver.predict(torch.from_numpy(probs)[None])[0].numpy(),
        )
        level = gaussian_filter(rng.normal(size=probs.shape[1:]), 1.5)
        # uniform, so that p is right
        level = level.argsort(axis=None).argsort().reshape(level.shape) / level.size
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
