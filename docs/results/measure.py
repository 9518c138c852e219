"""Measures what a model's calibration map changes and promises, on cases with ground truth.

    python docs/results/measure.py MODEL VALUES [--peers temperature CMSop CDC]                    validation cases
    python docs/results/measure.py MODEL VALUES [--peers ...] -i NAME=PREDICTIONS ... -gt LABELS [-lists ...]

MODEL is nnU-Net's model folder with the calibration_map.json of `nnunet_nacl calibrate`. Validation cases are measured
under maps, and asked by what was learned, without their part. Other cases (-i) are measured under the whole map, as
predicted by single networks (NAME is single_0, ...), by their average (average: of logits), or by the average of their
probabilities (ensemble). -lists names folders that `nnunet_nacl predict` wrote for the same cases: the folds' agreement
is read there, and their segmentations must be those of the predictions, voxel by voxel.

Writes into the folder VALUES, one row each, the network and the case first:

    forms.csv       by form (as trained, map, peers): ECE, NLL, Brier score on five masks, Dice, error of expected Dice
    structures.csv  predicted Dice and volume with intervals, presence, the truth, and labels chosen for Dice
    scans.csv       what else scans are ordered by
    findings.csv    connected components: probability that they are real, what they overlap
    bins.csv        reliability of the voxels that were segmented, pooled over cases, as trained and under the map
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from peers import PEERS, fit_peer

from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.presence import NOTHING_LEARNED, LearnedPresence
from nnunet_nacl.calibration.quality_report import QualityRows
from nnunet_nacl.comparison.treated_folder import part_treatments
from nnunet_nacl.documents.calibration_map import CalibrationMap
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.documents.map_file import MAP_FILE, read_record, structures_of
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.json_files import decode
from nnunet_nacl.runs.components import FOUND
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.heldout import HeldOut, case_values
from nnunet_nacl.runs.quality_block import QUALITY, quality_rows

AS_TRAINED, MAP, DECIDED = "as trained", "map", "decided"
MASKS = ("predicted", "near", "all", "dilated", "foreground")
ENSEMBLE = "ensemble"


def evaluate(folder: PredictionFolder, network: str, name: str, treatments: dict[str, Treatment]) -> list[CaseResult]:
    """The cases of a folder under treatments, in order; what is finished is not measured again."""
    output = folder.folder.parent / f"measured_{folder.folder.name}" / name.replace(" ", "_") / "calibration.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    treated = replace(folder, treatment=treatments) if treatments else folder
    measured = evaluate_folder(treated, output=output, progress=f"{network}, {name}")
    if measured.problems:
        raise SystemExit(f"{folder.folder}: {measured.problems}")
    return sorted(measured.cases, key=lambda case: case.case)


@dataclass(frozen=True)
class Measured:
    """The cases of one network, in one order.

    Attributes:
        network: Its name.
        folder: Its predictions.
        forms: By form the cases under it; ``decided``: labels chosen for Dice, under the map.
    """

    network: str
    folder: PredictionFolder
    forms: dict[str, list[CaseResult]]

    @cached_property
    def rows(self) -> QualityRows:
        """What the calibrated probabilities promise of nnU-Net's labels."""
        rows = quality_rows(self.forms[MAP])
        assert rows is not None  # documents of this version have it
        return rows


def form_rows(measured: Measured) -> Iterator[dict]:
    """Of every form: scores, Dice, and how far the expected Dice is off."""
    for form, cases in measured.forms.items():
        if form == DECIDED:
            continue
        rows = quality_rows(cases)
        assert rows is not None
        with np.errstate(all="ignore"):
            off = rows.predicted[..., 0] - rows.true_dice
            error, bias, dice = (pd.DataFrame(values).mean(axis=1) for values in (abs(off), off, rows.true_dice))
        for i, case in enumerate(cases):
            values = case_values(case.bins)
            scores = {
                f"{score} {mask}": values[f"{score} {mask}"] for score in ("ECE", "NLL", "Brier") for mask in MASKS
            }
            row = {"network": measured.network, "case": case.case, "form": form} | scores
            yield row | {"Dice": dice[i], "expected Dice off": error[i], "bias": bias[i]}


