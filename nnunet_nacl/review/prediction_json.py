"""prediction.json: how the segmentations of a folder were made, for other programs."""

from __future__ import annotations

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibrate.calibration_map import UsedMap
from nnunet_nacl.json_files import Number
from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.numbers.unlike import UnlikeScans

DOCUMENT = "prediction.json"
SCHEMA_VERSION = 3


class UsedModel(TypedDict):
    """The networks that predicted.

    Attributes:
        folder: nnU-Net's model folder.
        dataset: Its name.
        trainer: Class.
        configuration: Such as 3d_fullres.
        checkpoint: File name.
        checkpoints_sha256: By fold.
    """

    folder: str
    dataset: str | None
    trainer: str
    configuration: str
    checkpoint: str
    checkpoints_sha256: dict[str, str]


class Drawn(TypedDict):
    """Scans drawn by chance.

    Attributes:
        seed: Of the draw.
        cases: Those.
    """

    seed: int
    cases: list[str]


class ListedScan(TypedDict):
    """What the list promises of a scan, by which `nnunet_nacl review -back` judges it.

    Attributes:
        flagged: Whether there is a reason to look.
        structures: By name predicted Dice and the ends of its 90 % interval; null where it is not known.
    """

    flagged: bool
    structures: dict[str, tuple[Number, ...]]


class PredictedCases(TypedDict, total=False):
    """What prediction.json says of cases and settings: see :class:`PredictionRecord`."""

    images: str
    model: UsedModel
    calibrated: bool
    step_size: float
    mirroring: bool
    training_range: str | None
    predictions: dict[str, str]
    dataset: str | None
    form: str
    structures: dict[str, str]


class PredictionRecord(PredictedCases):
    """prediction.json: how the segmentations of a folder were made, by `nnunet_nacl predict` or `review`.

    Attributes:
        schema_version: Of this format.
        generated_by: Package and version.
        run: Made of the output folder, networks, settings and contents of the scans: marks that readers export name it.
        created: Time, ISO 8601.
        command: As it was given.
        calibration_map: That was applied; null if none was.
        maps: Kinds of the images of uncertainty.
        flags: What counts as bad, and what flags by the score aim at; null where scans are ranked only.
        unlike: How many scans are unlike the calibration scans; null where nobody knows what these look like.
        members_dice_threshold: A Dice between members below which is a reason to look; null with one member.
        notes: For the reader.
        n_cases: Scans that were done.
        n_to_look_at: Those with a reason to look.
        problems: By scan why it could not be done.
        drawn: Scans that are not flagged, and were drawn by chance to be looked at, too; null for none.
        scans: Those that were done, in the order of the list.
        not_predicted_yet: Scans of parts that are not done.
        model: Of predict.
        calibrated: Of predict: whether probabilities are calibrated.
        images: Of predict: folder of the scans.
        step_size: Of predict: of the sliding window, as a share of the patch.
        mirroring: Of predict: whether mirrored copies were predicted.
        training_range: Of predict: what spacing and size were compared with; null for nothing.
        predictions: Of review: their folder, map_sha256 where it was calibrated.
        dataset: Of review: nnU-Net's name.
        form: Of review: classes, or the least certain region of each voxel.
        structures: Of review: name by nnU-Net's key.
    """

    schema_version: int
    generated_by: str
    run: NotRequired[str]
    created: str
    command: str
    calibration_map: UsedMap | None
    maps: list[str]
    flags: Flags | None
    unlike: UnlikeScans | None
    members_dice_threshold: float | None
    notes: list[str]
    n_cases: int
    n_to_look_at: int
    problems: dict[str, str]
    scans: dict[str, ListedScan]
    not_predicted_yet: NotRequired[list[str]]
    drawn: NotRequired[Drawn | None]
