"""Measures a trained model as it is deployed: what its map promises, and what came true, on cases with ground truth.

    python docs/results/deployed.py MODEL VALUES [-i NAME=PREDICTIONS ... -gt LABELS] [-lists NAME=FOLDER ...]

MODEL is nnU-Net's model folder with the calibration_map.json of `nnunet_nacl calibrate`. Without -i the validation
cases are measured, each under the map, and by what was learned, without its part. With -i other cases, under the whole
map, as predicted by single networks (NAME is single_0, ...) or their average (NAME is average). -lists names folders
that `nnunet_nacl predict` wrote for the same cases: the folds' disagreement is read from their scans.csv, and
their segmentations must be those of the predictions, voxel by voxel.

Writes into the folder VALUES, one row each, the network and the case first:

    cases.csv       ECE, NLL and Brier score, as trained and calibrated; orders of the review list; NLL at further
                    slopes on top of the map
    structures.csv  expected and predicted Dice and volume with intervals, presence, and what is true
    labels.csv      Dice, HD95 and volume of nnU-Net's labels, and of those decided for Dice and for F2
    findings.csv    connected components: probability that they are real, what they overlap
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.log_odds import network_box
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibration.presence import LearnedPresence, LearnedProbability, finding_features, presence_features
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.documents.document import Evaluation
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.documents.map_file import MAP_FILE, read_map, read_record, structures_of
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.case import Case
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.json_files import decode
from nnunet_nacl.metrics.calibration_error import brier, ece, nll
from nnunet_nacl.runs.components import FOUND
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.quality_block import QUALITY, quality_rows

SLOPES = np.arange(0.7, 1.301, 0.05).round(2)
RULES = {"nnU-Net": None, "Dice": 1.0, "F2": 2.0}
FURTHER = "further slopes"
SCORES = {
    "ECE predicted": lambda stats: ece(stats["predicted"]),
    "ECE dilated": lambda stats: ece(stats["dilated"]),
    "NLL all": lambda stats: nll(stats["all"]),
    "NLL dilated": lambda stats: nll(stats["dilated"]),
    "Brier all": lambda stats: brier(stats["all"]),
}
"""Of a case, by its sums."""


def further_slopes(case: Case) -> dict[str, list[float]]:
    """NLL over the image with every log-odds to the background multiplied once more, for each of ``SLOPES``."""
    probs = case.probabilities.whole()
    box = network_box(probs) or (slice(0, 0),) * (probs.ndim - 1)
    logs = np.log(np.maximum(probs[(slice(None), *box)], np.finfo(np.float32).tiny)).reshape(len(probs), -1)
    odds, truth = logs - logs[0], case.truth[box].reshape(-1)
    found = []
    for slope in SLOPES:
        scaled = slope * odds
        found.append(float(np.sum(np.logaddexp.reduce(scaled, axis=0) - scaled[truth, np.arange(len(truth))])))
    outside = -np.log(np.finfo(np.float32).tiny) * (np.count_nonzero(case.truth) - np.count_nonzero(truth))
    return {FURTHER: [(value + outside) / case.truth.size for value in found]}


@dataclass(frozen=True)
class Measured:
    """The cases of one network, in one order.

    Attributes:
        network: Its name.
        before: As the network gave them.
        after: By rule of ``RULES``, calibrated.
    """

    network: str
    before: list[CaseResult]
    after: dict[str, list[CaseResult]]

    @cached_property
    def rows(self) -> QualityRows:
        """What the calibrated probabilities promise of nnU-Net's labels."""
        rows = quality_rows(self.after["nnU-Net"])
        assert rows is not None  # documents of this version have it
        return rows

    @cached_property
    def blocks(self) -> list[tuple[dict, dict[str, StructureFindings]]]:
        """Structures of each case's quality block, and its findings, as the network gave them."""
        return [
            (case.blocks[QUALITY]["structures"], decode(dict[str, StructureFindings], case.blocks[FOUND], FOUND))
            for case in self.before
        ]


@dataclass(frozen=True)
class Learned:
    """What a case is asked about: by what all calibrated cases taught, or those outside its part."""

    quality: LearnedQuality
    presence: LearnedPresence


