"""decision.json: what a decision for Dice changed in each case of a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nnunet_nacl
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import encode, read_dict

DECISION_FILE = "decision.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class DecidedStructure:
    """One structure of a case before (in the segmentation that was predicted) and after the decision.

    Attributes:
        voxels_before: Its size.
        voxels_after: Its size.
        gained: Voxels that it has only after.
        lost: Voxels that it has only before.
        expected_voxels: Its expected size, the sum of its probability.
        expected_dice_before: NaN where it is absent.
        expected_dice_after: NaN where it is absent.
        dice_before: True Dice; NaN where it is absent from both, or without ground truth.
        dice_after: The same after the decision.
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
        """Whether the segmentation had it and the decided one has not."""
        return self.voxels_before > 0 and self.voxels_after == 0

    @property
    def added(self) -> bool:
        """Whether the decided segmentation has it and the one before had not."""
        return self.voxels_before == 0 and self.voxels_after > 0


@dataclass(frozen=True)
class DecidedCase:
    """What the decision did to a case.

    Attributes:
        case: Name.
        structures: By nnU-Net's key, background excluded.
        n_changed: Voxels with another label than before.
        rounds: Of the iteration.
        measured: Whether there was ground truth.
    """

    case: str
    structures: dict[str, DecidedStructure]
    n_changed: int
    rounds: int
    measured: bool


@dataclass(frozen=True)
class DecisionRecord:
    """decision.json: the rule by which the labels of a folder were decided, and what it did to each case.

    Attributes:
        decide: The rule, such as dice.
        structures: Name of each structure by nnU-Net's key.
        regions: Whether they are sigmoid regions.
        cases: What was decided; empty where predict did it.
        problems: By case why it could not be decided.
        scans: Of predict: folder of the images.
        predictions: Of review: folder of the predictions.
        map_sha256: Of review: the map that they were calibrated by.
        schema_version: Of this format.
        generated_by: Package and version.
    """

    decide: str
    structures: dict[str, str]
    regions: bool
    cases: list[DecidedCase] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    scans: str | None = None
    predictions: str | None = None
    map_sha256: str | None = None
    schema_version: int = SCHEMA_VERSION
    generated_by: str = f"nnunet_nacl {nnunet_nacl.__version__}"

    def write(self, folder: Path) -> None:
        """Write it into the folder of the segmentations, without what is not known; UserError if that fails."""
        known = {key: value for key, value in encode(self).items() if value is not None}
        write_atomically(folder / DECISION_FILE, to_json_text(known))


def delivered_in(folder: Path) -> str:
    """Which segmentations lie in a folder: ``argmax`` (nnU-Net's own), ``decided`` for Dice, or for ``fbeta``."""
    path = folder / DECISION_FILE
    if not path.is_file():
        return "argmax"
    return "fbeta" if str(read_dict(path).get("decide", "")).startswith("fbeta") else "decided"
