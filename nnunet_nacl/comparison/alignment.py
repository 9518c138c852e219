"""Puts documents side by side, and makes sure that they can be compared: the same cases, structures and folds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl.comparison.resolution import Predictions, Selection
from nnunet_nacl.comparison.trained_models import check_training_cases
from nnunet_nacl.documents.document import Evaluation
from nnunet_nacl.documents.map_file import MAP_FILE, map_of, read_record, sha256
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.documents.results import CaseResult, EvaluationSettings
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.io.companion_files import validated_fold

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
        case_fold: Fold of each case; empty where no entry tells it.
        results: By entry, one per case, in that order.
        predictions: By entry and fold (empty for those of no fold) the ``folder`` where predictions lie;
            ``map_sha256`` names the map that calibrated them.
        left_out: By entry, the cases that others have and it lacks.
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
    case_fold: dict[str, str]
    results: dict[str, list[CaseResult]]
    predictions: dict[str, dict[str, dict[str, str]]]
    left_out: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)

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
        documents: As :func:`~nnunet_nacl.comparison.resolution.read_documents` gives them.

    Raises:
        UserError: They have other structures or folds, an entry has a case twice or lacks one, or its networks were
            trained on the cases.
    """
    options, first = selection.options, documents[0][1]
    results: dict[str, dict[str, CaseResult]] = {}
    fold_of_case: dict[str, dict[str, str]] = {}
    places: dict[str, dict[str, dict[str, str]]] = {}
    notes = list(selection.notes)
    for place, document in documents:
        name = place.entry.name
        if (document.structures, document.regions) != (first.structures, first.regions):
            these, others = (", ".join(f"{key} {label}" for key, label in d.names.items()) for d in (document, first))
            fold = f", fold {place.fold}" if place.fold else ""
            raise UserError(
                f"{name}{fold} has the structures {these}, the first entry {others}; compare models of the same labels."
            )
        by_fold: dict[str, list[CaseResult]] = {}  # a model's own document holds all folds
        for case in document.cases:
            by_fold.setdefault(place.fold or validated_fold(_folder_of(place, case)), []).append(case)
        for fold, cases in by_fold.items():
            folder = _folder_of(place, cases[0])
            allow, plans = options.allow_training_cases, options.plans_json
            names = {case.case for case in cases}
            notes += check_training_cases(place.entry.label, fold, folder, names, allow=allow, plans=plans)
            places.setdefault(name, {})[fold] = _whereabouts(place, folder)
            known = fold_of_case.setdefault(name, {})
            if twice := known.keys() & names:
                raise UserError(
                    f"{name}: case {min(twice)} lies in fold {known[min(twice)]} and in fold {fold}; remove what is "
                    "left over from another split, or choose one fold with -f."
                )
            known |= dict.fromkeys(names, fold)
            results.setdefault(name, {}).update({case.case: case for case in cases})
    common, left_out, note = _common_cases(selection, documents, results)
    return Dataset(
        name=selection.name,
        configuration=options.configuration or "" if selection.folds else "",
        plans=options.plans if selection.folds else "",
        folds=tuple(selection.folds),
        regions=first.regions,
        structures=dict(first.names),
        settings=first.settings,
        cases=tuple(common),
        case_fold={case: _fold(case, fold_of_case) for case in common},
        results={name: [cases[case] for case in common] for name, cases in results.items()},
        predictions=places,
        left_out=left_out,
        patients=_patients(selection, common),
        notes=notes + note,
    )


def _folder_of(place: Predictions, case: CaseResult) -> Path:
    """Where the predictions lie, as far as it is known."""
    recorded = Path(case.probabilities_file).parent
    return place.folder.folder if place.folder else recorded if recorded.is_dir() else place.document.parent


def _fold(case: str, fold_of_case: dict[str, dict[str, str]]) -> str:
    """Fold of a case, empty where no entry tells it; UserError where two models were trained on other splits."""
    told = {name: folds[case] for name, folds in fold_of_case.items() if folds[case]}
    first = next(iter(told), "")
    for name, fold in told.items():
        if fold != told[first]:
            raise UserError(
                f"case {case} lies in fold {told[first]} of {first}, but in fold {fold} of {name}: they were trained "
                "on other splits and cannot be compared."
            )
    return told.get(first, "")


def _common_cases(
    selection: Selection,
    documents: Sequence[tuple[Predictions, Evaluation]],
    results: dict[str, dict[str, CaseResult]],
) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The cases that all have, those that each lacks, and a note where some are left out."""
    problems = [(p.entry.name, case, text) for p, document in documents for case, text in document.problems.items()]
    everything = set().union(*results.values(), (case for _, case, _ in problems))
    lacking = {name: sorted(everything - cases.keys()) for name, cases in results.items()}
    left_out = {name: cases for name, cases in lacking.items() if cases}
    common = sorted(everything.difference(*left_out.values()))
    if not left_out:
        return common, left_out, []
    listed = "; ".join(
        f"{name} lacks {len(cases)} of {len(everything)} cases: {some(cases)}" for name, cases in left_out.items()
    )
    if common and selection.options.allow_missing:
        kept = f"compared on the {len(common)} of {len(everything)} cases that all entries have"
        return common, left_out, [f"{selection.name}: {kept}. {listed}."]
    advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    why = [f"  {case}: {text.replace(', or pass --chill', '')}" for name, case, text in problems if name in left_out]
    more = [f"  ... and {len(why) - _SHOWN} more"] if len(why) > _SHOWN else []
    advice = advice if common else "No case is left to compare."
    raise UserError("\n".join([f"{selection.name}: {listed}. {advice}", *why[:_SHOWN], *more]))


def _patients(selection: Selection, cases: Sequence[str]) -> dict[str, str]:
    """Of each case the patient, as the user or a compared model's calibration map says; empty if each is its own."""
    patients = read_groups(selection.options.groups, cases)
    if selection.options.groups is None:
        models = [p.folder.folder.parent.parent for p in selection.predictions if p.folder and p.entry.is_model]
        maps = sorted({model / MAP_FILE for model in models if (model / MAP_FILE).is_file()})
        groups = next(filter(None, (read_record(path).groups for path in maps)), {})
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}


def _whereabouts(place: Predictions, folder: Path) -> dict[str, str]:
    """Where the cases lie, within nnUNet_results if they do, and which map they have."""
    root, resolved = Path(os.environ.get("nnUNet_results") or os.devnull).resolve(), folder.resolve()
    within = resolved.relative_to(root) if resolved.is_relative_to(root) else resolved
    places = {"folder": str(within), **map_of(folder)}
    if place.entry.calibrated:  # the file holds the map of each part of the cases, too
        places["map_sha256"] = sha256(folder.parent.parent / MAP_FILE)
    return places
