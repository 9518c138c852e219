"""Measures, draws and writes every case of a source, and the review list and its pages, into one folder."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import APPLIED_FILE
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.file_key import file_key
from nnunet_nacl.cases.measure import FRACTIONAL, Views, measure, plain_name
from nnunet_nacl.cases.record import RECORDS, CaseRecord, find_record, record_path
from nnunet_nacl.dicom.output import DICOM, DicomMaker, Reported
from nnunet_nacl.errors import Failed, UserError, list_problems, one_line
from nnunet_nacl.files import locked, to_json_text, write_atomically
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.output import MAPS, SENSITIVE, open_output, write_case
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Source, Work, find_records, records_of, remove_written
from nnunet_nacl.worklist import list_files
from nnunet_nacl.worklist.pages import write_list
from nnunet_nacl.worklist.pictures import draw_scan
from nnunet_nacl.worklist.reasons import LOWEST_MEMBERS_DICE
from nnunet_nacl.worklist.review_list import About, Aims, ReviewList, review_list

NOT_YET = "not predicted yet, or failed: run the part that has it (again)."


@dataclass(frozen=True, kw_only=True)
class Delivery(Work):
    """Work on a case that is delivered; can be pickled.

    Attributes:
        output: Folder to write to.
        data: Labels, writer and plans of the data set.
        calibrator: The map, and what it has learned.
        aims: Of the list.
        maps: As :func:`~nnunet_nacl.cases.measure.choose_maps` gives them.
        probabilities: Save the probabilities too (npz and pkl).
        findings: Channels of the structures whose components are listed.
        pictures: Draw the pictures of the scan's page.
        dicom: Writes DICOM objects; None for images of other formats.
    """

    output: Path
    data: PredictionFolder
    calibrator: Calibrator = Calibrator()
    aims: Aims = Aims()
    maps: tuple[str, ...] = ()
    probabilities: bool = False
    findings: tuple[int, ...] = ()
    pictures: bool = True
    dicom: DicomMaker | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Settings that a record depends on, beside the files and networks of its case."""
        return {
            "map": self.calibration and self.calibration.digest,
            "maps": list(self.maps),
            "sensitive": self.aims.sensitive and self.aims.sensitive.thresholds,
            "save_probabilities": self.probabilities,
            "findings": list(self.findings),
            "pictures": self.pictures,
            "dicom": self._report_key,
        }

    @cached_property
    def _report_key(self) -> list[Any] | None:
        """What a DICOM report shows beside the measured numbers: codes, flags, and all that the map has learned."""
        if self.dicom is None:
            return None
        learned = ""
        if self.calibrator.quality is not None:
            learned = to_json_text(encode(self.calibrator.quality))
        digest = hashlib.sha256(learned.encode()).hexdigest()
        return [encode(dict(self.dicom.codes)), encode(self.aims.flags), self.aims.unlike, digest]

    def __call__(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written; UserError where one cannot be."""
        names = list(case.labels.structures.values())
        views = Views.of(case, self.maps, self.aims.sensitive.limits(names) if self.aims.sensitive else ())
        record = measure(case, self.calibration, views, findings=self.findings)
        record = draw_scan(record, case, views, self.data, with_page=self.pictures)
        options: dict[str, Any] = {"probabilities": self._probabilities(case)}
        options |= {"maps": views.maps, "sensitive": self._sensitive(case, views.sensitive)}
        written = write_case(self.data, case, self.output, **options)
        if self.dicom is not None:
            reported, is_fractional = self._reported(record), FRACTIONAL in self.maps
            written += self.dicom.write(case, reported, case.images, self.output, views.maps, is_fractional)
        return replace(record, files={str(path.relative_to(self.output)): file_key(path) for path in written})

    def _reported(self, record: CaseRecord) -> Reported:
        """What the list says of a scan, none of which depends on others."""
        listed = review_list([record], self.calibrator, self.aims)
        columns, scan = list_files.structure_columns(listed.structures), listed.scans.iloc[0]
        if self.calibrator.learned is None:  # then no Dice is reported
            columns = columns.loc[:, ~columns.columns.str.contains("dice")]
        is_supported = None if math.isnan(scan.unlike_p) else not scan.unlike
        return Reported(columns.to_dict("records"), bool(scan.is_flagged), list(scan.reasons), is_supported)

    def _sensitive(self, case: Case, made: np.ndarray | None) -> dict[str, np.ndarray]:
        """The labels that miss less by the name of their file: a label map, or a mask for each region not refused."""
        if made is None or self.aims.sensitive is None or not case.labels.regions:
            return {} if made is None else {case.name: made}
        plain = list(map(plain_name, case.labels.names))
        plain = [name if name and plain.count(name) == 1 else f"{i}-{name}" for i, name in enumerate(plain)]
        masks = zip(case.labels.names, plain, made.astype(np.uint8))
        return {f"{case.name}_{file}": mask for name, file, mask in masks if name in self.aims.sensitive.thresholds}

    def _probabilities(self, case: Case) -> np.ndarray | Path | None:
        """What is saved: of networks their own, as nnUNetv2_predict does; of saved ones those under the map."""
        if not self.probabilities:
            return None
        if case.saved is not None and self.calibration is None:
            return case.saved
        return case.probabilities.whole(None if case.saved is None else self.calibration)


@dataclass(frozen=True)
class Run:
    """Where the cases of a run come from, and what documents say of it.

    Attributes:
        folder: That the cases come from, which the output must not lie in.
        arguments: Name and content of the file that tells whose the output folder is.
        document: What prediction.json says of cases, networks, map and settings.
        notes: What whoever uses the list must know.
        applied: What calibration_applied.json says; empty writes none.
        command: As it was given.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
    """

    folder: Path
    arguments: tuple[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    notes: Sequence[str] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    num_parts: int = 1
    part: int = 0


def deliver(
    source: Source, delivery: Delivery, run: Run, *, jobs: int = 1, again: bool = False, title: str = ""
) -> tuple[ReviewList, dict[str, str]]:
    """Do every case of a source, or of the run's part of it.

    The output becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and its tables beside
    the segmentations. A case that cannot be done costs only itself. Every file gets its name when it is whole, and the
    record of a case is written last: a run that was stopped goes on where it was. What was done is done ``again`` if
    that is asked for; without a title there is no progress bar.

    Returns:
        The list, which holds the cases of all parts; and what is wrong with the cases of this one by their names, and
        with pages that could not be made by their places in the output folder.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. A part that has no case is none.
    """
    output, data, names = delivery.output, delivery.data, list(source.names)
    if FRACTIONAL in delivery.maps and delivery.dicom is None:
        raise UserError(f"-maps {FRACTIONAL} goes with DICOM series; {run.folder} holds other images.")
    places = (*list_files.places_of_list(names), MAPS, SENSITIVE, DICOM, RECORDS, APPLIED_FILE)
    list_lock, records = output / ".nnunet_nacl.list.lock", output / RECORDS
    with open_output(output, [run.folder], data, run.arguments, places, part=run.part):
        with locked(list_lock):
            list_files.remove_list(output)
        (output / APPLIED_FILE).unlink(missing_ok=True)  # which a run wrote, or open_output would have refused it
        if run.applied:
            write_atomically(output / APPLIED_FILE, to_json_text(dict(run.applied)))
        if isinstance(source, PredictionFolder):
            _remove_others(output, set(names))
        options: dict[str, Any] = {"names": names[run.part :: run.num_parts], "jobs": jobs, "again": again}
        outcomes = dict(records_of(source, delivery, records, title=title, **options))
        problems = {name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, Failed)}
        unusable = {name: one_line(problem) for name, problem in source.problems.items()}
        with locked(list_lock):  # the part that writes it last knows what all have finished
            found = outcomes if run.num_parts == 1 else find_records(source, delivery, records, names)[0]
            done = {name: record for name, record in found.items() if isinstance(record, CaseRecord)}
            waiting = [name for name in names if name not in done and name not in problems]
            wrong = {name: text for name, text in problems.items() if name not in done} | unusable
            seen = {name: _digests(source, name, done.get(name)) for name in sorted(names)}
            listed, pages_lost = _write(delivery, run, done, dict(sorted(wrong.items())), waiting, seen)
    is_any_finished = len(problems) < len(outcomes)
    problems = dict(sorted((problems | (unusable if run.part == 0 else {})).items()))
    if problems and not is_any_finished:
        raise UserError(f"{run.folder}: no case could be done.{list_problems(problems)}")
    return listed, problems | pages_lost


def _digests(source: Source, name: str, record: CaseRecord | None) -> dict[str, str | None]:
    """Of the files that a case comes from, by name; none where one cannot be read."""
    try:
        files = (record.key if record else source.key(name, {}, None))["files"]
    except OSError:
        return {}
    return {file: found and found["digest"] for file, found in files.items()}


def _write(
    delivery: Delivery,
    run: Run,
    done: Mapping[str, CaseRecord],
    wrong: Mapping[str, str],
    waiting: Sequence[str],
    seen: Mapping[str, Mapping[str, str | None]],
) -> tuple[ReviewList, dict[str, str]]:
    """Write the list, its pages and prediction.json; the list, and by place why a page could not be made.

    ``seen`` are the digests of each case's files.
    """
    output, data, aims = delivery.output, delivery.data, delivery.aims
    identity = [os.path.abspath(output), run.document, seen]  # a run that goes on keeps its marks
    notes = list(run.notes)
    if "predictions" in run.document:
        notes += delivery.calibrator.caveats(done)
    about = About(
        title=str(data.plans.get("dataset_name") or data.folder.name),
        file_ending=data.file_ending,
        run=hashlib.sha256(to_json_text(identity).encode()).hexdigest()[:12],
        problems={**wrong, **dict.fromkeys(waiting, NOT_YET)},
        notes=notes,
        document=run.document,
    )
    listed = review_list([done[name] for name in sorted(done)], delivery.calibrator, aims, about)
    pages_lost = write_list(listed, output)
    document: dict[str, Any] = {
        "schema_version": list_files.SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "run": about.run,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "maps": list(delivery.maps),
        **run.document,
        "problems": dict(wrong),
        "not_predicted_yet": list(waiting),
        "flags": encode(aims.flags),
        "sensitive": encode(aims.sensitive),
        "unlike": encode(listed.unlike),
        "members_dice_threshold": LOWEST_MEMBERS_DICE if listed.has_members else None,
        "notes": [*notes, list_files.RESEARCH],
        "n_cases": len(listed.scans),
        "n_to_look_at": len(listed.cases("is_flagged")),
        "random_check": sorted(listed.cases("is_random")) if aims.also else None,
        "scans": list_files.promises(listed),
    }
    write_atomically(output / list_files.DOCUMENT, to_json_text(document))
    return listed, pages_lost


def _remove_others(output: Path, names: set[str]) -> None:
    """Remove what is of other predictions than these: nothing of them may lie beside the new ones."""
    for path in sorted((output / RECORDS).glob("*.npz")):
        record = None if path.stem in names else find_record(output / RECORDS, path.stem)
        if record:
            remove_written(record, output)
            record_path(output / RECORDS, record.case).unlink(missing_ok=True)
