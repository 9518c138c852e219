"""The tables of a review list (review.csv, structures.csv, scans.csv) and the form of
prediction.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibrator.map_parts import UsedMap
from nnunet_nacl.cases.findings import FINDINGS, findings_table
from nnunet_nacl.errors import printable
from nnunet_nacl.files import CsvColumn, is_ours, to_csv_text
from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.recall import SensitiveAim
from nnunet_nacl.quality.unlike import UnlikeScans
from nnunet_nacl.worklist.review_list import MEMBER, ReviewList

DOCUMENT = "prediction.json"
SCHEMA_VERSION = 3
"""Of that document."""
PAGE = "index.html"
PAGES = "review"
"""Folder of the scans' pages, and of what is made for an editor."""
REVIEW, STRUCTURES, SCANS = "review.csv", "structures.csv", "scans.csv"
OUTCOME, OUTCOME_PAGE = "outcome.json", "outcome.html"
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
    """What the list promises of a scan, by which `nnunet_nacl review -back` judges it."""

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
        Annotated[SensitiveAim | None, doc("Labels that miss less; null if none were asked for.")]
    ]
    unlike: Annotated[
        UnlikeScans | None,
        doc("Scans that look different; null if the map does not know how they look."),
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
        Annotated[list[str], doc("Scans of parts (-num_parts) that are not done.")]
    ]
    random_check: NotRequired[
        Annotated[
            list[str] | None,
            doc("With -also: scans without a flag that were chosen by chance; else null."),
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


# Columns of the tables by those of the list; a new one is a row here, and its value in the record.
REVIEW_COLUMNS = {
    "rank": CsvColumn(
        "rank",
        "from 1",
        "Place in the list: 1 should be checked first. Empty for a scan that failed.",
    ),
    "case": CsvColumn("case", "name", "The scan."),
    "is_flagged": CsvColumn("flag", "yes or no", "Whether there is a reason to look at the scan."),
    "why": CsvColumn(
        "reasons",
        "text",
        "Why the scan needs a look, or was chosen by chance; the strongest reason first.",
    ),
    "score": CsvColumn(
        "score", "-1 to 1", "The lowest score of its structures; the list begins with the lowest."
    ),
    "worst_structure": CsvColumn("worst_structure", "name", "The structure with that score."),
    "predicted_dice": CsvColumn("predicted_dice", "0 to 1", "Predicted Dice of that structure."),
    "dice_low": CsvColumn(
        "predicted_dice_low", "0 to 1", "Lower end of its 90 % interval, with a calibration map."
    ),
    "dice_high": CsvColumn("predicted_dice_high", "0 to 1", "Upper end of that interval."),
    "problem": CsvColumn("problem", "text", "Why a scan failed."),
}
SCAN_COLUMNS = {
    "case": CsvColumn("case", "name", "The scan."),
    "is_empty": CsvColumn("empty", "yes or no", "Whether nothing was segmented."),
    "empty_structures": CsvColumn(
        "empty_structures", "names", "Structures that were not segmented."
    ),
    "score": CsvColumn("score", "-1 to 1", "As in review.csv."),
    "lowest_predicted_dice": CsvColumn(
        "lowest_predicted_dice", "0 to 1", "The lowest of the segmented structures."
    ),
    "entropy": CsvColumn(
        "mean_foreground_entropy", "0 to 1", "Mean over the segmented voxels; 0 is certain."
    ),
    "confidence": CsvColumn(
        "mean_foreground_confidence", "0 to 1", "Mean probability of the segmented label."
    ),
    "mutual_information": CsvColumn(
        "mean_foreground_mutual_information", "0 to 1", "How far folds disagree, mean."
    ),
    "n_members": CsvColumn("n_members", "number", "Folds that `predict` averaged; 1 for `review`."),
    "unlike_p": CsvColumn(
        "unlike_p", "0 to 1", "p-value of a scan as odd as this one, with a calibration map."
    ),
    "unlike": CsvColumn(
        "unlike",
        "text",
        "What is odd, if that is at most `-unlike`: intervals are then not supported.",
    ),
}
STRUCTURE_COLUMNS = {
    "case": CsvColumn("case", "name", "The scan."),
    "name": CsvColumn("structure", "name", "The structure."),
    "predicted_dice": CsvColumn(
        "predicted_dice", "0 to 1", "2 sum p over segmented voxels / (sum p + their number)."
    ),
    "dice_low": CsvColumn(
        "predicted_dice_low", "0 to 1", "Lower end of the true Dice's 90 % interval, with a map."
    ),
    "dice_high": CsvColumn("predicted_dice_high", "0 to 1", "Upper end of that interval."),
    "score": CsvColumn(
        "score",
        "-1 to 1",
        "Predicted Dice, or of a structure that was not segmented the probability that it is"
        " absent; less the Dice below which it is bad. Empty if the structure does not count.",
    ),
    "volume": CsvColumn("{size}_{unit}", "{unit}", "Segmented voxels times voxel size."),
    "predicted_volume": CsvColumn(
        "predicted_{size}_{unit}", "{unit}", "Sum of the probability times voxel size."
    ),
    "volume_low": CsvColumn(
        "predicted_{size}_low_{unit}", "{unit}", "Lower end of its 90 % interval, with a map."
    ),
    "volume_high": CsvColumn(
        "predicted_{size}_high_{unit}", "{unit}", "Upper end of that interval."
    ),
    "present": CsvColumn(
        "present_probability", "0 to 1", "That the structure is present in the scan, with a map."
    ),
    "members_dice": CsvColumn(
        "members_dice", "0 to 1", "Mean Dice between the segmentations of two folds."
    ),
    "volume_sd": CsvColumn("{size}_sd_{unit}", "{unit}", "Standard deviation between the folds."),
    "volume_min": CsvColumn("{size}_min_{unit}", "{unit}", "The smallest of the folds."),
    "volume_max": CsvColumn("{size}_max_{unit}", "{unit}", "The largest of the folds."),
    "pieces": CsvColumn(
        "pieces", "number", "Connected pieces; voxels that touch at a corner are connected."
    ),
    "largest_piece": CsvColumn(
        "largest_piece", "0 to 1", "Share of the voxels that the largest piece holds."
    ),
    "max_probability": CsvColumn("max_probability", "0 to 1", "The largest anywhere in the image."),
    MEMBER: CsvColumn(
        "{size}_{unit} {fold}", "{unit}", "Segmented by one fold; a column for each of several."
    ),
}


def csv_texts(listed: ReviewList) -> dict[str, str]:
    """By name the content of the tables, in the order of the list; findings.csv only where there
    are some.

    A case that could not be done has a row without a rank at the end of review.csv: nobody must
    miss it.
    """
    scans = listed.scans.reset_index(names="case").assign(problem=None)
    scans["rank"], scans["n_members"] = scans.index + 1, scans.n_members.astype(int)
    for column in ("is_flagged", "is_empty"):
        scans[column] = scans[column].map({True: "yes", False: "no"})
    failed = pd.DataFrame(listed.about.problems.items(), columns=["case", "problem"], dtype=object)
    texts = {
        REVIEW: _csv_text(pd.concat([_columns(scans, REVIEW_COLUMNS).astype(object), failed])),
        STRUCTURES: _csv_text(structure_columns(listed.structures)),
        SCANS: _csv_text(_columns(scans, SCAN_COLUMNS)),
    }
    findings = {case: listed.records[case].findings for case in scans.case}
    if any(findings.values()):
        texts[FINDINGS] = _csv_text(findings_table(findings, scans.unit[0]))
    return texts


def structure_columns(structures: pd.DataFrame) -> pd.DataFrame:
    """structures.csv, of :attr:`ReviewList.structures`; the names of volumes say their unit."""
    members = [column for column in structures if column.startswith(MEMBER)]
    columns = {column: row for column, row in STRUCTURE_COLUMNS.items() if column != MEMBER}
    columns |= {member: STRUCTURE_COLUMNS[MEMBER] for member in members if len(members) > 1}
    rows, unit = (
        structures.reset_index(names="case"),
        structures.unit.iat[0] if len(structures) else "ml",
    )
    rows["pieces"] = rows.pieces.astype(int)
    return _columns(rows, columns, size="volume" if unit == "ml" else "area", unit=unit)


def _columns(table: pd.DataFrame, columns: Mapping[str, CsvColumn], **known: str) -> pd.DataFrame:
    """Those columns of a table, by their names in the file."""
    names = {
        column: row.name.format(fold=column.removeprefix(MEMBER), **known)
        for column, row in columns.items()
    }
    return table[[*names]].rename(columns=names)


def promises(listed: ReviewList) -> dict[str, ListedScan]:
    """By case, as pages name it, what prediction.json keeps of the list, with six digits, in its
    order."""
    kept: dict[str, ListedScan] = {}
    for case, is_flagged in listed.scans.is_flagged.items():
        rows = listed.structures.loc[[case], ["name", "predicted_dice", "dice_low", "dice_high"]]
        values = {
            name: tuple(float(f"{x:.6g}") for x in dice)
            for name, *dice in rows.itertuples(index=False)
        }
        kept[printable(str(case))] = {"flagged": bool(is_flagged), "structures": values}
    return kept


def places_of_list(cases: Iterable[str]) -> list[str]:
    """Files of a run beside segmentations: tables, document, page, one of each case."""
    return [DOCUMENT, REVIEW, STRUCTURES, SCANS, FINDINGS, PAGE, *map(page_of, cases)]


def remove_list(output: Path) -> None:
    """Remove the list of an earlier run and what came of it, before its segmentations change; files
    of others stay."""
    cases = [path.stem for path in (output / PAGES).glob("*.html")]
    for name in (OUTCOME, OUTCOME_PAGE, *places_of_list(cases)):
        if is_ours(output / name):
            (output / name).unlink(missing_ok=True)


def page_of(case: str) -> str:
    """Place of the page of a scan."""
    return f"{PAGES}/{case}.html"


def _csv_text(table: pd.DataFrame) -> str:
    """Of a table; numbers with six digits."""
    rows = table.astype(object).itertuples(index=False, name=None)
    return to_csv_text(
        list(table),
        ([float(f"{x:.6g}") if isinstance(x, float) else x for x in row] for row in rows),
    )
