"""One case: read what was predicted, decide, measure what changed, write the segmentation."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.decision.iteration import Decision, decide
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.geometry import Geometry, geometry_difference
from nnunet_nacl.evaluation.image_files import quiet
from nnunet_nacl.evaluation.prediction_folder import CaseFiles, Prediction, PredictionFolder
from nnunet_nacl.json_files import NUMBER, first_line, mismatch
from nnunet_nacl.metrics.overlap import count_overlap

__all__ = ["UNFINISHED", "DecidedCase", "DecidedStructure", "decide_case"]

UNFINISHED = ".unfinished-"
"""Prefix of the folders in which files are written before they get their place."""


@dataclass(frozen=True)
class DecidedStructure:
    """One structure of a case before (in the argmax of the probabilities) and after the decision.

    Attributes:
        voxels_before: Its size.
        voxels_after: Its size.
        gained: Voxels that it has only after.
        lost: Voxels that it has only before.
        expected_voxels: Its expected size, the sum of its probability.
        expected_dice_before: NaN where it is absent.
        expected_dice_after: NaN where it is absent.
        dice_before: True Dice; NaN where it is absent from both, or without ground truth.
        dice_after: Likewise.
    """

    voxels_before: int
    voxels_after: int
    gained: int
    lost: int
    expected_voxels: float
    expected_dice_before: float
    expected_dice_after: float
    dice_before: float
    dice_after: float

    @property
    def removed(self) -> bool:
        """Whether the argmax has it and the decided segmentation has not."""
        return self.voxels_before > 0 and self.voxels_after == 0


@dataclass(frozen=True)
class DecidedCase:
    """What the decision did to a case.

    Attributes:
        case: Name.
        structures: By nnU-Net's key, background excluded.
        n_changed: Voxels with another label than in the argmax.
        n_saved_differs: Voxels in which the saved segmentation was not the argmax of the probabilities, as after
            postprocessing: the decision starts from the argmax, and knows nothing of that.
        rounds: Of the iteration.
        measured: Whether there was ground truth.
    """

    case: str
    structures: dict[str, DecidedStructure]
    n_changed: int
    n_saved_differs: int
    rounds: int
    measured: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> DecidedCase:
        """The reverse of ``to_json``; ValueError if that is no such object. null is NaN."""
        numbers = {name: NUMBER for name in DecidedStructure.__dataclass_fields__}
        pattern = {"case": str, "structures": {"*": numbers}, "n_changed": int, "n_saved_differs": int}
        problem = mismatch(content, pattern | {"rounds": int, "measured": bool})
        if problem:
            raise ValueError(f"no decided case: {problem}")
        structures = {}
        for key, row in content["structures"].items():
            values: dict[str, Any] = {name: float("nan") if row[name] is None else row[name] for name in numbers}
            structures[key] = DecidedStructure(**values)
        return cls(**{name: content[name] for name in cls.__dataclass_fields__} | {"structures": structures})


def decide_case(
    folder: PredictionFolder, files: CaseFiles, output: Path, reference: Path | None, probabilities: bool
) -> DecidedCase:
    """Decide one case and write it.

    Args:
        folder: The predictions.
        files: The case's.
        output: Folder to write to: the segmentation under its name in ``folder``.
        reference: Its ground truth, or None.
        probabilities: Also copy npz and pkl.

    Returns:
        What changed.

    Raises:
        UserError: A file cannot be read, does not fit or cannot be written; the message names it.
    """
    prediction, labels = folder.load_prediction(files), folder.labels
    order = folder.label_manager.regions_class_order if labels.regions else None
    try:
        decision = decide(prediction.probs, regions=labels.values if labels.regions else None, region_labels=order)
    except ValueError as error:
        raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    truth = None if reference is None else _read_truth(folder, reference, prediction)
    valid = None if truth is None or labels.ignore_label is None else truth != labels.ignore_label
    structures = {}
    for i, channel in enumerate(labels.foreground):
        dice = [float("nan")] * 2
        if truth is not None:
            dice = [
                count_overlap(labels.mask(truth, channel), labels.mask(segmentation, channel), valid).dice
                for segmentation in (decision.argmax, decision.segmentation)
            ]
        structures[labels.key(channel)] = DecidedStructure(
            int(decision.before.chosen[i]),
            int(decision.after.chosen[i]),
            int(decision.gained[i]),
            int(decision.lost[i]),
            float(decision.after.expected[i]),
            float(decision.before.dice[i]),
            float(decision.after.dice[i]),
            *dice,
        )
    _write(folder, files, output, decision, prediction.properties, probabilities)
    differs = int(np.count_nonzero(prediction.segmentation != decision.argmax))
    return DecidedCase(files.case, structures, decision.n_changed, differs, decision.rounds, truth is not None)


def _read_truth(folder: PredictionFolder, path: Path, prediction: Prediction) -> np.ndarray:
    truth, properties = folder.read_segmentation(path)
    folder.labels.check(truth, path, is_truth=True)
    geometries = Geometry.of(properties), Geometry.of(prediction.properties)
    difference = geometry_difference(*geometries, truth.shape, prediction.segmentation.shape)
    if difference:
        raise UserError(f"{path}: other geometry than the prediction ({difference}); give the matching ground truth.")
    return truth


def _write(
    folder: PredictionFolder,
    files: CaseFiles,
    output: Path,
    decision: Decision,
    properties: dict[str, Any],
    probabilities: bool,
) -> None:
    """Write into a folder that nnU-Net does not look into, then move: a killed run leaves no half file."""
    extra = [files.probabilities, files.probabilities.with_suffix(".pkl")]
    name = f"{files.case}{folder.file_ending}"
    with _unfinished(output, name) as unfinished:
        for path in extra:
            if probabilities and path.is_file():
                shutil.copyfile(path, unfinished / path.name)
            else:  # an earlier run's must not lie beside another segmentation
                (output / path.name).unlink(missing_ok=True)
        try:
            with quiet():
                folder.reader.write_seg(decision.segmentation, str(unfinished / name), properties)
        except OSError:
            raise
        except Exception as error:  # SimpleITK reports a full disk as RuntimeError
            raise UserError(f"{output / name}: cannot be written ({first_line(error)}); choose another -o.") from None
        for path in sorted(unfinished.iterdir()):
            os.replace(path, output / path.name)


@contextlib.contextmanager
def _unfinished(output: Path, name: str) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=output) as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"{output / name}: cannot be written ({error.strerror}); free space or choose another -o."
        ) from None
