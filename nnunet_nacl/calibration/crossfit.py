"""Cross-fitting: what is reported of a case comes from a map that has not seen it; the choice of the form by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.fitting import AFFINE_FORMS, FORMS, MOST_FOR_MATRIX, RIDGE, Fit, covariance_of_mean, fit
from nnunet_nacl.calibration.likelihood import Voxels, case_loss
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import one_line

RIDGES = {
    "temperature": (RIDGE,),
    "shift": (RIDGE,),
    "conditional": (1e-3, 1e-4, 1e-5),
    "matrix": (1e-3, 1e-4, 1e-5, 1e-6),
}
"""Ridges of each form, the strongest first: a conditional map of few cases would learn them by heart. Weaker ones are
not tried once one does worse on left-out cases than the one before."""

FEWEST_PATIENTS = 5
"""A label that fewer patients have (of a region: that fewer have of this region) is treated as in ``shift``."""
MOST_PARTS = 10


def parts_of(groups: Sequence[str], folds: Sequence[str] | None = None) -> list[str]:
    """The part of each case; each part is left out as a whole.

    Args:
        groups: Group of each case; a group never falls into two parts.
        folds: Fold of each case; where there are several, and every group is one case, they are the parts.

    Returns:
        Names of parts: folds, or at most ``MOST_PARTS`` equal parts of the groups, dealt by a fixed draw.

    Raises:
        UserError: There is only one group.
    """
    names = sorted(set(groups))
    if folds is not None and len(set(folds)) > 1 and len(names) == len(groups):
        return [f"fold_{fold}" for fold in folds]
    if len(names) < 2:
        raise UserError(f"all cases belong to one patient, {one_line(names[0])}: nothing is left to test on.")
    order = np.random.default_rng(0).permutation(len(names))
    part = {names[i]: f"part_{place % min(MOST_PARTS, len(names))}" for place, i in enumerate(order)}
    return [part[group] for group in groups]


@dataclass(frozen=True)
class FormScore:
    """How a form does on cases that its fit left out.

    Attributes:
        nll: Mean over cases, in nats per voxel.
        excess: Mean over cases by which it is worse than the best of all.
        standard_error: Of that excess, over groups of cases (patients).
    """

    nll: float
    excess: float
    standard_error: float


@dataclass(frozen=True)
class CrossFit:
    """A map of one form, and the maps that were fitted without each part of the cases.

    Attributes:
        form: One of ``FORMS``.
        ridge: Of the fits.
        fit: To all cases.
        part_maps: By part, the map that was fitted without it.
        score: On cases that were left out.
    """

    form: str
    ridge: float
    fit: Fit
    part_maps: dict[str, CalibrationMap]
    score: FormScore


def cross_fit(
    cases: Sequence[Voxels],
    parts: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[CrossFit]:
    """Fit maps to all cases and without each part, and compare them on the cases that were left out.

    Args:
        cases: To fit to.
        parts: The part of each case.
        groups: Group (patient) of each case; None: each its own.
        progress: Called after each fit.

    Returns:
        One for each form and ridge that was tried, poorer ones first.
    """
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    kept = {None: np.ones(len(cases), bool)} | {part: np.asarray(parts) != part for part in sorted(set(parts))}
    fits: dict[tuple[str, float], dict[str | None, Fit]] = {}
    losses: dict[tuple[str, float], np.ndarray] = {}
    last: dict[str | None, Fit] = {}
    for form in forms_for(len(cases[0].log_odds), cases[0].regions):  # each fit begins where the one before it ended
        best = np.inf
        for ridge in RIDGES[form]:
            found: dict[str | None, Fit] = {}
            for part, keep in kept.items():
                shown = [voxels for voxels, use in zip(cases, keep) if use]
                near = last.get(part) or found.get(None)
                start = near.map if near else None
                options: dict[str, Any] = {"groups": patients[keep].tolist(), "with_errors": part is None}
                found[part] = fit(shown, form, start=start, ridge=ridge, **options)
                if form not in AFFINE_FORMS:
                    poorer = fits["shift", RIDGE][part]
                    found[part] = found[part].with_rows_of(poorer, _thin(shown, patients[keep]), shown)
                progress()
            fits[form, ridge] = last = found
            left_out = [case_loss(voxels, *found[part].map.tables()) for part, voxels in zip(parts, cases)]
            losses[form, ridge], mean = np.array(left_out), float(np.mean(left_out))
            if mean > best:  # a weaker ridge learns still more by heart
                break
            best = mean
    least = min(losses.values(), key=np.mean)
    result = []
    for (form, ridge), found in fits.items():
        excess = losses[form, ridge] - least
        error = float(np.sqrt(covariance_of_mean(excess[:, None], patients)[0, 0]))
        score = FormScore(float(losses[form, ridge].mean()), float(excess.mean()), error)
        part_maps = {part: one.map for part, one in found.items() if part is not None}
        result.append(CrossFit(form, ridge, found[None], part_maps, score))
    return result


def forms_for(num: int, regions: bool) -> tuple[str, ...]:
    """The forms that can be fitted to ``num`` structures."""
    return tuple(form for form in FORMS if form != "matrix" or (not regions and 1 < num <= MOST_FOR_MATRIX))


def _thin(cases: Sequence[Voxels], patients: np.ndarray) -> np.ndarray:
    """(P, m) labels that fewer than ``FEWEST_PATIENTS`` patients have, so that nothing can be learned of them."""
    there = np.array([voxels.labels_there for voxels in cases])
    having = np.sum([there[patients == patient].any(0) for patient in np.unique(patients)], axis=0)
    return having < FEWEST_PATIENTS


def choose(fits: Sequence[CrossFit], form: str = "auto") -> CrossFit:
    """The poorest whose left-out cases are no worse than the best by more than one standard error over patients.

    Args:
        fits: Poorer ones first, as :func:`cross_fit` gives them.
        form: Choose among the ridges of this form alone; ``auto``: among all.
    """
    fits = [one for one in fits if form in ("auto", one.form)]
    best = min(fits, key=lambda one: one.score.nll)
    return next(one for one in fits if one is best or one.score.excess - best.score.excess <= one.score.standard_error)
