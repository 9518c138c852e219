"""Cross-fitting: each case is judged by a map that was fitted without it, and so the form of the map is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.calibration.fitting import AFFINE_FORMS, RIDGE, Voxels, case_loss, fit_affine, fit_conditional
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.json_types import Number, Size

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)
"""Ridges of conditional maps, the strongest first, until one does worse on left-out cases than the one before."""


@dataclass(frozen=True)
class FormScore:
    """How a form (or ``given``, a centre) with a ridge, infinite for the centre, does on cases that its fit left out.

    ``nll`` is the mean over cases in nats per voxel, ``excess`` by how much that is above the best of all, with its
    ``standard_error`` over patients.
    """

    form: str
    ridge: Size
    nll: Number
    excess: Number
    standard_error: Number


@dataclass(frozen=True)
class CrossFit:
    """A map of one form, fitted to all cases, how the form does, and by part the maps that were fitted without it."""

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

    Conditional maps are drawn to ``centre``, or to the temperature of the cases that they are fitted to. ``groups`` is
    the patient of each case, None if no two have one. ``progress`` is called after each fit. The result has a fit for
    each form and ridge that was tried, poorer ones first: affine forms, a given centre, conditional maps.
    """
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    shown: dict[str | None, list[Voxels]] = {None: list(cases)}
    shown |= {
        part: [case for case, part_of_case in zip(cases, parts) if part_of_case != part] for part in sorted(set(parts))
    }
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
        result.append(CrossFit(score, maps.pop(None), {str(part): fitted for part, fitted in maps.items()}))
    return result


def error_of_mean(values: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean over cases, those of a group being one draw; NaN with one group."""
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values - values.mean())
    count = len(sums)
    return float(np.sqrt(sums @ sums * count / (count - 1)) / len(values)) if count > 1 else math.nan


def choose(fits: Sequence[CrossFit], form: str = "auto") -> CrossFit:
    """The map in use, of fits as :func:`cross_fit` gives them.

    ``form`` is one of ``FORMS``, of which the best ridge is taken, or ``auto``: the centre or a conditional map, the
    poorest whose left-out cases are no worse than those of the best by more than one standard error over patients.
    """
    if form != "auto":
        return min((fit for fit in fits if fit.score.form == form), key=lambda fit: fit.score.nll)
    centre = "given" if any(fit.score.form == "given" for fit in fits) else "temperature"
    among = [fit for fit in fits if fit.score.form in (centre, "conditional")]
    best = min(among, key=lambda fit: fit.score.nll)
    return next(fit for fit in among if fit is best or fit.score.excess - best.score.excess <= fit.score.standard_error)
