"""Finds the predictions of each model on a data set, and aligns their cases; and what is promised of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.map_file import MAP_FILE, check_networks, check_structures, fitted_cases, map_path_of
from nnunet_nacl.calibrator.predicted_quality import QualityOfMap, open_map
from nnunet_nacl.cases.case import EvaluationSettings, Labels
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import RECORDS
from nnunet_nacl.errors import UserError, list_problems, some
from nnunet_nacl.evaluation.comparison import Comparison, Promises
from nnunet_nacl.evaluation.methods import Method, Options
from nnunet_nacl.files import checksum
from nnunet_nacl.metrics.statistics import FEWEST_FOR_A_TEST
from nnunet_nacl.nnunet import places
from nnunet_nacl.nnunet.held_out import kept_settings, measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.quality.learned_quality import predict_dice_parts


def locate(dataset: str | None, methods: Sequence[Method], options: Options) -> Comparison:
    """Find the models' folds and the folders on a data set, a name or number; nothing is measured.

    UserError where something is missing, belongs to another data set, or has cases on which its networks were trained.
    """
    name, folds, notes, models = "", list[str](), list[str](), dict[str, Path]()
    if chosen := [method for method in methods if method.is_model]:
        name, models, notes = _find_models(dataset or "", chosen, options)
        folds, left_out = common_folds(name, models, options)
        notes += left_out
    else:
        options = replace(options, plans="", configuration="")
    methods = [
        _of_model(method, models[method.name], name, folds) if method.is_model else _of_folder(method, options)
        for method in methods
    ]
    for method in methods:
        notes += check_training_cases(method, options.allow_training_cases)
    if not name:
        named = (method.first.plans.get("dataset_name") for method in methods)
        name = dataset if dataset and not dataset.isdecimal() else next(filter(None, named), dataset or "cases")
    return Comparison(name, tuple(folds), options, methods, notes)


def _find_models(dataset: str, methods: Sequence[Method], options: Options) -> tuple[str, dict[str, Path], list[str]]:
    """The data set's full name, each trainer's model folder, and a note on each that is of another configuration."""
    chosen = options.plans, options.configuration
    models = {e.name: e.path or places.model_folder(dataset, e.trainer or "", *chosen) for e in methods}
    notes = []
    for method in methods:
        _, plans, configuration = models[method.name].resolve().name.split("__")
        if method.path is not None and (plans, configuration) != chosen:
            notes.append(f"{method.label} is a model of {configuration}, {plans}.")
    by_name = [models[method.name].parent.name for method in methods if method.path is None]
    name = by_name[0] if by_name else models[methods[0].name].resolve().parent.name
    if not by_name and dataset != name and not name.startswith(f"Dataset{dataset.zfill(3)}_"):
        raise UserError(f"-d {dataset}, but the model folders belong to {name}; name that data set.")
    return name, models, notes


def common_folds(dataset: str, models: Mapping[str, Path], options: Options) -> tuple[list[str], list[str]]:
    """The folds to compare, those asked for or all that are present, and notes about them.

    UserError where a fold is not present for all, and ``allow_missing`` is not set or leaves none.
    """
    present = {name: _folds_of(model) for name, model in models.items()}
    numbered = {fold for folds in present.values() for fold in folds if fold != "all"}
    # fold_all holds the same cases as the folds: only on its own
    wanted = list(dict.fromkeys(options.folds or sorted(numbered, key=int) or ["all"]))
    listed = "; ".join(
        f"{name} has no fold {', '.join(lacking)} (it has {', '.join(folds) or 'none'})"
        for name, folds in present.items()
        if (lacking := [fold for fold in wanted if fold not in folds])
    )
    common = [fold for fold in wanted if all(fold in folds for folds in present.values())]
    if not listed or (common and options.allow_missing):
        return common, [f"{dataset}: compared on fold {', '.join(common)} only: {listed}."] if listed else []
    problem, advice = "no fold in common", "or choose others with -f"
    if common:
        problem = "folds are missing"
        advice = f"choose -f {' '.join(common)}, or pass --allow-missing to compare on what all have"
    raise UserError(
        f"{dataset}: {problem}: {listed}. Measure the others (`nnunet_nacl evaluate ... --predict`), {advice}."
    )


def _folds_of(model: Path) -> list[str]:
    """Folds with a validation that can be measured, or was."""
    folders = places.fold_folders(model).items()
    folds = [fold for fold, folder in folders if places.is_measured(places.validation_folder(folder))]
    return sorted(folds, key=lambda fold: (fold == "all", len(fold), fold))


def _of_model(method: Method, model: Path, dataset: str, folds: Sequence[str]) -> Method:
    """The validation cases of a model's folds; UserError where it is of another data set, or has no maps for them."""
    method = replace(method, folders=find_fold_folders(model, folds))
    trained_on = method.first.plans.get("dataset_name")
    if method.path is not None and trained_on != dataset:
        where = f"{trained_on}, not on {dataset}"
        raise UserError(f"{model} was trained on {where}; compare models of the same data set.")
    return replace(method, maps=part_maps(method)) if method.calibrated else method


