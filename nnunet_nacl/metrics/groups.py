"""Groups of cases: parts of a cross-fit, the patient of each case, and what is predicted of a part by the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

LEAST_PARTS, MOST_PARTS = 5, 10

ByCase: TypeAlias = Mapping[str, Hashable] | pd.Series
"""A patient, or a part of a cross-fit, by case."""


def parts_of(groups: Sequence[str], folds: Sequence[str] | None = None) -> list[str]:
    """The name of the part of each case, by the group and the fold of each; a group never falls into two parts.

    Where there are several folds, and every group is one case, parts lie within folds: the folds themselves, or, with
    fewer than ``LEAST_PARTS`` of them, equal parts of each. Else they are at most ``MOST_PARTS`` equal parts of the
    groups, dealt by a fixed draw. ValueError where there is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError("all cases belong to one patient: nothing is left to test on.")
    order = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    if folds is not None and len(set(folds)) > 1 and len(names) == len(groups):
        fold, split = pd.Series(folds, groups).loc[order], -(-LEAST_PARTS // len(set(folds)))
        place = fold.groupby(fold).cumcount() % split
        part = {name: f"fold_{fold[name]}" + f"_part_{place[name]}" * (split > 1) for name in order}
    else:
        part = {name: f"part_{place % min(MOST_PARTS, len(names))}" for place, name in enumerate(order)}
    return [part[group] for group in groups]


def patients_of(cases: Iterable[str], patients: ByCase) -> list:
    """To whom each case belongs; a case that ``patients`` lack is one by itself."""
    return [patients.get(case, case) for case in cases]


def by_others(parts: Sequence[Hashable], predict: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """(n, ...) what is predicted of n cases, of those of each part by what the cases of other parts teach.

    ``predict`` takes two (n,) masks, of the cases that teach and of those to predict, and gives values of the latter.
    """
    number = pd.factorize(pd.Series(list(parts)))[0]
    found = [predict(number != part, number == part) for part in range(number.max() + 1)]
    return np.concatenate(found)[np.argsort(np.argsort(number, kind="stable"))]
