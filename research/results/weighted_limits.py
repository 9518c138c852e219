"""Whether weights of the calibration patients bring limits to another scanner without any of its
labels (part `weighted`).

Under covariate shift limits stay valid if each calibration patient weighs as much as scans like
theirs are more frequent among the new scans: by the likelihood ratio of their profiles, new to
calibration (Tibshirani et al., NeurIPS 2019). Calibration and new scans are told apart by a ridge
logistic regression, whose odds are that ratio but for a factor. What is still to be lost, or still
to be found, by the new patient counts with the weight of its own scans, so that a scan has no limit
where these weigh too much beside all calibration patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from cases import Cases, Learned
from recall_rows import addable_of
from rows import Row, mean_row, put
from scans import COLUMNS, auroc, interval_rows, list_rows
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study import CV, Study

from nnunet_nacl.estimators.intervals import DEFAULT_ALPHA
from nnunet_nacl.estimators.risk_control import controls_risk, smallest_thresholds
from nnunet_nacl.nnunet.held_out import learn_profiles
from nnunet_nacl.nnunet.trained_model import TrainedModel

WEIGHTED = "weighted"
UNWEIGHTED = "unweighted"
"""Methods, as results.csv calls them."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the regression, scikit-learn's C; the one of least log loss is taken."""
FOLDS = 10
INNER_FOLDS = 5
"""Of the patients: each scan is weighed by a regression without its patient, whose strength is
chosen on folds of the others."""
FEWEST_PATIENTS = 10
"""With fewer new ones nothing is weighed."""
RATE = 0.1
"""Share that may be lost with `-find 0.9` and `-recall 0.9`."""
NO_INTERVAL = "scans without an interval"
ONLY_FLAGGED = "scans that can only be flagged"
NO_RECALL = "scans without labels of -recall 0.9"
WITH_INTERVAL = "scans with an interval"


@dataclass(frozen=True)
class Weights:
    """How much scans weigh; those of a patient weigh the same.

    Attributes:
        calibration: (n,) of the calibration scans.
        new: (m,) of the new ones.
    """

    calibration: np.ndarray
    new: np.ndarray


@dataclass(frozen=True)
class CalibrationCases:
    """What limits are chosen by.

    Attributes:
        table: A row a case, each under a map that was fitted without its patient.
        patient: (n,) to whom each belongs, numbers from 0.
        learned: What all of them teach.
        missed: (n, thresholds + 1) share of the structure that labels miss at each threshold, last
            that of nnU-Net's; NaN where there is none.
    """

    table: pd.DataFrame
    patient: np.ndarray
    learned: Learned
    missed: np.ndarray


def weighted_rows(study: Study) -> None:
    """Part `weighted`: intervals, flags and larger labels of each scanner, with and without
    weights."""
    learned = study.all_cases_teach
    names = list(study.folds.records)
    patients = study.folds.patients()
    model = TrainedModel.open(study.model(study.trainer))
    profiles = learn_profiles(list(study.folds.records.values()), patients, model)
    calibration_profiles = np.array(profiles.values, float)
    calibration = CalibrationCases(
        learned.calibrated, pd.factorize(np.array(patients))[0], learned, missed(study.folds, names)
    )
    for case_set in study.case_sets():
        new_patients = case_set.cases.patients()
        if case_set.kind == CV or len(set(new_patients)) < FEWEST_PATIENTS:
            continue
        records = case_set.cases.records.values()
        new_profiles = np.array([record.profile for record in records], float)
        weights = weigh(calibration_profiles, new_profiles, patients, new_patients)
        even = Weights(np.ones(len(names)), np.ones(len(new_profiles)))
        rows = list(weight_rows(weights, patients, new_patients))
        for method, of_method in ((UNWEIGHTED, even), (WEIGHTED, weights)):
            limited = limit_rows(calibration, case_set.cases, of_method, study.bad)
            rows += [row | {"method": method} for row in limited]
        put(rows, **study.common, cases=case_set.kind)


def weigh(
    calibration: np.ndarray,
    new: np.ndarray,
    patients: Sequence[str],
    new_patients: Sequence[str],
) -> Weights:
    """The likelihood ratio, new to calibration, of (n, F) and (m, F) profiles, the mean over a
    patient's scans; the patients of both are given."""
    profiles = np.concatenate([calibration, new])
    is_new = np.arange(len(profiles)) >= len(calibration)
    owners = np.array([*patients, *new_patients])
    ratio = np.full(len(profiles), np.nan)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for others, left_out in folds.split(profiles, is_new, owners):
        regression = choose_regression(profiles[others], is_new[others], owners[others])
        log_odds = regression.decision_function(profiles[left_out])
        n_new = np.count_nonzero(is_new[others])
        ratio[left_out] = np.exp(log_odds) * (len(others) - n_new) / n_new
    of_patient = pd.Series(ratio).groupby(owners).transform("mean").to_numpy()
    return Weights(of_patient[~is_new], of_patient[is_new])


