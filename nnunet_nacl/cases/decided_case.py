"""One case: read what was predicted, decide, measure what changed, write the segmentation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry, geometry_difference
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.prediction_output import write_case
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import NUMBER, mismatch
from nnunet_nacl.metrics.overlap import count_overlap

__all__ = ["DecidedCase", "DecidedStructure", "decide_case"]


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
    prediction, labels = folder.load(files, truth=False), folder.labels
    order = folder.label_manager.regions_class_order if labels.regions else None
    try:
        decision = decide(
            prediction.probabilities.whole(), regions=labels.values if labels.regions else None, region_labels=order
        )
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
        before, after = decision.before, decision.after
        counts = (int(each[i]) for each in (before.chosen, after.chosen, decision.gained, decision.lost))
        expected = (float(each[i]) for each in (after.expected, before.dice, after.dice))
        structures[labels.key(channel)] = DecidedStructure(*counts, *expected, *dice)
    copied = files.probabilities if probabilities else None
    write_case(folder, files, output, decision.segmentation, prediction.properties, copied)
    differs = int(np.count_nonzero(prediction.segmentation != decision.argmax))
    return DecidedCase(files.case, structures, decision.n_changed, differs, decision.rounds, truth is not None)


def _read_truth(folder: PredictionFolder, path: Path, prediction: Case) -> np.ndarray:
    truth, properties = folder.read_segmentation(path)
    folder.labels.check(truth, path, is_truth=True)
    geometries = Geometry.of(properties), Geometry.of(prediction.properties)
    difference = geometry_difference(*geometries, truth.shape, prediction.segmentation.shape)
    if difference:
        raise UserError(f"{path}: other geometry than the prediction ({difference}); give the matching ground truth.")
    return truth
