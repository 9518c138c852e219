"""Measures, draws and writes every case of a source, and the review list and its pages, into one
folder."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnunet_nacl
from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import APPLIED_FILE
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.findings import finding_channels
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import OwnedFiles, check_no_others, files_of_case, read_pending
from nnunet_nacl.cases.record import RECORDS, CaseRecord, check_records, record_path
from nnunet_nacl.cases.record_file import is_record
from nnunet_nacl.cases.views import FRACTIONAL, Views, choose_maps, names_of_images, plain_name
from nnunet_nacl.dicom.output import DICOM, DicomMaker, Reported
from nnunet_nacl.errors import Failed, UserError, list_problems, one_line
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
from nnunet_nacl.nnunet.records import RecordPlan, Source, Work, find_records, records_of
from nnunet_nacl.quality.bad_limits import BadSpec, check_bad, read_bad, share_of
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE
from nnunet_nacl.worklist import list_files
from nnunet_nacl.worklist.pages import write_list
from nnunet_nacl.worklist.pictures import draw_scan
from nnunet_nacl.worklist.reasons import LOWEST_MEMBERS_DICE
from nnunet_nacl.worklist.review_list import About, Aims, ReviewList, review_list
from nnunet_nacl.worklist.slicer import check_images, write_mapping

NOT_YET = "not predicted yet, or failed: run the part that has it (again)."


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is asked of a list of scans, and of the files beside it.

    Attributes:
        bad: The Dice below which a structure, and so its scan, is bad: one of all structures, or by
            name; None: no scan is flagged by its predicted Dice.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        find: With ``bad``, share of the bad scans to be flagged; None: .9, or nothing with
            ``miss``.
        miss: With ``bad``, share of all scans that may be bad and not flagged.
        unlike: A scan whose image is as odd with this probability at most is unlike the calibration
            scans.
        also: Scans to be chosen by chance among those that are not flagged.
        pages: Which scans have a page: ``flagged`` (and the next ten), ``all`` or ``none``.
        maps: Images of the uncertainty, names of :data:`~nnunet_nacl.cases.views.MAPS` and
            ``probabilities`` or ``fractional``; none of these: all of the first; None: no images.
        recall: Write labels, too, that find this share of the voxels of each structure; None: none.
        findings: Structures whose components are listed; none of these: all; None: as the map says.
        save_probabilities: Save the probabilities too (npz and pkl).
    """

    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    find: float | None = None
    miss: float | None = None
    unlike: float = DEFAULT_UNLIKE
    also: int = 0
    pages: str = "flagged"
    maps: Sequence[str] | None = None
    recall: float | None = None
    findings: Sequence[str] | None = None
    save_probabilities: bool = False


