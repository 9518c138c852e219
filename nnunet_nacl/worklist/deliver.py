"""Does every case of a source, and writes the review list and its pages, into one folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibration.map_file import APPLIED_FILE
from nnunet_nacl.cases.ownership import check_no_others, is_damaged, read_pending
from nnunet_nacl.cases.record import CaseRecord, check_records, record_path
from nnunet_nacl.cases.record_file import RECORDS, is_record
from nnunet_nacl.cases.views import FRACTIONAL
from nnunet_nacl.dicom.output import DICOM
from nnunet_nacl.nnunet.output import MAPS_FOLDER, SENSITIVE, claim_output, open_output
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import RecordPlan, Source, find_records, records_of
from nnunet_nacl.utilities.errors import Failed, UserError, list_problems, one_line, some
from nnunet_nacl.utilities.files import locked, to_json_text, write_atomically
from nnunet_nacl.worklist.list_files import (
    edited_files,
    files_of_list,
    remove_list,
    write_document,
)
from nnunet_nacl.worklist.pages import write_list
from nnunet_nacl.worklist.prediction_document import prediction_document
from nnunet_nacl.worklist.review_list import ReviewList, review_list
from nnunet_nacl.worklist.run import Run
from nnunet_nacl.worklist.slicer import check_images, write_mapping

NOT_YET = "not predicted yet, or failed: run the part that has it (again)."


@dataclass(frozen=True, eq=False, kw_only=True)
class DeliveredScans:
    """What a run has written into its output folder.

    Attributes:
        review_list: The scans of all parts, those first that need a look most, and what is said of
            them.
        failed: By name why a scan of this part could not be done.
        lost_pages: By file name in the output folder why a page could not be made; all other files
            are whole.
        kept_masks: Scans whose masks for 3D Slicer lay there before, and were left as they are.
    """

    review_list: ReviewList
    failed: Mapping[str, str]
    lost_pages: Mapping[str, str]
    kept_masks: Sequence[str] = ()

    @property
    def output(self) -> Path:
        """The folder; its index.html shows the list."""
        return self.review_list.run.output

    @property
    def structure_names(self) -> Mapping[str, str]:
        """Of all structures, by nnU-Net's key."""
        return self.review_list.run.dataset.labels.structures

    @property
    def maps(self) -> tuple[str, ...]:
        """Kinds of the images of the uncertainty."""
        return self.review_list.run.aims.maps

    @property
    def scans(self) -> pd.DataFrame:
        """A row for each scan in the order of the list.

        Columns are as in scans.csv, with ``is_flagged`` and ``why``.
        """
        return self.review_list.scans

    @property
    def structures(self) -> pd.DataFrame:
        """A row for each scan and structure; columns as in structures.csv, index is the scan."""
        return self.review_list.structures

    @property
    def bad(self) -> dict[str, float] | None:
        """The Dice below which a structure is bad, by nnU-Net's key of each that counts.

        None: nothing is bad.
        """
        bad = self.review_list.run.aims.bad
        if bad is None:
            return None
        return {key: bad[name] for key, name in self.structure_names.items() if name in bad}

    @property
    def flagged(self) -> list[str]:
        """Names of the scans that there is a reason to look at."""
        return self.review_list.cases("is_flagged")

    @property
    def notes(self) -> list[str]:
        """What whoever uses the list must know, in sentences."""
        return list(self.review_list.run.notes)


def deliver(source: Source, run: Run, *, title: str = "") -> DeliveredScans:
    """Do every case of a source, or of the run's part of it, and write the list of all.

    The output becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and
    its tables beside the segmentations. A case that cannot be done costs only itself. Every file
    gets its name when it is whole, and the record of a case is written last: a run that was stopped
    goes on where it was.

    Args:
        source: Of the cases.
        run: What is asked, and how.
        title: Of the progress bar.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. That a part
            has no case is no error.
    """
    if FRACTIONAL in run.aims.maps and run.dicom is None:
        raise UserError(
            f"[[maps]] {FRACTIONAL} goes with DICOM series; {run.source} holds other images."
        )
    images: dict[str, Path] = {}
    if run.aims.wanted.slicer:
        images = {name: source.image(name) for name in source.names}
        check_images(images.values(), run.output)

    with _open_run(source, run) as plan:
        outcomes_of_part = records_of(
            source,
            run,
            run.output / RECORDS,
            names=_names_of_part(source, run),
            jobs=run.writing.num_processes,
            title=title if run.writing.progress else "",
            plan=plan,
        )
        outcomes = dict(outcomes_of_part)
        # the part that writes the list last knows what all have finished
        with locked(_list_lock(run.output)):
            listed, lost_pages = _write_list(source, run, outcomes)

    failed = _check_failed(source, run, outcomes)
    kept_masks: list[str] = []
    if run.aims.wanted.slicer:
        images_in_order = {case: images[case] for case in listed.scans.index}
        kept_masks = write_mapping(run.output, images_in_order, run.dataset.file_ending)
    return DeliveredScans(
        review_list=listed, failed=failed, lost_pages=lost_pages, kept_masks=kept_masks
    )


def _names_of_part(source: Source, run: Run) -> list[str]:
    """Of all cases those that this part of the run does."""
    return list(source.names[run.reading.part :: run.reading.num_parts])


def _check_failed(
    source: Source, run: Run, outcomes: Mapping[str, CaseRecord | Failed]
) -> dict[str, str]:
    """By name why cases of this part could not be done; UserError where it did none of some.

    Cases that cannot be had at all belong to the first part.
    """
    failed = _reasons_of_failed(outcomes)
    is_any_finished = len(failed) < len(outcomes)
    if run.reading.part == 0:
        failed |= _unusable(source)
    failed = dict(sorted(failed.items()))
    if failed and not is_any_finished:
        raise UserError(f"{run.source}: no case could be done.{list_problems(failed)}")
    return failed


