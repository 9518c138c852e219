"""Puts documents side by side, and makes sure that they can be compared: the same cases, structures and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE
from nnunet_nacl.calibrate.patient_groups import read_groups
from nnunet_nacl.case.document import Evaluation
from nnunet_nacl.case.results import CaseResult, EvaluationSettings
from nnunet_nacl.compare.resolution import Predictions, Selection
from nnunet_nacl.compare.trained_models import check_training_cases
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.nnunet.locate import validated_fold

_SHOWN = 8  # so many problems of single cases are shown


@dataclass(frozen=True)
class Dataset:
    """One data set as all entries saw it.

    Attributes:
        name: nnU-Net's name.
        configuration: ``2d``, ``3d_fullres``, ... of the models; empty where only paths are compared.
        plans: Name of their plans; empty in the same way.
        folds: Their folds; empty in the same way.
        regions: Whether the heads are sigmoid regions.
        structures: Names by nnU-Net's key.
        settings: Of the evaluation.
        cases: Names of the cases that all entries have, in order.
        results: By entry, one per case, in that order.
        patients: Of each case the patient; empty where each case is its own.
        notes: Sentences for every output.
    """

    name: str
    configuration: str
    plans: str
    folds: tuple[str, ...]
    regions: bool
    structures: dict[str, str]
    settings: EvaluationSettings
    cases: tuple[str, ...]
    results: dict[str, list[CaseResult]]
    patients: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        return [self.patients[case] for case in self.cases] if self.patients else None

    @property
    def unit(self) -> str:
        """What is drawn for intervals and counted in tests: ``patients`` or ``cases``."""
        return "patients" if self.patients else "cases"

    @property
    def n_patients(self) -> int:
        """How many independent patients, or cases, there are."""
        return len(set(self.groups or self.cases))

    @property
    def size(self) -> str:
        """``40 cases``, ``1 case``, ``40 cases of 20 patients``."""
        cases, patients = len(self.cases), self.n_patients
        size = f"{cases} case{'s' * (cases != 1)}"
        return f"{size} of {patients} patient{'s' * (patients != 1)}" if self.patients else size

    @property
    def intervals(self) -> str:
        """What the intervals of its figures are."""
        return f"95 % bootstrap intervals over {self.unit}"

    @property
    def where(self) -> str:
        """Data set, configuration, folds and number of cases."""
        folds = f"fold{'s' if len(self.folds) > 1 else ''} {', '.join(self.folds)}" if self.folds else ""
        return ", ".join(filter(None, (self.name, self.configuration, folds, self.size)))


def align(selection: Selection, documents: Sequence[tuple[Predictions, Evaluation]]) -> Dataset:
    """The cases that the documents have in common.

    Args:
        selection: What is compared.
        documents: As :func:`~nnunet_nacl.compare.resolution.read_documents` gives them.

    Raises:
        UserError: They have other structures or folds, an entry has a case twice or lacks one, or its networks were
            trained on the cases.
    """
    options, first = selection.options, documents[0][1]
    results: dict[str, dict[str, CaseResult]] = {}
    fold_of: dict[str, dict[str, str]] = {}
    problems: list[tuple[str, str, str]] = []
    notes = list(selection.notes)
    for place, document in documents:
        name = place.entry.name
        if (document.structures, document.regions) != (first.structures, first.regions):
            these, others = (", ".join(f"{key} {label}" for key, label in d.names.items()) for d in (document, first))
            fold = f", fold {place.fold}" if place.fold else ""
            raise UserError(
                f"{name}{fold} has the structures {these}, the first entry {others}; compare models of the same labels."
            )
        folders: dict[str, Path] = {}
        own, known = results.setdefault(name, {}), fold_of.setdefault(name, {})
        new: dict[str, str] = {}
        for case in document.cases:  # a model's own document holds all folds
            recorded = Path(case.probabilities_file).parent
            folder = place.folder.folder if place.folder else recorded if recorded.is_dir() else place.document.parent
            new[case.case] = fold = place.fold or validated_fold(folder)
            folders.setdefault(fold, folder)
            if case.case in own:
                raise UserError(
                    f"{name}: case {case.case} lies in fold {known[case.case]} and in fold {fold}; remove what is left "
                    "over from another split, or choose one fold with -f."
                )
            own[case.case], known[case.case] = case, fold
        for fold, folder in folders.items():
            cases = {case for case, its in new.items() if its == fold}
            allow, plans = options.allow_training_cases, options.plans_json
            notes += check_training_cases(place.entry.label, fold, folder, cases, allow=allow, plans=plans)
        problems += [(name, case, text) for case, text in document.problems.items()]
    _check_folds(fold_of)
    common, note = _common_cases(selection, results, problems)
    return Dataset(
        name=selection.name,
        configuration=options.configuration or "" if selection.folds else "",
        plans=options.plans if selection.folds else "",
        folds=tuple(selection.folds),
        regions=first.regions,
        structures=dict(first.names),
        settings=first.settings,
        cases=tuple(common),
        results={name: [cases[case] for case in common] for name, cases in results.items()},
        patients=_patients(selection, common),
        notes=notes + note,
    )


def _check_folds(fold_of: Mapping[str, Mapping[str, str]]) -> None:
    """UserError where two models were trained on other splits: a case lies in different folds."""
    first: dict[str, tuple[str, str]] = {}
    for name, folds in fold_of.items():
        for case, fold in folds.items():
            other, its = first.setdefault(case, (name, fold)) if fold else ("", fold)
            if fold != its:
                raise UserError(
                    f"case {case} lies in fold {its} of {other}, but in fold {fold} of {name}: they were trained on "
                    "other splits and cannot be compared."
                )


def _common_cases(
    selection: Selection, results: Mapping[str, Mapping[str, CaseResult]], problems: Sequence[tuple[str, str, str]]
) -> tuple[list[str], list[str]]:
    """The cases that all have, and a note where some are left out."""
    everything = set().union(*results.values(), (case for _, case, _ in problems))
    lacking = {name: own for name, cases in results.items() if (own := sorted(everything - cases.keys()))}
    common = sorted(everything.difference(*lacking.values()))
    if not lacking:
        return common, []
    parts = (f"{name} lacks {len(own)} of {len(everything)} cases: {some(own)}" for name, own in lacking.items())
    listed = "; ".join(parts)
    if common and selection.options.allow_missing:
        kept = f"compared on the {len(common)} of {len(everything)} cases that all entries have"
        return common, [f"{selection.name}: {kept}. {listed}."]
    advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    advice = advice if common else "No case is left to compare."
    why = [f"  {case}: {text.replace(', or pass --chill', '')}" for name, case, text in problems if name in lacking]
    more = [f"  ... and {len(why) - _SHOWN} more"] if len(why) > _SHOWN else []
    raise UserError("\n".join([f"{selection.name}: {listed}. {advice}", *why[:_SHOWN], *more]))


def _patients(selection: Selection, cases: Sequence[str]) -> dict[str, str]:
    """Of each case the patient, as the user or a compared model's calibration map says; empty if each is its own."""
    patients = read_groups(selection.options.groups, cases)
    if selection.options.groups is None:
        models = [p.folder.folder.parent.parent for p in selection.predictions if p.folder and p.entry.is_model]
        maps = sorted({model / MAP_FILE for model in models if (model / MAP_FILE).is_file()})
        groups = next(filter(None, (CalibrationMap.load(path).groups for path in maps)), {})
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}