@dataclass(frozen=True, kw_only=True)
class CaseDelivery(Work):
    """What is measured of a case and written of it; can be pickled.

    Attributes:
        output: Folder to write to.
        data: Labels, writer and plans of the data set.
        calibrator: The map, and what it has learned.
        aims: Of the list.
        maps: As :func:`~nnunet_nacl.cases.views.choose_maps` gives them.
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
        """What a DICOM report shows beside the measured numbers: codes, flags, and all that the map
        has learned."""
        if self.dicom is None:
            return None
        learned = ""
        if self.calibrator.quality is not None:
            learned = to_json_text(encode(self.calibrator.quality))
        digest = hashlib.sha256(learned.encode()).hexdigest()
        return [encode(dict(self.dicom.codes)), encode(self.aims.flags), self.aims.unlike, digest]

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written; UserError where one cannot be."""
        limits: Sequence[float] = ()
        if self.aims.sensitive is not None:
            limits = self.aims.sensitive.limits(list(case.labels.structures.values()))
        views = Views.of(case, self.maps, limits)
        record = measure(case, self.calibration, views, findings=self.findings)
        record = draw_scan(record, case, views, self.data, with_page=self.pictures)
        files = self.files_of(case.name)
        write_case(
            self.data,
            case,
            files,
            maps=views.images,
            sensitive=self._sensitive_labels(case, views.sensitive),
            probabilities=self._probabilities(case),
        )
        if self.dicom is not None:
            is_fractional = FRACTIONAL in self.maps
            self.dicom.write(
                case, self._report(record), case.images, files, views.images, is_fractional
            )
        return replace(record, files=files.written)

    def files_of(self, case: str) -> OwnedFiles:
        """The files of a case in the output folder, of which is known whether we wrote them."""
        return files_of_case(
            self.output, self.output / RECORDS, case, replace_others=self.replace_others
        )

    def places(self, case: str) -> list[str]:
        """Where files of a case are written, or removed since they would lie beside another
        segmentation."""
        images = names_of_images(self.data.labels, self.maps)
        places = places_of_case(self.data, case, images, self._sensitive_names(case))
        if self.dicom is not None:
            places += self.dicom.places(case, images, FRACTIONAL in self.maps)
        return places

    def _report(self, record: CaseRecord) -> Reported:
        """What the list says of a scan, none of which depends on others."""
        listed = review_list([record], self.calibrator, self.aims)
        columns = list_files.structure_columns(listed.structures)
        if self.calibrator.learned is None:  # then no Dice is reported
            columns = columns.loc[:, ~columns.columns.str.contains("dice")]
        scan = listed.scans.iloc[0]
        is_supported = None if math.isnan(scan.unlike_p) else not scan.unlike
        return Reported(
            columns.to_dict("records"), bool(scan.is_flagged), list(scan.reasons), is_supported
        )

    def _sensitive_labels(self, case: Case, labels: np.ndarray | None) -> dict[str, np.ndarray]:
        """The labels that miss less by the name of their file: a label map, or a mask for each
        region not refused."""
        if labels is None:
            return {}
        if not case.labels.regions:
            return {case.name: labels}
        masks = dict(zip(case.labels.names, labels.astype(np.uint8)))
        return {
            file: masks[structure] for file, structure in self._sensitive_names(case.name).items()
        }

    def _sensitive_names(self, case: str) -> dict[str, str]:
        """Names of the files of labels that miss less, without their ending, and the region that
        each is of."""
        if self.aims.sensitive is None:
            return {}
        labels = self.data.labels
        if not labels.regions:
            return {case: ""}
        names = {}
        for structure, file_name in zip(labels.names, _different_file_names(labels.names)):
            if structure in self.aims.sensitive.thresholds:
                names[f"{case}_{file_name}"] = structure
        return names

    def _probabilities(self, case: Case) -> np.ndarray | Path | None:
        """What is saved: of networks their own, as nnUNetv2_predict does; of saved ones those under
        the map."""
        if not self.probabilities:
            return None
        if case.saved is None:
            return case.probabilities.whole(None)
        if self.calibration is None:
            return case.saved
        return case.probabilities.whole(self.calibration)


def _different_file_names(names: Sequence[str]) -> list[str]:
    """Names of structures as parts of file names, with their number where two would be the same, or
    empty."""
    plain = [plain_name(name) for name in names]
    return [
        name if name and plain.count(name) == 1 else f"{i}-{name}" for i, name in enumerate(plain)
    ]


def plan_delivery(
    options: ListOptions,
    data: PredictionFolder,
    calibrator: Calibrator,
    output: Path,
    *,
    num_networks: int | None,
    dicom: DicomMaker | None = None,
) -> CaseDelivery:
    """What the options ask of each case, and of the list.

    Args:
        options: What is asked for.
        data: Labels, writer and plans of the data set.
        calibrator: The map, and what it has learned.
        output: Folder to write to.
        num_networks: How many are averaged; None where nobody knows, as of saved predictions.
        dicom: Writes DICOM objects; None for images of other formats.

    Raises:
        UserError: The options do not fit, or nothing is known of what they ask for.
    """
    maps: tuple[str, ...] = ()
    if options.maps is not None:
        maps = choose_maps(options.maps, num_networks or 1)
    return CaseDelivery(
        calibration=calibrator.log_odds_map,
        output=output,
        data=data,
        calibrator=calibrator,
        aims=_read_aims(options, data.labels.structures, calibrator, num_networks),
        maps=maps,
        probabilities=options.save_probabilities,
        findings=finding_channels(data.labels, options.findings, calibrator.with_findings),
        pictures=options.pages != "none",
        dicom=dicom,
    )