def _of_folder(method: Method, options: Options) -> Method:
    path, references = method.path or Path(), options.references
    folder = PredictionFolder.open(path, references, dataset_json=options.dataset_json, plans=options.plans_json)
    return replace(method, folders={places.validated_fold(path): folder})


def part_maps(model: Method) -> dict[str, LogOddsMap]:
    """By validation case of a model, the map that was fitted to the other parts of the cross-fit.

    UserError where `nnunet_nacl calibrate` has not been run on these predictions.
    """
    path = model.map_path
    command = f"run `{places.calibrate_command(path.parent)}`"
    if not path.is_file():
        raise UserError(f"{path.parent} has no {MAP_FILE}; {command}.")
    record = CalibrationMap.load(path)
    files = {fold: path.parent / f"fold_{fold}" / "checkpoint_final.pth" for fold in model.folders}
    check_networks(path, record, {fold: checksum(file) for fold, file in files.items() if file.is_file()})
    check_structures(path, record, model.first.labels)
    maps = record.part_maps
    lacking = [case for cases in model.cases().values() for case in cases if case not in maps]
    if lacking or not maps:
        problem = f"{lacking[0]} was not calibrated" if lacking else "it holds no map of its parts"
        raise UserError(f"{path}: {problem}; {command} again.")
    return maps


def check_training_cases(method: Method, allowed: bool) -> list[str]:
    """Notes on what was trained on cases, or fitted to them; UserError for networks that certainly were."""
    label, notes = method.label, []
    for fold, cases in method.cases().items():
        certain, why = _trained_on(method.folders[fold], fold, set(cases))
        if certain and not allowed:
            raise UserError(
                f"{label}: its networks were trained on cases that they are compared on ({why}); give predictions of "
                "other cases, or pass --allow-training-cases to compare them with a note."
            )
        were = "were" if certain else "may have been"
        notes += [f"{label}: its networks {were} trained on cases that they are compared on ({why})."] if why else []
        if seen := set(cases) & fitted_cases(method.folders[fold].folder):
            notes.append(
                f"{label}: its calibration map was fitted to cases that it is compared on ({_counted(seen)}), which "
                "flatters it; what `nnunet_nacl calibrate` printed is of cases that were left out."
            )
    return notes


def _trained_on(folder: PredictionFolder, fold: str, cases: set[str]) -> tuple[bool, str]:
    """Whether it is certain, and why it is, or why it is not known; no reason where they were not trained on any.

    nnUNetv2_predict records neither trainer nor folds, only (in plans.json) the data set: cases in no split of it were
    trained on by none of its networks, and where one run predicted validation cases of several folds, every choice of
    folds was trained on some. Of ensembles' and other tools' predictions of cases in the splits nothing is known.
    """
    if fold == "all":
        return True, "fold_all is trained on all cases, those of its validation included"
    dataset = folder.plans.get("dataset_name")
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
    if in_no_fold and (folder.folder / places.PREDICT_ARGUMENTS).is_file():
        return True, f"{_counted(inside)} in the splits of {dataset}, in no single fold's validation part"
    return False, f"{_counted(inside)} in the splits of {dataset}; which folds predicted them is not recorded"


def _counted(cases: set[str]) -> str:
    return f"{len(cases)} of them ({some(sorted(cases), 3)}) {'is' if len(cases) == 1 else 'are'}"


def align(located: Comparison) -> Comparison:
    """The cases that all have in common; what was not measured yet, or has changed, is measured first.

    All are measured with the settings of the records that are there already, so that a user's choice of masks is kept.
    UserError where predictions cannot be evaluated, or not be compared with the others.
    """
    options, settings = located.options, _common_settings(located.methods)
    labels, by_method, problems = _common_labels(located.methods), {}, list[tuple[str, str, str]]()
    for method in located.methods:
        work = Work(settings=settings, with_sample=method.calibrated)
        found = measure_folders(method.folders, work, jobs=options.num_processes, chill=False, title=method.label)
        records = {
            case: under(record, method.maps[case]) if method.maps else record for case, record in found.records.items()
        }
        by_method[method.name] = pd.Series(records, dtype=object)
        problems += [(method.name, *problem) for problem in found.problems.items()]
    by_case = pd.DataFrame(by_method)
    common, left_out = _common_cases(located, by_case, problems)
    patients, unread = _patients(located, common)
    aligned = replace(
        located,
        regions=labels.regions,
        structures=labels.structures,
        settings=settings,
        records={name: by_case.loc[common, name].tolist() for name in by_case},
        patients=patients,
    )
    notes = [*located.notes, *left_out, *unread, *few_cases(aligned)]
    return replace(aligned, notes=notes, promises=promises_of(aligned))


