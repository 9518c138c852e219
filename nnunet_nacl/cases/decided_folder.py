"""A folder of predictions in; a folder of decided segmentations out, as nnU-Net writes it, and decision.json."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnunet_nacl
from nnunet_nacl.cases.decided_case import DecidedCase, decide_case
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.prediction_output import prepare_output
from nnunet_nacl.cases.worker_processes import work_through
from nnunet_nacl.documents.map_file import APPLIED_FILE, map_of
from nnunet_nacl.documents.patient_groups import read_groups
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import remove_leftovers, stamp, to_json_text, write_atomically
from nnunet_nacl.json_files import one_line, read_dict

__all__ = ["FILE_NAME", "Decided", "decide_folder"]

FILE_NAME = "decision.json"
_RECORDS = f"{FILE_NAME}.partial"  # a finished case's row, until decision.json holds it
_SCHEMA_VERSION = 1
_COMPUTATION = 1  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class Decided:
    """What was written.

    Attributes:
        output: The folder.
        names: Name of each structure by nnU-Net's key, background excluded.
        cases: What the decision did, in alphabetic order.
        problems: What is wrong with the cases that are not among them.
        patients: Patient of each case; None: each case its own.
    """

    output: Path
    names: dict[str, str]
    cases: list[DecidedCase]
    problems: dict[str, str]
    patients: dict[str, str] | None = None


def decide_folder(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    references: str | os.PathLike | None = None,
    probabilities: bool = False,
    need_all_references: bool = False,
    groups: str | None = None,
    dataset_json: str | os.PathLike | None = None,
    plans: str | os.PathLike | None = None,
    num_processes: int = 1,
    progress: bool = False,
) -> Decided:
    """Decide every case of a folder.

    ``output`` becomes a folder as nnU-Net's prediction leaves it: segmentations in the data set's format and with the
    geometry of the predictions, dataset.json, plans.json; with ``probabilities`` npz and pkl too, with which the folder
    can be evaluated and compared. decision.json says what changed.

    Args:
        folder: Predictions with probabilities.
        output: Folder to write to, not ``folder`` and not inside it. Cases that an earlier run finished from the same
            files are kept.
        references: Folder with ground truth, for the true Dice of the cases that have one.
        probabilities: Copy the probabilities too.
        need_all_references: A case without ground truth is an error, found before the work begins.
        groups: What :func:`~nnunet_nacl.documents.patient_groups.read_groups` takes, to tell the patient of each case.
        dataset_json: Path of dataset.json; None looks in ``folder`` and up to two levels above.
        plans: Path of plans.json; likewise.
        num_processes: Cases at the same time; 1 starts no process.
        progress: Show a progress bar on stderr.

    Raises:
        UserError: A folder cannot be used, or not a single case could be decided.
    """
    opened = PredictionFolder.open(folder, dataset_json=dataset_json, plans=plans, need_reference=False)
    found, problems = opened.cases()
    truths = _find_references(found, references, opened.file_ending, need_all_references)
    patients = read_groups(groups, [files.case for files in found]) if groups else None
    output = Path(output)
    prepare_output(output, opened, [FILE_NAME, _RECORDS])
    (output / _RECORDS).mkdir(exist_ok=True)
    records = _Records(output, opened, probabilities)
    todo, done = [], {}
    for files in found:
        try:
            stamp = records.signature(files, truths[files.case])
        except OSError as error:
            problems[files.case] = f"{files.probabilities}: cannot be read ({error.strerror})."
            continue
        known = records.finished(files, stamp)
        if known:
            done[files.case] = known
        else:
            records.forget(files.case)
            todo.append((opened, files, output, truths[files.case], probabilities))
    (output / APPLIED_FILE).unlink(missing_ok=True)
    if (opened.folder / APPLIED_FILE).is_file():  # what is decided is as calibrated as what it is decided from
        write_atomically(output / APPLIED_FILE, to_json_text(read_dict(opened.folder / APPLIED_FILE)))
    outcomes = work_through(_decide, todo, _probabilities, num_processes, "decide", len(found), progress)
    for (_, files, *_), outcome in outcomes:
        if isinstance(outcome, str):
            problems[files.case] = one_line(outcome)
        else:
            done[files.case] = outcome
            records.remember(outcome, records.signature(files, truths[files.case]))
    problems = dict(sorted(problems.items()))
    if not done:
        listed = "".join(f"\n  {one_line(case)}: {problem}" for case, problem in problems.items())
        raise UserError(f"{opened.folder}: no case could be decided.{listed}")
    labels = opened.labels
    names = {labels.key(c): labels.names[c] for c in labels.foreground}
    result = Decided(output, names, [done[case] for case in sorted(done)], problems, patients)
    records.finish(result)
    return result


def _find_references(
    found: Sequence[CaseFiles], references: str | os.PathLike | None, ending: str, need_all: bool
) -> dict[str, Path | None]:
    if references is None:
        return {files.case: None for files in found}
    references = Path(references)
    if not references.is_dir():
        raise UserError(f"{references}: no such folder; give the folder that holds the ground truth.")
    paths = {files.case: references / f"{files.case}{ending}" for files in found}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing and (need_all or len(missing) == len(paths)):
        raise UserError(f"{missing[0]}: no ground truth for this prediction; add it, or leave the folder out.")
    return {case: path if path.is_file() else None for case, path in paths.items()}


class _Records:
    """What is known of finished cases: decision.json of an earlier run, and one file a case of an unfinished one."""

    def __init__(self, output: Path, folder: PredictionFolder, probabilities: bool) -> None:
        self._output, self._folder, self._probabilities = output, folder, probabilities
        self._rows: dict[str, Any] = {}
        for path in [output / FILE_NAME, *sorted((output / _RECORDS).glob("*.json"))]:
            with contextlib.suppress(UserError):  # damaged: do the case again
                rows = read_dict(path).get("cases")
                for row in rows if isinstance(rows, list) else ():
                    if isinstance(row, dict):
                        self._rows[str(row.get("case"))] = row

    def signature(self, files: CaseFiles, reference: Path | None) -> dict[str, Any]:
        """What a case's segmentation and row depend on, and what was written. OSError if a file is gone."""

        labels, written = self._folder.labels, self._output / f"{files.case}{self._folder.file_ending}"
        order = self._folder.label_manager.regions_class_order if labels.regions else []
        return {
            "computation": _COMPUTATION,
            "probabilities": self._probabilities,
            "inputs": [stamp(files.probabilities), stamp(files.segmentation), stamp(reference)],
            "labels": [*labels.listed, labels.ignore_label],
            "order": [int(label) for label in order],
            "written": stamp(written)[1:] if written.exists() else [],
        }

    def finished(self, files: CaseFiles, signature: dict[str, Any]) -> DecidedCase | None:
        """The row of a case that was decided from the same files, if what was written is still there."""
        row = self._rows.get(files.case, {})
        if row.get("signature") != signature or not signature["written"]:
            return None
        if self._probabilities and not (self._output / files.probabilities.name).is_file():
            return None
        try:
            return DecidedCase.from_json(row)
        except ValueError:
            return None  # from another version, or edited

    def forget(self, case: str) -> None:
        """Before a case is done again."""
        self._rows.pop(case, None)
        (self._output / _RECORDS / f"{case}.json").unlink(missing_ok=True)

    def remember(self, case: DecidedCase, signature: dict[str, Any]) -> None:
        """Save a finished case's row, so that a killed run need not do it again."""
        self._rows[case.case] = case.to_json() | {"signature": signature}
        text = to_json_text({"cases": [self._rows[case.case]]})
        write_atomically(self._output / _RECORDS / f"{case.case}.json", text)

    def finish(self, result: Decided) -> None:
        """Write decision.json, which holds all rows."""
        document = {
            "schema_version": _SCHEMA_VERSION,
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "predictions": str(self._folder.folder.resolve()),
            **map_of(self._folder.folder),
            "structures": result.names,
            "regions": self._folder.labels.regions,
            "cases": [self._rows[case.case] for case in result.cases],
            "problems": result.problems,
        }
        write_atomically(self._output / FILE_NAME, to_json_text(document))
        shutil.rmtree(self._output / _RECORDS, ignore_errors=True)
        remove_leftovers(self._output)


Task = tuple[PredictionFolder, CaseFiles, Path, Path | None, bool]


def _decide(task: Task) -> DecidedCase:
    return decide_case(*task)


def _probabilities(task: Task) -> Path:
    return task[1].probabilities
