"""MAPIE beside the package on the same cases: intervals of Dice (part `intervals`) and labels that
miss less (part `slices`).

    pip install 'mapie>=1.6,<2'

MAPIE's `CrossConformalRegressor` takes the patients as groups, and weighs scans, not patients. Its
`SemanticSegmentationController` takes 2D images of one size that have the structure: slices of the
validation cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from recall_rows import method_rows, places_of
from rows import Row, mean_row, put, read_csv
from scans import SET
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut
from study import CV, ENSEMBLE, Study

from nnunet_nacl.estimators.intervals import DEFAULT_ALPHA, StructureEstimate
from nnunet_nacl.estimators.recall import (
    RECALLS,
    THRESHOLDS,
    count_addable,
    learn_recall,
    sensitive_labels,
)
from nnunet_nacl.metrics.groups import assign_cross_fit_folds, predict_out_of_fold
from nnunet_nacl.nnunet.prediction_folder import find_fold_folders

JACKKNIFE = "jackknife+ over patients"
MAPIE_SHIFT = "MAPIE, mean error"
MAPIE_LINEAR = "MAPIE, linear regression"
SCAN_TABLES = ("lidc_scans.csv", "busbra_scans.csv")
SLICES = "slices"
"""Kind of cases, as results.csv calls them."""
MAPIE_GRIDS = {
    "MAPIE": np.arange(0, 1, 0.01),  # its default
    "MAPIE, thresholds of the package": THRESHOLDS,
}
"""Thresholds that MAPIE chooses among, by method."""
BATCH = 20
"""Slices that MAPIE counts at a time; it copies each for every threshold."""


class MeanError(RegressorMixin, BaseEstimator):
    """Predicted Dice plus the mean error: what the intervals of the package are about."""

    def fit(self, predicted: np.ndarray, true: np.ndarray) -> MeanError:
        """Learn from (n, 1) predicted and (n,) true values."""
        self.shift_ = np.mean(true - predicted[:, 0])
        return self

    def predict(self, predicted: np.ndarray) -> np.ndarray:
        """(n,) of (n, 1) predicted values."""
        return predicted[:, 0] + self.shift_


Ends = Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]
"""Takes scans to learn from and others, and gives the (n, 2) ends of the latter's intervals."""