def structure_rows(
    measured: Measured,
    names: Mapping[str, str],
    quality: Mapping[str, LearnedQuality],
    presence: Mapping[str, LearnedPresence],
) -> Iterator[tuple[str, dict]]:
    """Rows of structures.csv, findings.csv and scans.csv, each with the table's name.

    Args:
        measured: The cases.
        names: Of the structures, by key.
        quality: By case, what others taught about Dice and volume.
        presence: By case, what others taught about what is there.
    """
    rows, unusual = measured.rows, measured.rows.unusual_volume
    for i, case in enumerate(measured.forms[MAP]):
        first, network, decided = (
            {"network": measured.network, "case": case.case},
            *(measured.forms[form][i] for form in (AS_TRAINED, DECIDED)),
        )
        findings = decode(dict[str, StructureFindings], network.blocks[FOUND], FOUND)
        voxel = network.blocks[QUALITY]["voxel"]
        known = presence[case.case]
        listed = {
            key for key in known.listed if key in known.present
        }  # what all have in parts, as vessels, is no finding
        for j, (key, name) in enumerate(names.items()):
            block, learned = network.blocks[QUALITY]["structures"][key], quality[case.case]
            dice, dice_low, dice_high = learned.dice[key].predict(rows.predicted[i, j, 0])
            volume, volume_low, volume_high = learned.volume[key].predict(rows.expected_volume[i, j])
            present = known.present_probability(key, block["expected_volume"], block["largest_dice"])
            yield (
                "structures",
                first
                | {
                    "structure": name,
                    "Dice": rows.true_dice[i, j],
                    "predicted Dice": dice,
                    "predicted Dice as trained": block["expected_dice"],
                    "Dice low": dice_low,
                    "Dice high": dice_high,
                    "true volume": rows.true_volume[i, j],
                    "volume": block["volume"],
                    "predicted volume": volume,
                    "volume low": volume_low,
                    "volume high": volume_high,
                    "voxel": voxel,
                    "present probability": present,
                    "largest probability": block["max_probability"],
                    "true parts": findings[key].n_true,
                    "decided Dice": decided.metrics[key].Dice,
                    "decided volume": decided.metrics[key].n_pred * voxel,
                },
            )
            for part in findings[key].found if key in listed else ():
                numbers = part.volume, part.mean_probability, part.max_probability
                row = {"structure": name, "real probability": known.real_probability(key, *numbers)}
                row |= dict(zip(("volume", "mean probability", "largest probability"), numbers))
                overlaps = None if part.overlaps is None else ";".join(map(str, part.overlaps))
                yield "findings", first | row | {"overlaps": overlaps}
        yield (
            "scans",
            first
            | {
                "entropy": rows.entropy[i],
                "confidence": rows.confidence[i],
                "unusual volume": unusual[i],
            },
        )


def bin_rows(measured: Sequence[Measured]) -> Iterator[dict]:
    """Pooled sums of the voxels that were segmented, of each kind of networks."""
    for one in measured:
        for form in (AS_TRAINED, MAP):
            pooled = reduce(add, (case.bins["predicted"] for case in one.forms[form]))
            sums = (getattr(pooled, name).sum(axis=0) for name in ("count", "confidence", "correct"))
            for i, (count, confidence, correct) in enumerate(zip(*sums)):
                yield {
                    "network": one.network,
                    "form": form,
                    "bin": i,
                    "count": int(count),
                    "confidence": confidence,
                    "correct": int(correct),
                }


def left_out(measured: Sequence[Measured], record: CalibrationMap) -> dict[str, LearnedQuality]:
    """By case, what the cases of the other parts teach about Dice and volume."""
    table = pd.DataFrame(
        {"case": case.case, "network": n, "place": i}
        for n, one in enumerate(measured)
        for i, case in enumerate(one.forms[MAP])
    )
    groups, first, learned = record.groups or {}, measured[0].rows, {}
    columns = ("predicted", "true_dice", "expected_volume", "true_volume", "entropy", "confidence")
    for part in record.cross_fit.values():
        others = table[~table["case"].isin(part.cases)]
        places = list(zip(others["network"], others["place"]))
        kept = {name: np.array([getattr(measured[n].rows, name)[i] for n, i in places]) for name in columns}
        patients = [groups.get(case, case) for case in others["case"]]
        quality = LearnedQuality.learn(
            replace(first, **kept, members_dice=None, present=None), patients, as_deployed=False
        )
        learned |= dict.fromkeys(part.cases, quality)
    return learned


