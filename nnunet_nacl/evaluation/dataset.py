"""Finds the predictions of each method on a data set, and aligns their cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import MAP_FILE, check_networks, check_structures
from nnunet_nacl.cases.case import EvaluationSettings, Labels
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import RECORDS, CaseRecord
from nnunet_nacl.errors import UserError, list_problems, some
from nnunet_nacl.evaluation.comparison import Comparison, Promises
from nnunet_nacl.evaluation.methods import ComparedMethod, ComparisonOptions
from nnunet_nacl.files import checksum
from nnunet_nacl.metrics.statistics import FEWEST_FOR_A_TEST
from nnunet_nacl.nnunet import places
from nnunet_nacl.nnunet.held_out import kept_settings, measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.quality.learned_quality import predict_dice_out_of_fold


def locate(
    dataset: str | None, methods: Sequence[ComparedMethod], options: ComparisonOptions
) -> Comparison:
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
        folds, fold_notes = common_folds(found.dataset, found.folders, options)
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
    return Comparison(name, tuple(folds), options, opened, notes)


def _name_of_data_set(given: str | None, methods: Sequence[ComparedMethod]) -> str:
    """Name of folders' data set: as it was given, or as plans.json of some folder says."""
    if given and not given.isdecimal():
        return given
    for method in methods:
        name = method.first.plans.get("dataset_name")
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
    dataset: str, methods: Sequence[ComparedMethod], options: ComparisonOptions
) -> _FoundModels:
    """Each trainer's model folder, and a note on each of another configuration than asked for."""
    folders = {}
    for method in methods:
        path = method.path
        if path is None:
            path = places.model_folder(
                dataset, method.trainer or "", options.plans, options.configuration
            )
        folders[method.name] = path
    notes = []
    for method in methods:
        _, plans, configuration = folders[method.name].resolve().name.split("__")
        is_as_asked = plans == options.plans and configuration == options.configuration
        if method.path is not None and not is_as_asked:
            notes.append(f"{method.label} is a model of {configuration}, {plans}.")
    by_name = [folders[method.name] for method in methods if method.path is None]
    if by_name:
        name = by_name[0].parent.name
    else:
        name = folders[methods[0].name].resolve().parent.name
        if dataset != name and not name.startswith(f"Dataset{dataset.zfill(3)}_"):
            raise UserError(
                f"-d {dataset}, but the model folders belong to {name}; name that data set."
            )
    return _FoundModels(name, folders, notes)


def common_folds(
    dataset: str, models: Mapping[str, Path], options: ComparisonOptions
) -> tuple[list[str], list[str]]:
    """The folds to compare, those asked for or all that are present, and notes about them.

    UserError where a fold is not present for all, and ``allow_missing`` is not set or leaves none.
    """
    present = {name: _measurable_folds(model) for name, model in models.items()}
    wanted = options.folds
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
    advice = "or choose others with -f"
    if common:
        problem = "folds are missing"
        advice = (
            f"choose -f {' '.join(common)}, or pass --allow-missing to compare on what all have"
        )
    raise UserError(
        f"{dataset}: {problem}: {listed}. Measure the others (`nnunet_nacl evaluate ..."
        f" --predict`), {advice}."
    )


