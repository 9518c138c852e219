"""Cross-fitting: what is reported of a case comes from a map that has not seen it; the choice of the form by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.json_files import Number, Size
from nnunet_nacl.numbers.case_voxels import Voxels
from nnunet_nacl.numbers.fitting import AFFINE_FORMS, RIDGE, case_loss, fit_affine, fit_conditional
from nnunet_nacl.numbers.log_odds_map import LogOddsMap

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)
"""Ridges of conditional maps, the strongest first; weaker ones are not tried once one does worse on left-out cases than
the one before."""

LEAST_PARTS, MOST_PARTS = 5, 10


def parts_of(groups: Sequence[str], folds: Sequence[str] | None = None) -> list[str]:
    """The part of each case; each part is left out as a whole.

    Args:
        groups: Group of each case; a group never falls into two parts.
        folds: Fold of each case; where there are several, and every group is one case, parts lie within folds: the
            folds themselves, or, with fewer than ``LEAST_PARTS`` of them, equal parts of each.

    Returns:
        Names of parts: of folds, or at most ``MOST_PARTS`` equal parts of the groups, dealt by a fixed draw.

    Raises:
        ValueError: There is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError("all cases belong to one patient: nothing is left to test on.")
    order = np.random.default_rng(0).permutation(len(names))
    if folds is not None and len(set(folds)) > 1 and len(names) == len(groups):
        fold_of, split = dict(zip(groups, folds)), -(-LEAST_PARTS // len(set(folds)))
        dealt: dict[str, int] = {}
        part = {}
        for name in (names[i] for i in order):
            fold = fold_of[name]
            dealt[fold] = place = dealt.get(fold, -1) + 1
            part[name] = f"fold_{fold}" + (f"_part_{place % split}" if split > 1 else "")
    else:
        part = {names[i]: f"part_{place % min(MOST_PARTS, len(names))}" for place, i in enumerate(order)}
    return [part[group] for group in groups]


def patients_of(cases: Iterable[str], patients: Mapping[str, Hashable] | pd.Series) -> list:
    """To whom each case belongs; a case that ``patients`` lack is a patient of its own."""
    return [patients.get(case, case) for case in cases]


@dataclass(frozen=True)
class FormScore:
    """How a form does on cases that its fit left out.

    Attributes:
        form: One of ``FORMS``, or ``given``, a centre of another calibration.
        ridge: Of the fits; infinite for what is the centre itself.
        nll: Mean over cases, in nats per voxel.
        excess: Mean over cases by which it is worse than the best of all.
        standard_error: Of that excess, over groups of cases (patients).
    """

    form: str
    ridge: Size
    nll: Number
    excess: Number
    standard_error: Number


@dataclass(frozen=True)
class CrossFit:
    """A map of one form, and the maps that were fitted without each part of the cases.

    Attributes:
        score: Which form it is, and how it does on cases that were left out.
        map: Fitted to all cases.
        part_maps: By part, the map that was fitted without it.
    """

    score: FormScore
    map: LogOddsMap
    part_maps: dict[str, LogOddsMap]


def cross_fit(
    cases: Sequence[Voxels],
    parts: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    centre: LogOddsMap | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[CrossFit]:
    """Fit maps to all cases and without each part, and compare them on the cases that were left out.

    Args:
        cases: To fit to.
        parts: The part of each case.
        groups: Group (patient) of each case; None: each its own.
        centre: What conditional maps are drawn to; None: the temperature of the same cases.
        progress: Called after each fit.

    Returns:
        One for each form and ridge that was tried, poorer ones first: the affine forms, a given centre, then
        conditional maps.
    """
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    shown: dict[str | None, list[Voxels]] = {None: list(cases)}
    shown |= {part: [case for case, own in zip(cases, parts) if own != part] for part in sorted(set(parts))}
    given = [] if centre is None else [("given", math.inf)]
    plan = [*((form, RIDGE) for form in AFFINE_FORMS), *given, *(("conditional", ridge) for ridge in STRENGTHS)]
    tried: dict[tuple[str, float], dict[str | None, LogOddsMap]] = {}
    losses: list[np.ndarray] = []
    for form, ridge in plan:
        maps: dict[str | None, LogOddsMap] = {}
        for part, among in shown.items():
            if form in AFFINE_FORMS:
                maps[part] = fit_affine(among, form)
            else:
                drawn_to = centre or tried["temperature", RIDGE][part]
                maps[part] = drawn_to if form == "given" else fit_conditional(among, drawn_to, ridge)
            progress()
        tried[form, ridge] = maps
        losses.append(np.array([case_loss(case, maps[part]) for part, case in zip(parts, cases)]))
        if ridge < STRENGTHS[0] and form == "conditional" and losses[-1].mean() > losses[-2].mean():
            break  # a weaker ridge learns still more by heart
    least = min(losses, key=np.mean)
    result = []
    for ((form, ridge), maps), loss in zip(tried.items(), losses):
        excess = loss - least
        score = FormScore(form, ridge, float(loss.mean()), float(excess.mean()), error_of_mean(excess, patients))
        result.append(CrossFit(score, maps.pop(None), {str(part): each for part, each in maps.items()}))
    return result


def error_of_mean(values: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean over cases, those of a group being one draw; NaN with one group."""
    codes = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes, values - values.mean())
    count = len(sums)
    return float(np.sqrt(sums @ sums * count / (count - 1)) / len(values)) if count > 1 else math.nan


def choose(fits: Sequence[CrossFit], form: str = "auto") -> CrossFit:
    """The map in use.

    Args:
        fits: Poorer ones first, as :func:`cross_fit` gives them.
        form: One of ``FORMS``: the best ridge of it. ``auto``: the centre, or a conditional map: the poorest whose
            left-out cases are no worse than those of the best by more than one standard error over patients.
    """
    if form != "auto":
        return min((each for each in fits if each.score.form == form), key=lambda each: each.score.nll)
    centre = "given" if any(each.score.form == "given" for each in fits) else "temperature"
    among = [each for each in fits if each.score.form in (centre, "conditional")]
    best = min(among, key=lambda each: each.score.nll)
    return next(
        each for each in among if each is best or each.score.excess - best.score.excess <= each.score.standard_error
    )
