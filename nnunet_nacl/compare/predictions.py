"""The predictions of each entry: where they lie, and which folds and cases may be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, check_networks, fitted_cases
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.files import checksum
from nnunet_nacl.nnunet import prediction_folder as places
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import recorded_cases
from nnunet_nacl.numbers.log_odds_map import LogOddsMap


@dataclass(frozen=True)
class Options:
    """How what is compared is found and measured; the first three are of models by name."""

    plans: str = "nnUNetPlans"
    configuration: str = ""
    folds: Sequence[str] | None = None  # None takes those that are present for all
    references: Path | None = None  # this and the next two: of folders given by path; None finds nnU-Net's own
    dataset_json: Path | None = None
    plans_json: Path | None = None
    allow_missing: bool = False  # compare, with a note, on what is common to all, where folds or cases are missing
    allow_training_cases: bool = False  # compare, with a note, cases on which a network was trained
    groups: str | None = None  # which cases are of one patient, as `-groups` says; None: as the models' maps say
    num_processes: int = 1


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions of one entry."""

    entry: Entry
    fold: str  # whose validation part it is; empty for everything else
    path: Path
    folder: PredictionFolder | None = None  # None where it cannot be measured, so that earlier records stand for it
    why_not: str = ""  # it cannot be measured


@dataclass(frozen=True)
class Selection:
    """What is compared on one data set, before anything is measured."""

    name: str  # of the data set
    predictions: Sequence[Predictions]  # of all entries, in their order
    folds: Sequence[str]  # of the models; empty where only paths are compared
    options: Options
    notes: list[str] = field(default_factory=list)  # sentences for every output


def locate(dataset: str | None, entries: Sequence[Entry], options: Options) -> Selection:
    """Find the models' folds and the folders on a data set, a name or number; nothing is measured.

    UserError where something is missing, belongs to another data set, or has cases on which its networks were trained.
    """
    selection, folders = Selection("", [], [], options), dict[str, Path]()
    if models := [entry for entry in entries if entry.is_model]:
        name, folders, notes = _find_models(dataset or "", models, options)
        folds, left_out = common_folds(name, folders, options.folds, options.allow_missing)
        selection = Selection(name, [], folds, options, notes + left_out)
    predictions = [place for entry in entries for place in _predictions_of(entry, selection, folders.get(entry.name))]
    named = (place.folder and place.folder.plans.get("dataset_name") for place in predictions)
    name = dataset if dataset and not dataset.isdecimal() else next(filter(None, named), dataset or "cases")
    for place in predictions:
        if place.folder and not recorded_cases(place.path):  # errors come before hours of work, notes when all is known
            check_training_cases(place, set(place.folder.cases()[0]), options.allow_training_cases)
    return replace(selection, name=selection.name or name, predictions=predictions)


def _find_models(dataset: str, entries: Sequence[Entry], options: Options) -> tuple[str, dict[str, Path], list[str]]:
    """The data set's full name, each trainer's model folder, and a note on each that is of another configuration."""
    chosen = options.plans, options.configuration
    models = {e.name: e.path or places.model_folder(dataset, e.trainer or "", *chosen) for e in entries}
    notes = []
    for entry in entries:
        _, plans, configuration = models[entry.name].resolve().name.split("__")
        if entry.path is not None and (plans, configuration) != chosen:
            notes.append(f"{entry.label} is a model of {configuration}, {plans}.")
    by_name = [models[entry.name].parent.name for entry in entries if entry.path is None]
    name = by_name[0] if by_name else models[entries[0].name].resolve().parent.name
    if not by_name and dataset != name and not name.startswith(f"Dataset{dataset.zfill(3)}_"):
        raise UserError(f"-d {dataset}, but the model folders belong to {name}; name that data set.")
    return name, models, notes


def common_folds(
    dataset: str, models: Mapping[str, Path], wanted: Sequence[str] | None, allow_missing: bool
) -> tuple[list[str], list[str]]:
    """The folds to compare, those asked for or all that are present, and notes about them.

    UserError where a fold is not present for all, and ``allow_missing`` is not set or leaves none.
    """
    present = {name: _folds_of(model) for name, model in models.items()}
    if wanted is None:
        numbered = {fold for folds in present.values() for fold in folds if fold != "all"}
        # fold_all holds the same cases as the folds: only on its own
        wanted = sorted(numbered, key=int) or ["all"]
    wanted = list(dict.fromkeys(wanted))
    listed = "; ".join(
        f"{name} has no fold {', '.join(lacking)} (it has {', '.join(folds) or 'none'})"
        for name, folds in present.items()
        if (lacking := [fold for fold in wanted if fold not in folds])
    )
    common = [fold for fold in wanted if all(fold in folds for folds in present.values())]
    if not listed or (common and allow_missing):
        return common, [f"{dataset}: compared on fold {', '.join(common)} only: {listed}."] if listed else []
    problem = "folds are missing" if common else "no fold in common"
    advice = f"choose -f {' '.join(common)}, or pass --allow-missing to compare on what all have"
    advice = advice if common else "or choose others with -f"
    raise UserError(
        f"{dataset}: {problem}: {listed}. Measure the others (`nnunet_nacl evaluate ... --predict`), {advice}."
    )


