"""The held-out cases of a model or of a folder. All that calibration needs of evaluation comes through here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap, log_odds, network_box
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.calibration.sampling import MASK_BITS, Sample, draw_sample, pack, read_sample, write_sample
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.folds import merge
from nnunet_nacl.evaluation.image_files import quiet
from nnunet_nacl.evaluation.locate import find_fold_folders, model_folder
from nnunet_nacl.evaluation.prediction_folder import CaseData, CaseFiles, PredictionFolder
from nnunet_nacl.evaluation.results import MASKS, Evaluation, EvaluationSettings, mask_metrics
from nnunet_nacl.files import can_write, to_json_text, write_atomically
from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask

__all__ = [
    "AFTER_FOLDER",
    "SAMPLES_FOLDER",
    "VALUES",
    "CalibratedFolder",
    "CaseFiles",
    "Evaluation",
    "HeldOut",
    "HeldOutCase",
    "PredictionFolder",
    "case_values",
    "find_fold_folders",
    "model_folder",
    "quiet",
    "structures_of",
]

SAMPLES_FOLDER = "calibration_samples"
AFTER_FOLDER = "validation_calibrated"
VALUES = ("ECE", "NLL", "Brier")
_DOCUMENT = "calibration.json"


@dataclass(frozen=True)
class CalibratedFolder(PredictionFolder):
    """The same predictions as if they had been calibrated: each case is read through its map.

    Attributes:
        maps: The map of each case.
    """

    maps: Mapping[str, AffineMap] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: PredictionFolder, maps: Mapping[str, AffineMap]) -> CalibratedFolder:
        """A view of ``folder``."""
        return cls(**{f.name: getattr(folder, f.name) for f in fields(PredictionFolder)}, maps=maps)

    def cases(self, **options: Any) -> tuple[list[CaseFiles], dict[str, str]]:
        """The cases that have a map; what is wrong with the others has been said."""
        found, _ = super().cases(**options)
        return [files for files in found if files.case in self.maps], {}

    def load(self, files: CaseFiles) -> CaseData:
        """Read one case and calibrate it; UserError as the folder's own."""
        data = super().load(files)
        probs = self.maps[files.case](data.probs)
        segmentation = np.asarray(self.label_manager.convert_probabilities_to_segmentation(probs))
        return replace(data, probs=probs, segmentation=segmentation.astype(np.int16))


@dataclass(frozen=True)
class HeldOutCase:
    """What calibration needs of one case.

    Attributes:
        voxels: Those that the network saw and that have a truth.
        masks: (N,) bits of ``MASK_BITS`` for each.
        outside: (V, 3) target, masks and number of the voxels that the network did not see.
    """

    voxels: Voxels
    masks: np.ndarray
    outside: np.ndarray

    def sample(self, signature: str, seed: int) -> Sample:
        """A few voxels that stand for all."""
        return draw_sample(
            self.voxels.log_odds.numpy(),
            self.voxels.target.numpy(),
            self.masks,
            self.outside,
            regions=self.voxels.regions,
            seed=seed,
            signature=signature,
        )


@dataclass
class HeldOut:
    """Cases that the network was not trained on, with their truth.

    Attributes:
        folders: Folders of predictions, by fold of a model, or one under the name ``""``.
        settings: What is measured before and after.
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
        for name, folder in self.folders.items():
            found, problems = folder.cases(chill=True, known=_sampled_cases(folder.folder))
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

    @property
    def complete(self) -> bool:
        """Whether the probabilities of every case are still there."""
        return all(files.probabilities.is_file() for files in self.files.values())

    def leave_out(self, problems: Mapping[str, str]) -> None:
        """Go on without the cases that have a problem."""
        self.problems |= problems
        for case in problems:
            self.files.pop(case, None)
            self.fold.pop(case, None)

    def read(self, case: str) -> HeldOutCase:
        """Read a case's probabilities and truth; UserError if they cannot be."""
        folder = self.folders[self.fold[case]]
        return _read(folder, folder.load(self.files[case]), self.settings)

    def voxels(self, memory_bytes: int = 1 << 30) -> Iterator[Voxels]:
        """All voxels of every case, in order; small data sets are read once and kept."""
        kept = self.__dict__.setdefault("_kept", {})
        for case in self.files:
            if case not in kept:
                voxels = self.read(case).voxels
                size = sum(v.log_odds.nbytes + v.target.nbytes for v in (*kept.values(), voxels))
                if size > memory_bytes:
                    yield voxels
                    continue
                kept[case] = voxels
            yield kept[case]

    def sample(self, case: str) -> Sample:
        """A case's sample: the one beside its calibration.json, or a new one if the files changed since.

        Raises:
            UserError: There are neither probabilities nor a sample of this ground truth.
        """
        files = self.files[case]
        path = files.probabilities.parent / SAMPLES_FOLDER / f"{case}.sample"
        wanted = {name: _stamp(getattr(files, name)) for name in ("probabilities", "reference")}
        labels = self.folders[self.fold[case]].labels
        wanted |= {"settings": [self.settings.dilation_mm, self.settings.boundary_mm], "labels": str(labels.values)}
        if path.is_file():
            try:
                found = read_sample(path)
                known = json.loads(found.signature)
                if wanted["probabilities"] is None:
                    known["probabilities"] = None
                if known == wanted:
                    return found
            except (UserError, ValueError, TypeError):
                if wanted["probabilities"] is None:
                    raise
        if wanted["probabilities"] is None:
            raise UserError(
                f"{files.probabilities} is gone, and the sample {path} is of another ground truth or other settings; "
                "predict this case again with its probabilities."
            )
        drawn = self.read(case).sample(json.dumps(wanted), seed=0)
        if can_write(files.probabilities.parent):
            write_sample(drawn, path)
        return drawn

    def evaluate(self, maps: Mapping[str, AffineMap] | None, output: Path | None, **options: Any) -> Evaluation:
        """Measure every case, as it is or through its map.

        Args:
            maps: The map of each case; None for the predictions as they are.
            output: Where the document of a folder under the name ``""`` goes; folds have their own places:
                ``fold_X/validation/calibration.json`` before, ``fold_X/validation_calibrated/calibration.json`` after.
            **options: ``num_processes`` and ``progress`` of an evaluation.

        Raises:
            UserError: Not a single case can be measured, or a document cannot be written.
        """
        results = {}
        for name, folder in self.folders.items():
            if name:
                place = folder.folder if maps is None else folder.folder.parent / AFTER_FOLDER
                target = place / _DOCUMENT
            else:
                target = output
            here = folder
            if maps is not None:
                here = CalibratedFolder.of(folder, maps)
                if target is not None:
                    _forget_other_maps(target.parent, {case: maps[case] for case in maps if self.fold[case] == name})
            results[name] = evaluate_folder(here, settings=self.settings, output=target, **options)
        return merge(results)


