"""Puts documents side by side, and makes sure that they can be compared: the same cases, structures and folds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_nacl.comparison.resolution import Located, Part
from nnunet_nacl.comparison.training_cases import fold_of
from nnunet_nacl.documents.map_file import MAP_FILE, map_of, read_record, sha256
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.documents.results import CaseResult, Evaluation, EvaluationSettings
from nnunet_nacl.errors import UserError

__all__ = ["Dataset", "align", "some"]

_SHOWN = 8  # so many names of a list are shown


@dataclass(frozen=True)
class Dataset:
    """One data set as all entries saw it.

    Attributes:
        name: nnU-Net's name.
        configuration: ``2d``, ``3d_fullres``, ... of the models; empty where only paths are compared.
        plans: Name of their plans; likewise.
        folds: Their folds; likewise.
        regions: Whether the heads are sigmoid regions.
        structures: Names by nnU-Net's key.
        settings: Of the evaluation.
        cases: Names of the cases that all entries have, in order.
        case_fold: Fold of each case; empty where no entry tells it.
        results: By entry, one per case, in that order.
        predictions: By entry and fold (empty for those of no fold) where predictions and ground truth lie: ``folder``,
            where they do not lie where nnU-Net has them ``references``, ``dataset_json`` and ``plans``, and where
            something is done to them before they are compared the ``treatment``; ``map_sha256`` names the map that
            calibrated them.
        left_out: By entry, the cases that others have and it lacks.
        patients: Of each case the patient; empty where each case is its own.
        notes: What must be said beside every number.
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
        cases = _counted(len(self.cases), "case")
        return f"{cases} of {_counted(self.n_patients, 'patient')}" if self.patients else cases

    @property
    def where(self) -> str:
        """Data set, configuration, folds and number of cases."""
        folds = f"fold{'s' * (len(self.folds) != 1)} {', '.join(self.folds)}" if self.folds else ""
        return ", ".join(filter(None, (self.name, self.configuration, folds, self.size)))


def align(located: Located, documents: Mapping[str, Sequence[tuple[Part, Evaluation]]]) -> Dataset:
    """The cases that the documents have in common.

    Args:
        located: What is compared.
        documents: By entry, as :func:`~nnunet_nacl.comparison.resolution.read_documents` gives them.

    Raises:
        UserError: They have other structures or folds, an entry has a case twice or lacks one, or its networks were
            trained on the cases.
    """
    options, notes = located.options, list(located.notes)
    first = next(iter(documents.values()))[0][1]
    cases, problems, predictions = {}, {}, {}
    for name, found in documents.items():
        for part, document in found:
            _check_structures(part, document, first)
        by_fold = [(part, *item) for part, document in found for item in _by_fold(part, document).items()]
        for part, fold, (folder, document) in by_fold:
            notes += options.check_training(part.entry.label, fold, folder, {case.case for case in document.cases})
        cases[name] = _by_case(name, [(fold, document) for _, fold, (_, document) in by_fold])
        problems[name] = {case: text for _, document in found for case, text in document.problems.items()}
        predictions[name] = {
            fold: _places(folder, part, document, located) for part, fold, (folder, document) in by_fold
        }
    common, left_out, note = _common_cases(located.name, cases, problems, options.allow_missing)
    return Dataset(
        name=located.name,
        configuration=options.configuration or "" if located.folds or options.test else "",
        plans=options.plans if located.folds or options.test else "",
        folds=tuple(located.folds),
        regions=first.regions,
        structures=dict(first.names),
        settings=first.settings,
        cases=tuple(common),
        case_fold=_folds(common, cases),
        results={name: [found[case][1] for case in common] for name, found in cases.items()},
        predictions=predictions,
        left_out=left_out,
        patients=_patients(located, common),
        notes=[*notes, *note],
    )


def _patients(located: Located, cases: Sequence[str]) -> dict[str, str]:
    """Of each case the patient, as the user or a compared model's calibration map says; empty if each is its own."""
    found = read_groups(located.options.groups, cases)
    if located.options.groups is None and not located.options.test:
        models = {part.folder.folder.parent.parent for part in located.parts if part.folder and part.entry.is_model}
        maps = sorted(model / MAP_FILE for model in models if (model / MAP_FILE).is_file())
        groups = next(filter(None, (read_record(path).groups for path in maps)), {})
        found = {case: groups.get(case, case) for case in cases}
    return found if len(set(found.values())) < len(found) else {}


