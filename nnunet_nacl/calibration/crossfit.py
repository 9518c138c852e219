"""Cross-fitting: what is reported of a case comes from a map that has not seen it; and the choice of the form by it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.fitting import FORMS, Cases, fit
from nnunet_nacl.calibration.likelihood import case_terms
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import mismatch, one_line, read_dict

__all__ = ["DEFAULT_FORM", "MOST_PARTS", "FormScore", "choose_form", "compare_forms", "parts_of", "read_groups"]

DEFAULT_FORM = "shift"
MOST_PARTS = 10


@dataclass(frozen=True)
class FormScore:
    """How a form does on cases that its fit left out.

    Attributes:
        nll: Mean over cases, in nats per voxel.
        gain: Mean over cases by which it is better than ``shift``.
        standard_error: Of that gain, over cases.
    """

    nll: float
    gain: float
    standard_error: float


def read_groups(given: str | None, cases: Sequence[str]) -> dict[str, str]:
    """The group (patient) of each case.

    Args:
        given: A .json file with ``{"case": "patient"}``, or a regular expression that is searched in the case's name
            and whose first group, or whole match, is the patient. None makes each case its own.
        cases: Names.

    Raises:
        UserError: The file or expression cannot be used, or leaves a case without a group.
    """
    if given is None:
        return {case: case for case in cases}
    if given.endswith(".json"):
        table = read_dict(Path(given))
        if wrong := mismatch(table, {"*": (str, int)}):
            raise UserError(f"{given}: {wrong}; it must be an object with the patient of each case, as text.")
        found = {case: str(table[case]) if case in table else None for case in cases}
    else:
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise UserError(
                f"-groups {given!r} is neither a .json file nor a regular expression ({error}); "
                "for patient001_frame01 it would be '^(patient[0-9]+)'."
            ) from None
        matches = {case: pattern.search(case) for case in cases}
        found = {case: match and match.group(1 if pattern.groups else 0) for case, match in matches.items()}
    missing = [case for case, group in found.items() if group is None]
    if missing:
        raise UserError(f"-groups {given!r} gives no patient for {len(missing)} cases, {one_line(missing[0])} first.")
    return {case: str(group) for case, group in found.items()}


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
    cases: Cases, parts: Sequence[str], forms: Sequence[str] = FORMS
) -> tuple[dict[str, FormScore], dict[str, dict[str, AffineMap]]]:
    """Held-out negative log likelihood of each form.

    Args:
        cases: Gives the cases anew for each pass.
        parts: The part of each case.
        forms: Which are compared; ``DEFAULT_FORM`` among them.

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
        error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
        scores[form] = FormScore(float(np.mean(found)), float(gains.mean()), float(error))
    return scores, by_part


def choose_form(scores: Mapping[str, FormScore]) -> str:
    """``shift``; ``logodds`` where it is better by more than one standard error over cases.

    ``temperature`` where the offsets of ``shift`` do not pay at all, as with few cases.

    Slopes that differ can reorder foreground classes: z = (-20, 10, 0) and a = (0.5, 0.8) turn a probability of
    0.99995 into 0.27. So the richer form has to earn its place.
    """
    richer, poorer = scores.get("logodds"), scores.get("temperature")
    if richer is not None and richer.gain > richer.standard_error:
        return "logodds"
    return "temperature" if poorer is not None and poorer.gain > 0 else DEFAULT_FORM
