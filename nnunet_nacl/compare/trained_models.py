"""Which model folders are compared, which of their folds, and which of the cases their networks had seen in training.

A fold's ``validation`` holds the cases that its network was not trained on; fold_all was trained on all of them.
nnUNetv2_predict records neither the trainer nor the folds that it used, only (in plans.json) the data set: cases that
are in no split of that data set were trained on by none of its networks. If one run of it predicted cases from the
validation parts of several folds, every choice of folds was trained on some of them. For ensembles and for other
tools' predictions nothing is known of cases that are in the splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_nacl.calibrate.map_file import fitted_cases
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.nnunet.locate import (
    PREDICT_ARGUMENTS,
    find_above,
    fold_folders,
    is_measured,
    model_folder,
    read_plans,
    splits_of,
    validation_folder,
)


def find_models(
    dataset: str, entries: Sequence[Entry], plans: str, configuration: str
) -> tuple[str, dict[str, Path], list[str]]:
    """The data set's full name, each trainer's model folder, and a note on each that is of another configuration.

    Raises:
        UserError: There is no such data set or model.
    """
    models = {
        entry.name: entry.path or model_folder(dataset, entry.trainer or "", plans, configuration) for entry in entries
    }
    notes = []
    for entry in entries:
        _, its_plans, its_configuration = models[entry.name].resolve().name.split("__")
        if entry.path is not None and (its_plans, its_configuration) != (plans, configuration):
            notes.append(f"{entry.label} is a model of {its_configuration}, {its_plans}.")
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
    lacking = {name: [fold for fold in wanted if fold not in folds] for name, folds in present.items()}
    listed = "; ".join(
        f"{name} has no fold {', '.join(folds)} (it has {', '.join(present[name]) or 'none'})"
        for name, folds in lacking.items()
        if folds
    )
    common = [fold for fold in wanted if all(fold not in folds for folds in lacking.values())]
    if not listed:
        return wanted, []
    if common and allow_missing:
        return common, [f"{dataset}: compared on fold {', '.join(common)} only: {listed}."]
    train = "Measure the others (`nnunet_nacl evaluate ... --predict`)"
    if not common:
        raise UserError(f"{dataset}: no fold in common: {listed}. {train}, or choose others with -f.")
    raise UserError(
        f"{dataset}: folds are missing: {listed}. {train}, choose -f {' '.join(common)}, or pass --allow-missing to "
        "compare on what all have."
    )


def _folds_of(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was."""
    folds = [fold for fold, folder in fold_folders(model).items() if is_measured(validation_folder(folder))]
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def check_training_cases(
    label: str, fold: str, folder: Path, cases: set[str], *, allow: bool, plans: Path | None
) -> list[str]:
    """Make sure that an entry's networks were not trained on its cases, and note where its calibration was.

    Args:
        label: Of the entry.
        fold: Of a model's validation folder, see :func:`~nnunet_nacl.nnunet.locate.validated_fold`.
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