def _read_aims(
    options: ListOptions,
    structures: Mapping[str, str],
    calibrator: Calibrator,
    num_networks: int | None,
) -> Aims:
    """What is wanted of the list; UserError where it does not fit, or the map has not learned what
    it needs."""
    check_bad(options.bad, structures=options.structures, find=options.find, miss=options.miss)
    flags = None
    if options.bad is not None:
        bad = read_bad(options.bad, structures, options.structures)
        if calibrator.learned is None:
            raise UserError(f"-bad: nothing is known of Dice: {' '.join(calibrator.missing)}")
        find = share_of(options.find, "-find")
        miss = share_of(options.miss, "-miss")
        flags = Flags.of(calibrator.learned.scores, bad, structures, find, miss)
    sensitive = None
    recall = share_of(options.recall, "-recall")
    if recall is not None:
        may_be_several = num_networks is None or num_networks > 1
        sensitive = calibrator.sensitive(recall, structures, may_be_several)
    if not 0 < options.unlike < 1:
        raise UserError(f"-unlike is a probability, above 0 and below 1, got {options.unlike:g}.")
    return Aims(flags, options.unlike, options.also, options.pages, sensitive)


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


@dataclass(frozen=True, eq=False, kw_only=True)
class DeliveredScans:
    """What a run has written into its output folder.

    Attributes:
        review_list: The scans of all parts, those first that need a look most, and what is said of
            them.
        failed: By name why a scan of this part could not be done.
        lost_pages: By place in the output folder why a page could not be made; all other files are
            whole.
        output: The folder; its index.html shows the list.
        structure_names: Of all structures, by nnU-Net's key.
        maps: Kinds of the images of the uncertainty.
        kept_masks: Scans whose masks for 3D Slicer lay there before, and were left as they are.
    """

    review_list: ReviewList
    failed: Mapping[str, str]
    lost_pages: Mapping[str, str]
    output: Path
    structure_names: Mapping[str, str]
    maps: tuple[str, ...] = ()
    kept_masks: Sequence[str] = ()

    @property
    def scans(self) -> pd.DataFrame:
        """A row for each scan in the order of the list; columns as in scans.csv, with
        ``is_flagged`` and ``why``."""
        return self.review_list.scans

    @property
    def structures(self) -> pd.DataFrame:
        """A row for each scan and structure; columns as in structures.csv, the index is the
        scan."""
        return self.review_list.structures

    @property
    def bad(self) -> dict[str, float] | None:
        """By nnU-Net's key of each structure that counts, the Dice below which it is bad; None:
        nothing is bad."""
        flags = self.review_list.aims.flags
        if flags is None:
            return None
        return {
            key: flags.bad[name] for key, name in self.structure_names.items() if name in flags.bad
        }

    @property
    def flagged(self) -> list[str]:
        """Names of the scans that there is a reason to look at."""
        return self.review_list.cases("is_flagged")

    @property
    def notes(self) -> list[str]:
        """What whoever uses the list must know, in sentences."""
        return list(self.review_list.about.notes)


