"""Aligns the entries on one data set: the same cases, structures and folds, and the columns that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE
from nnunet_nacl.calibrate.workflow import read_groups
from nnunet_nacl.case.case import MASKS, EvaluationSettings
from nnunet_nacl.case.record import CaseRecord, scores, table
from nnunet_nacl.compare.predictions import Measured, Selection
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.numbers.calibration_error import MASK_METRICS, nanmean

CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
MAIN_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""What is shown first of every comparison."""
OVERLAP = {"Dice": ("DSC", "higher", ""), "HD95_mm": ("HD95", "lower", "mm")}
_SHOWN = 8  # so many problems of single cases are shown


@dataclass(frozen=True)
class Column:
    """One number of each case.

    Attributes:
        title: Metric and what it was measured on, for people.
        group: ``discrimination`` or ``calibration``.
        better: ``lower`` or ``higher``.
        unit: ``mm`` or empty.
        metric: ``Dice``, ``HD95_mm``, or one of ``CALIBRATION_METRICS``.
        mask: Of a calibration metric.
        structure: nnU-Net's key of one structure; None for all together.
    """

    title: str
    group: str
    better: str
    unit: str
    metric: str
    mask: str | None = None
    structure: str | None = None

    @property
    def family(self) -> str | None:
        """The table whose tests are corrected together with this column's; None if it is not tested.

        ``CECE_sum`` is ``CECE_mean`` times the number of classes: testing both would count one question twice. Of CECE
        only the foreground's is tested, the paper's: with it on five more masks all other tests would lose power.
        """
        if self.group == "discrimination":
            return "discrimination"
        if f"{self.metric}:{self.mask}" in MAIN_COLUMNS:
            return "calibration"
        return "calibration_masks" if CALIBRATION_METRICS[self.metric].tested else None


def make_columns(structures: Sequence[Mapping[str, str]]) -> dict[str, Column]:
    """All columns by id: ``Dice``, ``Dice:1``, ``HD95_mm:2``, ``ECE:foreground``, ...

    Args:
        structures: Names by nnU-Net's key, of each data set. A column's title holds a structure's name where all data
            sets with that key agree on it, else the key.
    """
    names: dict[str | None, str] = {None: ""}
    for key, name in (item for names_by_key in structures for item in names_by_key.items()):
        names[key] = name if names.get(key, name) == name else f"structure {key}"
    result = {}
    for metric, (short, better, unit) in OVERLAP.items():
        for structure, name in names.items():
            title = f"{short} {name}".rstrip() + (f" ({unit})" if unit else "")
            column_id = f"{metric}:{structure}" if structure else metric
            result[column_id] = Column(title, "discrimination", better, unit, metric, structure=structure)
    for name, shown in CALIBRATION_METRICS.items():
        result |= {f"{name}:{m}": Column(f"{shown.title} {m}", "calibration", "lower", "", name, m) for m in MASKS}
    return result


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
        records: By entry, one per case, in that order.
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
    records: dict[str, list[CaseRecord]]
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
        counts = {"case": len(self.cases)} | ({"patient": self.n_patients} if self.patients else {})
        return " of ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items())

    @property
    def where(self) -> str:
        """Data set, configuration, folds and number of cases."""
        folds = f"fold{'s' * (len(self.folds) > 1)} {', '.join(self.folds)}" if self.folds else ""
        return ", ".join(filter(None, (self.name, self.configuration, folds, self.size)))

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each entry, case and structure, see :func:`nnunet_nacl.case.record.table`."""
        parts = {name: table(records) for name, records in self.records.items()}
        return pd.concat(parts, names=["entry"]).reset_index("entry").reset_index(drop=True)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns that this data set has, by id, titles with its own names of structures."""
        return make_columns([self.structures])

    @cached_property
    def values(self) -> pd.DataFrame:
        """A row a case, and of each column and entry (``[column][name]``) its value; NaN where it is not defined.

        ``Dice`` and ``HD95_mm`` of all structures are the mean over those of the case that are defined. A structure
        that one entry missed has a Dice of 0 but no distance, and those that are hard to find have the largest: without
        it, whoever misses it would look closer than whoever finds it. So its distance counts for none.
        """
        rows = self.table.set_index(["case", "entry", "key"])[list(OVERLAP)]
        for_all = rows["HD95_mm"].groupby(["case", "key"]).transform("count") == len(self.records)
        means = rows.assign(HD95_mm=rows["HD95_mm"].where(for_all)).groupby(["case", "entry"]).agg(nanmean)
        by_structure = rows.unstack("key")
        by_structure.columns = [":".join(pair) for pair in by_structure.columns]
        of_masks = pd.concat({name: scores(records) for name, records in self.records.items()}, names=["entry", "case"])
        joined = pd.concat([means, by_structure, of_masks.swaplevel()], axis=1)
        wanted = pd.MultiIndex.from_product([self.columns, self.records])
        return joined[list(self.columns)].unstack("entry").reindex(self.cases, columns=wanted)