def measure(folder: PredictionFolder, network: str, maps: Mapping[str, LogOddsMap], processes: int) -> Measured:
    """Measure a folder as it is and under every rule; what is finished is not measured again."""
    place = folder.folder.parent / f"deployed_{folder.folder.name}"

    def evaluate(name: str, here: PredictionFolder, **options) -> list[CaseResult]:
        output = place / name / "calibration.json"
        output.parent.mkdir(parents=True, exist_ok=True)
        title = f"{network} {name}"
        found: Evaluation = evaluate_folder(here, output=output, num_processes=processes, progress=title, **options)
        if found.problems:
            raise SystemExit(f"{folder.folder}: {found.problems}")
        return sorted((case for case in found.cases if case.case in maps), key=lambda case: case.case)

    after = {}
    for rule, beta in RULES.items():
        treated = replace(folder, treatment={case: Treatment(one, beta) for case, one in maps.items()})
        slopes = {} if beta else {"also": further_slopes, "blocks": (FURTHER,)}
        after[rule] = evaluate(rule, treated, **slopes)
    return Measured(network, evaluate("as trained", folder), after)


def learn(measured: Sequence[Measured], kept: set[str], like: Learned, groups: Mapping[str, str]) -> Learned:
    """What the cases in ``kept`` alone teach, of the structures of ``like``: every part answers for the same ones."""
    rows, present, real = [], {}, {}
    for one in measured:
        rows += [(one, i) for i, case in enumerate(one.before) if case.case in kept]
    patients = [groups.get(one.before[i].case, one.before[i].case) for one, i in rows]
    first = rows[0][0].rows
    columns = ("predicted", "true_dice", "expected_volume", "true_volume", "entropy", "confidence")
    table = replace(first, **{name: np.array([getattr(one.rows, name)[i] for one, i in rows]) for name in columns})
    old = like.quality
    quality = LearnedQuality.learn(table, patients, as_deployed=old.as_deployed)
    for key in like.presence.present:
        found = [one.blocks[i][0][key] for one, i in rows]
        volumes, dice = ([each[name] for each in found] for name in ("expected_volume", "largest_dice"))
        features = presence_features(volumes, dice, like.presence.voxel)
        present[key] = LearnedProbability.fit(features, [each["true_volume"] > 0 for each in found], patients)
    for key in like.presence.real:
        pieces = [(each, who) for (one, i), who in zip(rows, patients) for each in one.blocks[i][1][key].found]
        pieces = [(each, who) for each, who in pieces if each.real is not None]
        numbers = np.array([(each.volume, each.mean_probability, each.max_probability) for each, _ in pieces])
        numbers = numbers.reshape(-1, 3)  # the other cases may have no finding
        yes, whose = [bool(each.real) for each, _ in pieces], [who for _, who in pieces]
        real[key] = LearnedProbability.fit(finding_features(*numbers.T), yes, whose)
    return Learned(quality, replace(like.presence, present=present, real=real))


