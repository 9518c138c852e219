"""Fits a calibration map to cases that the network was not trained on, and learns from these what
it may promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import pandas as pd

from nnunet_nacl.calibration.calibration_map import FEWEST_CASES, CalibrationMap, check_patients
from nnunet_nacl.calibration.effect import Change, changes, pooled_changes
from nnunet_nacl.calibration.map_parts import MapQuality
from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.estimators.learned_quality import learn
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.presence import learn_presence
from nnunet_nacl.estimators.recall import learn_recall
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.utilities.errors import UserError, list_problems

PREDICTED_DICE_ERROR = "predicted Dice error"
"""Key of ``effect``: the mean over a case's structures of |expected - true Dice| of nnU-Net's
labels."""

_SCORES = ("ECE", "NLL", "Brier")
"""Of which ``effect`` has the change on each mask."""


def fit_held_out(
    held_out: HeldOut,
    *,
    patients: Mapping[str, str] | None = None,
    form: str = "auto",
    prior_map: LogOddsMap | None = None,
    as_deployed: bool = False,
) -> CalibrationMap:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has
    not seen.

    What a case would be under a map is estimated from its sample, see
    :func:`nnunet_nacl.cases.measure.under`. What the map's file says of the networks and
    the source of the cases is for the caller to add.

    Args:
        held_out: The cases; each record has a sample.
        patients: Patient of each case; None: each case its own.
        form: See :meth:`CalibrationMap.fit_voxels`, as of ``prior_map``.
        prior_map: A map that was not fitted to these cases, towards which theirs is shrunk.
        as_deployed: Whether the cases were predicted as the model is used.

    Raises:
        UserError: There are fewer than ``FEWEST_CASES`` cases, or all are of one patient.
    """
    records = held_out.records
    check_enough(list(records), patients, held_out.problems)
    calibration_map, part_maps = CalibrationMap.fit_voxels(
        {case: record.sample.voxels() for case, record in records.items() if record.sample},
        held_out.labels.structures,
        form=form,
        patients=patients,
        folds=held_out.fold,
        prior_map=prior_map,
        progress=True,
    )
    before = list(records.values())
    after = [under(record, part_maps[case]) for case, record in records.items()]
    patient_of_record = [patients[case] for case in records] if patients is not None else None
    effect = _measure_effect(before, after, patient_of_record)
    quality = _learn_quality(before, after, calibration_map, patients, as_deployed, held_out)
    fitted = replace(calibration_map.fitted, effect=effect, detected=detected_in(table(before)))
    return replace(calibration_map, quality=quality, fitted=fitted)


def check_enough(
    cases: Sequence[str],
    patients: Mapping[str, str] | None = None,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """UserError where there are fewer than ``FEWEST_CASES`` cases, or all are of one patient.

    Args:
        cases: Their names.
        patients: Patient of each; None: each case its own.
        problems: By name, why there are no others.
    """
    if len(cases) < FEWEST_CASES:
        raise UserError(
            f"{len(cases)} held-out cases are too few to calibrate, it takes {FEWEST_CASES}; add"
            f" folds or cases.{list_problems(problems)}"
        )
    if patients is not None:
        check_patients([patients[case] for case in cases])


def _measure_effect(
    before: Sequence[CaseRecord], after: Sequence[CaseRecord], patients: Sequence[str] | None
) -> dict[str, Change]:
    """What the map changes, of the cases each under a map that has not seen it."""
    bins_before = [record.bins["predicted"] for record in before]
    bins_after = [record.bins["predicted"] for record in after]
    pooled = pooled_changes(bins_before, bins_after, patients)
    return pooled | changes(_values_by_case(before), _values_by_case(after), patients)


def _values_by_case(records: Sequence[CaseRecord]) -> pd.DataFrame:
    """A row a case with what calibration may change: scores on each mask, and the error of
    predicted Dice."""
    by_case = scores(records)
    values = {}
    for mask in MASKS:
        for score in _SCORES:
            values[f"{score} {mask}"] = by_case[f"{score}:{mask}"].to_numpy()
    rows = table(records)
    errors = (rows.predicted_dice - rows.Dice).abs().groupby(rows.case, sort=False).mean()
    values[PREDICTED_DICE_ERROR] = errors.to_numpy()
    return pd.DataFrame(values)


def _learn_quality(
    before: Sequence[CaseRecord],
    after: Sequence[CaseRecord],
    calibration_map: CalibrationMap,
    patients: Mapping[str, str] | None,
    as_deployed: bool,
    held_out: HeldOut,
) -> MapQuality:
    """What calibrated predictions tell of Dice, volume, presence and missed voxels."""
    patient_of_case = patients or {case: case for case in held_out.records}
    # By the network's own probabilities, which thresholds are compared with, under any map.
    addable = [record.addable for record in before if record.addable is not None]
    recall = learn_recall(table(before), addable, patient_of_case)
    rows = table(after)
    units = sorted(set(rows.unit))
    if len(units) != 1:  # Dice and volume are not learned, the map can still be used
        return MapQuality(why_not=f"volumes are in {' and '.join(units)}", recall=recall)
    learned = learn(
        rows,
        patient_of_case,
        calibration_map.fitted.part_of,
        as_deployed=as_deployed,
        ignore_label=held_out.labels.ignore_label is not None,
    )
    presence = learn_presence(rows, patient_of_case)
    return MapQuality(unit=units[0], learned=learned, presence=presence, recall=recall)
