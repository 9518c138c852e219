"""Makes the records of many cases: those that still hold are read, the others measured."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from nnunet_nacl.cases.case import Case, EvaluationSettings, Labels
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import files_of_case, pending_path
from nnunet_nacl.cases.record import CaseRecord, check_records, find_record, record_path, save_again
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cases.record_key import (
    FileKey,
    Key,
    file_key,
    lacks_fields,
    make_key,
    same_contents,
)
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.nnunet.image_files import spacing_file
from nnunet_nacl.utilities.errors import Failed, UserError, describe, one_line
from nnunet_nacl.utilities.files import check_writable, remove_leftovers

Outcomes = Generator[tuple[str, CaseRecord | Failed], None, None]
"""Name and record of each case, or why there is none."""


class RecordPlan(NamedTuple):
    """What there is of cases, and what has to be made.

    Attributes:
        found: By name of the case the record that still holds, or why none can be made.
        to_do: By name of every other case its key as it is now, and its earlier record, which no
            longer holds; None without one.
    """

    found: dict[str, CaseRecord | Failed]
    to_do: dict[str, tuple[Key, CaseRecord | None]]

    @property
    def has_earlier_sample(self) -> bool:
        """Whether a record that is to be made anew has a sample now."""
        earlier_records = [earlier for _, earlier in self.to_do.values()]
        return any(
            earlier is not None and earlier.sample is not None for earlier in earlier_records
        )


@dataclass(frozen=True)
class Work:
    """What is done with each case: it is measured. Can be pickled.

    Attributes:
        calibration: Map that probabilities are taken through; None leaves them.
        settings: What is measured beside a ground truth.
        with_sample: Keep the sample that calibration is fitted to.
        output: Folder of the files that are written of a case; None where none are.
        replace_others: Replace what others wrote where these files go, too.
        apart: Folder beside the records of the predictions as they are, in which those of this work
            lie; empty: they take their place.
    """

    calibration: LogOddsMap | None = None
    settings: EvaluationSettings = EvaluationSettings()
    with_sample: bool = False
    output: Path | None = None
    replace_others: bool = False
    apart: str = ""

    def records_beside(self, records: Path) -> Path:
        """Where records of this work lie, by the folder of those of the predictions as they are."""
        return records.parent / self.apart / RECORDS if self.apart else records

    @property
    def key(self) -> dict[str, object]:
        """What a record depends on, in JSON values, beside the files and networks of its case."""
        digest = None if self.calibration is None else self.calibration.digest
        return {"map": digest, "measured": vars(self.settings)}

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written."""
        return measure(case, self.calibration, settings=self.settings, with_sample=self.with_sample)


class Source(ABC):
    """A folder of cases; can be pickled.

    Attributes:
        names: Of the cases that can be had.
        labels: Their structures.
        problems: By name, why others cannot.
        key_follows_files: Whether the source writes files of a case that its key depends on.
        output: Folder of these files; None where it writes none.
    """

    names: Sequence[str]
    labels: Labels
    problems: dict[str, str]
    key_follows_files = False
    output: Path | None = None

    @abstractmethod
    def files(self, name: str) -> dict[str, Path | None]:
        """All files that a case comes from, by what they are; None for one that there is not."""

    @abstractmethod
    def path(self, name: str) -> Path:
        """The largest file of a case, for the lines that say what is wrong with it."""

    def image(self, name: str) -> Path:
        """The first channel of a case's image, for viewers."""
        return self.path(name)

    @abstractmethod
    def each(self, names: Sequence[str], work: Work, jobs: int) -> Outcomes:
        """Each case's record, or why there is none, in the order in which they are finished."""

    @property
    def inference(self) -> Mapping[str, object]:
        """Networks and settings that predict, which numbers depend on, in JSON values."""
        return {}

    def key(self, name: str, settings: Mapping[str, object], earlier: Key | None) -> Key:
        """What the record of a case depends on now.

        Args:
            name: Of the case.
            settings: What it depends on beside its files and networks, in JSON values.
            earlier: The key of an earlier record of it.

        Raises:
            OSError: A file cannot be read.
        """
        files: dict[str, Path | None] = {}
        spacing_files: dict[str, Path | None] = {}
        for what, path in self.files(name).items():
            files[what] = path
            spacing = None if path is None else spacing_file(path)
            if spacing is not None:
                spacing_files[f"{what}, spacing"] = spacing
        all_settings = {"labels": self.labels.meaning, **self.inference, **settings}
        return make_key(files | spacing_files, all_settings, earlier)


