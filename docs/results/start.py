"""Keeps the values of trained networks: their training by epoch, their validation cases, and these as they are decided.

    python docs/results/start.py MODEL_FOLDER VALUES [--decided] [-outer PREDICTED DECIDED LABELS]

Writes, for each fold of nnU-Net's MODEL_FOLDER that is trained, into VALUES/TRAINER/:

    curve_FOLD.csv    by epoch the losses and the training-time Dice, from the checkpoint's own log
    cases_FOLD.csv    by validation case Dice and scores

and with --decided, after `nnunet_nacl calibrate` of these folds:

    decided.csv       by validation case and structure Dice and labels of nnU-Net's labels, and of those that are
                      decided for Dice, each case by what the others taught

with -outer, of cases in no fold that `nnunet_nacl predict` segmented with all these folds, without and with
`-decide dice`:

    outer.csv         the same columns
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from nnunet_nacl.comparison.treated_folder import calibrated
from nnunet_nacl.documents.document import FILE_NAME, Evaluation, read_document
from nnunet_nacl.documents.results import CaseResult
from nnunet_nacl.files import write_atomically
from nnunet_nacl.io.locate import find_fold_folders
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.metrics.calibration_error import ece, nll
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.quality_block import DECIDED

SCORES = {
    "ECE predicted": lambda case: ece(case.bins["predicted"]),
    "ECE foreground": lambda case: ece(case.bins["foreground"]),
    "NLL all": lambda case: nll(case.bins["all"]),
}
"""Of a case."""


def curve(checkpoint: Path, names: list[str]) -> pd.DataFrame:
    """A row for each epoch."""
    log = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
    dice = pd.DataFrame(log["dice_per_class_or_region"], columns=names)
    losses = {"training loss": log["train_losses"], "validation loss": log["val_losses"]}
    return pd.concat([pd.DataFrame(losses), dice.add_prefix("Dice ")], axis=1).rename_axis("epoch").reset_index()


def measured(cases: list[CaseResult], names: dict[str, str]) -> pd.DataFrame:
    """A row for each validation case."""
    rows = []
    for case in cases:
        row = {"case": case.case} | {name: score(case) for name, score in SCORES.items()}
        for key, name in names.items():
            row |= {f"Dice {name}": case.metrics[key].Dice, f"true {name}": case.metrics[key].n_ref}
        rows.append(row)
    return pd.DataFrame(rows)


def decided(fold: str, before: Evaluation, after: Evaluation) -> list[dict]:
    """A row for each structure of each case."""
    rows, plain = [], {case.case: case for case in before.cases}
    for case in after.cases:
        first = plain[case.case]
        scores = {"ECE as trained": ece(first.bins["predicted"]), "ECE": ece(case.bins["predicted"])}
        for key, name in before.names.items():
            own, block = case.metrics[key], case.blocks[DECIDED]["structures"][key]
            row = {"fold": fold, "case": case.case, "structure": name, "true": own.n_ref}
            row |= {"argmax Dice": own.Dice, "argmax voxels": own.n_pred}
            size = round(block["volume"] / case.blocks[DECIDED]["voxel"])
            rows.append(row | {"decided Dice": block["dice"], "decided voxels": size} | scores)
    return rows


def outer(predicted: Path, chosen: Path, labels: Path) -> list[dict]:
    """A row for each structure of each case in no fold."""
    rows = []
    plain, after = (evaluate_folder(PredictionFolder.open(folder, labels)) for folder in (predicted, chosen))
    for first, second in zip(plain.cases, after.cases, strict=True):
        for key, name in plain.names.items():
            row = {"fold": "outer", "case": first.case, "structure": name}
            for kind, case in (("argmax", first), ("decided", second)):
                structure = case.metrics[key]
                row |= {"true": structure.n_ref}
                row |= {f"{kind} Dice": structure.Dice, f"{kind} voxels": structure.n_pred}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("values", type=Path)
    parser.add_argument("--decided", action="store_true")
    parser.add_argument("-outer", nargs=3, type=Path, metavar=("PREDICTED", "DECIDED", "LABELS"))
    arguments = parser.parse_args()
    place = arguments.values / arguments.model.name.partition("__")[0].removeprefix("nnUNetTrainer")
    place.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: pd.DataFrame) -> None:
        write_atomically(place / name, rows.to_csv(index=False, float_format="%.5g"))

    rows: list[dict] = []
    for fold, folder in find_fold_folders(arguments.model, None).items():
        if not (folder.folder / FILE_NAME).is_file():
            continue  # not finished
        document = read_document(folder.folder / FILE_NAME)
        checkpoint = arguments.model / f"fold_{fold}" / "checkpoint_final.pth"
        write(f"curve_{fold}.csv", curve(checkpoint, list(document.names.values())))
        write(f"cases_{fold}.csv", measured(document.cases, document.names))
        if arguments.decided:
            rows += decided(fold, document, calibrated(document, folder))
    if rows:
        write("decided.csv", pd.DataFrame(rows))
    if arguments.outer:
        write("outer.csv", pd.DataFrame(outer(*arguments.outer)))


if __name__ == "__main__":
    main()