def _measurable_folds(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was; fold_all last."""
    folds = []
    for fold, folder in places.fold_folders(model).items():
        if places.is_measured(places.validation_folder(folder)):
            folds.append(fold)
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def _open_model(
    method: ComparedMethod, model: Path, dataset: str, folds: Sequence[str]
) -> ComparedMethod:
    """The validation cases of a model's folds.

    UserError where it is of another data set, or has no maps for them.
    """
    method = replace(method, folders=find_fold_folders(model, folds))
    trained_on = method.first.plans.get("dataset_name")
    if method.path is not None and trained_on != dataset:
        where = f"{trained_on}, not on {dataset}"
        raise UserError(f"{model} was trained on {where}; compare models of the same data set.")
    if method.calibrated:
        method = _with_maps(method)
    return method


def _open_folder(method: ComparedMethod, options: ComparisonOptions) -> ComparedMethod:
    """A folder of predictions, and the map that calibrated it, if any has.

    UserError where that map cannot be read: what it knows of the cases would be missing.
    """
    path = method.path or Path()
    folder = PredictionFolder.open(
        path, options.references, dataset_json=options.dataset_json, plans=options.plans_json
    )
    calibrator = Calibrator.that_was_applied(folder)
    return replace(method, folders={places.validated_fold(path): folder}, calibrator=calibrator)


def _with_maps(model: ComparedMethod) -> ComparedMethod:
    """A model with a map for each of its validation cases, fitted without the case's part.

    UserError where `nnunet_nacl calibrate` has not been run on these predictions.
    """
    path = model.map_path
    command = f"run `{places.calibrate_command(path.parent)}`"
    if not path.is_file():
        raise UserError(f"{path.parent} has no {MAP_FILE}; {command}.")
    calibration_map = CalibrationMap.load(path)
    checkpoints = {fold: path.parent / f"fold_{fold}" / places.FINAL for fold in model.folders}
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
                f" ({seen.reason}); give predictions of other cases, or pass --allow-training-cases"
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
    dataset = folder.plans.get("dataset_name")
    splits = places.splits_of(dataset)
    if fold:
        seen = set[str]()
        if int(fold) < len(splits):
            seen = cases & set(splits[int(fold)]["train"])
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
    if not is_in_one_fold and (folder.folder / places.PREDICT_ARGUMENTS).is_file():
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


def align(located: Comparison) -> Comparison:
    """The cases that all have in common; what was not measured yet, or has changed, is measured.

    All are measured with the settings of the records that are there already, so that a user's
    choice of masks is kept. UserError where predictions cannot be evaluated, or not be compared
    with the others.
    """
    settings = _common_settings(located.methods)
    labels = _common_labels(located.methods)
    num_processes = located.options.num_processes
    measured = [_measure_method(method, settings, num_processes) for method in located.methods]
    common = _common_cases(located, measured)
    patients, patient_notes = _patients(located, common.cases)
    records = {}
    for measured_method in measured:
        by_case = measured_method.records
        records[measured_method.name] = [by_case[case] for case in common.cases]
    aligned = replace(
        located,
        regions=labels.regions,
        structures=labels.structures,
        settings=settings,
        records=records,
        patients=patients,
    )
    notes = [*located.notes, *common.notes, *patient_notes, *few_cases(aligned)]
    return replace(aligned, notes=notes, promises=promises_of(aligned))


@dataclass(frozen=True)
class _Measured:
    """What was measured of a method.

    Attributes:
        name: Of the method.
        records: By case.
        problems: By case, why there is no record.
    """

    name: str
    records: Mapping[str, CaseRecord]
    problems: Mapping[str, str]


def _measure_method(
    method: ComparedMethod, settings: EvaluationSettings, num_processes: int
) -> _Measured:
    """The records of a method's cases.

    Of a calibrated model each is as a map leaves it that has not seen the case.
    """
    work = Work(settings=settings, with_sample=method.calibrated)
    held_out = measure_folders(
        method.folders, work, jobs=num_processes, chill=False, title=f"measuring {method.label}"
    )
    records = held_out.records
    if method.maps:  # estimated from the sample of voxels in each record
        records = {case: under(record, method.maps[case]) for case, record in records.items()}
    return _Measured(method.name, records, held_out.problems)


def few_cases(comparison: Comparison) -> list[str]:
    """A note where there are too few patients for a test."""
    if comparison.n_patients >= FEWEST_FOR_A_TEST:
        return []
    intervals = "there are no intervals."
    if comparison.n_patients > 1:
        intervals = "intervals are too narrow to rely on."
    return [
        f"{comparison.name}: only {comparison.size}, fewer than {FEWEST_FOR_A_TEST}: no test is"
        f" made, and {intervals}"
    ]


def _common_settings(methods: Sequence[ComparedMethod]) -> EvaluationSettings:
    """As in the records that are there, else the defaults.

    UserError where two folders were measured with different ones.
    """
    first: EvaluationSettings | None = None
    for method in methods:
        for fold, folder in method.folders.items():
            settings = kept_settings(folder.folder)
            if settings is None:
                continue
            first = first or settings
            differing = settings.differing(first)
            if differing:
                where = f"fold {fold} of {method.name}" if fold else method.name
                raise UserError(
                    f"{where} was evaluated with other settings ({differing}); run `nnunet_nacl"
                    f" evaluate` with the same options for all, or delete its folder {RECORDS}."
                )
    return first or methods[0].first.settings


def _common_labels(methods: Sequence[ComparedMethod]) -> Labels:
    """The structures; UserError where two have others."""
    first = methods[0].first.labels
    for method in methods[1:]:
        labels = method.first.labels
        if (labels.structures, labels.regions) != (first.structures, first.regions):
            raise UserError(
                f"{method.name} has the structures {_listed(labels)}, {methods[0].name} has"
                f" {_listed(first)}; compare models of the same labels."
            )
    return first


def _listed(labels: Labels) -> str:
    return ", ".join(f"{key} {name}" for key, name in labels.structures.items())


@dataclass(frozen=True)
class _CommonCases:
    """Names of the cases that all methods have, and a note where some are left out."""

    cases: Sequence[str]
    notes: Sequence[str]


def _common_cases(located: Comparison, measured: Sequence[_Measured]) -> _CommonCases:
    """The cases that all have.

    UserError where some are missing, unless that is allowed and some are left.
    """
    names = set[str]()
    for method in measured:
        names |= method.records.keys()
        # of a whole fold no case is known
        names |= {name for name in method.problems if not name.startswith("fold ")}
    total = len(names)
    common = sorted(names.intersection(*(method.records.keys() for method in measured)))
    gaps = []
    problems: dict[str, str] = {}
    for method in measured:
        lacking = sorted(names - method.records.keys())
        if lacking:
            gaps.append(f"{method.name} lacks {len(lacking)} of {total} cases: {some(lacking)}")
            problems |= method.problems
    if not gaps:
        return _CommonCases(common, [])
    listed = f"{'; '.join(gaps)}."
    if common and located.options.allow_missing:
        note = (
            f"{located.name}: compared on the {len(common)} of {total} cases that all have."
            f" {listed}"
        )
        return _CommonCases(common, [note])
    advice = "No case is left to compare."
    if common:
        advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    raise UserError(f"{located.name}: {listed} {advice}{list_problems(problems)}")


def _patients(located: Comparison, cases: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The patient of each case, and a note on each map that cannot be read.

    Patients are as the user or a compared model's calibration map says; empty if each case is its
    own.
    """
    notes: list[str] = []
    if located.options.groups is not None:
        patients = read_groups(located.options.groups, cases)
    else:
        groups, notes = _groups_of_maps(located.methods)
        patients = {case: groups.get(case, case) for case in cases}
    if len(set(patients.values())) == len(patients):
        return {}, notes
    return patients, notes


def _groups_of_maps(methods: Sequence[ComparedMethod]) -> tuple[Mapping[str, str], list[str]]:
    """The patients that some model's map names, and a note on each map that cannot be read."""
    opened = {
        method.map_path: method.calibration_map for method in methods if method.calibration_map
    }
    groups: Mapping[str, str] = {}
    notes = []
    for path in sorted({method.map_path for method in methods if method.is_model}):
        if groups or not path.is_file():
            continue
        try:
            calibration_map = opened.get(path) or CalibrationMap.load(path)
            groups = calibration_map.fitted.groups
        except UserError as error:
            notes.append(
                f"{error} If it knows which cases are of one patient, name them with -groups."
            )
    return groups, notes


def promises_of(comparison: Comparison) -> dict[str, Promises]:
    """By name of every method, what is promised of its cases.

    Those of a calibrated model, and of folders that a map calibrated, may have intervals.
    What a model's map learned, it learned from the validation cases. So of each of these the same
    is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie
    in one part, and count as one. Of other cases, in folders that `nnunet_nacl review -map` wrote,
    the map that they name is asked as it is.
    """
    promises = {}
    for method in comparison.methods:
        rows = comparison.table[comparison.table.method == method.name]
        caveats = method.calibrator.caveats(comparison.cases)
        if method.calibrator.learned is not None:
            rows = method.calibrator.learned.predict_dice(rows)
        elif method.calibration_map is not None and method.calibration_map.learned is not None:
            fitted = method.calibration_map.fitted
            if fitted.part_of.keys() >= set(comparison.cases):
                rows = predict_dice_out_of_fold(rows, fitted.groups, fitted.part_of)
        promises[method.name] = Promises(rows, caveats)
    return promises
