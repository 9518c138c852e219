"""Puts documents side by side, and makes sure that they can be compared: the same cases, structures and folds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_nacl.comparison.resolution import Predictions, Selection
from nnunet_nacl.comparison.training_cases import fold_of
from nnunet_nacl.documents.map_file import MAP_FILE, map_of, read_record, sha256
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.documents.results import CaseResult, Evaluation, EvaluationSettings
from nnunet_nacl.errors import UserError

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
        predictions: By entry and fold (empty for those of no fold) where predictions and ground truth lie: ``folder``,
            where they do not lie where nnU-Net has them ``references``, ``dataset_json`` and ``plans``, and where
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
    for one, document in documents:
        if (document.names, document.channels, document.regions) != (first.names, first.channels, first.regions):
            own, other = (", ".join(f"{key} {name}" for key, name in d.names.items()) for d in (document, first))
            raise UserError(
                f"{one.entry.name}{f', fold {one.fold}' if one.fold else ''} has the structures {own}, the first "
                f"entry {other}; compare models of the same labels."
            )
    table = pd.DataFrame([row for pair in documents for row in _rows(*pair)], columns=_TABLE)
    notes = list(selection.notes)
    places: dict[str, dict[str, dict[str, str]]] = {one.entry.name: {} for one, _ in documents}
    for (name, fold), rows in table.groupby(["entry", "fold"], sort=False):
        one, folder = rows.predictions.iloc[0], rows.folder.iloc[0]
        notes += options.check_training(one.entry.label, fold, folder, set(rows.case))
        places[name][fold] = _places(one, folder, Path(rows.result.iloc[0].reference_file), selection)
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


def _rows(one: Predictions, document: Evaluation) -> Iterator[tuple[Any, ...]]:
    """The cases of a document, with the fold (empty where they belong to none) and where the predictions lie."""
    for case in document.cases:
        recorded = Path(case.probabilities_file).parent
        folder = one.folder.folder if one.folder else recorded if recorded.is_dir() else one.document.parent
        yield one.entry.name, one.fold or fold_of(folder), case.case, case, folder, one


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
    problems = [(one.entry.name, case, text) for one, document in documents for case, text in document.problems.items()]
    everything = {*table.case, *(case for _, case, _ in problems)}
    left_out = {
        one.entry.name: sorted(everything - set(table.case[table.entry == one.entry.name])) for one, _ in documents
    }
    left_out = {name: missing for name, missing in left_out.items() if missing}
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
    found = read_groups(selection.options.groups, cases)
    if selection.options.groups is None and not selection.options.test:
        own = (one.folder.folder.parent.parent for one in selection.predictions if one.folder and one.entry.is_model)
        maps = sorted({model / MAP_FILE for model in own if (model / MAP_FILE).is_file()})
        groups = next(filter(None, (read_record(path).groups for path in maps)), {})
        found = {case: groups.get(case, case) for case in cases}
    return found if len(set(found.values())) < len(found) else {}


def _places(one: Predictions, folder: Path, reference: Path, selection: Selection) -> dict[str, str]:
    """Where the report finds the cases: within nnUNet_results if they lie there, else absolute paths."""
    options, root, place = selection.options, os.environ.get("nnUNet_results"), folder.resolve()
    if root and place.is_relative_to(Path(root).resolve()):
        place = place.relative_to(Path(root).resolve())
    places = {"folder": str(place), **map_of(folder)}
    if options.test and one.folder and one.folder.reference_folder:  # the folder holds what the treatment has left
        return places | {"references": os.path.abspath(one.folder.reference_folder)}
    pooled = folder.parent.parent / MAP_FILE
    if "calibrated" in one.entry.treatment and pooled.is_file():  # it holds the map of each part of the cases, too
        places |= {"map_sha256": sha256(pooled)}
    if one.entry.treatment:
        places |= {"treatment": "+".join(one.entry.treatment)}
    if not one.entry.is_model:
        given = {"references": reference.parent, "dataset_json": options.dataset_json, "plans": options.plans_json}
        places |= {key: os.path.abspath(path) for key, path in given.items() if path is not None}
    return places


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
