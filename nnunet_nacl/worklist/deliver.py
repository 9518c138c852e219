"""Measures, draws and writes every case of a source, and the review list and its pages, into one folder."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibrator.map_file import APPLIED_FILE
from nnunet_nacl.calibrator.predicted_quality import QualityOfMap
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import OwnedFiles, check_no_others, files_of_case, read_pending
from nnunet_nacl.cases.record import RECORDS, CaseRecord, check_records, is_record, record_path
from nnunet_nacl.cases.views import FRACTIONAL, Views, names_of_images, plain_name
from nnunet_nacl.dicom.output import DICOM, DicomMaker, Reported
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.files import locked, to_json_text, write_atomically
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.output import (
    MAPS,
    SENSITIVE,
    claim_output,
    open_output,
    places_of_case,
    write_case,
)
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Source, Work, find_records, records_of
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
        quality: What the map has learned; None where nothing is known.
        aims: Of the list.
        maps: As :func:`~nnunet_nacl.cases.views.choose_maps` gives them.
        probabilities: Save the probabilities too (npz and pkl).
        findings: Channels of the structures whose components are listed.
        pictures: Draw the pictures of the scan's page.
        dicom: Writes DICOM objects; None for images of other formats.
    """

    output: Path
    data: PredictionFolder
    quality: QualityOfMap | None = None
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
        learned = to_json_text(encode(self.quality.of_map)) if self.quality else ""
        digest = hashlib.sha256(learned.encode()).hexdigest()
        return [encode(dict(self.dicom.codes)), encode(self.aims.flags), self.aims.unlike, digest]

    def __call__(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written; UserError where one cannot be."""
        names = list(case.labels.structures.values())
        views = Views.of(case, self.maps, self.aims.sensitive.limits(names) if self.aims.sensitive else ())
        record = measure(case, self.calibration, views, findings=self.findings)
        record = draw_scan(record, case, views, self.data, with_page=self.pictures)
        options: dict[str, Any] = {"probabilities": self._probabilities(case)}
        options |= {"maps": views.images, "sensitive": self._sensitive(case, views.sensitive)}
        files = self.files_of(case.name)
        write_case(self.data, case, files, **options)
        if self.dicom is not None:
            is_fractional = FRACTIONAL in self.maps
            self.dicom.write(case, self._reported(record), case.images, files, views.images, is_fractional)
        return replace(record, files=files.written)

    def files_of(self, case: str) -> OwnedFiles:
        """The files of a case in the output folder, of which is known whether we wrote them."""
        return files_of_case(self.output, self.output / RECORDS, case, replace_others=self.replace_others)

    def places(self, case: str) -> list[str]:
        """Where files of a case are written, or removed since they would lie beside another segmentation."""
        maps = names_of_images(self.data.labels, self.maps)
        places = places_of_case(self.data, case, maps, self._sensitive_names(case))
        if self.dicom is not None:
            places += self.dicom.places(case, maps, FRACTIONAL in self.maps)
        return places

    def _reported(self, record: CaseRecord) -> Reported:
        """What the list says of a scan, none of which depends on others."""
        listed = review_list([record], self.quality, self.aims)
        columns, scan = list_files.structure_columns(listed.structures), listed.scans.iloc[0]
        if not self.quality:  # then no Dice is reported
            columns = columns.loc[:, ~columns.columns.str.contains("dice")]
        is_supported = None if math.isnan(scan.unlike_p) else not scan.unlike
        return Reported(columns.to_dict("records"), bool(scan.is_flagged), list(scan.reasons), is_supported)

    def _sensitive(self, case: Case, made: np.ndarray | None) -> dict[str, np.ndarray]:
        """The labels that miss less by the name of their file: a label map, or a mask for each region not refused."""
        if made is None:
            return {}
        if not case.labels.regions:
            return {case.name: made}
        masks = dict(zip(case.labels.names, made.astype(np.uint8)))
        return {file: masks[structure] for file, structure in self._sensitive_names(case.name).items()}

    def _sensitive_names(self, case: str) -> dict[str, str]:
        """Names of the files of labels that miss less, without their ending, and the region that each is of."""
        if self.aims.sensitive is None:
            return {}
        labels = self.data.labels
        if not labels.regions:
            return {case: ""}
        plain = [plain_name(name) for name in labels.names]
        names = {}
        for i, (structure, name) in enumerate(zip(labels.names, plain)):
            if structure in self.aims.sensitive.thresholds:
                is_clear = name and plain.count(name) == 1
                names[f"{case}_{name}" if is_clear else f"{case}_{i}-{name}"] = structure
        return names

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
    delivery = replace(delivery, replace_others=again)
    with open_output(output, [run.folder], data, run.arguments, places, part=run.part):
        plan = find_records(source, delivery, records, names[run.part :: run.num_parts], again)
        no_longer_there = _cases_of_others(records, set(names)) if isinstance(source, PredictionFolder) else []
        _check_files(delivery, plan.to_do, no_longer_there)
        claim_output(output, data, run.arguments)
        with locked(list_lock):
            list_files.remove_list(output)
        (output / APPLIED_FILE).unlink(missing_ok=True)  # which a run wrote, or open_output would have refused it
        if run.applied:
            write_atomically(output / APPLIED_FILE, to_json_text(dict(run.applied)))
        for name in no_longer_there:  # nothing of other predictions may lie beside these
            delivery.files_of(name).settle(())
            record_path(records, name).unlink(missing_ok=True)
        options: dict[str, Any] = {"names": names[run.part :: run.num_parts], "jobs": jobs, "plan": plan}
        outcomes = dict(records_of(source, delivery, records, title=title, **options))
        problems = {name: text for name, text in outcomes.items() if isinstance(text, str)}
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
    if delivery.quality and "predictions" in run.document:
        notes += delivery.quality.caveats(done)
    about = About(
        title=str(data.plans.get("dataset_name") or data.folder.name),
        file_ending=data.file_ending,
        run=hashlib.sha256(to_json_text(identity).encode()).hexdigest()[:12],
        problems={**wrong, **dict.fromkeys(waiting, NOT_YET)},
        notes=notes,
        document=run.document,
    )
    listed = review_list([done[name] for name in sorted(done)], delivery.quality, aims, about)
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


def _check_files(delivery: Delivery, to_do: Iterable[str], no_longer_there: Iterable[str]) -> None:
    """UserError, before any work, where files of others, or records that are none, would be replaced or removed."""
    to_do = list(to_do)
    check_records(delivery.output / RECORDS, to_do)
    others: list[Path] = []
    for name in to_do:
        files = delivery.files_of(name)
        others += files.in_the_way({*delivery.places(name), *files.known_places})
    for name in no_longer_there:
        files = delivery.files_of(name)
        others += files.others(files.known_places)
    check_no_others(sorted(others), "move them away, choose another -o, or replace them with --overwrite")


def _cases_of_others(records: Path, names: set[str]) -> list[str]:
    """Cases of other predictions than these that have a record, or a pending one, here."""
    found = {path.stem for path in records.glob("*.json") if read_pending(path)}
    found |= {path.stem for path in records.glob("*.npz") if is_record(path)}
    return sorted(found - names)
