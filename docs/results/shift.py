"""Calibration under shift: networks and their maps on corrupted images, from mild to severe.

    python docs/results/shift.py CLEAN CORRUPTED LABELS OUT MODEL [MODEL ...] [--fold 0] [--every 1] [--only-predict]

CLEAN is a folder of images that no network has seen, CORRUPTED what corruptions.py made of it, LABELS their ground
truth, MODEL a trainer's folder in nnUNet_results with calibration_map.json. Predicts every set with one fold's network
(OUT/TRAINER/SET, kept), measures it as it is and through the map, and asks what `calibrate` learned for the Dice of
every case. Writes OUT/shift.csv and OUT/shift.png, and prints Markdown. What is done is not done again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from corruptions import KINDS, SEVERITIES
from method_styles import legend_handles, method_styles
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from nnunet_nacl.calibration.learned_quality import LearnedQuality
from nnunet_nacl.calibration.quality_report import quality_report
from nnunet_nacl.comparison.entries import short_labels
from nnunet_nacl.documents.document import Evaluation
from nnunet_nacl.documents.map_file import MAP_FILE, read_map, read_record, structures_of
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import Treatment
from nnunet_nacl.metrics.calibration_error import nll
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.quality_block import quality_rows
from nnunet_nacl.show.layout import figure_settings, save_figure

MEASURES = {
    "dice": "Dice",
    "ece": "ECE, predicted foreground",
    "nll": "NLL, all voxels",
    "dice_error": "error of the estimated Dice",
    "coverage": "90 % intervals that hold",
    "rho": "rank correlation, lowest Dice",
}
DRAWN = ("dice", "ece", "nll", "dice_error", "coverage")


def predict(model: Path, fold: int, every: int, images: dict[str, Path], out: Path, progress: tqdm) -> None:
    """By nnU-Net, the network loaded once."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (fold,), "checkpoint_final.pth")
    for name, folder in images.items():
        target, finished = out / name, out / name / "finished"
        if not finished.exists():
            target.mkdir(parents=True, exist_ok=True)
            files = sorted(folder.glob("*_0000.nii.gz"))[::every]
            outputs = [str(target / path.name.removesuffix("_0000.nii.gz")) for path in files]
            predictor.predict_from_files_sequential([[str(path)] for path in files], outputs, True)
            for file in ("dataset.json", "plans.json"):
                shutil.copy(model / file, target / file)
            finished.touch()
        progress.update()


def measured(evaluation: Evaluation, learned: LearnedQuality | None) -> dict[str, float]:
    """The measures of a set, with the coverage of intervals where something was learned."""
    rows = quality_rows(evaluation.cases)
    if rows is None:
        raise SystemExit("measured by another version; remove its calibration.json.")
    found = quality_report(rows if learned is None else learned.predict_dice(rows), 0.8)
    return {
        "dice": float(np.nanmean([np.nanmean(list(case.dice.values())) for case in evaluation.cases])),
        "ece": evaluation.mean_ece("predicted"),
        "nll": float(np.mean([nll(case.bins["all"]) for case in evaluation.cases])),
        "dice_error": found.error,
        "coverage": found.coverage.share if found.coverage else np.nan,
        "rho": found.orders["predicted Dice"]["rho"],
    }


def measured_sets(model: Path, label: str, sets: Iterable[str], out: Path, truth: Path) -> list[dict]:
    """Every predicted set of one network, as it is and through its model's map: a row each."""
    trainer = model.name.split("__")[0]
    learned = read_record(model / MAP_FILE).learned["argmax"]
    rows = []
    for name in tqdm(sets, f"measure {label}", unit="set"):
        folder = PredictionFolder.open(out / trainer / name, truth)
        calibration = read_map(model / MAP_FILE, structures_of(folder.labels), folder.labels.regions)
        views = {False: folder, True: replace(folder, treatment=Treatment(calibration))}
        for calibrated, view in views.items():
            place = folder.folder / ("calibrated" if calibrated else "raw") / "calibration.json"
            found = measured(evaluate_folder(view, output=place), learned if calibrated else None)
            kind, severity = name.rsplit("_", 1)
            rows.append({"loss": label, "calibrated": calibrated, "kind": kind, "severity": int(severity)} | found)
    return rows


def draw(rows: list[dict], labels: list[str], path: Path) -> None:
    """A panel for each measure and kind of corruption."""
    styles = method_styles(labels)
    with figure_settings():
        figure, axes = plt.subplots(
            len(DRAWN), len(KINDS), figsize=(11, 11), sharex=True, sharey="row", layout="constrained"
        )
        for line, measure in enumerate(DRAWN):
            for column, kind in enumerate(KINDS):
                panel = axes[line, column]
                for label in labels:
                    for calibrated in (False, True):
                        values = [
                            row[measure]
                            for severity in (0, *SEVERITIES)
                            for row in rows
                            if (row["loss"], row["calibrated"], row["severity"]) == (label, calibrated, severity)
                            and row["kind"] in (kind, "none")
                        ]
                        look = styles[label].line | {"linestyle": "-" if calibrated else ":"}
                        look |= {"marker": styles[label].marker if calibrated else "", "markersize": 3}
                        panel.plot((0, *SEVERITIES), values, **look)
                if measure == "coverage":
                    panel.axhline(0.9, color="0.6", linewidth=0.8)
                if line == 0:
                    panel.set_title(kind.replace("_", " "))
                if column == 0:
                    panel.set_ylabel(MEASURES[measure])
                panel.set_xticks((0, *SEVERITIES))
        figure.supxlabel("severity (0: the images as they are)")
        title = "dotted: as trained, solid: calibrated"
        figure.legend(
            handles=legend_handles(styles), title=title, loc="outside upper center", ncols=len(labels), frameon=False
        )
        save_figure(figure, path, title="Calibration under shift")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clean", "corrupted", "labels", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="2 takes every second image")
    parser.add_argument("--only-predict", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"none_0": arguments.clean} | {
        f"{kind}_{severity}": arguments.corrupted / f"{kind}_{severity}" for severity in SEVERITIES for kind in KINDS
    }
    trainers = [model.name.split("__")[0] for model in arguments.models]
    with tqdm(total=len(sets) * len(trainers), desc="predict", unit="set") as progress:
        for model, trainer in zip(arguments.models, trainers):
            predict(model, arguments.fold, arguments.every, sets, arguments.out / trainer, progress)
    if arguments.only_predict:
        return
    table = arguments.out / "shift.csv"
    if not table.exists():
        rows = []
        for model, label in zip(arguments.models, short_labels(trainers)):
            rows += measured_sets(model, label, sets, arguments.out, arguments.labels)
        write_atomically(table, pd.DataFrame(rows).to_csv(index=False, float_format="%.5g"))
    rows = pd.read_csv(table).to_dict("records")
    labels = list(dict.fromkeys(row["loss"] for row in rows))
    draw(rows, labels, arguments.out / "shift.png")
    print("| loss | severity | " + " | ".join(MEASURES.values()) + " |\n| :-- | --: |" + " --: |" * len(MEASURES))
    for label in labels:
        for calibrated in (False, True):
            for severity in (0, *SEVERITIES):
                chosen = [
                    r for r in rows if (r["loss"], r["calibrated"], r["severity"]) == (label, calibrated, severity)
                ]
                means = [np.mean([row[measure] for row in chosen]) for measure in MEASURES]
                values = " | ".join("" if np.isnan(mean) else f"{mean:.3f}" for mean in means)
                print(f"| {label}{', calibrated' if calibrated else ''} | {severity} | {values} |")


if __name__ == "__main__":
    main()
