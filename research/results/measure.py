"""Measures the lung nodules (LIDC) and writes the rows of results.csv, a command for each part.

    python research/results/measure.py records -task TASK -work WORK [--outer]
    python research/results/measure.py learn calibration patients raters recall losses -task TASK -work WORK
    python research/results/measure.py scans

TASK is the folder of the task: patients.json, outer_test.json and votes/. Networks are those of the nnUNet_*
variables, trained by protocol.sh; WORK keeps records, so that a part is done again in minutes. `records` measures the
validation cases, with --outer also the cases in no fold, by the ensemble of all five. `learn` writes lidc_scans.csv,
what `predict` would say of each scan; `scans` makes the rows on lists, orders and intervals from that file and from
other_scans.csv, and needs no networks. Each scan is judged by a map and limits that have not seen its patient.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cases import GRID, STEP, Cases, Learned, WithVotes, measure_folds, measure_outer, read_cases
from losses import losses_rows
from rows import DRAWS, mean_row, pooled_gap_row, put, read_csv, statistic_row, write_csv

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord, scores
from nnunet_nacl.metrics import groups
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.metrics.statistics import bin_accuracy_bands
from nnunet_nacl.nnunet.places import find_references, model_folder
from nnunet_nacl.quality.recall import RECALLS, THRESHOLDS, learn_recall

STRUCTURE = "nodule"
LIMITS = (0.5, 0.6, 0.7)
"""Dice below which a scan is bad."""
AIMS: dict[str, dict[str, Any]] = {
    f"-find {find} -bad {bad}": {"find": find, "bad": bad} for find in (0.8, 0.9, 0.95) for bad in LIMITS
} | {f"-miss 0.05 -bad {bad}": {"miss": 0.05, "bad": bad} for bad in LIMITS}
SIZES, N_DRAWS = (20, 40, 80, 160), 100
CV, ENSEMBLE = "folds", "outer"
MAP, RAW = "map", "as trained"


@dataclass(frozen=True)
class Study:
    """The data set, the networks and what was measured of them.

    Attributes:
        task: Folder of the task.
        work: Folder of records.
        dataset, trainer, configuration: Whose networks.
    """

    task: Path
    work: Path
    dataset: str
    trainer: str
    configuration: str

    @property
    def common(self) -> dict[str, str]:
        """Keys that the rows of all parts have."""
        keys = {"dataset": "LIDC", "trainer": self.trainer, "configuration": self.configuration}
        folds = {name.partition("/")[0] for name in self.folds_of}
        return keys | {"training": f"folds {' '.join(sorted(folds))}", "structure": STRUCTURE}

    @cached_property
    def patient(self) -> dict[str, str]:
        """Of each case."""
        return json.loads((self.task / "patients.json").read_text(encoding="utf-8"))

    def model(self, trainer: str) -> Path:
        """nnU-Net's folder of a trainer."""
        return model_folder(self.dataset, f"nnUNetTrainer{trainer}", "nnUNetPlans", self.configuration)

    def records(self, name: str) -> Path:
        """Folder of records."""
        return self.work / self.trainer / name

    @cached_property
    def folds_of(self) -> list[str]:
        """Folds that are trained."""
        return sorted(path.parent.name[5:] for path in self.model(self.trainer).glob("fold_*/validation"))

    @cached_property
    def folds(self) -> Cases:
        """Validation cases, by single networks."""
        return read_cases(self.records(CV), self.patient)

    @cached_property
    def outer(self) -> Cases | None:
        """Cases in no fold, by the ensemble; None before they were opened."""
        return read_cases(self.records(ENSEMBLE), self.patient) if self.records(ENSEMBLE).is_dir() else None

    @cached_property
    def parts(self) -> list[tuple[list[str], Learned]]:
        """The validation cases in ten parts by patient, with what the other nine teach."""
        names, part = list(self.folds.records), assign_cross_fit_folds(self.folds.patients())
        found = []
        for each in sorted(set(part)):
            left = [name for name, its in zip(names, part) if its == each]
            found.append((left, self.folds.learn([name for name in names if name not in set(left)])))
        return found

    @cached_property
    def learned(self) -> Learned:
        """What all validation cases teach."""
        return self.folds.learn(list(self.folds.records))

    def each(self) -> Iterator[tuple[str, Cases, list[tuple[list[str], Learned]]]]:
        """Kind, cases, and in parts what has not seen them."""
        yield CV, self.folds, self.parts
        if self.outer:
            yield ENSEMBLE, self.outer, [(list(self.outer.records), self.learned)]


