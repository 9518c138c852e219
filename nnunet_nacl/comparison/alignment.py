"""Puts documents side by side, and makes sure that they can be compared: the same cases, structures and folds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_nacl.comparison.resolution import Predictions, Selection
from nnunet_nacl.documents.map_file import MAP_FILE, map_of, read_record, sha256
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.documents.results import CaseResult, Evaluation, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.companion_files import validated_fold

_SHOWN = 8  # so many names of a list are shown
_TABLE = ("entry", "fold", "case", "result", "folder", "predictions")


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
        predictions: By entry and fold (empty for those of no fold) the ``folder`` where predictions lie, and where
            something is done to them before they are compared the ``treatment``; ``map_sha256`` names the map that
            calibrated them.
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
        cases = _counted(len(self.cases), "case")
        return f"{cases} of {_counted(self.n_patients, 'patient')}" if self.patients else cases

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
    for place, document in documents:
        if (document.names, document.channels, document.regions) != (first.names, first.channels, first.regions):
            these, others = (", ".join(f"{key} {name}" for key, name in d.names.items()) for d in (document, first))
            raise UserError(
                f"{place.entry.name}{f', fold {place.fold}' if place.fold else ''} has the structures {these}, the "
                f"first entry {others}; compare models of the same labels."
            )
    table = pd.DataFrame([row for pair in documents for row in _rows(*pair)], columns=_TABLE)
    notes = list(selection.notes)
    places: dict[str, dict[str, dict[str, str]]] = {place.entry.name: {} for place, _ in documents}
    for (name, fold), rows in table.groupby(["entry", "fold"], sort=False):
        place, folder = rows.predictions.iloc[0], rows.folder.iloc[0]
        notes += options.check_training(place.entry.label, fold, folder, set(rows.case))
        places[name][fold] = _places(place, folder, options.test)
    common, left_out, note = _common_cases(selection, table, documents)
    results = table.set_index("case").loc[common].groupby("entry").result.agg(list)
    by_model = bool(selection.folds or options.test)
    return Dataset(
        name=selection.name,
        configuration=options.configuration or "" if by_model else "",
        plans=options.plans if by_model else "",
        folds=tuple(selection.folds),
        regions=first.regions,
        structures=dict(first.names),
        settings=first.settings,
        cases=tuple(common),
        case_fold=dict.fromkeys(common, "") | _case_folds(table[table.case.isin(common)]),
        results={name: results[name] for name in places},
        predictions=places,
        left_out=left_out,
        patients=_patients(selection, common),
        notes=notes + note,
    )


def _rows(place: Predictions, document: Evaluation) -> Iterator[tuple[Any, ...]]:
    """The cases of a document, with the fold (empty where they belong to none) and where the predictions lie."""
    for case in document.cases:
        recorded = Path(case.probabilities_file).parent
        folder = place.folder.folder if place.folder else recorded if recorded.is_dir() else place.document.parent
        yield place.entry.name, place.fold or validated_fold(folder), case.case, case, folder, place


def _case_folds(table: pd.DataFrame) -> dict[str, str]:
    """Fold of each case of which any entry tells it; UserError where two models were trained on other splits."""
    in_folds = table[table.fold != ""].sort_values("case", kind="stable")
    first = in_folds.drop_duplicates("case")
    both = in_folds.merge(first, on="case", suffixes=("", "_first"))
    for row in both[both.fold != both.fold_first].itertuples():
        raise UserError(
            f"case {row.case} lies in fold {row.fold_first} of {row.entry_first}, but in fold {row.fold} of "
            f"{row.entry}: they were trained on other splits and cannot be compared."
        )
    return dict(zip(first.case, first.fold))


def _common_cases(
    selection: Selection, table: pd.DataFrame, documents: Sequence[tuple[Predictions, Evaluation]]
) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """The cases that all have, those that each lacks, and a note where some are left out."""
    for (entry, case), rows in table[table.duplicated(["entry", "case"], keep=False)].groupby(["entry", "case"]):
        raise UserError(
            f"{entry}: case {case} lies in fold {rows.fold.iloc[0]} and in fold {rows.fold.iloc[1]}; remove what "
            "is left over from another split, or choose one fold with -f."
        )
    problems = [(p.entry.name, case, text) for p, document in documents for case, text in document.problems.items()]
    everything = {*table.case, *(case for _, case, _ in problems)}
    cases = {place.entry.name: set(table.case[table.entry == place.entry.name]) for place, _ in documents}
    left_out = {name: sorted(everything - have) for name, have in cases.items() if everything - have}
    common = sorted(everything.difference(*left_out.values()))
    if not left_out:
        return common, left_out, []
    listed = "; ".join(
        f"{name} lacks {len(missing)} of {len(everything)} cases: {some(missing)}" for name, missing in left_out.items()
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
    if selection.options.groups is None and not selection.options.test:
        models = [p.folder.folder.parent.parent for p in selection.predictions if p.folder and p.entry.is_model]
        maps = sorted({model / MAP_FILE for model in models if (model / MAP_FILE).is_file()})
        groups = next(filter(None, (read_record(path).groups for path in maps)), {})
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}


def _places(place: Predictions, folder: Path, test: bool) -> dict[str, str]:
    """Where the cases lie, within nnUNet_results if they do, and which map and treatment they have."""
    root, resolved = os.environ.get("nnUNet_results"), folder.resolve()
    if root and resolved.is_relative_to(Path(root).resolve()):
        resolved = resolved.relative_to(Path(root).resolve())
    places = {"folder": str(resolved), **map_of(folder)}
    if test:  # the folder holds what the treatment has left
        return places
    pooled = folder.parent.parent / MAP_FILE
    if "calibrated" in place.entry.treatment and pooled.is_file():  # it holds the map of each part of the cases, too
        places |= {"map_sha256": sha256(pooled)}
    return places | ({"treatment": "+".join(place.entry.treatment)} if place.entry.treatment else {})


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
