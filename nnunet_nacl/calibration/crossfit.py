"""Cross-fitting: each case is judged by a map that was fitted without it, and so the form of the
map is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_nacl.calibration.fitting import (
    AFFINE_FORMS,
    RIDGE,
    case_loss,
    fit_affine,
    fit_conditional,
)
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.voxels import Voxels
from nnunet_nacl.json_types import Number, Size

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)
"""Ridges of conditional maps, the strongest first, until one does worse on left-out cases than the
one before."""
PRIOR_FORM = "given"
"""Name, in files too, of the form of a prior map that is tried as it is, without a fit: such as the
map of a model's validation cases, where one's own cases are calibrated."""


@dataclass(frozen=True)
class FormScore:
    """How a form with a ridge does on cases that its fit left out.

    Attributes:
        form: One of :data:`~nnunet_nacl.calibration.fitting.FORMS`, or :data:`PRIOR_FORM`.
        ridge: Strength; infinite for a prior map, which is not fitted.
        nll: Mean over cases, in nats per voxel.
        excess: By how much that is above the best of all forms.
        standard_error: Of that excess, over patients.
    """

    form: str
    ridge: Size
    nll: Number
    excess: Number
    standard_error: Number


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A map of one form.

    Attributes:
        score: How the form does on cases that its fit left out.
        map: Fitted to all cases.
        fold_maps: By fold of the cross-fit, the map that was fitted without that fold.
        losses: (cases,) NLL of each case under the map of the fold that left it out.
        patients: (cases,) to whom each belongs.
    """

    score: FormScore
    map: LogOddsMap
    fold_maps: dict[str, LogOddsMap]
    losses: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class _Fit:
    """The maps of one form and ridge by the fold that was left out; None: no fold was."""

    form: str
    ridge: float
    maps: dict[str | None, LogOddsMap]


def cross_fit(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    prior_map: LogOddsMap | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[CrossFit]:
    """Fits maps to all cases and without each fold, and compares them on the cases that were left
    out.

    Args:
        cases: Voxels of each case.
        folds: Fold of the cross-fit of each case.
        groups: Patient of each case; None if no two have one.
        prior_map: What conditional maps are shrunk towards; None: the temperature of the cases that
            they are fitted to.
        progress: Called after each fit.

    Returns:
        A fit for each form and ridge that was tried: affine forms, the prior map where there is
        one, and conditional maps, those with a stronger ridge, and so less freedom, first.
    """
    with _one_thread():
        fits, losses = _fit_while_better(cases, folds, prior_map, progress)
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    least = min(losses, key=np.mean)
    cross_fits = []
    for fit, loss in zip(fits, losses):
        excess = loss - least
        score = FormScore(
            form=fit.form,
            ridge=fit.ridge,
            nll=float(loss.mean()),
            excess=float(excess.mean()),
            standard_error=error_of_mean(excess, patients),
        )
        fold_maps = {fold: fitted for fold, fitted in fit.maps.items() if fold is not None}
        cross_fits.append(CrossFit(score, fit.maps[None], fold_maps, loss, patients))
    return cross_fits


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch computes in one thread: blocks of voxels are too small for several, which wait for
    each other after each of them, and beside another program that takes up to fifty times as
    long."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _fit_while_better(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    prior_map: LogOddsMap | None,
    progress: Callable[[], object],
) -> tuple[list[_Fit], list[np.ndarray]]:
    """Fits of all forms, until a weaker ridge does worse, and the (cases,) losses of each when a
    case was left out."""
    fits: list[_Fit] = []
    losses: list[np.ndarray] = []
    # Fits are made one by one as the loop asks for them: what follows a `break` is never fitted.
    for fit in _fit_all_forms(cases, folds, prior_map, progress):
        fits.append(fit)
        losses.append(
            np.array([case_loss(case, fit.maps[fold]) for fold, case in zip(folds, cases)])
        )
        is_weaker = fit.form == "conditional" and fit.ridge < STRENGTHS[0]
        if is_weaker and losses[-1].mean() > losses[-2].mean():
            break  # still weaker ridges would learn still more by heart
    return fits, losses


def _fit_all_forms(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    prior_map: LogOddsMap | None,
    progress: Callable[[], object],
) -> Iterator[_Fit]:
    """Fits one form and ridge after another, each to all cases and to those of all folds but
    one."""
    training_sets: dict[str | None, list[Voxels]] = {None: list(cases)}
    for name in sorted(set(folds)):
        training_sets[name] = [case for case, fold in zip(cases, folds) if fold != name]
    temperatures: dict[str | None, LogOddsMap] = {}
    for form in AFFINE_FORMS:
        maps: dict[str | None, LogOddsMap] = {}
        for left_out, training_cases in training_sets.items():
            maps[left_out] = fit_affine(training_cases, form)
            progress()
        if form == "temperature":
            temperatures = maps
        yield _Fit(form, RIDGE, maps)
    if prior_map is not None:
        yield _Fit(PRIOR_FORM, math.inf, dict.fromkeys(training_sets, prior_map))
        for _ in training_sets:
            progress()
    for ridge in STRENGTHS:
        maps = {}
        for left_out, training_cases in training_sets.items():
            shrunk_towards = temperatures[left_out] if prior_map is None else prior_map
            maps[left_out] = fit_conditional(training_cases, shrunk_towards, ridge)
            progress()
        yield _Fit("conditional", ridge, maps)


def error_of_mean(values: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean over cases, those of a group being one draw; NaN with one
    group."""
    number_of_group = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(number_of_group, values - values.mean())
    count = len(sums)
    if count < 2:
        return math.nan
    return float(np.sqrt(sums @ sums * count / (count - 1)) / len(values))


def choose(fits: Sequence[CrossFit], form: str = "auto") -> CrossFit:
    """The map in use, of fits as :func:`cross_fit` gives them.

    Args:
        fits: Forms and ridges that were tried, in the order of :func:`cross_fit`.
        form: One of ``FORMS``, of which the best ridge is taken, or ``auto``. Its candidates are
            the prior map (the temperature where there is none) and the conditional maps. Taken is
            the first of them, and so the one with least freedom, whose NLL on left-out cases
            exceeds that of the best candidate by at most one standard error of the difference.
            ``shift`` is for checkpoints alone and never a candidate.

    Raises:
        ValueError: There is no fit of the form.
    """
    if form != "auto":
        same_form = [fit for fit in fits if fit.score.form == form]
        return min(same_form, key=lambda fit: fit.score.nll)
    forms = {fit.score.form for fit in fits}
    least_free = PRIOR_FORM if PRIOR_FORM in forms else "temperature"
    candidates = [fit for fit in fits if fit.score.form in (least_free, "conditional")]
    best = min(candidates, key=lambda fit: fit.score.nll)
    for fit in candidates:
        worse_by = fit.losses - best.losses
        if worse_by.mean() <= error_of_mean(worse_by, fit.patients):
            return fit
    return best  # the standard error of a single patient is NaN, so that nothing compares
