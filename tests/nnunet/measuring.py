"""Records of folders of predictions, without a command, and which of them are new."""

from __future__ import annotations

from pathlib import Path

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.comparison.evaluation import Evaluation
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work, records_of
from nnunet_nacl.utilities.errors import Failed


def measured(
    folder: Path | PredictionFolder,
    references: Path | None = None,
    *,
    keep: bool = True,
    calibration=None,
    with_sample: bool = False,
    jobs: int = 1,
    **settings,
) -> dict[str, CaseRecord | Failed]:
    """By case its record, or what is wrong with it; they are kept in the folder's ``records``, or
    nowhere."""
    opened = (
        folder
        if isinstance(folder, PredictionFolder)
        else PredictionFolder.open(folder, references)
    )
    work = Work(calibration, EvaluationSettings(**settings), with_sample)
    found = records_of(opened, work, opened.folder / RECORDS, jobs=jobs, again=not keep)
    failed = [(case, Failed(case, reason)) for case, reason in opened.problems.items()]
    return dict(sorted([*failed, *found]))


def evaluated(
    folder: Path | PredictionFolder, references: Path | None = None, **options
) -> Evaluation:
    """What is in calibration.json of a folder whose cases can all be measured."""
    opened = (
        folder
        if isinstance(folder, PredictionFolder)
        else PredictionFolder.open(folder, references)
    )
    found = measured(opened, keep=False, **options)
    assert all(isinstance(record, CaseRecord) for record in found.values()), found
    return Evaluation(list(found.values()), opened.labels, EvaluationSettings(), {})


class Watch:
    """Tells which records of a folder were written since it was asked last: an old one that holds
    is left alone."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._seen = self._now()

    def _now(self) -> dict[Path, int]:
        return {
            path: path.stat().st_ino
            for folder in self.folders
            for path in (folder / RECORDS).glob("*.npz")
        }

    def new(self) -> list[str]:
        """Names of the cases."""
        before = self._seen
        self._seen = self._now()
        return sorted(path.stem for path, inode in self._seen.items() if before.get(path) != inode)