def records_of(
    source: Source,
    work: Work,
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    jobs: int = 1,
    again: bool = False,
    title: str = "",
    plan: RecordPlan | None = None,
) -> Outcomes:
    """The record of each case of a source, or why there is none.

    A record that an earlier run left holds while its key does, and while the files that it names
    lie in the output folder as they were written; it is given first. Each new one is written as
    soon as it is made. New records may replace earlier ones, as with other settings. They keep what
    these had: if any of the earlier ones has a sample, all new ones get one; and where the
    probabilities are still the same, a new record says as the earlier one how they were made.

    Args:
        source: Of the cases.
        work: What is done with a case that has no record.
        folder: Of the records.
        names: Some of the source's; None: all.
        jobs: Cases at the same time; 1 starts no process.
        again: Make all records anew.
        title: Of the progress bar on stderr; empty shows none.
        plan: What :func:`find_records` has found, where that was asked before.

    Raises:
        UserError: Before any work: the record of a case would replace a file that is no record, or
            none can be written.
    """
    from tqdm import tqdm

    if names is None:
        names = source.names
    if plan is None:
        plan = find_records(source, work, folder, names, again)
    check_records(folder, plan.to_do)
    output = work.output or source.output
    _settle_found(plan, folder, output, work.replace_others)
    yield from plan.found.items()
    if not plan.to_do:
        return
    check_writable(record_path(folder, "case"))
    if plan.has_earlier_sample:
        work = replace(work, with_sample=True)
    for name, outcome in tqdm(
        source.each(list(plan.to_do), work, jobs),
        title,
        len(names),
        initial=len(plan.found),
        unit="case",
        disable=not title,
    ):
        if isinstance(outcome, Failed):
            yield name, Failed(name, one_line(outcome.reason))
            continue
        key, earlier = plan.to_do[name]
        if source.key_follows_files:  # by now the source has written the files
            key = source.key(name, work.key, None)
        record = _with_earlier_network(replace(outcome, key=key), earlier)
        try:
            record.save(record_path(folder, name))
        except UserError as error:  # the disk is full: the next case may be smaller
            yield name, Failed(name, error.message)
            continue
        _settle(record, folder, output, work.replace_others)
        yield name, replace(record, pictures=b"")  # which are large; pages read them from the file


def _with_earlier_network(record: CaseRecord, earlier: CaseRecord | None) -> CaseRecord:
    """A record that says how its probabilities were made, if an earlier one of these files does."""
    if earlier is None or record.made_by:
        return record
    for what in ("segmentation", "probabilities"):
        file = record.key["files"].get(what)
        earlier_file = earlier.key["files"].get(what)
        if file is None or earlier_file is None or file["digest"] != earlier_file["digest"]:
            return record
    return replace(record, made_by=earlier.made_by)


def find_records(
    source: Source, work: Work, folder: Path, names: Sequence[str], again: bool = False
) -> RecordPlan:
    """The records that hold, and the cases that have to be measured.

    Arguments as for :func:`records_of`.
    """
    plan = RecordPlan({}, {})
    remove_leftovers(folder)
    for name in names:
        earlier = find_record(folder, name)
        try:
            key = source.key(name, work.key, None if earlier is None else earlier.key)
        except OSError as error:
            plan.found[name] = Failed(name, describe(error, source.path(name)))
            continue
        record = None
        if earlier is not None and not again:
            record = _valid_record(earlier, key, work, source.labels)
        if record is None:
            plan.to_do[name] = (key, earlier)
            continue
        plan.found[name] = record
        if earlier is not None and _is_of_earlier_version(earlier, record):
            # the folder cannot be written to, or pictures are damaged: files are read again then
            with contextlib.suppress(UserError):
                save_again(record, record_path(folder, name))
    return plan


def _settle_found(
    plan: RecordPlan, folder: Path, output: Path | None, replace_others: bool
) -> None:
    """Settle the records that hold: perhaps they are of a run that was killed before it had."""
    for record in plan.found.values():
        if isinstance(record, CaseRecord):
            # a folder that cannot be written to: nothing is lost by it
            with contextlib.suppress(OSError):
                _settle(record, folder, output, replace_others)


def _settle(record: CaseRecord, folder: Path, output: Path | None, replace_others: bool) -> None:
    """Once a record is saved, remove what earlier runs wrote of it, and its pending record."""
    if output is not None and pending_path(folder, record.name).is_file():
        files = files_of_case(output, folder, record.name, replace_others=replace_others)
        files.settle(record.files)


def _valid_record(record: CaseRecord, key: Key, work: Work, labels: Labels) -> CaseRecord | None:
    """The record with its key as it is now; None where it does not hold.

    It does not where it is not of this key, lacks what is asked for, or its files do not lie in the
    output folder as they were written.
    """
    is_same = same_contents(record.key, key) and dict(record.structures.name) == labels.structures
    if not is_same or (work.with_sample and record.sample is None):
        return None
    if work.output is None:
        return replace(record, key=key)
    files = dict[str, FileKey]()
    for file_name, known in record.files.items():
        try:
            files[file_name] = file_key(work.output / file_name, known)
        except OSError:
            return None
        if files[file_name]["digest"] != known["digest"]:
            return None
    return replace(record, key=key, files=files)


def _is_of_earlier_version(earlier: CaseRecord, now: CaseRecord) -> bool:
    """Whether a record that holds was written before inodes were kept.

    If it stayed so, its files would be read in every run.
    """
    if lacks_fields(earlier.key["files"], now.key["files"]):
        return True
    return lacks_fields(earlier.files, now.files)
