"""Makes the records of many cases: those that still hold are read, the others measured. The one
loop over cases."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.cases.case import Case, EvaluationSettings, Labels
from nnunet_nacl.cases.file_key import FileKey, file_key, lacks_fields
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import files_of_case, pending_path
from nnunet_nacl.cases.record import (
    CaseRecord,
    check_records,
    find_record,
    record_path,
    save_again,
)
from nnunet_nacl.cases.record_key import Key, make_key, same_contents
from nnunet_nacl.errors import Failed, UserError, describe, one_line
from nnunet_nacl.files import check_writable, remove_leftovers
from nnunet_nacl.nnunet.image_files import spacing_file

Outcomes = Generator[tuple[str, CaseRecord | Failed], None, None]
"""Name and record of each case, or why there is none."""


class RecordPlan(NamedTuple):
    """What there is of cases, and what has to be made.

    Attributes:
        found: By name the record that holds, or why none can be made.
        to_do: Of the others the key, and the record of before.
    """

    found: dict[str, CaseRecord | Failed]
    to_do: dict[str, tuple[Key, CaseRecord | None]]


@dataclass(frozen=True)
class Work:
    """What is done with each case: it is measured. Can be pickled.

    Attributes:
        calibration: Map that probabilities are taken through; None leaves them.
        settings: What is measured beside a ground truth.
        with_sample: Keep the sample that calibration is fitted to.
        output: Folder of the files that are written of a case; None where none are.
        replace_others: Replace what others wrote at the places of these files, too.
    """

    calibration: LogOddsMap | None = None
    settings: EvaluationSettings = EvaluationSettings()
    with_sample: bool = False
    output: Path | None = None
    replace_others: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """What a record depends on, in JSON values, beside the files and networks of its case."""
        return {
            "map": self.calibration and self.calibration.digest,
            "measured": vars(self.settings),
        }

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

    @abstractmethod
    def each(self, names: Sequence[str], work: Work, jobs: int) -> Outcomes:
        """Each case's record, or why there is none, in the order in which they are finished."""

    @property
    def inference(self) -> dict[str, Any]:
        """What numbers depend on beside files: networks and settings that predict, in JSON
        values."""
        return {}

    def key(self, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
        """What the record of a case depends on now, beside ``settings`` in JSON values; OSError for
        a file."""
        files = self.files(name)
        spacings = {
            f"{what}, spacing": spacing_file(path)
            for what, path in files.items()
            if path is not None
        }
        files |= {what: path for what, path in spacings.items() if path}
        return make_key(files, {"labels": self.labels.meaning} | self.inference | settings, earlier)


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
    soon as it is made. Where it replaces one, as with other settings, it has a sample if some of
    those had, and says as that did how its probabilities were made if they are still the same.

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
        UserError: Before any work: the record of a case would replace a file that is none, or none
            can be written.
    """
    from tqdm import tqdm

    names = source.names if names is None else names
    found, todo = plan or find_records(source, work, folder, names, again)
    check_records(folder, todo)
    output = work.output or source.output
    for record in found.values():
        # perhaps of a run that was killed before it had tidied up
        if isinstance(record, CaseRecord):
            # a folder that cannot be written to: nothing is lost by it
            with contextlib.suppress(OSError):
                _settle(record, folder, output, work.replace_others)
    yield from found.items()
    if todo:
        check_writable(record_path(folder, "case"))
    if any(earlier is not None and earlier.sample is not None for _, earlier in todo.values()):
        work = replace(work, with_sample=True)
    outcomes, silent = source.each(list(todo), work, jobs) if todo else (), not (title and todo)
    for name, outcome in tqdm(
        outcomes, title, len(names), initial=len(found), unit="case", disable=silent
    ):
        if isinstance(outcome, Failed):
            yield name, Failed(name, one_line(outcome.reason))
            continue
        key, earlier = todo[name]
        record = replace(
            outcome, key=source.key(name, work.key, None) if source.key_follows_files else key
        )
        if earlier is not None and not record.made_by:
            before, now = earlier.key["files"], record.key["files"]
            pairs = [
                (before.get(what), now.get(what)) for what in ("segmentation", "probabilities")
            ]
            if all(one and other and one["digest"] == other["digest"] for one, other in pairs):
                record = replace(record, made_by=earlier.made_by)
        try:
            record.save(record_path(folder, name))
        except UserError as error:  # the disk is full: the next case may be smaller
            yield name, Failed(name, str(error))
            continue
        _settle(record, folder, output, work.replace_others)
        yield name, replace(record, pictures=b"")  # which are large; pages read them from the file


def find_records(
    source: Source, work: Work, folder: Path, names: Sequence[str], again: bool = False
) -> RecordPlan:
    """Of each case the record that holds, or why none can be made; and of the others the key, and
    the record of before.

    Arguments as for :func:`records_of`.
    """
    found: dict[str, CaseRecord | Failed] = {}
    todo: dict[str, tuple[Key, CaseRecord | None]] = {}
    remove_leftovers(folder)
    for name in names:
        earlier = find_record(folder, name)
        try:
            key = source.key(name, work.key, earlier.key if earlier else None)
        except OSError as error:
            found[name] = Failed(name, describe(error, source.path(name)))
            continue
        record = (
            None if again or earlier is None else _valid_record(earlier, key, work, source.labels)
        )
        if record is None:
            todo[name] = key, earlier
            continue
        found[name] = record
        if earlier is not None and _is_of_earlier_version(earlier, record):
            # a folder that cannot be written to: files are read the next time too
            with contextlib.suppress(UserError):
                save_again(record, record_path(folder, name))
    return RecordPlan(found, todo)


def _settle(record: CaseRecord, folder: Path, output: Path | None, replace_others: bool) -> None:
    """Once a record is saved in a folder: remove what earlier runs wrote of the case, and its
    pending record."""
    if output is not None and pending_path(folder, record.case).is_file():
        files_of_case(output, folder, record.case, replace_others=replace_others).settle(
            record.files
        )


def _valid_record(record: CaseRecord, key: Key, work: Work, labels: Labels) -> CaseRecord | None:
    """The record with its key as it is now; None where it is not of this key, or lacks what is
    asked for.

    Nor does it hold where its files do not lie in the output folder as they were written.
    """
    is_same = same_contents(record.key, key) and dict(record.structures.name) == labels.structures
    if not is_same or (work.with_sample and record.sample is None):
        return None
    if work.output is None:
        return replace(record, key=key)
    files = dict[str, FileKey]()
    for place, known in record.files.items():
        try:
            files[place] = file_key(work.output / place, known)
        except OSError:
            return None
        if files[place]["digest"] != known["digest"]:
            return None
    return replace(record, key=key, files=files)


def _is_of_earlier_version(earlier: CaseRecord, now: CaseRecord) -> bool:
    """Whether a record that holds was written before inodes were kept; else its files would be read
    in every run."""
    return lacks_fields(earlier.key["files"], now.key["files"]) or lacks_fields(
        earlier.files, now.files
    )
