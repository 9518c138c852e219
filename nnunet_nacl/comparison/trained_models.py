"""Which model folders are compared, which of their folds, and where the predictions of their test cases lie."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_nacl.comparison.entries import Entry
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.companion_files import fold_folders
from nnunet_nacl.io.locate import is_measured, model_folder, validation_folder
from nnunet_nacl.io.prediction_folder import PredictionFolder


def find_models(
    dataset: str, entries: Sequence[Entry], plans: str, configuration: str
) -> tuple[str, dict[str, Path], list[str]]:
    """The data set's full name, each trainer's model folder, and a note on each that is of another configuration.

    Raises:
        UserError: There is no such data set or model, or two trainers are the same model.
    """
    models: dict[str, Path] = {}
    seen: dict[tuple, str] = {}
    notes = []
    for entry in entries:
        folder = entry.path or model_folder(dataset, entry.trainer or "", plans, configuration)
        place = folder.resolve(), entry.treatment
        if other := seen.get(place):
            raise UserError(f"-tr names one model twice, as {other} and as {entry.name}; name it once.")
        seen[place], models[entry.name] = entry.name, folder
        if entry.path is not None:
            _, own_plans, own_configuration = place[0].name.split("__")
            if (own_plans, own_configuration) != (plans, configuration):
                notes.append(f"{entry.label} is a model of {own_configuration}, {own_plans}.")
    by_name = [models[entry.name].parent.name for entry in entries if entry.path is None]
    if by_name:
        return by_name[0], models, notes
    name = models[entries[0].name].resolve().parent.name
    number = name.removeprefix("Dataset").split("_")[0]
    if dataset != name and not (dataset.isdecimal() and number.isdecimal() and int(dataset) == int(number)):
        raise UserError(f"-d {dataset}, but the model folders belong to {name}; name that data set.")
    return name, models, notes


def common_folds(
    dataset: str, models: Mapping[str, Path], wanted: Sequence[str] | None, allow_missing: bool
) -> tuple[list[str], list[str]]:
    """The folds to compare, those asked for or all that are present, and notes about them.

    Raises:
        UserError: A fold is not present for all, and ``allow_missing`` is not set or leaves none.
    """
    present = {name: _folds_of(model) for name, model in models.items()}
    if wanted is None:
        numbered = {fold for folds in present.values() for fold in folds if fold != "all"}
        # fold_all holds the same cases as the folds: only on its own
        wanted = sorted(numbered, key=int) or ["all"]
    wanted = list(dict.fromkeys(wanted))
    lacking = {name: ", ".join(fold for fold in wanted if fold not in folds) for name, folds in present.items()}
    listed = "; ".join(
        f"{name} has no fold {folds} (it has {', '.join(present[name]) or 'none'})"
        for name, folds in lacking.items()
        if folds
    )
    if not listed:
        return wanted, []
    common = [fold for fold in wanted if all(fold in folds for folds in present.values())]
    train = "Measure the others (`nnunet_nacl evaluate ... --predict`)"
    if not common:
        raise UserError(f"{dataset}: no fold in common: {listed}. {train}, or choose others with -f.")
    if not allow_missing:
        raise UserError(
            f"{dataset}: folds are missing: {listed}. {train}, choose -f {' '.join(common)}, or pass "
            "--allow-missing to compare on what all have."
        )
    return common, [f"{dataset}: compared on fold {', '.join(common)} only: {listed}."]


def _folds_of(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was."""
    folds = [fold for fold, folder in fold_folders(model).items() if is_measured(validation_folder(folder))]
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def folder_of_test_cases(model: Path, treatment: Sequence[str]) -> Path:
    """Folder of the test cases' predictions, as they are or as ``treatment`` leaves them: workflow/ makes them."""
    return model / "_".join(("test", *treatment))


def open_test_folder(model: Path, treatment: Sequence[str], dataset: str) -> PredictionFolder:
    """The predictions of the cases in imagesTs, with their ground truth in labelsTs of nnUNet_raw.

    Raises:
        UserError: They are missing.
    """
    folder = folder_of_test_cases(model, treatment)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; docs/how-to/many-trainings.md says how test cases are predicted.")
    root = os.environ.get("nnUNet_raw")
    if not root:
        raise UserError("the environment variable nnUNet_raw is not set; the labels of the test cases lie there.")
    return PredictionFolder.open(folder, Path(root) / dataset / "labelsTs")
