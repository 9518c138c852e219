"""Finds the predictions of each method on a data set, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_file import check_networks, check_structures
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.nnunet import folders
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.settings import ComparisonSettings
from nnunet_nacl.utilities.command_lines import calibrate_command
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.files import checksum


@dataclass(frozen=True, kw_only=True)
class LocatedComparison:
    """Methods on one data set, the first of which is the reference: where their predictions lie.

    Attributes:
        name: nnU-Net's, of the data set.
        folds: Of the models; empty where only folders are compared.
        options: How they were found, and are to be measured.
        methods: With their folders.
        notes: Sentences for every output.
        bad: The Dice below which a case is bad, by nnU-Net's key; None: no case is called bad.
        findings: nnU-Net's keys of the structures whose components are counted; None: of the
            lesions, see :func:`~nnunet_nacl.comparison.structure_metrics.lesion_structures`.
    """

    name: str
    folds: Sequence[str]
    options: ComparisonSettings
    methods: Sequence[ComparedMethod]
    notes: Sequence[str] = ()
    bad: Mapping[str, float] | None = None
    findings: Sequence[str] | None = None


def locate(
    dataset: str | None, methods: Sequence[ComparedMethod], options: ComparisonSettings
) -> LocatedComparison:
    """Find the models' folds and the folders on a data set, a name or number; nothing is measured.

    UserError where something is missing, belongs to another data set, or has cases on which its
    networks were trained.
    """
    models = [method for method in methods if method.is_model]
    folds: list[str] = []
    notes: list[str] = []
    found = _FoundModels("", {}, [])
    if models:
        found = _find_models(dataset or "", models, options)
        present = {
            method.name: measurable_folds(found.folders[method.name], method.checkpoint)
            for method in models
        }
        folds, fold_notes = common_folds(found.dataset, present, options)
        notes += [*found.notes, *fold_notes]
    else:
        options = replace(options, plans="", configuration="")
    opened = []
    for method in methods:
        if method.is_model:
            opened.append(_open_model(method, found.folders[method.name], found.dataset, folds))
        else:
            opened.append(_open_folder(method, options))
    for method in opened:
        notes += check_training_cases(method, options.allow_training_cases)
    name = found.dataset or _name_of_data_set(dataset, opened)
    return LocatedComparison(
        name=name, folds=tuple(folds), options=options, methods=opened, notes=notes
    )


def _name_of_data_set(given: str | None, methods: Sequence[ComparedMethod]) -> str:
    """Name of folders' data set: as it was given, or as plans.json of some folder says."""
    if given and not given.isdecimal():
        return given
    for method in methods:
        name = method.first.dataset.name
        if name:
            return name
    return given or "cases"


@dataclass(frozen=True)
class _FoundModels:
    """The full name of a data set, its models' folders by the method's name, and notes."""

    dataset: str
    folders: Mapping[str, Path]
    notes: Sequence[str]


def _find_models(
    dataset: str, methods: Sequence[ComparedMethod], options: ComparisonSettings
) -> _FoundModels:
    """Each trainer's model folder, and a note on each of another configuration than asked for."""
    model_folders = {}
    for method in methods:
        path = method.path
        if path is None:
            path = folders.model_folder(
                dataset,
                method.trainer or "",
                options.plans,
                options.configuration,
                folder_argument="[[methods:models=FOLDER]]",
            )
        model_folders[method.name] = path
    notes = []
    for method in methods:
        _, plans, configuration = model_folders[method.name].resolve().name.split("__")
        is_as_asked = plans == options.plans and configuration == options.configuration
        if method.path is not None and not is_as_asked:
            notes.append(f"{method.label} is a model of {configuration}, {plans}.")
    by_name = [model_folders[method.name] for method in methods if method.path is None]
    if by_name:
        name = by_name[0].parent.name
    else:
        name = data_set_of(model_folders[methods[0].name])
        if dataset != name and not name.startswith(f"Dataset{dataset.zfill(3)}_"):
            raise UserError(
                f"[[datasets]] {dataset}, but the model folders belong to {name}; name that"
                " data set."
            )
    return _FoundModels(name, model_folders, notes)


