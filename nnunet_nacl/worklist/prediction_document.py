"""prediction.json: how the segmentations of a folder were made, and what its list says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any

from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.calibration.map_parts import UsedMap
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.recall import SensitiveAim
from nnunet_nacl.estimators.unlike_batch import UnlikeBatch, UnlikeScans
from nnunet_nacl.utilities.errors import printable
from nnunet_nacl.utilities.json_files import encode
from nnunet_nacl.utilities.json_types import Number, doc
from nnunet_nacl.worklist.reasons import LOWEST_MEMBERS_DICE
from nnunet_nacl.worklist.review_list import ReviewList

SCHEMA_VERSION = 3
RESEARCH = "Research software, not for clinical use."


class UsedModel(TypedDict):
    """The networks that predicted."""

    folder: Annotated[str, doc("nnU-Net's model folder.")]
    dataset: Annotated[str | None, doc("nnU-Net's name of the data set.")]
    trainer: Annotated[str, doc("Class of the trainer.")]
    configuration: Annotated[str, doc("Such as 3d_fullres.")]
    checkpoint: Annotated[str, doc("File name of the checkpoints.")]
    checkpoints_sha256: Annotated[dict[str, str], doc("SHA-256 of each fold's checkpoint.")]
    files_sha256: NotRequired[
        Annotated[
            dict[str, str], doc("SHA-256 of plans.json, dataset.json and dataset_fingerprint.json.")
        ]
    ]


class ListedScan(TypedDict):
    """What the list says of a scan, by which `nnunet_nacl review -back` judges it."""

    flagged: Annotated[bool, doc("Whether there is a reason to look.")]
    structures: Annotated[
        dict[str, tuple[Number, ...]],
        doc(
            "By name predicted Dice and the ends of its 90 % interval; null where it is not known."
        ),
    ]


class PredictionRecord(TypedDict):
    """prediction.json: how the segmentations of a folder were made, by `nnunet_nacl predict` or
    `review`."""

    schema_version: Annotated[int, doc("Version of this format.")]
    generated_by: Annotated[str, doc("Package and version.")]
    run: NotRequired[
        Annotated[
            str, doc("Names the run in exported marks: of output folder, model, settings, scans.")
        ]
    ]
    created: Annotated[str, doc("Time, ISO 8601.")]
    command: Annotated[str, doc("The command as it was given.")]
    calibration_map: Annotated[UsedMap | None, doc("The map that was applied; null if none was.")]
    maps: Annotated[list[str], doc("Kinds of the images of the uncertainty.")]
    flags: Annotated[
        Flags | None, doc("What counts as bad, and the aim; null if scans are only ranked.")
    ]
    sensitive: NotRequired[
        Annotated[SensitiveAim | None, doc("Sensitive labels; null if none were asked for.")]
    ]
    unlike: Annotated[
        UnlikeScans | None,
        doc("Scans that look different; null if the map does not know how they look."),
    ]
    unlike_batch: NotRequired[
        Annotated[
            UnlikeBatch | None,
            doc("How the batch differs, such as of another scanner; null if it does not."),
        ]
    ]
    members_dice_threshold: Annotated[
        float | None, doc("A lower Dice between folds is a reason to look; null with one fold.")
    ]
    notes: Annotated[list[str], doc("Caveats.")]
    n_cases: Annotated[int, doc("Scans that were done.")]
    n_to_look_at: Annotated[int, doc("Scans with a reason to look.")]
    problems: Annotated[dict[str, str], doc("By scan why it failed.")]
    scans: Annotated[dict[str, ListedScan], doc("Scans that were done, in the order of the list.")]
    not_predicted_yet: NotRequired[
        Annotated[list[str], doc("Scans of other parts of the run that are not done.")]
    ]
    random_check: NotRequired[
        Annotated[
            list[str] | None,
            doc("Scans without a flag that were chosen by chance; null where none were asked for."),
        ]
    ]
    images: NotRequired[Annotated[str, doc("Of predict: folder of the scans.")]]
    model: NotRequired[Annotated[UsedModel, doc("Of predict: the networks.")]]
    calibrated: NotRequired[Annotated[bool, doc("Of predict: whether a map was applied.")]]
    step_size: NotRequired[
        Annotated[float, doc("Of predict: step of the sliding window, as a share of the patch.")]
    ]
    mirroring: NotRequired[
        Annotated[bool, doc("Of predict: whether mirrored copies were predicted, too.")]
    ]
    training_range: NotRequired[
        Annotated[
            str | None,
            doc("Of predict: what spacing and size were compared with; null for nothing."),
        ]
    ]
    predictions: NotRequired[
        Annotated[
            dict[str, str],
            doc("Of review: the folder of the predictions; map_sha256 if that was calibrated."),
        ]
    ]
    dataset: NotRequired[Annotated[str | None, doc("Of review: nnU-Net's name of the data set.")]]
    form: NotRequired[
        Annotated[str, doc("Of review: classes, or the least certain region of each voxel.")]
    ]
    structures: NotRequired[Annotated[dict[str, str], doc("Of review: names by nnU-Net's keys.")]]
    files: NotRequired[
        Annotated[
            dict[str, str],
            doc(
                "Digest (BLAKE2b, 16 bytes) of each file of the list, by which the next run knows"
                " what was changed since; of prediction.json that of all other keys."
            ),
        ]
    ]


def prediction_document(
    listed: ReviewList, failed: Mapping[str, str], waiting: Sequence[str]
) -> dict[str, Any]:
    """The content of prediction.json, see :class:`PredictionRecord`.

    Args:
        listed: The list of a run.
        failed: By name why scans failed.
        waiting: Names of the scans of other parts that are not done yet.
    """
    run = listed.run
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "run": run.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.writing.command,
        "maps": list(run.aims.maps),
        **run.document,
        "problems": dict(failed),
        "not_predicted_yet": list(waiting),
        "flags": encode(run.aims.flags),
        "sensitive": encode(run.aims.sensitive),
        "unlike": encode(listed.unlike),
        "unlike_batch": encode(listed.unlike_batch),
        "members_dice_threshold": LOWEST_MEMBERS_DICE if listed.has_members else None,
        "notes": [*run.notes, RESEARCH],
        "n_cases": len(listed.scans),
        "n_to_look_at": len(listed.cases("is_flagged")),
        "random_check": sorted(listed.cases("is_random")) if run.aims.wanted.also else None,
        "scans": _listed_scans(listed),
    }


def _listed_scans(listed: ReviewList) -> dict[str, ListedScan]:
    """What the list says of each scan, by the name that pages show, in the list's order."""
    scans: dict[str, ListedScan] = {}
    for case, is_flagged in listed.scans.is_flagged.items():
        rows = listed.structures.loc[[case], ["name", "predicted_dice", "dice_low", "dice_high"]]
        structures: dict[str, tuple[Number, ...]] = {}
        for name, *dice in rows.itertuples(index=False):
            structures[name] = tuple(float(f"{value:.6g}") for value in dice)
        scans[printable(str(case))] = {"flagged": bool(is_flagged), "structures": structures}
    return scans
