"""Which of the cases that are compared the networks had seen in training, as far as nnU-Net's files tell.

A fold's ``validation`` holds the cases that its network was not trained on; fold_all was trained on all of them.
nnUNetv2_predict records neither the trainer nor the folds that it used, only (in plans.json) the data set: cases that
are in no split of that data set were trained on by none of its networks. If one run of it predicted cases from the
validation parts of several folds, every choice of folds was trained on some of them. For ensembles and for other
tools' predictions nothing is known of cases that are in the splits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.comparison.resolution import Part
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.results import Evaluation
from nnunet_nacl.json_files import mismatch, read_dict, read_json

__all__ = ["PREDICT_ARGUMENTS", "check_training_cases", "predictions_by_fold"]

PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""


def check_training_cases(documents: Sequence[tuple[Part, Evaluation]], *, allow: bool, plans: Path | None) -> list[str]:
    """Make sure that an entry's networks were not trained on its cases.

    Args:
        documents: Of one entry.
        allow: Give a note instead of an error.
        plans: plans.json of folders that have none.

    Returns:
        What must be said beside every number: cases that were trained on, or that this is not known.

    Raises:
        UserError: They certainly were, and ``allow`` is not set.
    """
    label, notes = documents[0][0].entry.label, []
    for part, document in documents:
        for fold, (folder, cases) in predictions_by_fold(part, document).items():
            trained, why, unknown = _trained_on(folder, fold, [case.case for case in cases.cases], plans)
            if trained and not allow:
                raise UserError(
                    f"{label}: its networks were trained on cases that they are compared on ({why}); give predictions "
                    "of other cases, or pass --allow-training-cases to compare them with a note."
                )
            if trained or unknown:
                what = "were trained on cases that they are compared on" if trained else "may have been trained on"
                notes.append(
                    f"{label}: its networks {what}{'' if trained else ' cases that they are compared on'} ({why})."
                )
    return notes


def predictions_by_fold(part: Part, document: Evaluation) -> dict[str, tuple[Path, Evaluation]]:
    """Where the predictions of a document lie, and its cases there, by fold (empty where they belong to none)."""
    result: dict[str, tuple[Path, Evaluation]] = {}
    for case in document.cases:
        recorded = Path(case.probabilities_file).parent
        folder = part.folder.folder if part.folder else recorded if recorded.is_dir() else part.document.parent
        place = Path(os.path.abspath(folder))
        fold = part.fold
        if place.name == "validation" and (match := re.fullmatch("fold_([0-9]+|all)", place.parent.name)):
            fold = match[1]
        earlier = result.get(fold, (folder, replace(document, cases=[])))
        result[fold] = earlier[0], replace(document, cases=[*earlier[1].cases, case])
    return result


def _trained_on(folder: Path, fold: str, cases: list[str], plans: Path | None) -> tuple[bool, str, bool]:
    """Whether it is certain, why (or why not), and whether it is unknown."""
    if fold == "all":
        return True, "fold_all is trained on all cases, those of its validation included", False
    dataset = _dataset_name(folder, plans)
    splits = _splits(dataset)
    if fold:
        seen = set(cases) & set(splits[int(fold)]["train"]) if splits and int(fold) < len(splits) else set()
        return bool(seen), f"{_some(seen)} in the training part of fold {fold}", False
    if not splits:
        return False, "there is no plans.json beside the predictions, or no splits_final.json of its data set", True
    known = set().union(*(split["train"] + split["val"] for split in splits))
    inside = set(cases) & known
    if not inside:
        return False, "", False
    if (folder / PREDICT_ARGUMENTS).is_file() and not any(inside <= set(split["val"]) for split in splits):
        return True, f"{_some(inside)} in the splits of {dataset}, in no single fold's validation part", False
    return False, f"{_some(inside)} in the splits of {dataset}; which folds predicted them is not recorded", True


def _some(cases: set[str]) -> str:
    listed = ", ".join(sorted(cases)[:3]) + (", ..." if len(cases) > 3 else "")
    return f"{len(cases)} of them ({listed}) {'is' if len(cases) == 1 else 'are'}"


def _dataset_name(folder: Path, plans: Path | None) -> str:
    places = [folder, *Path(os.path.abspath(folder)).parents[:2]]
    found = [plans] if plans else [place / "plans.json" for place in places if (place / "plans.json").is_file()]
    try:
        name = read_dict(found[0]).get("dataset_name") if found else None
    except UserError:
        name = None
    return name if isinstance(name, str) else ""


def _splits(dataset: str) -> list[dict[str, Any]]:
    root = os.environ.get("nnUNet_preprocessed")
    path = Path(root or "") / dataset / "splits_final.json"
    if not (root and dataset and path.is_file()):
        return []
    splits = read_json(path)
    return [] if mismatch(splits, [{"train": [str], "val": [str]}]) else splits
