"""One data set as all entries saw it: the same cases side by side, the columns compared, and what was promised."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, map_path_of
from nnunet_nacl.calibrate.workflow import read_groups
from nnunet_nacl.case.case import MASKS, EvaluationSettings
from nnunet_nacl.case.measure import under
from nnunet_nacl.case.record import RECORDS, CaseRecord, find_record, make_key, same_contents, scores, table
from nnunet_nacl.compare.predictions import Predictions, Selection, check_training_cases, part_maps
from nnunet_nacl.errors import UserError, some
from nnunet_nacl.nnunet.held_out import kept_settings, measure_folders
from nnunet_nacl.nnunet.prediction_folder import records_in
from nnunet_nacl.nnunet.records import Work, recorded_cases
from nnunet_nacl.numbers.calibration_error import MASK_METRICS, nanmean
from nnunet_nacl.numbers.learned_quality import DICE, predict_dice_parts
from nnunet_nacl.numbers.presence import LearnedPresence, learn_presence
from nnunet_nacl.review.predicted_quality import QualityOfMap, check_same_networks, open_map

CALIBRATION_METRICS = {name: metric for name, metric in MASK_METRICS.items() if metric.meaning}
MAIN_COLUMNS = ("Dice", "HD95_mm", "ECE:foreground", "CECE_mean:foreground")
"""What is shown first of every comparison."""
OVERLAP = {"Dice": ("DSC", "higher", ""), "HD95_mm": ("HD95", "lower", "mm")}
_SHOWN = 8  # so many problems of single cases are shown
_PREDICTED = ("segmentation", "probabilities")  # these lie in the folder, wherever it lay when they were measured


@dataclass(frozen=True)
class Column:
    """One number of each case, as comparison.json describes it."""

    title: str  # metric and what it was measured on, for people
    group: str  # `discrimination` or `calibration`
    better: str  # `lower` or `higher`
    unit: str  # `mm` or empty
    metric: str  # `Dice`, `HD95_mm`, or one of CALIBRATION_METRICS
    mask: str | None = None  # of a calibration metric
    structure: str | None = None  # nnU-Net's key of one structure; None for all together

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


def make_columns(structures: Iterable[Mapping[str, str]]) -> dict[str, Column]:
    """All columns by id, ``Dice``, ``Dice:1``, ``ECE:foreground``, ..., by the names of each data set's structures.

    A title holds a structure's name where all data sets with that key agree on it, else the key.
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
    """One data set as all entries saw it."""

    name: str  # nnU-Net's name
    configuration: str  # this and the next two: of the models; empty where only paths are compared
    plans: str
    folds: tuple[str, ...]
    regions: bool  # whether the heads are sigmoid regions
    structures: dict[str, str]  # names by nnU-Net's key
    settings: EvaluationSettings
    cases: tuple[str, ...]  # names of the cases that all entries have, in order
    records: dict[str, list[CaseRecord]]  # by entry, one per case, in that order
    patients: dict[str, str] = field(default_factory=dict)  # by case; empty where each case is its own
    notes: list[str] = field(default_factory=list)  # sentences for every output

    @property
    def groups(self) -> list[str] | None:
        """Patient of each case; None where each case is its own."""
        return [self.patients[case] for case in self.cases] if self.patients else None

    @property
    def unit(self) -> str:
        """What is drawn for intervals and counted in tests."""
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


def align(selection: Selection) -> Dataset:
    """The cases that all entries have in common; what was not measured yet, or has changed, is measured first.

    All are measured with the settings of the records that are there already, so that a user's choice of masks is kept.
    UserError where predictions cannot be evaluated, or not be compared with the others.
    """
    options, settings = selection.options, _common_settings(selection.predictions)
    kinds, rows, problems, notes = [], [], list[tuple[str, str, str]](), list[str]()
    for place in selection.predictions:
        records, wrong, said = _records_of(place, settings, options.num_processes)
        if place.folder is not None and place.entry.calibrated:
            maps = part_maps(place.folder)
            records = [under(record, maps[record.case]) for record in records]
        cases, name = {record.case for record in records}, place.entry.name
        notes += said + check_training_cases(place, cases, options.allow_training_cases)
        structures = records[0].structures["name"]
        kinds.append((list(structures.items()), records[0].bins["all"].num_classes == len(structures)))
        if kinds[-1] != kinds[0]:
            these, others = (", ".join(f"{key} {text}" for key, text in kinds[i][0]) for i in (-1, 0))
            raise UserError(
                f"{name} has the structures {these}, the first entry {others}; compare models of the same labels."
            )
        rows += [(name, record.case, place.fold, record) for record in records]
        problems += [(name, *problem) for problem in wrong.items()]
    frame = pd.DataFrame(rows, columns=["entry", "case", "fold", "record"])
    _check_folds(frame)
    by_case = frame.pivot(index="case", columns="entry", values="record")[frame.entry.unique()]
    common, left_out = _common_cases(selection, by_case, problems)
    return Dataset(
        name=selection.name,
        configuration=options.configuration if selection.folds else "",
        plans=options.plans if selection.folds else "",
        folds=tuple(selection.folds),
        regions=kinds[0][1],
        structures=dict(kinds[0][0]),
        settings=settings,
        cases=tuple(common),
        records={name: by_case.loc[common, name].tolist() for name in by_case},
        patients=_patients(selection, common),
        notes=[*selection.notes, *notes, *left_out],
    )


def _common_settings(predictions: Sequence[Predictions]) -> EvaluationSettings:
    """As in the records that are there, else the defaults; UserError where two were measured with others."""
    kept = [(place, settings) for place in predictions if (settings := kept_settings(place.path))]
    for place, settings in kept:
        if differing := settings.differing(kept[0][1]):
            raise UserError(
                f"{f'fold {place.fold} of ' if place.fold else ''}{place.entry.name} was evaluated with other "
                f"settings ({differing}); run `nnunet_nacl evaluate` with the same options for all, or delete its "
                f"folder {RECORDS}."
            )
    return kept[0][1] if kept else EvaluationSettings()