def deliver(
    source: Source,
    delivery: CaseDelivery,
    run: Run,
    *,
    jobs: int = 1,
    again: bool = False,
    title: str = "",
    images: Mapping[str, Path] | None = None,
) -> DeliveredScans:
    """Do every case of a source, or of the run's part of it, and write the list of all.

    The output becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and
    its tables beside the segmentations. A case that cannot be done costs only itself. Every file
    gets its name when it is whole, and the record of a case is written last: a run that was stopped
    goes on where it was.

    Args:
        source: Of the cases.
        delivery: What is measured of each, and written.
        run: Where they come from.
        jobs: Cases at the same time.
        again: Do all cases again.
        title: Of the progress bar; empty shows none.
        images: First channel of each case, for what SegmentationReview of 3D Slicer opens; None
            writes nothing of that.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. A part that
            has no case is none.
    """
    names = list(source.names)
    if FRACTIONAL in delivery.maps and delivery.dicom is None:
        raise UserError(
            f"-maps {FRACTIONAL} goes with DICOM series; {run.folder} holds other images."
        )
    if images is not None:
        check_images(images.values(), delivery.output)
    delivery = replace(delivery, replace_others=again)
    with _open_run(source, delivery, run, again) as plan:
        outcomes = dict(
            records_of(
                source,
                delivery,
                delivery.output / RECORDS,
                names=names[run.part :: run.num_parts],
                jobs=jobs,
                title=title,
                plan=plan,
            )
        )
        # the part that writes it last knows what all have finished
        with locked(_list_lock(delivery.output)):
            progress = _progress_of_all(source, delivery, run, outcomes)
            listed, lost_pages = _write_list(source, delivery, run, progress)
    failed = {
        name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, Failed)
    }
    is_any_finished = len(failed) < len(outcomes)
    if run.part == 0:
        failed |= _unusable(source)
    failed = dict(sorted(failed.items()))
    if failed and not is_any_finished:
        raise UserError(f"{run.folder}: no case could be done.{list_problems(failed)}")
    kept_masks: list[str] = []
    if images is not None:
        in_order = {case: images[case] for case in listed.scans.index}
        kept_masks = write_mapping(
            delivery.output / list_files.PAGES, delivery.output, in_order, listed.about.file_ending
        )
    return DeliveredScans(
        review_list=listed,
        failed=failed,
        lost_pages=lost_pages,
        output=delivery.output,
        structure_names=delivery.data.labels.structures,
        maps=delivery.maps,
        kept_masks=kept_masks,
    )


def _list_lock(output: Path) -> Path:
    return output / ".nnunet_nacl.list.lock"


@contextlib.contextmanager
def _open_run(
    source: Source, delivery: CaseDelivery, run: Run, again: bool
) -> Iterator[RecordPlan]:
    """Hold the output folder, without the list of an earlier run or what is of other predictions;
    what is to be done.

    Files of others that would be replaced or removed are refused before anything is written.
    """
    output = delivery.output
    records = output / RECORDS
    names = list(source.names)
    places = (*list_files.places_of_list(names), MAPS, SENSITIVE, DICOM, RECORDS, APPLIED_FILE)
    with open_output(output, [run.folder], delivery.data, run.arguments, places, part=run.part):
        plan = find_records(source, delivery, records, names[run.part :: run.num_parts], again)
        no_longer_there: list[str] = []
        if isinstance(source, PredictionFolder):
            no_longer_there = _cases_of_others(records, set(names))
        _check_files(delivery, plan.to_do, no_longer_there)
        claim_output(output, delivery.data, run.arguments)
        with locked(_list_lock(output)):
            list_files.remove_list(output)
        # which a run wrote, or open_output would have refused it
        (output / APPLIED_FILE).unlink(missing_ok=True)
        if run.applied:
            write_atomically(output / APPLIED_FILE, to_json_text(dict(run.applied)))
        for name in no_longer_there:  # nothing of other predictions may lie beside these
            delivery.files_of(name).settle(())
            record_path(records, name).unlink(missing_ok=True)
        yield plan


def _check_files(
    delivery: CaseDelivery, to_do: Collection[str], no_longer_there: Iterable[str]
) -> None:
    """UserError, before any work, where files of others, or records that are none, would be
    replaced or removed."""
    check_records(delivery.output / RECORDS, to_do)
    others: list[Path] = []
    for name in to_do:
        files = delivery.files_of(name)
        others += files.in_the_way({*delivery.places(name), *files.known_places})
    for name in no_longer_there:
        files = delivery.files_of(name)
        others += files.others(files.known_places)
    check_no_others(
        sorted(others), "move them away, choose another -o, or replace them with --overwrite"
    )


def _cases_of_others(records: Path, names: set[str]) -> list[str]:
    """Cases of other predictions than these that have a record, or a pending one, here."""
    cases = {path.stem for path in records.glob("*.json") if read_pending(path)}
    cases |= {path.stem for path in records.glob("*.npz") if is_record(path)}
    return sorted(cases - names)


