"""Measures what methods predicted on a data set, on the cases that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.cases.case import EvaluationSettings, Labels
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.cases.measure import under
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.comparison.comparison import Comparison, Estimates
from nnunet_nacl.comparison.located import LocatedComparison
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.estimators.learned_quality import predict_dice_out_of_fold
from nnunet_nacl.metrics.statistics import FEWEST_FOR_A_TEST
from nnunet_nacl.nnunet.held_out import kept_settings, measure_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.utilities.errors import UserError, list_problems, some


def align(located: LocatedComparison) -> Comparison:
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
    comparison = Comparison(
        name=located.name,
        folds=located.folds,
        options=located.options,
        methods=located.methods,
        notes=[*located.notes, *common.notes, *patient_notes],
        bad=located.bad,
        findings=located.findings,
        regions=labels.regions,
        structures=labels.structures,
        settings=settings,
        records=records,
        patients=patients,
    )
    notes = [*comparison.notes, *few_cases(comparison)]
    return replace(comparison, notes=notes, estimates=estimates_of(comparison))


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
    are_intervals = comparison.n_patients > 1
    intervals = (
        "intervals are too narrow to rely on." if are_intervals else "there are no intervals."
    )
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
    return first or methods[0].first.dataset.settings


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


def _common_cases(located: LocatedComparison, measured: Sequence[_Measured]) -> _CommonCases:
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
        advice = (
            "Predict them, or pass [[allow_missing=True]] to compare on the cases that all have."
        )
    raise UserError(f"{located.name}: {listed} {advice}{list_problems(problems)}")


def _patients(located: LocatedComparison, cases: Sequence[str]) -> tuple[dict[str, str], list[str]]:
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
                f"{error} If it knows which cases are of one patient, name the patient of each."
            )
    return groups, notes


def estimates_of(comparison: Comparison) -> dict[str, Estimates]:
    """By name of every method, what it says of its cases without the truth.

    Those of a calibrated model, and of folders that a map calibrated, may have intervals.
    What a model's map learned, it learned from the validation cases. So of each of these the same
    is learned again from the parts of the cross-fit that the case is not in; a patient's cases lie
    in one part, and count as one. Of other cases, in folders that `nnunet_nacl review -map` wrote,
    the map that they name is asked as it is.
    """
    estimates = {}
    for method in comparison.methods:
        rows = comparison.table[comparison.table.method == method.name]
        caveats = method.calibrator.caveats(comparison.cases)
        if method.calibrator.quality.learned is not None:
            rows = method.calibrator.quality.learned.predict_dice(rows)
        elif method.calibration_map is not None and method.calibration_map.learned is not None:
            fitted = method.calibration_map.fitted
            if fitted.part_of.keys() >= set(comparison.cases):
                rows = predict_dice_out_of_fold(rows, fitted.groups, fitted.part_of)
        estimates[method.name] = Estimates(rows, caveats)
    return estimates
