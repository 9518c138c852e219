"""What held-out cases teach about others: how far Dice and volumes are off, and scores of scans."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_nacl.estimators.intervals import (
    EstimateCheck,
    StructureEstimate,
    check_estimate,
    predict_intervals_out_of_fold,
)
from nnunet_nacl.estimators.presence import predict_presence_out_of_fold
from nnunet_nacl.estimators.scan_scores import DIGITS, ScanScores, structure_score
from nnunet_nacl.metrics.groups import ByCase, look_up_patients

PREDICTED_DICE = "predicted_dice"
PREDICTED_DICE_LOW = "predicted_dice_low"
DICE_COLUMNS = [PREDICTED_DICE, PREDICTED_DICE_LOW, "predicted_dice_high"]
"""Columns of predicted Dice and the ends of its intervals, whose level is 1 - ``DEFAULT_ALPHA``."""
SINGLE_NETWORKS = "from single networks; the errors of an ensemble may differ"
"""Said beside what was not learned from predictions as they are deployed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedQuality:
    """Estimates of Dice and volume of nnU-Net's labels, and what flags are learned from.

    Attributes:
        as_deployed: Whether cases were predicted as in use (a held-out folder), not by networks of
            a cross-validation.
        dice: By structure, how far true Dice lies from predicted Dice.
        volume: By structure, how far true volumes lie from predicted ones.
        checks: For ``dice`` and ``volume``, by structure, how they do on cases that were left out.
        scores: Of the calibration scans, by which scans are flagged.
    """

    as_deployed: bool
    dice: dict[str, StructureEstimate]
    volume: dict[str, StructureEstimate]
    checks: dict[str, dict[str, EstimateCheck]]
    scores: ScanScores

    def __post_init__(self) -> None:
        if any(estimate.voxel is not None for estimate in self.dice.values()):
            raise ValueError("dice: volumes, and they alone, have the volume of a voxel")
        if any(estimate.voxel is None for estimate in self.volume.values()):
            raise ValueError("volume: volumes, and they alone, have the volume of a voxel")
        for key in self.dice.keys() & self.scores.score.keys():
            self._check_number_of_scores(key)

    def _check_number_of_scores(self, key: str) -> None:
        """ValueError where too few scans have a score of a structure.

        Every scan must have one of a structure that all scans have; of another at least as many as
        had a predicted Dice.
        """
        scores = self.scores
        n_scores = np.count_nonzero(~np.isnan(scores.score[key]))
        n_predicted = len(scores.patient) if key in scores.always else len(self.dice[key].patient)
        if n_scores < n_predicted:
            raise ValueError(
                f"scores.score.{key}: {n_scores} scans have a score, {n_predicted} were predicted."
            )

    def no_better(self, kind: str) -> dict[str, EstimateCheck]:
        """The checks of the structures of which the predicted ``dice``, or ``volume``, was no
        closer to the true one than the mean of the calibration cases."""
        checks = self.checks.get(kind, {})
        return {key: check for key, check in checks.items() if check.is_no_better}

    def predict_dice(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of other cases than it was learned from, with the columns of ``DICE_COLUMNS``.

        The table has a row for each case and structure, with ``key`` and ``predicted_dice``.
        """
        return _with_intervals(
            table, lambda key, rows: self.dice[key].predict(rows[PREDICTED_DICE])
        )


def learn(
    table: pd.DataFrame,
    patients: ByCase,
    folds: ByCase,
    *,
    as_deployed: bool,
    ignore_label: bool = False,
) -> LearnedQuality:
    """Learn from a table of held-out cases, each under a map that was fitted without it.

    Args:
        table: A row for each case and structure, of :func:`nnunet_nacl.cases.record.table`. Used
            are ``case``, ``key``, ``voxel_volume``, ``entropy``, ``Dice``, ``predicted_dice``,
            ``true_volume``, ``predicted_volume``, and what
            :func:`~nnunet_nacl.estimators.presence.learn_presence` takes.
        patients: Patient of each case.
        folds: Fold of the cross-fit of each case; a patient's cases lie in one.
        as_deployed: Whether cases were predicted as in use.
        ignore_label: A structure may be where nobody annotated it: then scores know nothing of
            presence.
    """
    voxel_volume = float(table.voxel_volume.median())
    dice: dict[str, StructureEstimate] = {}
    dice_checks: dict[str, EstimateCheck] = {}
    volume: dict[str, StructureEstimate] = {}
    volume_checks: dict[str, EstimateCheck] = {}
    for name, rows in table.groupby("key", sort=False):
        key = str(name)
        owners = look_up_patients(rows.case, patients)
        predicted_dice = _predicted_where_present(rows, PREDICTED_DICE)
        dice[key] = StructureEstimate.fit(predicted_dice, rows.Dice, owners)
        # Not by `folds`: a check deals its own among the cases whose values are known.
        dice_checks[key] = check_estimate(predicted_dice, rows.Dice, owners)
        predicted_volume = _predicted_where_present(rows, "predicted_volume")
        volume[key] = StructureEstimate.fit(
            predicted_volume, rows.true_volume, owners, voxel_volume
        )
        volume_checks[key] = check_estimate(
            predicted_volume, rows.true_volume, owners, voxel_volume
        )

    if ignore_label:
        present = pd.Series(math.nan, table.index)
    else:
        present = predict_presence_out_of_fold(table, patients, folds)
    return LearnedQuality(
        as_deployed=as_deployed,
        dice=dice,
        volume=volume,
        checks={"dice": dice_checks, "volume": volume_checks},
        scores=_score_scans(table, patients, present),
    )


def _score_scans(table: pd.DataFrame, patients: ByCase, present: pd.Series) -> ScanScores:
    """Scores of the cases of a table.

    Args:
        table: As of :func:`learn`.
        patients: Patient of each case.
        present: Probability that the structure of each row is in its case; NaN: not known.
    """
    score = {}
    dice = {}
    always = []
    for name, rows in table.groupby("key", sort=False):
        key = str(name)
        is_always_present = bool((rows.true_volume > 0).all())
        if is_always_present:
            always.append(key)
        scores = structure_score(rows[PREDICTED_DICE], present[rows.index], is_always_present)
        score[key] = scores.tolist()
        dice[key] = rows.Dice.round(DIGITS).tolist()
    entropy = table.groupby("case", sort=False).entropy.first()
    owners = pd.Series(look_up_patients(entropy.index, patients), dtype=object)
    return ScanScores(
        score=score,
        dice=dice,
        entropy=entropy.round(DIGITS).tolist(),
        patient=pd.factorize(owners)[0],
        always=always,
    )


def predict_dice_out_of_fold(table: pd.DataFrame, patients: ByCase, folds: ByCase) -> pd.DataFrame:
    """A table with the columns of ``DICE_COLUMNS``, each case's by the cases of the other folds.

    Arguments are those of :func:`learn`.
    """

    def predict(_: str, rows: pd.DataFrame) -> np.ndarray:
        return predict_intervals_out_of_fold(
            _predicted_where_present(rows, PREDICTED_DICE),
            rows.Dice,
            look_up_patients(rows.case, patients),
            [folds[case] for case in rows.case],
        )

    return _with_intervals(table, predict)


def _predicted_where_present(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column of predicted values of one structure; NaN where all scans lack the structure.

    What is predicted of scans that lack it does not tell of those that have it.
    """
    return rows[column] if (rows.true_volume > 0).any() else rows[column] * math.nan


def _with_intervals(
    table: pd.DataFrame, predict: Callable[[str, pd.DataFrame], np.ndarray]
) -> pd.DataFrame:
    """The table with the columns of ``DICE_COLUMNS``.

    Predicted Dice too becomes NaN where nothing was learned of a structure.

    Args:
        table: A row for each case and structure, with ``key`` and ``predicted_dice``.
        predict: Takes a structure's key and its n rows, and gives (n, 3) values of the columns.
    """
    with_intervals = table.assign(**dict.fromkeys(DICE_COLUMNS[1:], math.nan))
    for key, rows in table.groupby("key", sort=False):
        with_intervals.loc[rows.index, DICE_COLUMNS] = predict(str(key), rows)
    return with_intervals