def align(selection: Selection, found: Sequence[Measured]) -> Dataset:
    """The cases that all entries have in common.

    Args:
        selection: What is compared.
        found: As :func:`~nnunet_nacl.compare.predictions.measured` gives it.

    Raises:
        UserError: They have other structures or folds, or an entry has a case twice or lacks one.
    """
    options, first = selection.options, found[0]
    for part in found:
        if (list(part.structures.items()), part.regions) != (list(first.structures.items()), first.regions):
            these, others = (", ".join(f"{key} {name}" for key, name in p.structures.items()) for p in (part, first))
            raise UserError(
                f"{part.name} has the structures {these}, the first entry {others}; compare models of the same labels."
            )
    rows = [(part.name, record.case, part.fold, record) for part in found for record in part.records]
    frame = pd.DataFrame(rows, columns=["entry", "case", "fold", "record"])
    _check_folds(frame)
    by_case = frame.pivot(index="case", columns="entry", values="record")[frame.entry.unique()]
    problems = [(part.name, *problem) for part in found for problem in part.problems.items()]
    common, left_out = _common_cases(selection, by_case, problems)
    return Dataset(
        name=selection.name,
        configuration=options.configuration if selection.folds else "",
        plans=options.plans if selection.folds else "",
        folds=tuple(selection.folds),
        regions=first.regions,
        structures=dict(first.structures),
        settings=first.settings,
        cases=tuple(common),
        records={name: by_case.loc[common, name].tolist() for name in by_case},
        patients=_patients(selection, common),
        notes=[*selection.notes, *(note for part in found for note in part.notes), *left_out],
    )


def _check_folds(frame: pd.DataFrame) -> None:
    """UserError where an entry has a case twice, or two were trained on other splits: a case lies in other folds."""
    for (name, case), folds in frame[frame.duplicated(["entry", "case"], keep=False)].groupby(["entry", "case"]).fold:
        raise UserError(
            f"{name}: case {case} lies in fold {folds.iloc[0]} and in fold {folds.iloc[1]}; remove what is left over "
            "from another split, or choose one fold with -f."
        )
    for case, rows in frame[frame.fold != ""].groupby("case"):
        other = rows[rows.fold != rows.fold.iloc[0]]
        if len(other):
            (first, name), (fold, another) = rows[["fold", "entry"]].iloc[0], other[["fold", "entry"]].iloc[0]
            raise UserError(
                f"case {case} lies in fold {first} of {name}, but in fold {fold} of {another}: they were trained on "
                "other splits and cannot be compared."
            )


def _common_cases(
    selection: Selection, by_case: pd.DataFrame, problems: Sequence[tuple[str, str, str]]
) -> tuple[list[str], list[str]]:
    """The cases that all have, and a note where some are left out."""
    everything = sorted({*by_case.index, *(case for _, case, _ in problems)})
    lacks = by_case.isna().reindex(everything, fill_value=True)
    common = lacks.index[~lacks.any(axis=1)].tolist()
    lacking = {name: lacks.index[lacks[name]].tolist() for name in lacks if lacks[name].any()}
    if not lacking:
        return common, []
    counts = (f"{name} lacks {len(cases)} of {len(lacks)} cases: {some(cases)}" for name, cases in lacking.items())
    listed = f"{'; '.join(counts)}."
    if common and selection.options.allow_missing:
        kept = f"compared on the {len(common)} of {len(lacks)} cases that all entries have"
        return common, [f"{selection.name}: {kept}. {listed}"]
    advice = "Predict them, or pass --allow-missing to compare on the cases that all have."
    advice = advice if common else "No case is left to compare."
    why = [f"  {case}: {text.replace(', or pass --chill', '')}" for name, case, text in problems if name in lacking]
    more = [f"  ... and {len(why) - _SHOWN} more"] if len(why) > _SHOWN else []
    raise UserError("\n".join([f"{selection.name}: {listed} {advice}", *why[:_SHOWN], *more]))


def _patients(selection: Selection, cases: Sequence[str]) -> dict[str, str]:
    """Of each case the patient, as the user or a compared model's calibration map says; empty if each is its own."""
    patients = read_groups(selection.options.groups, cases)
    if selection.options.groups is None:
        models = [place.path.parent.parent for place in selection.predictions if place.entry.is_model]
        maps = sorted({model / MAP_FILE for model in models if (model / MAP_FILE).is_file()})
        groups = next(filter(None, (CalibrationMap.load(path).fitted.groups for path in maps)), {})
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}
