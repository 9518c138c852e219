"""Groups of cases: folds of a cross-fit, the patient of each case, and predictions for cases that
were left out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

FEWEST_FOLDS = 5
"""Of a cross-fit; training folds are divided until there are as many."""
MOST_FOLDS = 10
"""Of a cross-fit whose folds are drawn."""

ByCase: TypeAlias = Mapping[str, Hashable] | pd.Series
"""A patient, or a fold of a cross-fit, by case."""


def assign_cross_fit_folds(
    groups: Sequence[str], training_folds: Sequence[str] | None = None
) -> list[str]:
    """The fold of the cross-fit of each case; a group never falls into two folds.

    Where there are several training folds, and every group is one case, the folds of the cross-fit
    lie within them: they are the training folds themselves, or, with fewer than ``FEWEST_FOLDS`` of
    them, equal parts of each. Else they are at most ``MOST_FOLDS`` equal parts of the groups, dealt
    by a fixed draw.

    Args:
        groups: Group (patient) of each case.
        training_folds: Fold of the training that each case was held out of.

    Raises:
        ValueError: There is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError("all cases belong to one patient: nothing is left to test on.")
    shuffled = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    every_group_is_one_case = len(names) == len(groups)
    if training_folds is not None and len(set(training_folds)) > 1 and every_group_is_one_case:
        fold_of_group = _divide_training_folds(pd.Series(training_folds, groups).loc[shuffled])
    else:
        num_folds = min(MOST_FOLDS, len(names))
        fold_of_group = {name: f"part_{i % num_folds}" for i, name in enumerate(shuffled)}
    return [fold_of_group[group] for group in groups]


def _divide_training_folds(fold_of_group: pd.Series) -> dict[str, str]:
    """The fold of the cross-fit of each group, by its training fold.

    The parts of a training fold are dealt to its groups in the order of ``fold_of_group``, which
    ``assign_cross_fit_folds`` has drawn.
    """
    num_folds = fold_of_group.nunique()
    parts_of_a_fold = -(-FEWEST_FOLDS // num_folds)  # rounded up
    part = fold_of_group.groupby(fold_of_group).cumcount() % parts_of_a_fold
    cross_fit_folds = {}
    for group, fold in fold_of_group.items():
        name = f"fold_{fold}"
        if parts_of_a_fold > 1:
            name += f"_part_{part[group]}"
        cross_fit_folds[str(group)] = name
    return cross_fit_folds


def look_up_patients(cases: Iterable[str], patients: ByCase) -> list[Hashable]:
    """To whom each case belongs; a case that ``patients`` lack is one by itself."""
    return [patients.get(case, case) for case in cases]


def predict_out_of_fold(
    folds: Sequence[Hashable], predict: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Predictions for the cases of each fold by what the cases of the other folds teach.

    Args:
        folds: (n,) fold of each case.
        predict: Takes two (n,) masks, of the cases to learn from and of those to predict, and gives
            values of the latter, in order.

    Returns:
        (n, ...) what was predicted of each case.
    """
    fold_number = pd.factorize(pd.Series(list(folds)))[0]
    by_fold = []
    for number in range(fold_number.max() + 1):
        is_left_out = fold_number == number
        by_fold.append(predict(~is_left_out, is_left_out))
    order = np.argsort(fold_number, kind="stable")  # in which the folds' cases were put together
    inverse_order = np.argsort(order)
    return np.concatenate(by_fold)[inverse_order]