def tables_of(one: Measured, names: Mapping[str, str], learned: Mapping[str, Learned]) -> Iterator[tuple[str, dict]]:
    """Rows of the tables, each with the table's name."""
    rows, unusual = one.rows, one.rows.unusual_volume
    for i, result in enumerate(one.after["nnU-Net"]):
        own, first = learned[result.case], {"network": one.network, "case": result.case}
        guessed = []
        for j, (key, name) in enumerate(names.items()):
            structure, findings = (block[key] for block in one.blocks[i])
            dice, dice_low, dice_high = own.quality.dice[key].predict(rows.predicted[i, j, 0])
            volume, volume_low, volume_high = own.quality.volume[key].predict(rows.expected_volume[i, j])
            guessed.append(dice)
            largest = structure["max_probability"]
            promised = {
                "Dice": rows.true_dice[i, j],
                "expected Dice": rows.predicted[i, j, 0],
                "predicted Dice": dice,
                "Dice low": dice_low,
                "Dice high": dice_high,
                "true volume": rows.true_volume[i, j],
                "volume": structure["volume"],
                "predicted volume": volume,
                "volume low": volume_low,
                "volume high": volume_high,
                "present probability": own.presence.present_probability(
                    key, structure["expected_volume"], structure["largest_dice"]
                ),
                "largest probability": largest,
                "true parts": findings.n_true,
            }
            yield "structures", {**first, "structure": name, **promised}
            for found in findings.found if key in own.presence.listed else ():
                numbers = found.volume, found.mean_probability, found.max_probability
                chance = own.presence.real_probability(key, *numbers)
                row = dict(zip(("volume", "mean probability", "largest probability"), numbers))
                overlaps = None if found.overlaps is None else ";".join(map(str, found.overlaps))
                yield "findings", {**first, "structure": name, "real probability": chance, **row, "overlaps": overlaps}
            for rule, cases in one.after.items():
                segmented = cases[i].metrics[key]
                size = segmented.n_pred * one.before[i].blocks[QUALITY]["voxel"]
                row = {"Dice": segmented.Dice, "HD95": segmented.HD95_mm, "volume": size}
                row["true volume"] = rows.true_volume[i, j]
                yield (
                    "labels",
                    {**first, "structure": name, "labels": rule, **row},
                )
        orders = {
            "predicted Dice": np.fmin.reduce(guessed, initial=np.nan),
            "expected Dice": rows.lowest_predicted[i],
            "entropy": rows.entropy[i],
            "confidence": rows.confidence[i],
            "unusual volume": unusual[i],
        }
        scores = {f"{name} as trained": score(one.before[i].bins) for name, score in SCORES.items()}
        scores |= {name: score(result.bins) for name, score in SCORES.items()}
        yield (
            "cases",
            first | scores | orders | {f"NLL at {s:g}": nll for s, nll in zip(SLOPES, result.blocks[FURTHER])},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("-f", nargs="+", help="folds (default: all)")
    parser.add_argument("-i", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("-gt", type=Path)
    parser.add_argument("-lists", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("-np", type=int, default=1)
    arguments = parser.parse_args()
    path = arguments.model / MAP_FILE
    content, record = json.loads(path.read_text(encoding="utf-8")), read_record(path)
    assert record.quality is not None  # `calibrate` writes it
    presence = record.quality.presence or LearnedPresence(1.0, {}, {}, [])
    everything = Learned(record.learned["argmax"], presence)
    learned: dict[str, Learned] = {}
    measured = []
    if arguments.i:
        for name, _, place in (named.partition("=") for named in arguments.i):
            folder = PredictionFolder.open(place, arguments.gt)
            whole = read_map(path, structures_of(folder.labels), folder.labels.regions)
            maps = dict.fromkeys((files.case for files in folder.cases()[0]), whole)
            measured.append(measure(folder, name, maps, arguments.np))
            learned |= {case.case: everything for case in measured[-1].before}
    else:
        folders, maps = find_fold_folders(arguments.model, arguments.f), {}
        for part in content["cross_fit"].values():
            own = LogOddsMap(np.array(part["slopes"]), np.array(part["offsets"]), content["regions"])
            maps |= dict.fromkeys(part["cases"], own)
        for fold, folder in folders.items():
            here = {case: one for case, one in maps.items() if case in folder.expected}
            measured.append(measure(folder, f"fold_{fold}", here, arguments.np))
        for part in content["cross_fit"].values():
            others = learn(measured, set(maps) - set(part["cases"]), everything, content.get("groups") or {})
            learned |= dict.fromkeys(part["cases"], others)
    tables: dict[str, list[dict]] = {"cases": [], "structures": [], "labels": [], "findings": []}
    names = structures_of(folder.labels)
    for one in measured:
        for table, row in tables_of(one, names, learned):
            tables[table].append(row)
    for name, _, place in (named.partition("=") for named in arguments.lists):
        predicted = PredictionFolder.open(dict(named.split("=", 1) for named in arguments.i)[name], arguments.gt)
        for files in predicted.cases()[0]:
            own, listed = files.segmentation, Path(place) / files.segmentation.name
            if not np.array_equal(*(predicted.read_labels(path)[0] for path in (own, listed))):
                raise SystemExit(f"{place}: the segmentation of {files.case} is not that of {predicted.folder}")
        listed = pd.read_csv(Path(place) / "scans.csv").set_index("case")["mean_foreground_mutual_information"]
        for row in tables["cases"]:
            if row["network"] == name:
                row["disagreement"] = listed.get(row["case"])
    arguments.values.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        text = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
        write_atomically(arguments.values / f"{name}.csv", text)


if __name__ == "__main__":
    main()