def make_records(study: Study, outer: bool) -> None:
    """Part `records`."""
    for name in (CV, ENSEMBLE) if outer else (CV,):
        work = WithVotes(with_sample=True, votes=study.task / "votes", counts=study.records(f"votes_{name}"))
        model = study.model(study.trainer)
        if name == CV:
            measure_folds(model, work, study.records(CV))
            continue
        wanted = json.loads((study.task / "outer_test.json").read_text(encoding="utf-8"))
        truth = find_references(model.parent.name, model)
        measure_outer(model, work, study.records(ENSEMBLE), raw_images(model.parent.name), truth, wanted)


def raw_images(dataset: str) -> Path:
    """nnU-Net's folder of images."""
    from nnunetv2.paths import nnUNet_raw

    return Path(nnUNet_raw) / dataset / "imagesTr"


# --- what `predict` would say of each scan


COLUMNS = {
    "Dice": "dice",
    "volume": "volume",
    "true_volume": "true_volume",
    "predicted_dice": "predicted_dice",
    "dice_low": "dice_low",
    "dice_high": "dice_high",
    "predicted_volume": "predicted_volume",
    "volume_low": "volume_low",
    "volume_high": "volume_high",
    "network_dice": "predicted_dice_as_trained",
    "present": "present",
    "network_entropy": "entropy",
    "members_dice": "members_dice",
}
"""Columns of the package's tables, and what lidc_scans.csv and other_scans.csv call them."""


def learn_scans(study: Study) -> None:
    """Part `learn`: lidc_scans.csv."""
    found = []
    for kind, cases, parts in study.each():
        for names, learned in parts:
            rows = cases.judge(names, learned, AIMS)
            keys = {**study.common, "cases": kind, "case": rows["case"], "patient": rows["patient"]}
            found.append(rows[list(COLUMNS)].rename(columns=COLUMNS).assign(**keys)[[*keys, *COLUMNS.values()]])
            found[-1] = found[-1].join(rows[list(AIMS)])
    write_csv("lidc_scans.csv", pd.concat(found))


# --- rows that follow from what is known of each scan


SET = ["dataset", "trainer", "configuration", "training", "cases"]
ORDERS = ("predicted Dice", "presence x predicted Dice", "predicted Dice, as trained", "entropy", "mean of two ranks")
MEMBERS = "members' Dice"


def scan_rows() -> None:
    """Part `scans`: rows on lists, orders and intervals."""
    for name in ("lidc_scans.csv", "other_scans.csv"):
        if (table := read_csv(name)).empty:
            continue
        for keys, rows in table.groupby(SET, sort=False):
            if "bad" in rows:  # one limit a data set
                rows = rows.rename(columns={"flagged": f"-find 0.9 -bad {rows.bad.iloc[0]:g}"})
            common = dict(zip(SET, keys)) | {"structure": ""}
            put([*list_rows(rows), *order_rows(rows), *interval_rows(rows)], **common)


