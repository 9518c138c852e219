"""Fits a map to the records of held-out cases, learns how far predicted Dice is off, and reads groups of patients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import FEWEST_CASES, CalibrationMap, MapQuality
from nnunet_nacl.calibrate.effect import changes, pooled_changes
from nnunet_nacl.case.case import MASKS
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.measure import under
from nnunet_nacl.case.record import CaseRecord, scores, table
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.numbers.crossfit import STRENGTHS, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import AFFINE_FORMS, FORMS
from nnunet_nacl.numbers.learned_quality import learn
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.overlap import Detected
from nnunet_nacl.numbers.presence import learn_presence
from nnunet_nacl.numbers.recall import learn_recall

PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's labels."""


def fit(
    records: Mapping[str, CaseRecord],
    labels: Labels,
    *,
    folds: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    form: str = "auto",
    centre: LogOddsMap | None = None,
    as_deployed: bool = False,
    problems: Mapping[str, str] | None = None,
    progress: bool = False,
) -> CalibrationMap:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    What a map makes of a case follows from its sample. What the map's file says of the networks and the source of the
    cases is for the caller to add.

    Args:
        records: By case, each with a sample.
        labels: Of the cases.
        folds: Fold of each case, where there are several.
        patients: Patient of each case; None: each case its own.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.numbers.crossfit.choose`.
        centre: A map of the same structures, not fitted to these cases, towards which theirs is drawn; None: their own
            temperature.
        as_deployed: Whether the cases were predicted as the model is used.
        problems: By name, why other cases cannot be used; for the message where there are too few.
        progress: Show a bar on stderr.

    Raises:
        UserError: There are fewer than ``FEWEST_CASES`` cases, or all are of one patient.
    """
    from tqdm import tqdm

    if form not in ("auto", *FORMS):
        raise UserError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")
    if len(records) < FEWEST_CASES:
        raise UserError(
            f"{len(records)} held-out cases are too few to calibrate, it takes {FEWEST_CASES}; add folds or "
            f"cases.{list_problems(problems or {})}"
        )
    cases = list(records)
    groups = [patients[case] if patients else case for case in cases]
    if len(set(groups)) < 2:
        raise UserError(f"all cases belong to one patient, {one_line(groups[0])}: nothing is left to test on.")
    several = folds is not None and len(set(folds.values())) > 1
    parts = parts_of(groups, [folds[case] for case in cases] if folds and several else None)
    voxels = [record.sample.voxels() for record in records.values() if record.sample]
    total = (1 + len(set(parts))) * (len(AFFINE_FORMS) + len(STRENGTHS) + (centre is not None))
    with tqdm(total=total, desc="fit, at most", unit="fit", leave=False, disable=not progress) as bar:
        tried = cross_fit(voxels, parts, groups=groups, centre=centre, progress=bar.update)
    chosen = choose(tried, form)
    before = list(records.values())
    after = [under(record, chosen.part_maps[part]) for record, part in zip(before, parts)]
    structures = labels.structures
    rows, of_groups = ["out", "in"] if labels.regions else list(labels.names), dict(zip(cases, groups))
    of_parts, ignore = dict(zip(cases, parts)), labels.ignore_label is not None
    made = CalibrationMap.of_fits(tried, chosen, structures, rows, voxels, of_parts, of_groups if patients else {})
    of_cases = groups if patients else None
    old, new = ([record.bins["predicted"] for record in side] for side in (before, after))
    effect = pooled_changes(old, new, of_cases) | changes(_values(before), _values(after), of_cases)
    recall = learn_recall(table(before), [each.addable for each in before if each.addable is not None], of_groups)
    return replace(
        made,
        fitted=replace(made.fitted, effect=effect, detected=detected_in(table(before))),
        quality=replace(_learn(table(after), of_groups, of_parts, as_deployed, ignore), recall=recall),
    )


def detected_in(cases: pd.DataFrame) -> dict[str, Detected]:
    """By structure, what the segmentations of cases find of it.

    Args:
        cases: A row a case and structure, see :func:`nnunet_nacl.case.record.table`.
    """
    return {
        str(key): Detected.of(rows.Dice, rows.TP + rows.FN > 0, rows.TP + rows.FP > 0)
        for key, rows in cases.groupby("key", sort=False)
    }


def _values(records: list[CaseRecord]) -> pd.DataFrame:
    """A row a case with what calibration may change: scores on each mask, and the error of predicted Dice."""
    found, cases = scores(records), table(records)
    values = {
        f"{metric} {mask}": found[f"{metric}:{mask}"].to_numpy() for mask in MASKS for metric in ("ECE", "NLL", "Brier")
    }
    errors = (cases.predicted_dice - cases.Dice).abs().groupby(cases.case, sort=False).mean()
    return pd.DataFrame({**values, PREDICTED_DICE_ERROR: errors.to_numpy()})


def _learn(
    cases: pd.DataFrame, patients: Mapping[str, str], parts: Mapping[str, str], as_deployed: bool, ignore_label: bool
) -> MapQuality:
    """What held-out cases teach of Dice, volumes and presence, and how it does on cases that it has not seen.

    With ``why_not`` where the volumes of the cases have different units: calibration does not fail by it.
    """
    counts, units = (len(patients), len(set(patients.values()))), sorted(set(cases.unit))
    if len(units) != 1:
        return MapQuality("", *counts, f"volumes are in {' and '.join(units)}")
    learned = learn(cases, patients, parts, as_deployed=as_deployed, ignore_label=ignore_label)
    return MapQuality(units[0], *counts, "", learned, learn_presence(cases, patients))


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
        fix = "it must be an object with the patient of each case, as text"
        table = decode(dict[str, str | int], read_dict(Path(given)), given, fix=fix)
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