def data_set_of(model: Path) -> str:
    """The name of the data set that a model was trained on, wherever its folder lies."""
    return Dataset.open(model).name or model.resolve().parent.name


def common_folds(
    dataset: str, present: Mapping[str, Sequence[str]], options: ComparisonSettings
) -> tuple[list[str], list[str]]:
    """The folds to compare, those asked for or all that are present, and notes about them.

    ``present`` are the folds of each model that can be measured, by the method's name.

    UserError where a fold is not present for all, and ``allow_missing`` is not set or leaves none.
    """
    wanted = None if options.folds is None else [str(fold) for fold in options.folds]
    if not wanted:
        # fold_all holds the same cases as the folds: only on its own
        numbered = set[str]().union(*present.values()) - {"all"}
        wanted = sorted(numbered, key=int) or ["all"]
    wanted = list(dict.fromkeys(wanted))
    in_all = set(wanted).intersection(*present.values())
    common = [fold for fold in wanted if fold in in_all]
    gaps = []
    for name, folds in present.items():
        lacking = [fold for fold in wanted if fold not in folds]
        if lacking:
            gaps.append(
                f"{name} has no fold {', '.join(lacking)} (it has {', '.join(folds) or 'none'})"
            )
    if not gaps:
        return common, []
    listed = "; ".join(gaps)
    if common and options.allow_missing:
        return common, [f"{dataset}: compared on fold {', '.join(common)} only: {listed}."]
    problem = "no fold in common"
    advice = "or choose others with [[folds]]"
    if common:
        problem = "folds are missing"
        advice = (
            f"choose [[folds={' '.join(common)}]], or pass [[allow_missing=True]] to compare on"
            " what all have"
        )
    raise UserError(
        f"{dataset}: {problem}: {listed}. Measure the others (`nnunet_nacl evaluate ..."
        f" --predict`), {advice}."
    )


def measurable_folds(model: Path, checkpoint: str) -> list[str]:
    """Folds with a validation of a checkpoint that can be measured, or was; fold_all last."""
    folds = []
    for fold, folder in folders.fold_folders(model).items():
        if folders.can_be_measured(folders.validation_folder(folder, checkpoint)):
            folds.append(fold)
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def _open_model(
    method: ComparedMethod, model: Path, dataset: str, folds: Sequence[str]
) -> ComparedMethod:
    """The validation cases of a model's folds.

    UserError where it is of another data set, or has no maps for them.
    """
    method = replace(method, folders=find_fold_folders(model, folds, method.checkpoint))
    trained_on = method.first.dataset.name
    if method.path is not None and trained_on != dataset:
        where = f"{trained_on}, not on {dataset}"
        raise UserError(f"{model} was trained on {where}; compare models of the same data set.")
    if method.calibrated:
        method = _with_maps(method)
    return method


def _open_folder(method: ComparedMethod, options: ComparisonSettings) -> ComparedMethod:
    """A folder of predictions, and the map that calibrated it, if any has.

    UserError where that map cannot be read: what it knows of the cases would be missing.
    """
    path = method.path or Path()
    folder = PredictionFolder.open(
        path,
        options.labels,
        dataset_json=options.dataset_json,
        plans=options.plans_json,
        need_probabilities=True,
    )
    calibrator = Calibrator.that_was_applied(folder)
    return replace(method, folders={folders.validated_fold(path): folder}, calibrator=calibrator)


