"""Which model folders are compared, and which of their folds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_nacl.comparison.trainers import Trainer
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.folds import FILE_NAME
from nnunet_nacl.evaluation.locate import model_folder

__all__ = ["check_models", "common_folds", "find_models", "other_configurations", "relative_to_results"]


def check_models(
    datasets: Sequence[str],
    trainers: Sequence[Trainer],
    plans: str,
    configuration: str,
    folds: Sequence[str] | None,
    allow_missing: bool,
) -> None:
    """Fail before anything is measured: UserError unless all data sets have all models and folds, each named once."""
    names: list[str] = []
    for dataset in datasets:
        name, models = find_models(dataset, trainers, plans, configuration)
        if name in names:
            raise UserError(f"-d names {name} twice; name each data set once.")
        names.append(name)
        common_folds(name, models, folds, allow_missing, [])


def find_models(
    dataset: str, trainers: Sequence[Trainer], plans: str, configuration: str
) -> tuple[str, dict[str, Path]]:
    """The data set's full name, and each trainer's model folder.

    Raises:
        UserError: There is no such data set or model, or two trainers are the same model.
    """
    models = {
        trainer.name: trainer.folder or model_folder(dataset, trainer.trainer, plans, configuration)
        for trainer in trainers
    }
    seen: dict[Path, str] = {}
    for trainer, folder in models.items():
        if other := seen.get(folder.resolve()):
            raise UserError(f"-tr names one model twice, as {other} and as {trainer}; name it once.")
        seen[folder.resolve()] = trainer
    by_name = [models[trainer.name].parent.name for trainer in trainers if trainer.folder is None]
    if by_name:
        return by_name[0], models
    name = models[trainers[0].name].resolve().parent.name
    number = name.removeprefix("Dataset").split("_")[0]
    if dataset != name and not (dataset.isdigit() and number.isdigit() and int(dataset) == int(number)):
        raise UserError(f"-d {dataset}, but the model folders belong to {name}; name that data set.")
    return name, models


def other_configurations(trainers: Sequence[Trainer], plans: str, configuration: str) -> list[str]:
    """A sentence for each model folder, given by path, of other plans or another configuration than the rest."""
    notes = []
    for trainer in trainers:
        if trainer.folder is not None:
            _, own_plans, own_configuration = trainer.folder.resolve().name.split("__")
            if (own_plans, own_configuration) != (plans, configuration):
                notes.append(f"{trainer.label} is a model of {own_configuration}, {own_plans}.")
    return notes


def common_folds(
    dataset: str, models: Mapping[str, Path], wanted: Sequence[str] | None, allow_missing: bool, notes: list[str]
) -> list[str]:
    """The folds to compare: those asked for, or all that are present; an error where they are not present for all."""
    present = {name: _folds_of(model) for name, model in models.items()}
    if wanted is None:
        numbered = {fold for folds in present.values() for fold in folds if fold.isdigit()}
        # fold_all holds the same cases as the folds: only on its own
        wanted = sorted(numbered, key=int) or ["all"]
    wanted = list(dict.fromkeys(wanted))
    lacking = {name: [fold for fold in wanted if fold not in folds] for name, folds in present.items()}
    lacking = {name: folds for name, folds in lacking.items() if folds}
    if not lacking:
        return wanted
    listed = "; ".join(
        f"{name} has no fold {', '.join(folds)} (it has {', '.join(present[name]) or 'none'})"
        for name, folds in lacking.items()
    )
    common = [fold for fold in wanted if all(fold in folds for folds in present.values())]
    train = "Validate with --npz (nnUNetv2_train ... --val --npz)"
    if not common:
        raise UserError(f"{dataset}: no fold in common: {listed}. {train}, or choose others with -f.")
    if not allow_missing:
        raise UserError(
            f"{dataset}: folds are missing: {listed}. {train}, choose -f {' '.join(common)}, or pass "
            "--allow-missing to compare on what all have."
        )
    notes.append(f"{dataset}: compared on fold {', '.join(common)} only: {listed}.")
    return common


def _folds_of(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was."""
    present = (
        entry
        for entry in model.glob("fold_*")
        if (entry / "validation" / FILE_NAME).is_file() or any((entry / "validation").glob("*.npz"))
    )
    names = [entry.name.removeprefix("fold_") for entry in present]
    return sorted(names, key=lambda fold: (not fold.isdigit(), int(fold) if fold.isdigit() else 0, fold))


def relative_to_results(folder: Path) -> str:
    """Path within nnUNet_results if it lies there, else the absolute path."""
    root = os.environ.get("nnUNet_results")
    resolved = folder.resolve()
    if root and resolved.is_relative_to(Path(root).resolve()):
        return str(resolved.relative_to(Path(root).resolve()))
    return str(resolved)