def _records_of(
    place: Predictions, settings: EvaluationSettings, jobs: int
) -> tuple[list[CaseRecord], dict[str, str], list[str]]:
    """Records of the cases in order, what is wrong with others, and a note where records stand for what is gone."""
    why_not, entry = place.why_not, place.entry
    if place.folder is not None:
        work = Work(settings=settings, with_sample=entry.calibrated)
        title = ", fold ".join(filter(None, (entry.label, place.fold)))
        try:
            found = measure_folders({"": place.folder}, work, jobs=jobs, chill=False, title=title)
            return list(found.records.values()), dict(sorted(found.problems.items())), []
        except UserError as error:
            why_not = str(error)
    if entry.is_model or not (records := _left_records(place.path)):
        raise UserError(why_not)
    why_not = why_not.splitlines()[0]
    return records, {}, [f"{entry.label}: its records stand for predictions that cannot be measured: {why_not}"]


def _left_records(folder: Path) -> list[CaseRecord]:
    """Records in a folder whose files did not change since, but may be gone, all of the same kind."""
    left: list[CaseRecord] = []
    for case in sorted(recorded_cases(folder)):
        if (record := find_record(records_in(folder), case)) is None:
            continue
        first, key = (left or [record])[0], record.key
        files = {name: file and Path(file["path"]) for name, file in key["files"].items()}
        files |= {name: path and folder / path.name for name, path in files.items() if name in _PREDICTED}
        with contextlib.suppress(OSError):
            alike = key["settings"] == first.key["settings"] and record.structures.name.equals(first.structures.name)
            if record.bins and alike and same_contents(key, make_key(files, key["settings"], key)):
                left.append(record)
    return left


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
        maps = sorted({_map_of(place) for place in selection.predictions if place.entry.is_model})
        loaded = (CalibrationMap.load(path).fitted.groups for path in maps if path.is_file())
        groups = next(filter(None, loaded), {})
        patients = {case: groups.get(case, case) for case in cases}
    return patients if len(set(patients.values())) < len(patients) else {}


def _map_of(place: Predictions) -> Path:
    return place.path.parent.parent / MAP_FILE


class Promises(NamedTuple):
    """What is promised of an entry's cases, beside what is true."""

    table: pd.DataFrame  # a row for each case and structure; intervals of predicted Dice where other cases taught them
    caveats: Sequence[str] = ()  # what must be said beside the intervals
    presence: LearnedPresence | None = None  # learned before a map, so None for a model as its map leaves it

    @property
    def has_intervals(self) -> bool:
        """Whether other cases taught how far predicted Dice is off."""
        return DICE[1] in self.table


def open_maps(selection: Selection, given: Sequence[str]) -> dict[str, QualityOfMap]:
    """By name, the maps of those entries that are folders of predictions.

    ``given`` are ``LABEL=FILE``, with the label or name of an entry, the map by which its predictions were calibrated;
    folders that `nnunet_nacl review -map` wrote name theirs. UserError where a map was given for what is no such
    folder, is of other networks than its predictions, or cannot be asked about them.
    """
    left, maps = {}, {}
    for text in given:
        label, _, file = text.rpartition("=")
        if not label:
            raise UserError(f"-map {text}: expected LABEL=FILE, with the label or path of an -i.")
        left[label] = Path(file)
    for place in (place for place in selection.predictions if not place.entry.is_model):
        folder, entry = place.folder, place.entry
        asked = left.pop(entry.label, None) or left.pop(entry.name, None)
        if folder is None and asked:
            raise UserError(f"{asked}: of {entry.label} only records are left, which no map can be asked about.")
        path = asked or map_path_of(place.path)
        if path is not None and folder is not None:
            if asked and (note := check_same_networks(path, folder)):
                selection.notes.append(note)
            with contextlib.nullcontext() if asked else contextlib.suppress(UserError):  # one that has learned nothing
                _, quality, why_not = open_map(path, folder)
                if quality is None:
                    raise UserError(why_not)
                maps[entry.name] = replace(quality, as_network=True)  # as it was when its folder was made
    for name in left:
        raise UserError(f"-map {name}=...: no folder of predictions given with -i has this label; give it one.")
    return maps


def promises_of(selection: Selection, dataset: Dataset, maps: Mapping[str, QualityOfMap]) -> dict[str, Promises]:
    """By name of every entry; those have intervals that ``maps`` or a calibrated model's own map have learned of.

    What a model's map learned, it learned from the validation cases. So of each of these the same is learned again from
    the parts of the cross-fit that the case is not in; a patient's cases lie in one part, and count as one. Of other
    cases, in folders that a map calibrated, it is asked as it is.
    """
    patients, result = dict(zip(dataset.cases, dataset.groups or dataset.cases)), {}
    places = {place.entry.name: place for place in selection.predictions}
    for name, rows in dataset.table.groupby("entry", sort=False):
        if places[name].entry.calibrated:
            learned = CalibrationMap.load(_map_of(places[name]))
            fitted = learned.fitted
            if learned.learned is not None and fitted.part_of.keys() >= set(dataset.cases):
                rows = predict_dice_parts(rows, fitted.groups, fitted.part_of)
            result[name] = Promises(rows)
            continue
        presence, caveats = learn_presence(rows, patients), list[str]()
        if name in maps:
            rows, caveats = maps[name].learned.predict_dice(rows), maps[name].caveats(dataset.cases)
        result[name] = Promises(rows, caveats, presence)
    return result
