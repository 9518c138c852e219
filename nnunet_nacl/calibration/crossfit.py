"""Cross-fitting: what is reported of a case comes from a map that has not seen it; and the choice of the form by it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.fitting import FORMS, Cases, covariance_of_mean, fit
from nnunet_nacl.calibration.likelihood import case_terms
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import one_line

__all__ = ["DEFAULT_FORM", "MOST_PARTS", "FormScore", "choose_form", "compare_forms", "parts_of"]

DEFAULT_FORM = "shift"
MOST_PARTS = 10


@dataclass(frozen=True)
class FormScore:
    """How a form does on cases that its fit left out.

    Attributes:
        nll: Mean over cases, in nats per voxel.
        gain: Mean over cases by which it is better than ``shift``.
        standard_error: Of that gain, over groups of cases (patients).
    """

    nll: float
    gain: float
    standard_error: float


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


def left_out_masks(parts: Sequence[str]) -> dict[str, np.ndarray]:
    """For each part which cases are in it."""
    return {part: np.array([other == part for other in parts]) for part in sorted(set(parts))}


def compare_forms(
    cases: Cases, parts: Sequence[str], forms: Sequence[str] = FORMS, *, groups: Sequence[Hashable] | None = None
) -> tuple[dict[str, FormScore], dict[str, dict[str, AffineMap]]]:
    """Held-out negative log likelihood of each form.

    Args:
        cases: Gives the cases anew for each pass.
        parts: The part of each case.
        forms: Which are compared; ``DEFAULT_FORM`` among them.
        groups: Group (patient) of each case, for the standard errors; None: each its own.

    Returns:
        The scores, and by form the map of each part, fitted without it.
    """
    masks = left_out_masks(parts)
    maps = {form: [one.map for one in fit(cases, form, left_out=list(masks.values()))] for form in forms}
    by_part = {form: dict(zip(masks, found)) for form, found in maps.items()}
    losses: dict[str, list[float]] = {form: [] for form in forms}
    for part, voxels in zip(parts, cases()):
        for form in forms:
            one = by_part[form][part]
            losses[form].append(case_terms(voxels, np.append(one.slopes, one.offsets)).loss)
    scores = {}
    for form, found in losses.items():
        gains = np.array(losses[DEFAULT_FORM]) - found
        error = float(np.sqrt(covariance_of_mean(gains[:, None], groups)[0, 0]))
        scores[form] = FormScore(float(np.mean(found)), float(gains.mean()), error)
    return scores, by_part


def choose_form(scores: Mapping[str, FormScore]) -> str:
    """``shift``; ``logodds`` where it is better by more than one standard error over patients.

    ``temperature`` where the offsets of ``shift`` do not pay at all, as with few cases.

    Slopes that differ can reorder foreground classes: z = (-20, 10, 0) and a = (0.5, 0.8) turn a probability of
    0.99995 into 0.27. So the richer form has to earn its place.
    """
    richer, poorer = scores.get("logodds"), scores.get("temperature")
    if richer is not None and richer.gain > richer.standard_error:
        return "logodds"
    return "temperature" if poorer is not None and poorer.gain > 0 else DEFAULT_FORM
