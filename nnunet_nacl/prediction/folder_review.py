"""Folders of predictions with probabilities in; what is delivered of them out: segmentations, maps, the review list.

The predictions may be calibrated on the way, decided for Dice, or be members of an ensemble. ``output`` becomes a
folder as nnU-Net's prediction leaves it, with the lists beside the segmentations.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.dice_thresholds import Given
from nnunet_nacl.cases.ensemble_members import MemberCase, find_cases, member_names, read_ensemble
from nnunet_nacl.cases.ledger import Ledger
from nnunet_nacl.cases.ledger import sign as sign_files
from nnunet_nacl.cases.predicted_quality import QualityOfMap
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.prediction_output import MAPS, open_output, write_reviewed
from nnunet_nacl.cases.review_list import FinishedCase
from nnunet_nacl.cases.reviewed_case import ReviewedCase, review_case
from nnunet_nacl.cases.run import run
from nnunet_nacl.cases.treatment import Treatment, decide_case
from nnunet_nacl.cases.worker_processes import each_case
from nnunet_nacl.documents.decision_json import (
    DECISION_FILE,
    DecidedCase,
    write_decision,
)
from nnunet_nacl.documents.map_file import (
    APPLIED_FILE,
    map_of,
    map_to_json,
    named_map,
    read_record,
    sha256,
    structures_of,
)
from nnunet_nacl.errors import UserError, list_problems
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import decode, encode, read_dict
from nnunet_nacl.prediction.decision_effect import describe_decision
from nnunet_nacl.prediction.review_lists import DOCUMENT, LIST_FILES, RECORDS, ReviewList, thresholds_of

_ARGUMENTS = "review_args.json"
_NO_NAMES = ("", ".", "..")
_COMPUTATION = 3  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class FolderReview:
    """What is to be done; can be pickled.

    Attributes:
        members: Folders of the same cases; several are members of an ensemble.
        output: Folder to write to.
        treatment: What is done to the probabilities and segmentations.
        map_path: File of the treatment's map; None where it has none.
        maps: Some of :data:`~nnunet_nacl.cases.reviewed_case.MAPS`.
        dtype: Of the maps: ``uint8`` (255 = 1) or ``float32``.
        probabilities: Save the probabilities too (npz and pkl), with which the folder can be evaluated.
        references: Folder with ground truth, for the true Dice of decided segmentations; cases may lack it.
        draw: What is kept of a case, with a picture if its image is at hand; can be pickled.
        findings: Channels of the structures whose components are listed.
    """

    members: tuple[PredictionFolder, ...]
    output: Path
    treatment: Treatment = Treatment()
    map_path: Path | None = None
    maps: tuple[str, ...] = ()
    dtype: str = "uint8"
    probabilities: bool = False
    references: Path | None = None
    draw: Callable[[PredictionFolder, ReviewedCase], FinishedCase] | None = None
    findings: tuple[int, ...] = ()

    @property
    def first(self) -> PredictionFolder:
        """Any of the folders: labels and readers are the same."""
        return self.members[0]

    def reference(self, case: str) -> Path | None:
        """Ground truth of a case; None where there is none."""
        path = None if self.references is None else self.references / f"{case}{self.first.file_ending}"
        return path if path is not None and path.is_file() else None

    def __call__(self, member: MemberCase) -> _Done:
        """Do one case and write all of it.

        Raises:
            UserError: A file cannot be read, does not fit or cannot be written; the message names it.
        """
        files = member.files[0]
        case, members = read_ensemble(self.members, member)
        try:
            decided, treated = None, self.treatment.before_decision(case)
            if self.treatment.beta:
                segmentation, decision = decide_case(treated, self.treatment.beta, self.treatment.presence)
                treated = replace(treated, segmentation=segmentation)
                decided = describe_decision(case, treated, self._truth(case), decision.rounds)
            kind = np.uint16 if max(case.labels.all_values) > 255 else np.uint8
            treated = replace(treated, segmentation=treated.segmentation.astype(kind))
            reviewed = review_case(treated, members=members, maps=self.maps, findings=self.findings)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{member.path}: {error}; predict this case again.") from None
        plain = FinishedCase(reviewed.row, findings=reviewed.findings)
        finished = self.draw(self.first, reviewed) if self.draw else plain
        probs: Any = None
        if self.probabilities:
            untouched = self.treatment.map is None and len(self.members) == 1
            probs = files.probabilities if untouched else treated.probabilities.whole()
        options: dict[str, Any] = {"source": files, "probabilities": probs, "dtype": self.dtype}
        return _Done(finished, decided, write_reviewed(self.first, reviewed, self.output, **options))

    def _truth(self, case: Case) -> np.ndarray | None:
        path = self.reference(case.name)
        if path is None:
            return None
        return self.first.read_matching(path, "prediction", case.geometry, case.segmentation.shape, is_truth=True)


@dataclass(frozen=True)
class _Done:
    """What came of a case, and the files of it."""

    finished: FinishedCase
    decided: DecidedCase | None
    written: tuple[Path, ...] = ()


def review_folder(
    asked: FolderReview,
    *,
    page: Callable[[ReviewList], str],
    quality: QualityOfMap | None = None,
    threshold: Given | None = None,
    need_all_references: bool = False,
    command: str = "",
    num_processes: int = 1,
    overwrite: bool = False,
    progress: bool = False,
) -> ReviewList:
    """Do every case of the folders.

    Cases that an earlier run finished from the same files with the same settings are kept; what it left of others is
    removed.

    Args:
        asked: What is to be done.
        page: Makes the page (:func:`nnunet_nacl.show.review_page.review_page`).
        quality: What the map has learned of such segmentations; None where nothing is known.
        threshold: A predicted Dice below is a reason to look, see
            :class:`~nnunet_nacl.cases.dice_thresholds.DiceThresholds`; None: none is.
        need_all_references: A case without ground truth is an error, found before the work begins.
        command: For the document.
        num_processes: Cases at the same time; 1 starts no process.
        overwrite: Do every case again.
        progress: Show a progress bar on stderr.

    Returns:
        The review list.

    Raises:
        UserError: A folder cannot be used, or not a single case could be done.
    """
    output, first = asked.output, asked.first
    structures = structures_of(first.labels)
    below = thresholds_of(threshold, structures, quality)
    found, problems = find_cases(asked.members)
    for member in found:
        if member.case in _NO_NAMES:
            what = f"no folder for maps can have the name {member.case!r}; rename the case."
            problems[member.case] = f"{member.path}: {what}"
    found = [member for member in found if member.case not in _NO_NAMES]
    _check_references(asked, found, need_all_references)
    with _open_output(asked):
        ledger = Ledger(output / RECORDS)
        names = {member.case for member in found}
        for case in sorted(ledger.cases - names):  # of other predictions: nothing of them may lie beside the new ones
            for path in ledger.written(case, output).values():
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other files are there
                    path.parent.rmdir()
            ledger.forget(case)
        results, wrong = run(
            found,
            partial(each_case, asked, processes=num_processes),
            ledger,
            sign=partial(_sign, asked),
            restore=_restore,
            entry_of=lambda done: {"finished": encode(done.finished), "decided": done.decided and encode(done.decided)},
            written=lambda member, done: done.written,
            output=output,
            title="review",
            progress=progress,
            again=overwrite,
        )
        problems = dict(sorted((problems | wrong).items()))
        if not results:
            raise UserError(f"{first.folder}: no case could be done.{list_problems(problems)}")
        decided = [done.decided for done in results.values() if done.decided]
        if decided:
            content: dict[str, Any] = {"predictions": str(first.folder.resolve()), **map_of(output)}
            content |= {"structures": structures, "regions": first.labels.regions, "decide": asked.treatment.rule}
            write_decision(output, decided, content, problems)
        members = member_names([member.folder for member in asked.members])
        listed = ReviewList(
            str(first.plans.get("dataset_name") or first.folder.name),
            {case: done.finished for case, done in results.items()},
            list(structures.values()),
            members,
            quality,
            below,
            problems,
            [] if quality is None else quality.reservations(results),
            _made(asked),
            decided=decided,
        )
        content = {**_document(asked, members, command), "problems": problems}
        if quality is not None:
            content["predicted"] = {
                "segmentations": quality.delivered,
                "learned_as_deployed": quality.learned.as_deployed,
                **quality.named(),
            }
        listed.write(output, content, page)
    return listed


def _check_references(asked: FolderReview, found: Sequence[MemberCase], need_all: bool) -> None:
    if asked.references is None:
        return
    if not asked.references.is_dir():
        raise UserError(f"{asked.references}: no such folder; give the folder that holds the ground truth.")
    missing = [member.case for member in found if asked.reference(member.case) is None]
    if missing and (need_all or len(missing) == len(found)):
        path = asked.references / f"{missing[0]}{asked.first.file_ending}"
        raise UserError(f"{path}: no ground truth for this prediction; add it, or leave the folder out.")


@contextlib.contextmanager
def _open_output(asked: FolderReview) -> Iterator[None]:
    """Make the folder and keep it, say by which map it is calibrated, and forget what an earlier run said."""
    output, first, path = asked.output, asked.first, asked.map_path
    sources = [member.folder for member in asked.members]
    content = {"generated_by": "nnunet_nacl review", "predictions": [os.path.abspath(source) for source in sources]}
    names = (DOCUMENT, *LIST_FILES, MAPS, RECORDS, APPLIED_FILE, DECISION_FILE)
    with open_output(output, sources, first, (_ARGUMENTS, content), names):
        for name in (APPLIED_FILE, DECISION_FILE, DOCUMENT):
            (output / name).unlink(missing_ok=True)
        if asked.treatment.map is not None and path is not None:
            form = read_record(path).form or "conditional"
            record = map_to_json({form: asked.treatment.map}, form, structures_of(first.labels))
            record |= {
                "applied_to": str(first.folder.resolve()),
                "map": str(path.resolve()),
                "map_sha256": sha256(path),
            }
            write_atomically(output / APPLIED_FILE, to_json_text(record))
        elif (first.folder / APPLIED_FILE).is_file():  # as calibrated as what it is made from
            write_atomically(output / APPLIED_FILE, to_json_text(read_dict(first.folder / APPLIED_FILE)))
        yield


def _sign(asked: FolderReview, member: MemberCase, earlier: Any = None) -> dict[str, Any]:
    """What the files of a case depend on; OSError if one cannot be read."""
    labels = asked.first.labels
    settings = {
        "computation": _COMPUTATION,
        "labels": [*labels.names, *labels.listed, labels.ignore_label, list(labels.order)],
        "treatment": asked.treatment.to_json(),
        "maps": [asked.dtype, *asked.maps],
        "probabilities": asked.probabilities,
        "findings": list(asked.findings),
    }
    read = {"reference": asked.reference(member.case)}
    for i, files in enumerate(member.files):
        read |= {f"probabilities_{i}": files.probabilities, f"segmentation_{i}": files.segmentation}
    return sign_files(read, settings, earlier)


def _restore(member: MemberCase, entry: dict[str, Any]) -> _Done | None:
    try:
        decided = entry["decided"] and decode(DecidedCase, entry["decided"], member.path)
        return _Done(decode(FinishedCase, entry["finished"], member.path), decided)
    except (KeyError, UserError):  # from another version, or edited
        return None


def _made(asked: FolderReview) -> dict[str, str]:
    made = "the most probable labels of the mean" if len(asked.members) > 1 else "as they were predicted"
    return {
        "Predictions": ", ".join(str(member.folder) for member in asked.members),
        "Calibrated by": str(asked.map_path) if asked.map_path else "no map",
        "Segmentations": f"decided for the highest expected {asked.treatment.rule}" if asked.treatment.beta else made,
    }


def _document(asked: FolderReview, members: Sequence[str], command: str) -> dict[str, Any]:
    labels, path = asked.first.labels, asked.map_path
    return {
        "command": command,
        "members": [
            {"name": name, "folder": os.path.abspath(member.folder)} | map_of(member.folder)
            for name, member in zip(members, asked.members)
        ],
        "dataset": asked.first.plans.get("dataset_name"),
        "calibration_map": path and named_map(path),
        "decide": asked.treatment.rule,
        "maps": list(asked.maps),
        "dtype": asked.dtype,
        "value": "stored / 255" if asked.dtype == "uint8" else "stored",
        "form": "least certain region of each voxel" if labels.regions else "classes",
        "structures": structures_of(labels),
    }
