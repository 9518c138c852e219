"""Cross-fitting: what is reported of a case comes from a map that has not seen it; the choice of the form by it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.fitting import FORMS, Cases, Fit, covariance_of_mean, fit
from nnunet_nacl.calibration.likelihood import case_terms
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import one_line

__all__ = [
    "DEFAULT_FORM",
    "MOST_PARTS",
    "CrossFit",
    "FormScore",
    "choose_form",
    "cross_fit",
    "parts_of",
]

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


@dataclass(frozen=True)
class CrossFit:
    """A map of one form, and the maps that were fitted without each part of the cases.

    Attributes:
        fit: To all cases.
        part_maps: By part, the map that was fitted without it.
        score: On cases that were left out.
    """

    fit: Fit
    part_maps: dict[str, AffineMap]
    score: FormScore


def cross_fit(
    cases: Cases, parts: Sequence[str], forms: Sequence[str] = FORMS, *, groups: Sequence[Hashable] | None = None
) -> dict[str, CrossFit]:
    """Fit maps to all cases and without each part, and compare them on the cases that were left out.

    Args:
        cases: Gives the cases anew for each pass.
        parts: The part of each case.
        forms: Of the maps, poorer ones first, from which richer ones start; ``DEFAULT_FORM`` among them.
        groups: Group (patient) of each case, for the standard errors; None: each its own.

    Returns:
        By form.
    """
    masks = {part: np.array([other == part for other in parts]) for part in sorted(set(parts))}
    fits: dict[str, Fit] = {}
    part_maps: dict[str, dict[str, AffineMap]] = {}
    start: AffineMap | None = None
    for form in forms:
        fits[form] = fit(cases, form, starts=[start], groups=groups)[0]
        start = fits[form].map
        without = fit(cases, form, left_out=list(masks.values()), starts=[start] * len(masks))
        part_maps[form] = {part: one.map for part, one in zip(masks, without)}
    losses: dict[str, list[float]] = {form: [] for form in forms}
    for part, voxels in zip(parts, cases()):
        for form in forms:
            one = part_maps[form][part]
            losses[form].append(case_terms(voxels, np.append(one.slopes, one.offsets)).loss)
    result = {}
    for form, found in losses.items():
        gains = np.array(losses[DEFAULT_FORM]) - found
        error = float(np.sqrt(covariance_of_mean(gains[:, None], groups)[0, 0]))
        score = FormScore(float(np.mean(found)), float(gains.mean()), error)
        result[form] = CrossFit(fits[form], part_maps[form], score)
    return result


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
