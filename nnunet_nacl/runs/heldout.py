"""The held-out cases of a model or of a folder, as they are and as they would be under a map."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnunet_nacl.case.case import CaseFiles
from nnunet_nacl.case.case_quality import sampled_quality
from nnunet_nacl.case.document import FILE_NAME, Evaluation, read_document
from nnunet_nacl.case.effect import count_sample
from nnunet_nacl.case.results import MASKS, CaseResult, EvaluationSettings
from nnunet_nacl.case.sampling import Sample
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import mask_metrics
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.runs.evaluate import evaluate_folder
from nnunet_nacl.runs.folds import merge
from nnunet_nacl.runs.sample_files import (
    SAMPLES_FOLDER,
    find_sample,
    make_sample,
    sample_path,
)


@dataclass
class HeldOut:
    """Cases that the network was not trained on, with their truth.

    Attributes:
        folders: Folders of predictions, by fold of a model, or one under the name ``""``.
        settings: What is measured before and after: as in the calibration.json that is there, else the defaults.
        files: Files of each case that can be used, in order.
        fold: Fold of each of them.
        problems: What is wrong with the others.
    """

    folders: dict[str, PredictionFolder]
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    files: dict[str, CaseFiles] = field(default_factory=dict)
    fold: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.suppress(UserError):
            self.settings = read_document(self.first.folder / FILE_NAME).settings
        for name, folder in self.folders.items():
            sampled = {path.stem for path in (folder.folder / SAMPLES_FOLDER).glob("*.sample")}
            found, problems = folder.cases(chill=True, known=sampled)
            for files in found:
                if files.case in self.files:
                    raise UserError(f"case {files.case} lies in the folds {self.fold[files.case]} and {name}.")
                self.files[files.case] = files
                self.fold[files.case] = name
            self.problems |= problems

    @property
    def first(self) -> PredictionFolder:
        """Any of the folders: labels and plans are the same."""
        return next(iter(self.folders.values()))

    def leave_out(self, problems: Mapping[str, str]) -> None:
        """Go on without the cases that have a problem."""
        self.problems |= problems
        for case in problems:
            self.files.pop(case, None)
            self.fold.pop(case, None)

    @property
    def predicted_ns(self) -> dict[str, int]:
        """By fold when its oldest case was predicted, by the probabilities or else the samples, in ns."""
        oldest: dict[str, int] = {}
        for case, files in self.files.items():
            path = files.probabilities if files.probabilities.is_file() else sample_path(files)
            made, fold = path.stat().st_mtime_ns, self.fold[case]
            oldest[fold] = min(made, oldest.get(fold, made))
        return oldest

    def sample(self, case: str) -> Sample:
        """A case's sample: the one beside its calibration.json, or a new one if the files changed since.

        Raises:
            UserError: There are neither probabilities nor a sample of this ground truth.
        """
        files, folder = self.files[case], self.folders[self.fold[case]]
        if found := find_sample(files, folder.labels, self.settings):
            return found
        if not files.probabilities.is_file():
            raise UserError(
                f"{files.probabilities} is gone, and there is no sample of these files and settings in "
                f"{sample_path(files).parent}; {RERUN}."
            )
        try:
            data, save = folder.load(files), can_write(files.probabilities.parent)
            return make_sample(data, files, folder, self.settings, save=save)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}") from None

    def evaluate(self, **options: Any) -> Evaluation:
        """Measure every case in one pass, which leaves its sample and each folder's document where it can be written.

        Args:
            **options: ``num_processes`` and ``progress`` of an evaluation.

        Raises:
            UserError: Not a single case can be measured, or a document cannot be written.
        """
        results = {}
        for name, folder in self.folders.items():
            kept: dict[str, Any] = {}
            if can_write(folder.folder):
                kept = {"output": folder.folder / FILE_NAME, "samples": True}
            results[name] = evaluate_folder(folder, settings=self.settings, **kept, **options)
        return merge(results)

    def through(self, result: CaseResult, calibration: LogOddsMap) -> CaseResult:
        """What was measured of a case as it would be under a map, which changes no label: from its sample.

        Args:
            result: As the network gave it.
            calibration: The map.

        Raises:
            UserError: It has no sample, see :meth:`sample`.
        """
        sample = self.sample(result.case)
        quality = sampled_quality(result, self.first.labels, sample, calibration)
        return replace(result, quality=quality).with_bins(count_sample(sample, calibration, self.settings.n_bins))


def case_values(stats: Mapping[str, BinStats]) -> dict[str, float]:
    """By name (``ECE predicted``, ``NLL all``, ...) a value of a case, NaN where it is not defined."""
    measured = {mask: mask_metrics(stats[mask]) for mask in MASKS}
    return {f"{value} {mask}": found[value] for mask, found in measured.items() for value in ("ECE", "NLL", "Brier")}
