"""Which cases teach whom."""

from __future__ import annotations

import numpy as np

from nnunet_nacl.estimators.learned_quality import predict_dice_out_of_fold
from tests.estimators.problems import quality_of


def test_no_case_teaches_its_own_fold():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.5, 0.9, 30)
    true = predicted - 0.1 + rng.normal(0, 0.02, 30)
    fold = np.arange(30) // 3
    fold_of_case = {f"case_{i}": number for i, number in enumerate(fold)}

    def predict_low_ends(true_of_first: np.ndarray, key: str) -> np.ndarray:
        table = quality_of({"1": (predicted, true_of_first), "2": (predicted, predicted)})
        with_intervals = predict_dice_out_of_fold(table, {}, fold_of_case)
        rows = with_intervals[with_intervals.key == key]
        assert rows.predicted_dice.tolist() == predicted.tolist()
        return rows.predicted_dice_low.to_numpy()

    changed = np.where(fold == 4, 0.0, true)
    is_unchanged = predict_low_ends(true, "1") == predict_low_ends(changed, "1")
    assert (is_unchanged == (fold == 4)).all()
    assert (predict_low_ends(true, "2") == predict_low_ends(changed, "2")).all()