def _folds_of(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was."""
    folders = places.fold_folders(model).items()
    folds = [fold for fold, folder in folders if places.is_measured(places.validation_folder(folder))]
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def _predictions_of(entry: Entry, selection: Selection, model: Path | None) -> Iterator[Predictions]:
    options = selection.options
    if model:
        for fold, folder in find_fold_folders(model, selection.folds).items():
            trained_on = folder.plans.get("dataset_name")
            if entry.path is not None and trained_on != selection.name:
                where = f"{trained_on}, not on {selection.name}"
                raise UserError(f"{model} was trained on {where}; compare models of the same data set.")
            if entry.calibrated:
                part_maps(folder)  # where there are none, it is said before hours of work
            yield Predictions(entry, fold, folder.folder, folder)
    elif entry.path:
        beside: dict[str, Any] = {"dataset_json": options.dataset_json, "plans": options.plans_json}
        fold, recorded = places.validated_fold(entry.path), recorded_cases(entry.path)
        try:
            found = PredictionFolder.open(entry.path, options.references, **beside)
            found.cases(recorded=recorded)
            yield Predictions(entry, fold, entry.path, found)
        except UserError as error:
            if not recorded:
                raise
            yield Predictions(entry, fold, entry.path, why_not=str(error))


def part_maps(folder: PredictionFolder) -> dict[str, LogOddsMap]:
    """By case of a fold, the map that was fitted to the other parts of the cross-fit.

    UserError where `nnunet_nacl calibrate` has not been run on these predictions.
    """
    fold = folder.folder.parent.resolve()
    path, checkpoint = fold.parent / MAP_FILE, fold / "checkpoint_final.pth"
    command = f"run `{places.calibrate_command(fold.parent, fold.parent.name.rpartition('__')[2])}`"
    if not path.is_file():
        raise UserError(f"{fold.parent} has no {MAP_FILE}; {command}.")
    record, name = CalibrationMap.load(path), fold.name.removeprefix("fold_")
    if checkpoint.is_file() and name in record.origin.checkpoint_sha256:
        check_networks(path, record, {name: checksum(checkpoint)})
    maps = record.part_maps
    lacking = [case for case in folder.cases(recorded=maps)[0] if case not in maps]
    if lacking or not maps:
        problem = f"{lacking[0]} was not calibrated" if lacking else "it holds no map of its parts"
        raise UserError(f"{path}: {problem}; {command} again.")
    return maps


def check_training_cases(place: Predictions, cases: set[str], allowed: bool) -> list[str]:
    """Notes on what was trained on an entry's cases, or fitted to them; UserError for networks that certainly were."""
    certain, why = _trained_on(place, cases)
    label = place.entry.label
    if certain and not allowed:
        raise UserError(
            f"{label}: its networks were trained on cases that they are compared on ({why}); give predictions of other "
            "cases, or pass --allow-training-cases to compare them with a note."
        )
    were = "were" if certain else "may have been"
    notes = [f"{label}: its networks {were} trained on cases that they are compared on ({why})."] if why else []
    if seen := cases & fitted_cases(place.path):
        notes.append(
            f"{label}: its calibration map was fitted to cases that it is compared on ({_counted(seen)}), which "
            "flatters it; what `nnunet_nacl calibrate` printed is of cases that were left out."
        )
    return notes


def _trained_on(place: Predictions, cases: set[str]) -> tuple[bool, str]:
    """Whether it is certain, and why it is, or why it is not known; no reason where they were not trained on any.

    nnUNetv2_predict records neither trainer nor folds, only (in plans.json) the data set: cases in no split of it were
    trained on by none of its networks, and where one run predicted validation cases of several folds, every choice of
    folds was trained on some. Of ensembles' and other tools' predictions of cases in the splits nothing is known.
    """
    dataset, fold = place.folder.plans.get("dataset_name") if place.folder else None, place.fold
    if fold == "all":
        return True, "fold_all is trained on all cases, those of its validation included"
    splits = places.splits_of(dataset)
    if fold:
        seen = cases & set(splits[int(fold)]["train"]) if int(fold) < len(splits) else set()
        return bool(seen), f"{_counted(seen)} in the training part of fold {fold}" if seen else ""
    if not splits:
        return False, "there is no splits_final.json of its data set"
    inside = cases & set().union(*(split["train"] + split["val"] for split in splits))
    if not inside:
        return False, ""
    in_no_fold = not any(inside <= set(split["val"]) for split in splits)
    if in_no_fold and (place.path / places.PREDICT_ARGUMENTS).is_file():
        return True, f"{_counted(inside)} in the splits of {dataset}, in no single fold's validation part"
    return False, f"{_counted(inside)} in the splits of {dataset}; which folds predicted them is not recorded"


def _counted(cases: set[str]) -> str:
    return f"{len(cases)} of them ({some(sorted(cases), 3)}) {'is' if len(cases) == 1 else 'are'}"