def structures_of(folder: PredictionFolder) -> dict[str, str]:
    """Name of each structure that has a slope and an offset, by nnU-Net's key, in their order."""
    labels = folder.labels
    return {labels.key(channel): labels.names[channel] for channel in labels.foreground}


def case_values(evaluation: Evaluation, cases: Sequence[str]) -> dict[str, list[float]]:
    """By name (``ECE predicted``, ``Dice 1``, ...) a value of each case, NaN where it is not defined."""
    by_name = {result.case: result for result in evaluation.cases}
    rows = []
    for case in cases:
        result = by_name[case]
        row = {}
        for mask in MASKS:
            metrics = mask_metrics(result.stats[mask])
            row |= {f"{value} {mask}": metrics[value] for value in VALUES}
        rows.append(row | {f"Dice {key}": dice for key, dice in result.dice.items()})
    return {name: [row[name] for row in rows] for name in rows[0]}


def _read(folder: PredictionFolder, data: CaseData, settings: EvaluationSettings) -> HeldOutCase:
    labels, probs = folder.labels, data.probs
    truth, valid = data.truth, np.ones(data.truth.shape, dtype=bool)
    if labels.ignore_label is not None:
        valid = truth != labels.ignore_label
        truth = np.where(valid, truth, 0)
    target = np.stack([labels.mask(truth, c) for c in labels.foreground]) if labels.regions else truth
    inside = target.any(0) if labels.regions else truth != 0
    predicted = (probs > 0.5).any(0) if labels.regions else probs.argmax(0) != 0
    known = {
        "foreground": inside,
        "union": inside | predicted,
        "dilated": dilated_mask(truth, settings.dilation_mm, data.spacing_mm, valid=valid),
        "boundary": boundary_mask(truth, settings.boundary_mm, data.spacing_mm, valid=valid),
        "predicted": predicted,
    }
    bits = np.zeros(truth.shape, dtype=np.uint8)
    for bit, name in enumerate(MASK_BITS):
        bits |= known[name].astype(np.uint8) << bit
    seen = np.zeros(truth.shape, dtype=bool)
    box = network_box(probs, labels.regions)
    if box is not None:
        seen[box] = True
    inner, outer = seen & valid, ~seen & valid
    codes = pack(target.reshape(len(target), -1)).reshape(truth.shape) if labels.regions else truth
    pairs, counts = np.unique(
        np.stack([codes[outer].astype(np.int64), bits[outer].astype(np.int64)], 1), axis=0, return_counts=True
    )
    if not inner.any():
        raise UserError(f"{folder.folder}: a prediction holds background alone, or nothing of it has a ground truth.")
    odds = log_odds(probs[:, inner], labels.regions).float()
    return HeldOutCase(
        Voxels(odds, torch.from_numpy(np.ascontiguousarray(target[..., inner]))),
        bits[inner],
        np.concatenate([pairs, counts[:, None]], 1),
    )


def _stamp(path: Path | None) -> list[int] | None:
    try:
        status = path.stat() if path is not None else None
    except OSError:
        status = None
    return None if status is None else [status.st_size, status.st_mtime_ns]


def _sampled_cases(folder: Path) -> set[str]:
    return {path.name.removesuffix(".sample") for path in (folder / SAMPLES_FOLDER).glob("*.sample")}


def _forget_other_maps(folder: Path, maps: Mapping[str, AffineMap]) -> None:
    """Results under other maps must not count as finished: a document's signatures know only the files."""
    path = folder / "maps.json"
    text = to_json_text({case: [list(one.slopes), list(one.offsets)] for case, one in sorted(maps.items())})
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    (folder / _DOCUMENT).unlink(missing_ok=True)
    shutil.rmtree(folder / f"{_DOCUMENT}.partial", ignore_errors=True)
    write_atomically(path, text)