def choose_regression(
    profiles: np.ndarray, is_new: np.ndarray, patients: np.ndarray
) -> GridSearchCV:
    """A regression that tells new scans by their profiles, a gap counting as the median."""
    search = GridSearchCV(
        make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(max_iter=2000),
        ),
        {"logisticregression__C": STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=0),
    )
    return search.fit(profiles, is_new, groups=patients)


def weight_rows(
    weights: Weights, patients: Sequence[str], new_patients: Sequence[str]
) -> Iterator[Row]:
    """What the weights are like."""
    both = np.concatenate([weights.calibration, weights.new])
    is_new = np.arange(len(both)) >= len(patients)
    separation = auroc(np.ones((1, len(both))), -both, is_new)[0]
    of_patient = pd.Series(weights.calibration).groupby(np.array(patients)).first()
    effective = of_patient.sum() ** 2 / (of_patient**2).sum()
    counts = {"n_patients": len(set(new_patients)), "n_cases": len(new_patients)}
    for quantity, value in (
        ("AUROC of new scans among the calibration scans", separation),
        ("effective calibration patients", effective),
        ("effective calibration patients, share", effective / len(of_patient)),
    ):
        yield {"method": WEIGHTED, "quantity": quantity, "value": value, **counts}


def limit_rows(
    calibration: CalibrationCases, cases: Cases, weights: Weights, bad: float
) -> Iterator[Row]:
    """Rows on intervals, on a list with `-find 0.9` and on labels with `-recall 0.9`; a scan
    without a limit is flagged, its interval is all that can be, and it has no such labels."""
    names = list(cases.records)
    judged = with_intervals(cases.judge(names, calibration.learned, {}), calibration, weights)
    threshold = flag_thresholds(calibration, weights, bad)
    option = f"-find 0.9 -bad {bad:g}"
    columns = {
        "case": judged["case"],
        "patient": judged["patient"],
        option: (~((judged["score"] - bad).to_numpy() > threshold)).astype(float),
    }
    scans = judged[list(COLUMNS)].rename(columns=COLUMNS).assign(**columns)
    has_interval = np.isfinite(judged[["dice_end", "volume_end"]]).all(axis=1)
    yield from list_rows(scans)
    yield from finite_interval_rows(scans)
    for row in finite_interval_rows(scans[has_interval]):
        yield row | {"quantity": f"{row['quantity']}, {WITH_INTERVAL}"}

    by_case = missed_under(calibration, missed(cases, names), weights)
    by_patient = by_case.groupby(cases.patients()).mean()
    yield mean_row(by_patient, by_patient.index, quantity="missed")
    for quantity, is_refused in (
        (NO_INTERVAL, ~has_interval),
        (ONLY_FLAGGED, np.isnan(threshold)),
        (NO_RECALL, recall_places(calibration, weights) < 0),
    ):
        yield mean_row(is_refused, cases.patients(), quantity=quantity)


def finite_interval_rows(scans: pd.DataFrame) -> list[Row]:
    """What :func:`interval_rows` gives, but for means over intervals without an end."""
    with np.errstate(invalid="ignore"):
        return [row for row in interval_rows(scans) if np.isfinite(row["value"])]


def with_intervals(
    judged: pd.DataFrame, calibration: CalibrationCases, weights: Weights
) -> pd.DataFrame:
    """The cases of a table with other intervals of Dice and volume.

    Columns ``dice_end`` and ``volume_end`` are how far the high ends may lie from the predicted
    value, infinity where there is no interval.
    """
    voxel = float(calibration.table.voxel_volume.median())
    learned_volume = np.maximum(calibration.table.predicted_volume, 0) + voxel
    new_volume = np.maximum(judged.predicted_volume, 0) + voxel
    columns = {}
    for name, true, scale, new_scale, largest in (
        ("dice", "Dice", 1.0, 1.0, 1.0),
        ("volume", "true_volume", learned_volume, new_volume, np.inf),
    ):
        predicted = f"predicted_{name}"
        difference = (calibration.table[true] - calibration.table[predicted]) / scale
        is_known = difference.notna().to_numpy()
        ends = interval_ends(
            difference[is_known].to_numpy(),
            calibration.patient[is_known],
            weights.calibration[is_known],
            weights.new,
        )
        # where nothing was segmented it stays NaN
        for end, of_scans in zip(("low", "high"), ends.T):
            columns[f"{name}_{end}"] = (judged[predicted] + of_scans * new_scale).clip(0, largest)
        columns[f"{name}_end"] = ends[:, 1]
    return judged.assign(**columns)