def _check_structures(part: Part, document: Evaluation, first: Evaluation) -> None:
    if (document.names, document.channels, document.regions) != (first.names, first.channels, first.regions):
        own, other = (", ".join(f"{key} {name}" for key, name in d.names.items()) for d in (document, first))
        raise UserError(
            f"{part.entry.name}{f', fold {part.fold}' if part.fold else ''} has the structures {own}, the first "
            f"entry {other}; compare models of the same labels."
        )


def _by_fold(part: Part, document: Evaluation) -> dict[str, tuple[Path, Evaluation]]:
    """Where the predictions of a document lie, and its cases there, by fold (empty where they belong to none)."""
    result: dict[str, tuple[Path, Evaluation]] = {}
    for case in document.cases:
        recorded = Path(case.probabilities_file).parent
        folder = part.folder.folder if part.folder else recorded if recorded.is_dir() else part.document.parent
        place, earlier = result.get(part.fold or fold_of(folder), (folder, replace(document, cases=[])))
        result[part.fold or fold_of(folder)] = place, replace(document, cases=[*earlier.cases, case])
    return result


def _by_case(entry: str, by_fold: Sequence[tuple[str, Evaluation]]) -> dict[str, tuple[str, CaseResult]]:
    result: dict[str, tuple[str, CaseResult]] = {}
    for fold, document in by_fold:
        for case in document.cases:
            if case.case in result:
                raise UserError(
                    f"{entry}: case {case.case} lies in fold {result[case.case][0]} and in fold {fold}; remove what "
                    "is left over from another split, or choose one fold with -f."
                )
            result[case.case] = (fold, case)
    return result


def _common_cases(
    name: str, cases: Mapping[str, Mapping], problems: Mapping[str, Mapping[str, str]], allow_missing: bool
) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The cases that all have, those that each lacks, and a note where some are left out."""
    known = set().union(*cases.values(), *problems.values())
    left_out = {entry: missing for entry, found in cases.items() if (missing := sorted(known - set(found)))}
    common = sorted(known.difference(*left_out.values()))
    if not left_out:
        return common, left_out, []
    listed = "; ".join(
        f"{entry} lacks {len(missing)} of {len(known)} cases: {some(missing)}" for entry, missing in left_out.items()
    )
    if allow_missing and common:
        note = f"{name}: compared on the {len(common)} of {len(known)} cases that all entries have. {listed}."
        return common, left_out, [note]
    why = [f"  {case}: {text.replace(', or pass --chill', '')}" for e in left_out for case, text in problems[e].items()]
    why = why[:_SHOWN] + ([f"  ... and {len(why) - _SHOWN} more"] if len(why) > _SHOWN else [])
    advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    advice = advice if common else "No case is left to compare."
    raise UserError("\n".join([f"{name}: {listed}. {advice}", *why]))


def _folds(common: Sequence[str], cases: Mapping[str, Mapping[str, tuple[str, CaseResult]]]) -> dict[str, str]:
    """Fold of each case; UserError where two models were trained on other splits."""
    result = {}
    for case in common:
        known = {entry: found[case][0] for entry, found in cases.items() if found[case][0]}
        (first, fold), *others = known.items() or [("", "")]
        for entry, other in others:
            if other != fold:
                raise UserError(
                    f"case {case} lies in fold {fold} of {first}, but in fold {other} of {entry}: they were trained "
                    "on other splits and cannot be compared."
                )
        result[case] = fold
    return result


def _places(folder: Path, part: Part, document: Evaluation, located: Located) -> dict[str, str]:
    """Where the report finds the cases: within nnUNet_results if they lie there, else absolute paths."""
    options, reference = located.options, Path(document.cases[0].reference_file).parent
    root, place = os.environ.get("nnUNet_results"), folder.resolve()
    if root and place.is_relative_to(Path(root).resolve()):
        place = place.relative_to(Path(root).resolve())
    places = {"folder": str(place), **map_of(folder)}
    if options.test and part.folder and part.folder.reference_folder:  # the folder holds what the treatment has left
        return places | {"references": os.path.abspath(part.folder.reference_folder)}
    pooled = folder.parent.parent / MAP_FILE
    if "calibrated" in part.entry.treatment and pooled.is_file():  # it holds the map of each part of the cases, too
        places |= {"map_sha256": sha256(pooled)}
    if part.entry.treatment:
        places |= {"treatment": "+".join(part.entry.treatment)}
    if not part.entry.is_model:
        given = {"references": reference, "dataset_json": options.dataset_json, "plans": options.plans_json}
        places |= {key: os.path.abspath(path) for key, path in given.items() if path is not None}
    return places


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