def agreement(measured: Measured, place: Path, table: pd.DataFrame) -> pd.Series:
    """By case the lowest Dice between folds, as `nnunet_nacl predict` wrote it; SystemExit if it wrote other labels."""
    for files in measured.folder.cases()[0]:
        own, listed = files.segmentation, place / files.segmentation.name
        if not np.array_equal(*(measured.folder.read_labels(path)[0] for path in (own, listed))):
            raise SystemExit(f"{place}: the segmentation of {files.case} is not that of {measured.folder.folder}")
    lowest = pd.read_csv(place / "structures.csv", dtype={"case": str}).groupby("case")["members_dice"].min()
    return table["case"].map(lowest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("-f", nargs="+", help="folds (default: all)")
    parser.add_argument("-i", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("-gt", type=Path)
    parser.add_argument("-lists", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--peers", nargs="*", default=[], choices=PEERS)
    arguments = parser.parse_args()
    record = read_record(arguments.model / MAP_FILE)
    held_out = HeldOut(find_fold_folders(arguments.model, arguments.f))
    if set(record.folds) != set(held_out.folders):
        raise SystemExit(f"{arguments.model / MAP_FILE} is of the folds {record.folds}; calibrate those of -f again.")
    part_of, measured = record.part_of, []
    parts = sorted(set(part_of.values()))
    if arguments.i:
        peers = {name: fit_peer(name, held_out, list(part_of)) for name in arguments.peers}
        whole = Treatment(
            record.calibration(), presence=(record.quality and record.quality.presence) or NOTHING_LEARNED
        )
        for name, _, place in (named.partition("=") for named in arguments.i):
            folder = PredictionFolder.open(place, arguments.gt)
            cases = [files.case for files in folder.cases()[0]]
            forms = {AS_TRAINED: {}, MAP: dict.fromkeys(cases, whole)}
            forms |= {peer: dict.fromkeys(cases, Treatment(fitted)) for peer, fitted in peers.items()}
            forms |= {DECIDED: dict.fromkeys(cases, replace(whole, beta=1.0))} if name != ENSEMBLE else {}
            measured.append(
                Measured(name, folder, {form: evaluate(folder, name, form, made) for form, made in forms.items()})
            )
        quality = dict.fromkeys(cases, record.learned["argmax"])
        presence = dict.fromkeys(cases, whole.presence)
    else:
        fitted = {
            (name, part): fit_peer(name, held_out, [case for case in part_of if part_of[case] != part])
            for name in arguments.peers
            for part in parts
        }
        for fold, folder in held_out.folders.items():
            known = part_treatments(folder)
            cases = [files.case for files in folder.cases(known=known)[0]]
            forms = {AS_TRAINED: {}, MAP: known}
            forms |= {
                peer: {case: Treatment(fitted[peer, part_of[case]]) for case in cases} for peer in arguments.peers
            }
            forms[DECIDED] = {case: replace(one, beta=1.0) for case, one in known.items()}
            name = f"fold_{fold}"
            measured.append(
                Measured(name, folder, {form: evaluate(folder, name, form, made) for form, made in forms.items()})
            )
        quality = left_out(measured, record)
        presence = {case: part.presence or NOTHING_LEARNED for part in record.cross_fit.values() for case in part.cases}
    tables: dict[str, list[dict]] = {name: [] for name in ("structures", "findings", "scans")}
    names = structures_of(held_out.first.labels)
    for one in measured:
        for name, row in structure_rows(one, names, quality, presence) if one.network != ENSEMBLE else ():
            tables[name].append(row)
    scans = pd.DataFrame(tables.pop("scans"))
    for name, _, place in (named.partition("=") for named in arguments.lists):
        own = next(one for one in measured if one.network == name)
        scans.loc[scans["network"] == name, "members Dice"] = agreement(
            own, Path(place), scans[scans["network"] == name]
        )
    made = {name: pd.DataFrame(rows) for name, rows in tables.items() if rows} | {"scans": scans}
    made["forms"] = pd.DataFrame(row for one in measured for row in form_rows(one))
    made["bins"] = pd.DataFrame(bin_rows(measured))
    arguments.values.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        write_atomically(arguments.values / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