def _reasons_of_failed(outcomes: Mapping[str, CaseRecord | Failed]) -> dict[str, str]:
    reasons = {}
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failed):
            reasons[name] = outcome.reason
    return reasons


def _unusable(source: Source) -> dict[str, str]:
    """By name, why cases cannot be had."""
    return {name: one_line(problem) for name, problem in source.problems.items()}


def _list_lock(output: Path) -> Path:
    return output / ".nnunet_nacl.list.lock"


@contextlib.contextmanager
def _open_run(source: Source, run: Run) -> Iterator[RecordPlan]:
    """Hold the output folder while cases are done; gives what is to be done.

    The list of an earlier run, and what is of other predictions, is removed first. Files of others
    that would be replaced or removed are refused before anything is written.
    """
    output = run.output
    records = output / RECORDS
    names = list(source.names)
    file_names = [*files_of_list(names), MAPS_FOLDER, SENSITIVE, DICOM, RECORDS, APPLIED_FILE]
    part = run.reading.part
    with open_output(output, [run.source], run.dataset, run.claim, file_names, part=part):
        plan = find_records(source, run, records, _names_of_part(source, run), run.replace_others)
        no_longer_there: list[str] = []
        if isinstance(source, PredictionFolder):
            no_longer_there = _cases_of_others(records, set(names))
        with locked(_list_lock(output)):  # another part may write one
            _check_files(run, plan.to_do, no_longer_there)
            claim_output(output, run.dataset, run.claim)
            remove_list(output)
        # which a run wrote, or open_output would have refused it
        (output / APPLIED_FILE).unlink(missing_ok=True)
        if run.applied:
            write_atomically(output / APPLIED_FILE, to_json_text(dict(run.applied)))
        for name in no_longer_there:  # nothing of other predictions may lie beside these
            run.files_of(name).settle(())  # keeps none of its files
            record_path(records, name).unlink(missing_ok=True)
        yield plan


def _check_files(run: Run, to_do: Collection[str], no_longer_there: Iterable[str]) -> None:
    """UserError, before any work, where files of others would be replaced or removed.

    So it is where a record would be written over a file that is no record.
    """
    records = run.output / RECORDS
    check_records(records, to_do)
    others: list[Path] = []
    if not run.replace_others:
        others += edited_files(run.output)
    unknown: list[str] = []
    for name in to_do:
        files = run.files_of(name)
        in_the_way = files.in_the_way({*run.file_names(name), *files.known_names})
        if in_the_way and is_damaged(record_path(records, name)):
            unknown.append(str(record_path(records, name)))
        else:
            others += in_the_way
    for name in no_longer_there:
        files = run.files_of(name)
        others += files.others(files.known_names)
    instead = "move them away, choose another [[output]], or replace them with [[overwrite=True]]"
    if unknown:
        raise UserError(
            f"{some(unknown)}: damaged, so that nobody knows whether files of these scans were"
            f" changed since; {instead}."
        )
    check_no_others(sorted(others), instead)


def _cases_of_others(records: Path, names: set[str]) -> list[str]:
    """Cases of other predictions than these that have a record, or a pending one, here."""
    cases = {path.stem for path in records.glob("*.json") if read_pending(path)}
    cases |= {path.stem for path in records.glob("*.npz") if is_record(path)}
    return sorted(cases - names)


def _write_list(
    source: Source, run: Run, outcomes: Mapping[str, CaseRecord | Failed]
) -> tuple[ReviewList, dict[str, str]]:
    """Write the list of what this part and the others have done, its pages and prediction.json.

    ``outcomes`` are of this part.

    Returns:
        The list, and by file name why a page could not be made.
    """
    known = outcomes
    if run.reading.num_parts > 1:
        known = find_records(source, run, run.output / RECORDS, source.names).found
    done: dict[str, CaseRecord] = {}
    for name, outcome in sorted(known.items()):
        if isinstance(outcome, CaseRecord):
            done[name] = outcome
    failed = _reasons_of_failed(outcomes)
    failed = {name: reason for name, reason in failed.items() if name not in done}
    waiting = [name for name in source.names if name not in done and name not in failed]
    failed = dict(sorted((failed | _unusable(source)).items()))

    notes = [*run.notes, *run.calibrator.uninformative]
    if "predictions" in run.document:  # of `review`; `predict` has them in its notes
        notes += run.calibrator.caveats(done)
    finished = replace(
        run,
        name=_name_of_run(source, run, done),
        problems=failed | dict.fromkeys(waiting, NOT_YET),
        notes=notes,
    )
    listed = review_list(done.values(), finished)
    lost_pages = write_list(listed)
    document = prediction_document(listed, failed, waiting)
    write_document(run.output, document)
    return listed, lost_pages


def _name_of_run(source: Source, run: Run, done: Mapping[str, CaseRecord]) -> str:
    """What marks are kept under: a run that goes on with the same cases keeps its marks."""
    digests = {name: _digests(source, name, done.get(name)) for name in sorted(source.names)}
    identity = [os.path.abspath(run.output), run.document, digests]
    return hashlib.sha256(to_json_text(identity).encode()).hexdigest()[:12]


def _digests(source: Source, name: str, record: CaseRecord | None) -> dict[str, str | None]:
    """Of the files that a case comes from, by what they are; none where one cannot be read."""
    if record is not None:
        files = record.key["files"]
    else:
        try:
            files = source.key(name, {}, None)["files"]
        except OSError:  # whoever does the case says why
            return {}
    digests = {}
    for what, file in files.items():
        digests[what] = None if file is None else file["digest"]
    return digests