@dataclass(frozen=True)
class _Progress:
    """What all parts of a run have done.

    Attributes:
        done: By name, the record of each case that is finished.
        failed: By name, why others could not be done, as far as this part knows.
        waiting: Names of those that other parts have not finished.
    """

    done: Mapping[str, CaseRecord]
    failed: Mapping[str, str]
    waiting: Sequence[str]


def _progress_of_all(
    source: Source, delivery: CaseDelivery, run: Run, outcomes: Mapping[str, CaseRecord | Failed]
) -> _Progress:
    """What this part and the others have done; ``outcomes`` are of this one."""
    names = list(source.names)
    known = outcomes
    if run.num_parts > 1:
        known = find_records(source, delivery, delivery.output / RECORDS, names).found
    done = {name: outcome for name, outcome in known.items() if isinstance(outcome, CaseRecord)}
    failed = {
        name: outcome.reason
        for name, outcome in outcomes.items()
        if isinstance(outcome, Failed) and name not in done
    }
    waiting = [name for name in names if name not in done and name not in failed]
    return _Progress(done, dict(sorted((failed | _unusable(source)).items())), waiting)


def _unusable(source: Source) -> dict[str, str]:
    """By name, why cases cannot be had."""
    return {name: one_line(problem) for name, problem in source.problems.items()}


def _write_list(
    source: Source, delivery: CaseDelivery, run: Run, progress: _Progress
) -> tuple[ReviewList, dict[str, str]]:
    """Write the list, its pages and prediction.json; the list, and by place why a page could not be
    made."""
    notes = list(run.notes)
    if "predictions" in run.document:
        notes += delivery.calibrator.caveats(progress.done)
    about = About(
        title=str(delivery.data.plans.get("dataset_name") or delivery.data.folder.name),
        file_ending=delivery.data.file_ending,
        run=_name_of_run(source, delivery, run, progress.done),
        problems={**progress.failed, **dict.fromkeys(progress.waiting, NOT_YET)},
        notes=notes,
        document=run.document,
    )
    records = [progress.done[name] for name in sorted(progress.done)]
    listed = review_list(records, delivery.calibrator, delivery.aims, about)
    lost_pages = write_list(listed, delivery.output)
    document = _document(listed, delivery, run, progress)
    write_atomically(delivery.output / list_files.DOCUMENT, to_json_text(document))
    return listed, lost_pages


def _name_of_run(
    source: Source, delivery: CaseDelivery, run: Run, done: Mapping[str, CaseRecord]
) -> str:
    """What marks are kept under: a run that goes on with the same cases keeps its marks."""
    digests = {name: _digests(source, name, done.get(name)) for name in sorted(source.names)}
    identity = [os.path.abspath(delivery.output), run.document, digests]
    return hashlib.sha256(to_json_text(identity).encode()).hexdigest()[:12]


def _digests(source: Source, name: str, record: CaseRecord | None) -> dict[str, str | None]:
    """Of the files that a case comes from, by name; none where one cannot be read."""
    try:
        key = source.key(name, {}, None) if record is None else record.key
    except OSError:
        return {}
    return {what: None if file is None else file["digest"] for what, file in key["files"].items()}


def _document(
    listed: ReviewList, delivery: CaseDelivery, run: Run, progress: _Progress
) -> dict[str, Any]:
    """The content of prediction.json, see
    :class:`~nnunet_nacl.worklist.list_files.PredictionRecord`."""
    return {
        "schema_version": list_files.SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "run": listed.about.run,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "maps": list(delivery.maps),
        **run.document,
        "problems": dict(progress.failed),
        "not_predicted_yet": list(progress.waiting),
        "flags": encode(delivery.aims.flags),
        "sensitive": encode(delivery.aims.sensitive),
        "unlike": encode(listed.unlike),
        "members_dice_threshold": LOWEST_MEMBERS_DICE if listed.has_members else None,
        "notes": [*listed.about.notes, list_files.RESEARCH],
        "n_cases": len(listed.scans),
        "n_to_look_at": len(listed.cases("is_flagged")),
        "random_check": sorted(listed.cases("is_random")) if delivery.aims.also else None,
        "scans": list_files.promises(listed),
    }
