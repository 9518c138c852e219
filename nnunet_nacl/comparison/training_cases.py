"""Which of the cases that are compared the networks had seen in training, as far as nnU-Net's files tell.

A fold's ``validation`` holds the cases that its network was not trained on; fold_all was trained on all of them.
nnUNetv2_predict records neither the trainer nor the folds that it used, only (in plans.json) the data set: cases that
are in no split of that data set were trained on by none of its networks. If one run of it predicted cases from the
validation parts of several folds, every choice of folds was trained on some of them. For ensembles and for other
tools' predictions nothing is known of cases that are in the splits.
"""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_nacl.documents.map_file import fitted_cases
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.io.companion_files import PREDICT_ARGUMENTS, find_above, fold_of
from nnunet_nacl.io.locate import splits_of
from nnunet_nacl.io.prediction_folder import read_plans


def check_training_cases(
    label: str, fold: str, folder: Path, cases: set[str], *, allow: bool, plans: Path | None
) -> list[str]:
    """Make sure that an entry's networks were not trained on its cases, and note where its calibration was.

    Args:
        label: Of the entry.
        fold: Of a model's validation folder, see :func:`fold_of_validation`.
        folder: The predictions.
        cases: Names.
        allow: Give a note instead of an error.
        plans: plans.json of folders that have none.

    Returns:
        Sentences for every output: that they were trained on some, or that this is not known; and that the
        map of a calibrated folder was fitted to some.

    Raises:
        UserError: They certainly were, and ``allow`` is not set.
    """
    certain, why = _trained_on(folder, fold, cases, plans)
    if certain and not allow:
        raise UserError(
            f"{label}: its networks were trained on cases that they are compared on ({why}); give predictions of other "
            "cases, or pass --allow-training-cases to compare them with a note."
        )
    were = "were" if certain else "may have been"
    notes = [f"{label}: its networks {were} trained on cases that they are compared on ({why})."] if why else []
    if seen := cases & fitted_cases(folder):
        notes.append(
            f"{label}: its calibration map was fitted to cases that it is compared on ({_counted(seen)}), which "
            "flatters it; what `nnunet_nacl calibrate` printed is of cases that were left out."
        )
    return notes


def fold_of_validation(folder: Path) -> str:
    """Fold of a model's validation folder; empty for any other folder."""
    place = Path(os.path.abspath(folder))
    return (place.name == "validation" and fold_of(place.parent)) or ""


def _trained_on(folder: Path, fold: str, cases: set[str], plans: Path | None) -> tuple[bool, str]:
    """Whether it is certain, and why it is, or why it is not known; no reason where they were not trained on any."""
    if fold == "all":
        return True, "fold_all is trained on all cases, those of its validation included"
    dataset = _dataset_name(folder, plans)
    splits = splits_of(dataset)
    if fold:
        seen = cases & set(splits[int(fold)]["train"]) if int(fold) < len(splits) else set()
        return bool(seen), f"{_counted(seen)} in the training part of fold {fold}" if seen else ""
    if not splits:
        return False, "there is no plans.json beside the predictions, or no splits_final.json of its data set"
    inside = cases & set().union(*(split["train"] + split["val"] for split in splits))
    if not inside:
        return False, ""
    if (folder / PREDICT_ARGUMENTS).is_file() and not any(inside <= set(split["val"]) for split in splits):
        return True, f"{_counted(inside)} in the splits of {dataset}, in no single fold's validation part"
    return False, f"{_counted(inside)} in the splits of {dataset}; which folds predicted them is not recorded"


def _counted(cases: set[str]) -> str:
    return f"{len(cases)} of them ({some(sorted(cases), 3)}) {'is' if len(cases) == 1 else 'are'}"


def _dataset_name(folder: Path, plans: Path | None) -> str:
    try:
        return read_plans(find_above(folder, "plans.json", plans, "-pfile")).get("dataset_name", "")
    except UserError:
        return ""