def interval_ends(
    difference: np.ndarray, patient: np.ndarray, weight: np.ndarray, new_weight: np.ndarray
) -> np.ndarray:
    """Ends of the intervals of new scans' differences, by jackknife+ with weights.

    With even weights they are those of ``StructureEstimate``.

    Args:
        difference: (n,) true less predicted value of the calibration cases.
        patient: (n,) to whom each belongs, whole numbers.
        weight: (n,) of each case, the same for the cases of a patient, who share it.
        new_weight: (m,) of the new scans.

    Returns:
        (m, 2) low and high end, minus and plus infinity where there is no interval.
    """
    owner = pd.factorize(patient)[0]
    mass = weight / np.bincount(owner)[owner]
    mass_by_patient = np.bincount(owner, mass)
    sum_by_patient = np.bincount(owner, mass * difference)
    mean_of_others = (sum_by_patient.sum() - sum_by_patient) / (mass.sum() - mass_by_patient)
    expected = mean_of_others[owner]
    deviation = np.abs(difference - expected)
    low = -weighted_quantiles(deviation - expected, mass, new_weight)
    high = weighted_quantiles(expected + deviation, mass, new_weight)
    return np.stack([low, high], axis=1)


def weighted_quantiles(
    values: np.ndarray, mass: np.ndarray, mass_at_infinity: np.ndarray
) -> np.ndarray:
    """(m,) the smallest value with nine tenths of the mass up to it, for each of (m,) masses at
    infinity."""
    order = np.argsort(values)
    reached = np.cumsum(mass[order])
    wanted = (1 - DEFAULT_ALPHA) * (mass.sum() + mass_at_infinity)
    place = np.searchsorted(reached, wanted * (1 - 1e-9))
    return np.append(values[order], np.inf)[place]


def times_new(calibration: CalibrationCases, weights: Weights) -> np.ndarray:
    """(m, patients) weight of each calibration patient as a multiple of that of a new scan."""
    of_patient = np.zeros(calibration.patient.max() + 1)
    of_patient[calibration.patient] = weights.calibration
    return of_patient / weights.new[:, None]


def flag_thresholds(calibration: CalibrationCases, weights: Weights, bad: float) -> np.ndarray:
    """(m,) score up to which each new scan is flagged; NaN where there is no limit."""
    scores = calibration.learned.scores
    limits = dict.fromkeys(scores.score, bad)
    return smallest_thresholds(
        scores.score_scans(limits),
        scores.are_bad(limits),
        calibration.patient,
        RATE,
        drawn=times_new(calibration, weights),
    )


def missed(cases: Cases, names: Sequence[str]) -> np.ndarray:
    """(n, thresholds + 1) share of the structure that labels of cases miss at each threshold, last
    that of nnU-Net's labels; NaN where the truth has none."""
    counts = np.stack([addable_of(cases, name)[0, 0] for name in names])
    found = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    found = np.concatenate([found, np.zeros((len(names), 1))], axis=1)
    rows = cases.table.loc[list(names)]
    true = (rows.TP + rows.FN).to_numpy()
    true = np.where(true > 0, true, np.nan)
    return (rows.FN.to_numpy()[:, None] - found) / true[:, None]


def recall_places(calibration: CalibrationCases, weights: Weights) -> np.ndarray:
    """(m,) index of the largest threshold that keeps `-recall 0.9` for each new scan; -1 where none
    does."""
    is_present = ~np.isnan(calibration.missed[:, 0])
    by_patient = pd.DataFrame(calibration.missed[is_present]).groupby(
        calibration.patient[is_present]
    )
    missed_by_patient = by_patient.mean()
    times = times_new(calibration, weights)[:, missed_by_patient.index]
    total = times.sum(axis=1, keepdims=True)
    risk = times @ missed_by_patient.to_numpy() / total
    keeps = controls_risk(risk, total, RATE)
    last = keeps.shape[1] - 1 - keeps[:, ::-1].argmax(axis=1)
    return np.where(keeps.any(axis=1), last, -1)


def missed_under(
    calibration: CalibrationCases, new_missed: np.ndarray, weights: Weights
) -> pd.Series:
    """Share that the labels of each new scan miss with `-recall 0.9`; NaN of those without."""
    places = recall_places(calibration, weights)
    of_scan = new_missed[np.arange(len(places)), places]
    return pd.Series(np.where(places < 0, np.nan, of_scan))