def _with_maps(model: ComparedMethod) -> ComparedMethod:
    """A model with a map for each of its validation cases, fitted without the case's part.

    UserError where `nnunet_nacl calibrate` has not been run on these predictions.
    """
    path = model.map_path
    other_checkpoint = None if model.checkpoint == folders.FINAL else model.checkpoint
    command = f"run `{calibrate_command(path.parent, other_checkpoint)}`"
    if not path.is_file():
        raise UserError(f"{path.parent} has no {path.name}; {command}.")
    calibration_map = CalibrationMap.load(path)
    checkpoints = {fold: path.parent / f"fold_{fold}" / model.checkpoint for fold in model.folders}
    digests = {fold: checksum(file) for fold, file in checkpoints.items() if file.is_file()}
    check_networks(path, calibration_map, digests)
    check_structures(path, calibration_map, model.first.labels)
    maps = calibration_map.part_maps
    for cases in model.cases().values():
        for case in cases:
            if case not in maps:
                raise UserError(f"{path}: {case} was not calibrated; {command} again.")
    if not maps:
        raise UserError(f"{path}: it holds no map of its parts; {command} again.")
    return replace(model, calibration_map=calibration_map, maps=maps)


def check_training_cases(method: ComparedMethod, allowed: bool) -> list[str]:
    """Notes on networks that were trained on cases, and maps that were fitted to them.

    UserError for networks that certainly were, unless that is ``allowed``.
    """
    notes = []
    for fold, cases in method.cases().items():
        seen = _seen_in_training(method.folders[fold], fold, set(cases))
        if seen.is_certain and not allowed:
            raise UserError(
                f"{method.label}: its networks were trained on cases that they are compared on"
                f" ({seen.reason}); give predictions of other cases, or pass"
                " [[allow_training_cases=True]]"
                " to compare them with a note."
            )
        if seen.reason:
            were = "were" if seen.is_certain else "may have been"
            notes.append(
                f"{method.label}: its networks {were} trained on cases that they are compared on"
                f" ({seen.reason})."
            )
        fitted = set(cases) & method.calibrator.fitted_cases
        if fitted:
            notes.append(
                f"{method.label}: its calibration map was fitted to cases that it is compared on"
                f" ({_counted(fitted)}), which flatters it; what `nnunet_nacl calibrate` printed is"
                " of cases that were left out."
            )
    return notes


@dataclass(frozen=True)
class _SeenInTraining:
    """Whether networks were trained on cases that they are compared on.

    Attributes:
        is_certain: That they were.
        reason: Why they were, or why it is not known; empty where they were trained on none.
    """

    is_certain: bool
    reason: str


def _seen_in_training(folder: PredictionFolder, fold: str, cases: set[str]) -> _SeenInTraining:
    """What is known of the training of the networks that predicted a folder.

    nnUNetv2_predict records neither trainer nor folds, only (in plans.json) the data set: cases in
    no split of it were trained on by none of its networks, and where one run predicted validation
    cases of several folds, every choice of folds was trained on some. Of ensembles' and other
    tools' predictions of cases in the splits nothing is known.
    """
    if fold == "all":
        return _SeenInTraining(
            True, "fold_all is trained on all cases, those of its validation included"
        )
    dataset = folder.dataset.name
    splits = folders.splits_of(dataset)
    if fold:
        seen = cases & set(splits[int(fold)]["train"]) if int(fold) < len(splits) else set[str]()
        if not seen:
            return _SeenInTraining(False, "")
        return _SeenInTraining(True, f"{_counted(seen)} in the training part of fold {fold}")
    if not splits:
        return _SeenInTraining(False, "there is no splits_final.json of its data set")
    in_splits = set[str]().union(*(split["train"] + split["val"] for split in splits))
    inside = cases & in_splits
    if not inside:
        return _SeenInTraining(False, "")
    is_in_one_fold = any(inside <= set(split["val"]) for split in splits)
    if not is_in_one_fold and (folder.folder / folders.PREDICT_ARGUMENTS).is_file():
        reason = (
            f"{_counted(inside)} in the splits of {dataset}, in no single fold's validation part"
        )
        return _SeenInTraining(True, reason)
    reason = (
        f"{_counted(inside)} in the splits of {dataset}; which folds predicted them is not recorded"
    )
    return _SeenInTraining(False, reason)


def _counted(cases: set[str]) -> str:
    verb = "is" if len(cases) == 1 else "are"
    return f"{len(cases)} of them ({some(sorted(cases), 3)}) {verb}"
