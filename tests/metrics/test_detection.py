"""Scores of yes and no: closed forms, pairs counted one by one, and scikit-learn where it is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.metrics.detection import auroc, binary_brier, binary_ece


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0]), st.booleans()), max_size=12))
def test_auroc_counts_pairs_and_ties_by_half(rows):
    yes, no = ([score for score, true in rows if true is kind] for kind in (True, False))
    pairs = [(a > b) + 0.5 * (a == b) for a in yes for b in no]
    found = auroc([row[0] for row in rows], [row[1] for row in rows])
    assert found == pytest.approx(np.mean(pairs)) if pairs else math.isnan(found)


def test_by_hand():
    p, y = [0.9, 0.8, 0.3, 0.3], [1, 0, 0, 1]
    assert binary_brier(p, y) == pytest.approx((0.01 + 0.64 + 0.09 + 0.49) / 4)
    assert auroc(p, y) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    # bins (0.8, 0.9], (0.7, 0.8], (0.2, 0.3]: |0.9 - 1|, |0.8 - 0|, |0.6 - 1|
    assert binary_ece(p, y) == pytest.approx((0.1 + 0.8 + 0.4) / 4)
    assert binary_ece([0.0, 1.0], [0, 1]) == 0 and math.isnan(binary_ece([], []))
    assert binary_brier([math.nan, 0.5], [1, 1]) == 0.25
    with pytest.raises(ValueError, match="one value for each thing"):
        auroc([0.5], [1, 0])