def jackknife_ends(learning: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Ends of the package's intervals."""
    estimate = StructureEstimate.fit(
        learning.predicted_dice, learning.dice, learning.patient.tolist()
    )
    return estimate.predict(others.predicted_dice)[:, 1:]


def mapie_ends(
    regressor: RegressorMixin, learning: pd.DataFrame, others: pd.DataFrame
) -> np.ndarray:
    """Ends by MAPIE around a regressor, a patient left out at a time; cut to what a Dice can be."""
    from mapie.regression import CrossConformalRegressor

    conformal = CrossConformalRegressor(
        regressor, confidence_level=1 - DEFAULT_ALPHA, method="plus", cv=LeaveOneGroupOut()
    )
    conformal.fit_conformalize(
        learning[["predicted_dice"]].to_numpy(),
        learning.dice.to_numpy(),
        groups=pd.factorize(learning.patient)[0],
    )
    intervals = conformal.predict_interval(others[["predicted_dice"]].to_numpy())[1]
    return np.clip(intervals[..., 0], 0, 1)


ENDS: dict[str, Ends] = {
    JACKKNIFE: jackknife_ends,
    MAPIE_SHIFT: partial(mapie_ends, MeanError()),
    MAPIE_LINEAR: partial(mapie_ends, LinearRegression()),
}
"""By method."""


def interval_rows() -> None:
    """Part `intervals`: how often intervals of Dice hold it, and how wide they are, of the scans of
    lidc_scans.csv and busbra_scans.csv that have a label and a Dice."""
    for name in SCAN_TABLES:
        table = read_csv(name)
        if table.empty:
            continue
        table = table[(table.volume > 0) & table.dice.notna()]
        folds = table[table.cases == CV]
        for keys, scans in table[table.cases.isin([CV, ENSEMBLE])].groupby(SET, sort=False):
            common = {column: str(key) for column, key in zip(SET, keys)}
            for method, ends_of in ENDS.items():
                if common["cases"] == CV:
                    ends = out_of_fold_ends(ends_of, scans)
                else:
                    ends = ends_of(folds, scans)
                put(held_rows(scans, ends, method), **common, structure="")


def out_of_fold_ends(ends_of: Ends, scans: pd.DataFrame) -> np.ndarray:
    """(n, 2) ends for the scans of each of ten parts of the patients, learned from the others."""

    def predict(others: np.ndarray, left_out: np.ndarray) -> np.ndarray:
        return ends_of(scans[others], scans[left_out])

    return predict_out_of_fold(assign_cross_fit_folds(scans.patient.tolist()), predict)


def held_rows(scans: pd.DataFrame, ends: np.ndarray, method: str) -> Iterator[Row]:
    """Rows of the (n, 2) ends of the scans' intervals."""
    low, high = ends.T
    dice = scans.dice.to_numpy()
    is_inside = (low <= dice) & (dice <= high)
    yield mean_row(is_inside, scans.patient, method=method, quantity="coverage of Dice")
    yield mean_row(high - low, scans.patient, method=method, quantity="width of Dice")


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices that have the structure, of validation cases.

    Attributes:
        probs: (n, 2, H, W) of the network.
        labels: (n, H, W) nnU-Net's.
        truth: (n, H, W) whether a pixel is of the structure.
        patient: (n,) of each.
    """

    probs: np.ndarray
    labels: np.ndarray
    truth: np.ndarray
    patient: np.ndarray

    def count(self) -> tuple[pd.DataFrame, list[np.ndarray], dict[str, str]]:
        """What `learn_recall` takes of them."""
        is_labelled = self.labels > 0
        names = [str(number) for number in range(len(self.patient))]
        columns = {
            "case": names,
            "key": "1",
            "TP": (is_labelled & self.truth).sum((1, 2)),
            "FP": (is_labelled & ~self.truth).sum((1, 2)),
            "FN": (~is_labelled & self.truth).sum((1, 2)),
        }
        counts = []
        for probs, labels, truth in zip(self.probs, self.labels, self.truth):
            counts.append(count_addable(probs, labels, truth.astype(np.uint8), regions=False))
        return pd.DataFrame(columns), counts, dict(zip(names, self.patient))

    def measure(self, masks: np.ndarray) -> pd.DataFrame:
        """A row a slice under (n, H, W) masks in place of nnU-Net's labels: patient, share missed,
        times larger, false voxels more."""
        is_labelled = self.labels > 0
        size = is_labelled.sum((1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):  # of slices without a label
            larger = np.where(size > 0, masks.sum((1, 2)) / size, np.nan)
        false = (masks & ~self.truth).sum((1, 2)) - (is_labelled & ~self.truth).sum((1, 2))
        columns = {
            "patient": self.patient,
            "missed": (self.truth & ~masks).sum((1, 2)) / self.truth.sum((1, 2)),
            "times larger": larger,
            "false voxels": false.astype(float),
        }
        return pd.DataFrame(columns)


def read_slices(study: Study) -> dict[str, Slices]:
    """By fold the slices of its validation cases that have the one structure; folds without such
    are left out."""
    slices = {}
    for fold, folder in find_fold_folders(study.model(study.trainer)).items():
        probs = []
        labels = []
        truth = []
        patients: list[str] = []
        for name in folder.names:
            case = folder.case(name)
            if case.truth is None:
                raise ValueError(f"{name}: it has no truth.")
            has_structure = np.flatnonzero((case.truth == 1).any((1, 2)))
            probs.append(case.probabilities.whole()[:, has_structure].swapaxes(0, 1))
            labels.append(case.segmentation[has_structure])
            truth.append(case.truth[has_structure] == 1)
            patients += [study.patient[name]] * len(has_structure)
        if patients:
            slices[fold] = Slices(
                probs=np.concatenate(probs),
                labels=np.concatenate(labels),
                truth=np.concatenate(truth),
                patient=np.array(patients),
            )
    return slices


def together(slices: Sequence[Slices]) -> Slices:
    """Slices of several folds."""
    return Slices(
        probs=np.concatenate([each.probs for each in slices]),
        labels=np.concatenate([each.labels for each in slices]),
        truth=np.concatenate([each.truth for each in slices]),
        patient=np.concatenate([each.patient for each in slices]),
    )


def slices_rows(study: Study) -> None:
    """Part `slices`: what labels miss of the structure in slices that have it, learned from the
    slices of the other folds."""
    by_fold = read_slices(study)
    if len(by_fold) < 2:
        raise ValueError("slices of a fold are judged by those of others: train two folds.")
    measured: dict[str, list[pd.DataFrame]] = {}
    for fold, slices in by_fold.items():
        learning = together([others for name, others in by_fold.items() if name != fold])
        for method, masks in masks_by_method(learning, slices).items():
            measured.setdefault(method, []).append(slices.measure(masks))
    for method, tables in measured.items():
        cases = pd.concat(tables)
        rows = list(method_rows(method, cases))
        by_slice = "missed, mean over slices"
        rows.append(mean_row(cases.missed, cases.patient, method=method, quantity=by_slice))
        put(rows, **study.common, cases=SLICES)


def masks_by_method(learning: Slices, slices: Slices) -> dict[str, np.ndarray]:
    """Masks of slices by nnU-Net, the package and MAPIE; methods that refuse are left out.

    Args:
        learning: That is learned from.
        slices: Of other patients.
    """
    (learned,) = learn_recall(*learning.count()).values()
    thresholds = [*THRESHOLDS.tolist(), math.inf]  # the last adds nothing
    masks = {}
    for method, place in places_of(learned).items():
        sensitive = [
            sensitive_labels(probs, labels, [thresholds[place]], regions=False)
            for probs, labels in zip(slices.probs, slices.labels)
        ]
        masks[method] = np.stack(sensitive) > 0
    for method, grid in MAPIE_GRIDS.items():
        predicted = mapie_masks(learning, slices, grid)
        for channel, recall in enumerate(RECALLS):
            masks[f"{method}, recall {recall}"] = predicted[:, channel]
    return masks


def mapie_masks(learning: Slices, slices: Slices, grid: np.ndarray) -> np.ndarray:
    """(n, recalls, H, W) masks of slices by MAPIE, which chooses among the thresholds of a grid."""
    from mapie.risk_control import SemanticSegmentationController

    controller = SemanticSegmentationController(
        lambda probs: probs, risk="recall", target_level=RECALLS, predict_params=grid
    )
    for start in range(0, len(learning.truth), BATCH):
        batch = slice(start, start + BATCH)
        truth = learning.truth[batch].astype(int)
        controller.compute_risks(learning.probs[batch, 1:], truth.reshape(len(truth), -1))
    controller.compute_best_predict_param()
    return controller.predict(slices.probs[:, 1:])
