"""Cross-fitting: each case is judged by a map that was fitted without it, and so the form of the
map is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_nacl.estimators.fitting import RIDGE, case_loss, fit_conditional, fit_temperature
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.utilities.json_types import Number, Size

RIDGES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Of conditional maps, the strongest first."""
PRIOR_FORM = "given"
"""Name, in files too, of the form of a prior map that is tried as it is, without a fit: such as the
map of a model's validation cases, where one's own cases are calibrated."""


@dataclass(frozen=True, eq=False)
class CrossFit:
    """A map of one form.

    Attributes:
        form: One of :data:`~nnunet_nacl.estimators.fitting.FORMS`, or :data:`PRIOR_FORM`.
        ridge: Strength; infinite for a prior map, which is not fitted.
        map: Fitted to all cases.
        fold_maps: By fold of the cross-fit, the map that was fitted without that fold.
        losses: (cases,) NLL of each case, in nats per voxel, under the map of the fold that left it
            out.
        patients: (cases,) to whom each belongs.
    """

    form: str
    ridge: float
    map: LogOddsMap
    fold_maps: Mapping[str, LogOddsMap]
    losses: np.ndarray
    patients: np.ndarray

    @property
    def nll(self) -> float:
        """Mean over cases of the NLL of each, which the fit left out."""
        return float(self.losses.mean())


@dataclass(frozen=True)
class FormScore:
    """How a form with a ridge does on cases that its fit left out, as files hold it.

    Attributes:
        form: One of :data:`~nnunet_nacl.estimators.fitting.FORMS`, or :data:`PRIOR_FORM`.
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


def cross_fit(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    *,
    groups: Sequence[Hashable] | None = None,
    prior_map: LogOddsMap | None = None,
    ridges: Sequence[float] = RIDGES,
    progress: Callable[[], object] = lambda: None,
) -> list[CrossFit]:
    """Fits maps to all cases and without each fold.

    Args:
        cases: Voxels of each case.
        folds: Fold of the cross-fit of each case.
        groups: Patient of each case; None if no two have one.
        prior_map: What conditional maps are shrunk towards; None: the temperature of the cases that
            they are fitted to.
        ridges: Of conditional maps, the strongest first.
        progress: Called after each fit.

    Returns:
        A fit for each form and ridge that was tried: the temperature, the prior map where there is
        one, and conditional maps, those with a stronger ridge, and so less freedom, first, until a
        weaker one does worse on left-out cases than the one before.
    """
    patients = np.arange(len(cases)) if groups is None else np.asarray(groups)
    fits: list[CrossFit] = []
    with _one_thread():
        # Maps are made one by one as the loop asks for them: what follows a `break` is not fitted.
        for form, ridge, maps in _fit_all_forms(cases, folds, prior_map, ridges, progress):
            losses = np.array([case_loss(case, maps[fold]) for fold, case in zip(folds, cases)])
            fold_maps = {fold: fitted for fold, fitted in maps.items() if fold is not None}
            fits.append(CrossFit(form, ridge, maps[None], fold_maps, losses, patients))
            is_weaker = form == "conditional" and ridge < ridges[0]
            if is_weaker and fits[-1].nll > fits[-2].nll:
                break  # still weaker ridges would learn still more by heart
    return fits


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


def _fit_all_forms(
    cases: Sequence[Voxels],
    folds: Sequence[str],
    prior_map: LogOddsMap | None,
    ridges: Sequence[float],
    progress: Callable[[], object],
) -> Iterator[tuple[str, float, dict[str | None, LogOddsMap]]]:
    """Form, ridge and maps of one fit after another; the maps are by the fold that was left out,
    None for that of all cases."""
    training_sets: dict[str | None, list[Voxels]] = {None: list(cases)}
    for name in sorted(set(folds)):
        training_sets[name] = [case for case, fold in zip(cases, folds) if fold != name]
    temperatures = {}
    for left_out, training_cases in training_sets.items():
        temperatures[left_out] = fit_temperature(training_cases)
        progress()
    yield "temperature", RIDGE, temperatures
    if prior_map is not None:
        yield PRIOR_FORM, math.inf, dict.fromkeys(training_sets, prior_map)
        for _ in training_sets:
            progress()
    for ridge in ridges:
        maps = {}
        for left_out, training_cases in training_sets.items():
            shrunk_towards = temperatures[left_out] if prior_map is None else prior_map
            maps[left_out] = fit_conditional(training_cases, shrunk_towards, ridge)
            progress()
        yield "conditional", ridge, maps


def score_forms(fits: Sequence[CrossFit]) -> list[FormScore]:
    """How each fit does beside the best of all."""
    least = min((fit.losses for fit in fits), key=np.mean)
    scores = []
    for fit in fits:
        excess = fit.losses - least
        standard_error = error_of_mean(excess, fit.patients)
        scores.append(FormScore(fit.form, fit.ridge, fit.nll, float(excess.mean()), standard_error))
    return scores


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

    Raises:
        ValueError: There is no fit of the form.
    """
    if form != "auto":
        same_form = [fit for fit in fits if fit.form == form]
        return min(same_form, key=lambda fit: fit.nll)
    forms = {fit.form for fit in fits}
    least_free = PRIOR_FORM if PRIOR_FORM in forms else "temperature"
    candidates = [fit for fit in fits if fit.form in (least_free, "conditional")]
    best = min(candidates, key=lambda fit: fit.nll)
    for fit in candidates:
        worse_by = fit.losses - best.losses
        if worse_by.mean() <= error_of_mean(worse_by, fit.patients):
            return fit
    return best  # the standard error of a single patient is NaN, so that nothing compares