def list_rows(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """How many bad scans were found: the mean over patients with a bad one; and how many of all scans were flagged."""
    scans = rows.groupby("case", sort=False).agg(
        {"dice": "min", "patient": "first"} | {name: "first" for name in rows if name.startswith(("-find", "-miss"))}
    )
    for name in scans.columns[2:]:
        limit = float(name.rpartition(" ")[2])
        judged = scans[scans[name].notna()]
        bad, flagged = judged.dice < limit, judged[name] == 1
        if not bad.any():
            continue
        by_patient = flagged[bad].groupby(judged.patient[bad]).mean()
        yield mean_row(by_patient, by_patient.index, method=name, quantity="found") | {"n_cases": int(bad.sum())}
        yield mean_row(flagged, judged.patient, method=name, quantity="flagged")
        yield mean_row(bad & ~flagged, judged.patient, method=name, quantity="bad and not flagged")
        yield mean_row(bad, judged.patient, method=name, quantity="bad")


def orders_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a scan: the lowest Dice of its structures, patient, and each order, low where a scan is to be looked at.

    Of a structure that was not segmented every predicted Dice counts as the probability that it is absent.
    """
    segmented, present = rows.volume > 0, rows.present.fillna(1.0)
    columns = {
        "predicted Dice": np.where(segmented, rows.predicted_dice, 1 - present),
        "presence x predicted Dice": np.where(segmented, rows.predicted_dice * present, 1 - present),
        "predicted Dice, as trained": np.where(segmented, rows.predicted_dice_as_trained, 1 - present),
        "Dice": rows.dice,
    }
    by_case = pd.DataFrame(columns, index=rows.index).groupby(rows["case"], sort=False).min()
    first = rows.groupby("case", sort=False)[["patient", "entropy"]].first()
    by_case = by_case.assign(entropy=-first.entropy.fillna(np.inf), patient=first.patient)  # nothing segmented: first
    by_case["mean of two ranks"] = by_case["predicted Dice"].rank() + by_case.entropy.rank()
    members = rows.members_dice.where(segmented | rows.members_dice.notna(), 1.0)
    if rows.members_dice.notna().any():
        by_case[MEMBERS] = members.groupby(rows["case"], sort=False).min()
    return by_case


def limits_of(rows: pd.DataFrame) -> Sequence[float]:
    """Dice below which a scan counts as bad."""
    return [float(rows.bad.iloc[0])] if "bad" in rows else LIMITS


def order_rows(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Area under the ROC curve of each order, and the share of the scans that finds nine of ten bad ones."""
    scans = orders_of(rows)
    for limit in limits_of(rows):
        bad = (scans.Dice < limit).to_numpy()
        if min(bad.sum(), (~bad).sum()) < 4:
            continue
        for name in [name for name in (*ORDERS, MEMBERS) if name in scans]:
            trust, keys = scans[name].to_numpy(), {"method": f"{name}, bad below {limit:g}"}
            for quantity, statistic in (("AUROC", auroc), ("flagged to find 0.9", flagged_to_find)):
                yield statistic_row(statistic, scans.patient, trust, bad, **keys, quantity=quantity)


def auroc(weights: np.ndarray, trust: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """(draws,) probability that a bad scan has less trust than another, ties counting half; NaN without both."""
    of_bad, of_good = trust[bad][:, None], trust[~bad]
    less = (of_bad < of_good) + (of_bad == of_good) / 2
    pairs = weights[:, bad].sum(1) * weights[:, ~bad].sum(1)
    return np.einsum("db,bg,dg->d", weights[:, bad], less, weights[:, ~bad], optimize=True) / np.where(
        pairs, pairs, np.nan
    )


def flagged_to_find(weights: np.ndarray, trust: np.ndarray, bad: np.ndarray, share: float = 0.9) -> np.ndarray:
    """(draws,) share of the scans to look at, least trusted first, until this share of the bad ones was seen."""
    order = np.argsort(trust, kind="stable")
    weights, trust, bad = weights[:, order], trust[order], bad[order]
    seen, looked_at = (weights * bad).cumsum(1), weights.cumsum(1)
    last = (seen >= share * seen[:, -1:] - 1e-9).argmax(1)  # the first scan with which enough is seen
    last = np.searchsorted(trust, trust[last], side="right") - 1  # and all that are trusted as little
    return looked_at[np.arange(len(last)), last] / looked_at[:, -1]


def interval_rows(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """How often the 90 % intervals hold the true value, and how wide they are, volumes relative to the true one."""
    pairs = {"Dice": ("dice", "dice_low", "dice_high"), "volume": ("true_volume", "volume_low", "volume_high")}
    for what, names in pairs.items():
        true, low, high = (rows[name].to_numpy(float) for name in names)
        known = ~np.isnan(true + low + high) & (rows.volume > 0).to_numpy()
        held = np.where(known, (low <= true) & (true <= high), np.nan)
        width = np.where(known, high - low, np.nan) / (1 if what == "Dice" else np.where(true > 0, true, np.nan))
        yield mean_row(held, rows.patient, method=MAP, quantity=f"coverage of {what}")
        yield mean_row(width, rows.patient, method=MAP, quantity=f"width of {what}")


# --- calibration, before and after, and peers


class Fiducio:
    """A calibrator of the package fiducio, fitted to voxels drawn evenly from cases; it does what `under` needs."""

    def __init__(self, name: str, cases: Cases, names: Sequence[str], n_voxels: int = 4000) -> None:
        import fiducio

        rng, logits, target = np.random.default_rng(0), [], []
        for voxels in (cases.voxels[name] for name in names):
            weights = voxels.all_weights.numpy()
            drawn = torch.from_numpy(rng.choice(len(weights), n_voxels, p=weights / weights.sum()))
            logits.append(_logs(voxels.log_odds[:, drawn]))
            target.append(voxels.target[drawn])
        self._fitted = getattr(fiducio, name)(optimizer="lbfgs").fit(torch.cat(logits), torch.cat(target))

    def to_probabilities(self, odds: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """(K, n) calibrated; it takes the label from the log-odds."""
        return self._fitted.transform(_logs(odds)).T.double()


def _logs(odds: torch.Tensor) -> torch.Tensor:
    """(n, K) log probabilities of (K - 1, n) log-odds."""
    return torch.cat([torch.zeros_like(odds[:1]), odds]).log_softmax(0).T.float()


PEERS = ("CDC", "CMSop")
SCORES = ("NLL:predicted", "NLL:all", "Brier:predicted", "Brier:all", "ECE:predicted")


def methods_of(cases: Cases, names: Sequence[str], learned: Learned) -> dict[str, Any]:
    """Maps by method, all fitted to the same cases."""
    own = {"temperature": learned.maps["temperature"], "shift": learned.maps["shift"], MAP: learned.map}
    return {RAW: None, **own, **{name: Fiducio(name, cases, names) for name in PEERS}}


def calibration_rows(study: Study) -> None:
    """Part `calibration`: proper scores and pooled errors under each map, and the reliability curve."""
    curves = []
    for kind, cases, parts in study.each():
        by_method: dict[str, list[CaseRecord]] = {}
        for names, learned in parts:
            taught = [name for name in study.folds.records if kind == ENSEMBLE or name not in set(names)]
            for method, fitted in methods_of(study.folds, taught, learned).items():
                each = [cases.records[name] for name in names]
                by_method.setdefault(method, []).extend(under(one, fitted) if fitted else one for one in each)
        values = {method: effect_rows(method, found, cases.patient) for method, found in by_method.items()}
        rows = [row for found in values.values() for row in found]
        rows += difference_rows({method: scores(found) for method, found in by_method.items()}, cases.patient)
        put(rows, **study.common, cases=kind)
        curves += [curve(found, cases.patient, kind, method) for method, found in by_method.items()]
    write_csv("curve_reliability.csv", pd.concat(curves), 4)


def effect_rows(method: str, records: Sequence[CaseRecord], patient: Mapping[str, str]) -> list[dict[str, Any]]:
    """Means over cases of scores, and pooled over their voxels the error and mean confidence and accuracy."""
    patients, values = [patient[record.case] for record in records], scores(records)
    rows = [mean_row(values[name], patients, method=method, quantity=name.replace(":", " ")) for name in SCORES]
    sums = predicted_bins(records)
    rows.append(pooled_gap_row(*sums, patients, method=method, quantity="pooled ECE predicted"))
    count, confidence, correct = (total.sum(1) for total in sums)
    for name, total in (("confidence predicted", confidence), ("accuracy predicted", correct)):
        rows.append(statistic_row(_ratio, patients, total, count, method=method, quantity=name))
    return rows


def _ratio(weights: np.ndarray, total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return weights @ total / (weights @ count)


def predicted_bins(records: Sequence[CaseRecord]) -> list[np.ndarray]:
    """(cases, bins) voxels that were segmented, sum of their confidences and how many are right."""
    found = [record.bins["predicted"] for record in records]
    return [np.stack([getattr(each, name)[0] for each in found]) for name in ("count", "confidence", "correct")]


def difference_rows(values: Mapping[str, pd.DataFrame], patient: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Of the map less each other method, paired by case."""
    own = values[MAP]
    for method, other in values.items():
        for name in SCORES[:4] if method != MAP else ():
            patients = [patient[case] for case in own.index]
            yield mean_row(
                own[name] - other.loc[own.index, name],
                patients,
                exact=False,
                method=f"{MAP} less {method}",
                quantity=name.replace(":", " "),
            )


def curve(records: Sequence[CaseRecord], patient: Mapping[str, str], kind: str, method: str) -> pd.DataFrame:
    """Accuracy by bin of confidence over the segmented voxels, with 95 % bands over patients."""
    count, confidence, correct = predicted_bins(records)
    code = np.unique([patient[record.case] for record in records], return_inverse=True)[1]
    sums = [pd.DataFrame(each).groupby(code).sum().to_numpy() for each in (count, correct)]
    low, high = bin_accuracy_bands(*sums, n_bootstrap=DRAWS, seed=0)
    with np.errstate(invalid="ignore"):
        means = confidence.sum(0) / count.sum(0), correct.sum(0) / count.sum(0)
    found = {"cases": kind, "method": method, "confidence": means[0], "accuracy": means[1], "low": low, "high": high}
    return pd.DataFrame(found | {"voxels": count.sum(0)}).dropna(subset=["confidence"])


# --- how many patients it takes


def patients_rows(study: Study) -> None:
    """Part `patients`: what a list finds that was learned from few patients, over draws of patients."""
    aims = {"flagged": {"find": 0.9, "bad": 0.5}}
    everyone, rows = np.array(sorted(set(study.folds.patients()))), []
    groups.MOST_FOLDS = 5  # of a cross-fit, in place of ten: half the time
    for size in SIZES:
        for draw in range(N_DRAWS if size < len(everyone) else 0):
            chosen = np.random.default_rng([size, draw]).choice(everyone, size, replace=False)
            learned = study.folds.learn(study.folds.of(chosen))
            tests = [(CV, study.folds, study.folds.of(set(everyone) - set(chosen)))]
            tests += [(ENSEMBLE, study.outer, list(study.outer.records))] if study.outer else []
            for kind, cases, names in tests:
                judged = cases.judge(names, learned, aims)
                bad, flagged = judged.Dice < 0.5, judged.flagged
                found = flagged[bad].groupby(judged.patient[bad]).mean().mean()
                rows.append([kind, size, draw, found, flagged.mean(), judged.patient.nunique(), len(judged)])
    draws = pd.DataFrame(rows, columns=["cases", "patients", "draw", "found", "flagged", "n_patients", "n_cases"])
    write_csv("curve_patients.csv", draws, 4)
    put(patients_table(draws), **study.common)


def patients_table(draws: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means over draws; low and high hold nine of ten. Refused are draws with too few patients for any promise."""
    for (kind, size), each in draws.groupby(["cases", "patients"], sort=False):
        keys = {"cases": kind, "method": f"-find 0.9 -bad 0.5, {size} patients"}
        keys |= {"n_patients": each.n_patients.iloc[0], "n_cases": round(each.n_cases.mean())}
        yield keys | {"quantity": "refused, share of draws", "value": each.flagged.isna().mean()}
        for name in ("found", "flagged"):
            values = each[name].dropna()
            if len(values):
                low, high = values.quantile([0.05, 0.95])
                ends = {"value": values.mean(), "low": low, "high": high}
                yield keys | ends | {"quantity": f"{name}, mean over draws"}
        yield keys | {"quantity": "found below 0.8, share of draws", "value": (each.found.dropna() < 0.8).mean()}


# --- the four raters


def raters_rows(study: Study) -> None:
    """Part `raters`: confidence against the share of the raters who marked a voxel, and Dice between raters."""
    curves = []
    for kind, cases, parts in study.each():
        sums: dict[str, dict[str, np.ndarray]] = {RAW: {}, MAP: {}}
        between, predicted = {}, {RAW: cases.table.predicted_dice, MAP: pd.Series(dtype=float)}
        for names, learned in parts:
            after = cases.under(learned.map, names).predicted_dice
            predicted[MAP] = pd.concat([predicted[MAP], after]) if len(predicted[MAP]) else after
            for name in names:
                counts = np.load(study.records(f"votes_{kind}") / f"{name}.npz")["counts"]
                for method, fitted in ((RAW, None), (MAP, learned.map)):
                    sums[method][name] = vote_bins(counts, fitted)
                between[name] = dice_between_raters(counts)
        rows = []
        for method, by_case in sums.items():
            bins, patients = np.stack(list(by_case.values()), 1), cases.patients(by_case)
            rows.append(pooled_gap_row(*bins, patients, method=method, quantity="gap to share of raters"))
            n, sure, marked = bins.sum((1, 2))
            for quantity, total in (("confidence", sure), ("share of raters", marked)):
                rows.append({"method": method, "quantity": f"{quantity}, segmented voxels", "value": total / n})
            rows += agreement_rows(method, predicted[method], pd.Series(between), cases)
            curves.append(vote_curve(bins, patients, kind, method))
        put(rows, **study.common, cases=kind)
    write_csv("curve_raters.csv", pd.concat(curves), 4)


def vote_bins(counts: np.ndarray, fitted: LogOddsMap | None, n_bins: int = 15) -> np.ndarray:
    """(3, bins) of the segmented voxels: how many, sum of their probabilities, sum of the shares of raters."""
    odds = torch.arange(len(counts), dtype=torch.float64)[None] * STEP - GRID
    label, segmented = torch.ones(odds.shape[1], dtype=torch.int64), counts[:, 1]
    probs = torch.sigmoid(odds[0]) if fitted is None else fitted.to_probabilities(odds, label)[1]
    place, n = np.clip(np.ceil(probs.numpy() * n_bins) - 1, 0, n_bins - 1).astype(int), segmented.sum(1)
    shares = segmented @ np.arange(5) / 4
    return np.stack([np.bincount(place, values, n_bins) for values in (n, n * probs.numpy(), shares)])


def vote_curve(bins: np.ndarray, patients: Sequence[str], kind: str, method: str) -> pd.DataFrame:
    """Share of raters by bin of probability, with 95 % bands over patients."""
    code = np.unique(patients, return_inverse=True)[1]
    n, shares = (pd.DataFrame(each).groupby(code).sum().to_numpy() for each in (bins[0], bins[2]))
    low, high = bin_accuracy_bands(n, shares, n_bootstrap=DRAWS, seed=0)
    with np.errstate(invalid="ignore"):
        means = bins[1].sum(0) / bins[0].sum(0), bins[2].sum(0) / bins[0].sum(0)
    found = {"cases": kind, "method": method, "confidence": means[0], "raters": means[1], "low": low, "high": high}
    return pd.DataFrame(found | {"voxels": bins[0].sum(0)}).dropna(subset=["confidence"])


def dice_between_raters(counts: np.ndarray) -> float:
    """2 x shared voxels / sizes, summed over the six pairs of raters: votes alone do not tell each pair's."""
    marked = counts.sum((0, 1)).astype(float)
    pairs = marked @ (np.arange(5) * (np.arange(5) - 1) / 2)
    return float(2 * pairs / (3 * (marked @ np.arange(5)))) if marked[1:].any() else np.nan


def agreement_rows(method: str, predicted: pd.Series, between: pd.Series, cases: Cases) -> Iterator[dict[str, Any]]:
    """Whether predicted Dice follows the Dice between raters, over segmented scans: rank correlation, and means."""
    from scipy.stats import rankdata

    pair = pd.DataFrame({"predicted": predicted, "between": between, "dice": cases.table.Dice}).dropna()
    patients = cases.patients(pair.index)

    def correlation(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        first, second = first - first.mean(), second - second.mean()
        n = weights.sum(1)
        one, other = weights @ first / n, weights @ second / n
        spread = (weights @ first**2 / n - one**2) * (weights @ second**2 / n - other**2)
        return (weights @ (first * second) / n - one * other) / np.sqrt(spread)

    def spearman(name: str) -> dict[str, Any]:
        ranks = rankdata(pair[name]), rankdata(pair.between)
        keys = {"method": method, "quantity": "rank correlation with Dice between raters"}
        return statistic_row(correlation, patients, *ranks, **keys)

    yield spearman("predicted")
    yield mean_row(pair.predicted, patients, method=method, quantity="predicted Dice")
    if method == RAW:
        yield spearman("dice") | {"method": "true Dice"}
        yield mean_row(pair.between, patients, method="", quantity="Dice between raters")


# --- labels that miss less


def recall_rows(study: Study) -> None:
    """Part `recall`: what labels miss of the structure, the mean over patients who have it, and what they cost."""
    for kind, cases, parts in study.each():
        found = []
        for names, _ in parts:
            taught = [name for name in study.folds.records if kind == ENSEMBLE or name not in set(names)]
            counts = [study.folds.records[name].addable for name in taught]
            (learned,) = learn_recall(study.folds.table.loc[taught], counts, study.patient).values()
            places = {recall: learned.place(recall) for recall in RECALLS} | {None: len(THRESHOLDS)}
            found += [
                sensitive(cases, names, place).assign(recall=recall or 0)
                for recall, place in places.items()
                if place is not None
            ]
        for recall, rows in pd.concat(found).groupby("recall"):
            keys = {"cases": kind, "method": f"-recall {recall}" if recall else "nnU-Net's labels"}
            missed = rows.missed.groupby(rows.patient).mean()
            made = [mean_row(missed, missed.index, **keys, quantity="missed")]
            for name in ("times larger", "false voxels"):
                values = rows[name].dropna()
                made.append(keys | {"quantity": f"{name}, median", "value": values.median(), "n_cases": len(values)})
            put(made, **study.common)


def sensitive(cases: Cases, names: Sequence[str], place: int) -> pd.DataFrame:
    """A row a case: its patient, and under a threshold the share missed, how much larger labels are, false voxels."""
    counts = np.stack([cases.records[name].addable[:, 0] for name in names])  # one structure
    found, added = np.concatenate([counts, 0 * counts[..., :1]], 2)[..., place:].sum(2).T
    rows, labelled = cases.table.loc[list(names)], cases.table.loc[list(names)].eval("TP + FP").to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        missed = (rows.FN.to_numpy() - found) / rows.eval("TP + FN").to_numpy()
        larger = np.where(labelled > 0, 1 + added / labelled, np.nan)
    values = {"patient": cases.patients(names), "missed": missed, "times larger": larger, "false voxels": added - found}
    return pd.DataFrame(values).assign(missed=np.where(np.isfinite(missed), missed, np.nan))


PARTS = {
    "learn": learn_scans,
    "calibration": calibration_rows,
    "patients": patients_rows,
    "raters": raters_rows,
    "recall": recall_rows,
}


def main() -> None:
    """Measure the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["records", *PARTS, "scans", "losses"], metavar="PART")
    parser.add_argument("-task", type=Path, help="folder of the task")
    parser.add_argument("-work", type=Path, help="folder for records")
    parser.add_argument("-d", default="31", help="data set (default: %(default)s)")
    parser.add_argument("-c", default="2d_small", help="configuration (default: %(default)s)")
    parser.add_argument(
        "-tr", default="DiceCE_25epochs_100iters_adam", help="behind nnUNetTrainer (default: %(default)s)"
    )
    parser.add_argument("--outer", action="store_true", help="open the cases in no fold")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if set(args.parts) - {"scans"} and (args.task is None or args.work is None):
        parser.error("these parts need -task and -work")
    study = Study(args.task, args.work, args.d, args.tr, args.c)
    for part in args.parts:
        if part == "records":
            make_records(study, args.outer)
        elif part == "scans":
            scan_rows()
        elif part == "losses":
            losses_rows(study)
        else:
            PARTS[part](study)


if __name__ == "__main__":
    main()