def few_cases(comparison: Comparison) -> list[str]:
    """A note where there are too few patients for a test."""
    if comparison.n_patients >= FEWEST_FOR_A_TEST:
        return []
    intervals = "intervals are too narrow to rely on." if comparison.n_patients > 1 else "there are no intervals."
    return [
        f"{comparison.name}: only {comparison.size}, fewer than {FEWEST_FOR_A_TEST}: no test is made, and {intervals}"
    ]


def _common_settings(methods: Sequence[Method]) -> EvaluationSettings:
    """As in the records that are there, else the defaults; UserError where two were measured with others."""
    folders = [(method, fold, folder.folder) for method in methods for fold, folder in method.folders.items()]
    kept = [(method, fold, settings) for method, fold, path in folders if (settings := kept_settings(path))]
    for method, fold, settings in kept:
        if differing := settings.differing(kept[0][2]):
            raise UserError(
                f"{f'fold {fold} of ' if fold else ''}{method.name} was evaluated with other settings "
                f"({differing}); run `nnunet_nacl evaluate` with the same options for all, or delete its folder "
                f"{RECORDS}."
            )
    return kept[0][2] if kept else methods[0].first.settings


def _common_labels(methods: Sequence[Method]) -> Labels:
    """The structures; UserError where two have others."""
    first, *others = [method.first.labels for method in methods]
    for method, labels in zip(methods[1:], others):
        if (labels.structures, labels.regions) != (first.structures, first.regions):
            these, those = (", ".join(f"{k} {name}" for k, name in x.structures.items()) for x in (labels, first))
            raise UserError(
                f"{method.name} has the structures {these}, {methods[0].name} has {those}; compare models of the same "
                "labels."
            )
    return first


def _common_cases(
    located: Comparison, by_case: pd.DataFrame, problems: Sequence[tuple[str, str, str]]
) -> tuple[list[str], list[str]]:
    """The cases that all have, and a note where some are left out."""
    broken = {case for _, case, _ in problems if not case.startswith("fold ")}  # of a whole fold nothing was measured
    lacks = by_case.isna().reindex(sorted({*by_case.index, *broken}), fill_value=True)
    common = lacks.index[~lacks.any(axis=1)].tolist()
    lacking = {name: lacks.index[lacks[name]].tolist() for name in lacks if lacks[name].any()}
    if not lacking:
        return common, []
    counts = (f"{name} lacks {len(cases)} of {len(lacks)} cases: {some(cases)}" for name, cases in lacking.items())
    listed = f"{'; '.join(counts)}."
    if common and located.options.allow_missing:
        return common, [f"{located.name}: compared on the {len(common)} of {len(lacks)} cases that all have. {listed}"]
    advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    advice = advice if common else "No case is left to compare."
    why = {case: text for name, case, text in problems if name in lacking}
    raise UserError(f"{located.name}: {listed} {advice}{list_problems(why)}")


def _patients(located: Comparison, cases: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Of each case the patient, as the user or a compared model's calibration map says; empty if each is its own.

    And a note on each map that cannot be read: it may know of patients.
    """
    patients, notes, groups = read_groups(located.options.groups, cases), list[str](), dict[str, str]()
    if located.options.groups is None:
        for path in sorted({method.map_path for method in located.methods if method.is_model}):
            try:
                groups = groups or (CalibrationMap.load(path).fitted.groups if path.is_file() else {})
            except UserError as error:
                notes.append(f"{error} If it knows which cases are of one patient, name them with -groups.")
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}, notes


def promises_of(comparison: Comparison) -> dict[str, Promises]:
    """By name of every method; those of a calibrated model, and of folders that a map calibrated, may have intervals.

    What a model's map learned, it learned from the validation cases. So of each of these the same is learned again from
    the parts of the cross-fit that the case is not in; a patient's cases lie in one part, and count as one. Of other
    cases, in folders that `nnunet_nacl review -map` wrote, the map that they name is asked as it is.
    """
    cases, result = comparison.cases, {}
    for method in comparison.methods:
        rows, caveats = comparison.table[comparison.table.method == method.name], []
        if method.calibrated:
            learned, fitted = (found := CalibrationMap.load(method.map_path)).learned, found.fitted
            if learned is not None and fitted.part_of.keys() >= set(cases):
                rows = predict_dice_parts(rows, fitted.groups, fitted.part_of)
        elif not method.is_model and (quality := _asked(method.first)):
            rows, caveats = quality.learned.predict_dice(rows), quality.caveats(cases)
        result[method.name] = Promises(rows, caveats)
    return result


def _asked(folder: PredictionFolder) -> QualityOfMap | None:
    """What the map has learned that calibrated a folder; None where none did, or it has learned nothing."""
    path = map_path_of(folder.folder)
    try:
        return open_map(path, folder)[1] if path else None
    except UserError:
        return None
