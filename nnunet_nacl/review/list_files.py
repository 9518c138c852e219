"""The tables of a review list (review.csv, structures.csv, scans.csv) and the form of prediction.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.calibrate.calibration_map import UsedMap
from nnunet_nacl.case.findings import FINDINGS, findings_csv_text
from nnunet_nacl.errors import printable
from nnunet_nacl.files import is_ours, to_csv_text
from nnunet_nacl.json_types import Number
from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.numbers.recall import SensitiveAim
from nnunet_nacl.numbers.unlike import UnlikeScans
from nnunet_nacl.review.review_list import MEMBER, ReviewList

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


class PredictionRecord(TypedDict):
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
        sensitive: What labels that miss less aim at; null where none were asked for.
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
    sensitive: NotRequired[SensitiveAim | None]
    unlike: UnlikeScans | None
    members_dice_threshold: float | None
    notes: list[str]
    n_cases: int
    n_to_look_at: int
    problems: dict[str, str]
    scans: dict[str, ListedScan]
    not_predicted_yet: NotRequired[list[str]]
    drawn: NotRequired[Drawn | None]
    images: NotRequired[str]
    model: NotRequired[UsedModel]
    calibrated: NotRequired[bool]
    step_size: NotRequired[float]
    mirroring: NotRequired[bool]
    training_range: NotRequired[str | None]
    predictions: NotRequired[dict[str, str]]
    dataset: NotRequired[str | None]
    form: NotRequired[str]
    structures: NotRequired[dict[str, str]]


# Columns of the tables by those of the list; a new one is a line here, and its value in the record.
_REVIEW = {
    **{"rank": "rank", "case": "case", "is_flagged": "flag", "why": "reasons"},
    **{"score": "score", "worst_structure": "worst_structure", "predicted_dice": "predicted_dice"},
    **{"dice_low": "predicted_dice_low", "dice_high": "predicted_dice_high", "problem": "problem"},
}
_SCANS = {
    **{"case": "case", "is_empty": "empty", "empty_structures": "empty_structures", "score": "score"},
    "lowest_predicted_dice": "lowest_predicted_dice",
    **{name: f"mean_foreground_{name}" for name in ("entropy", "confidence", "mutual_information")},
    **{"n_members": "n_members", "unlike_p": "unlike_p", "unlike": "unlike"},
}
_STRUCTURES = {
    **{"case": "case", "name": "structure", "predicted_dice": "predicted_dice", "dice_low": "predicted_dice_low"},
    **{"dice_high": "predicted_dice_high", "score": "score"},
    **{"volume": "{size}_{unit}", "predicted_volume": "predicted_{size}_{unit}"},
    **{f"volume_{end}": f"predicted_{{size}}_{end}_{{unit}}" for end in ("low", "high")},
    **{"present": "present_probability", "members_dice": "members_dice"},
    **{"volume_sd": "{size}_sd_{unit}", "volume_min": "{size}_min_{unit}", "volume_max": "{size}_max_{unit}"},
    **{name: name for name in ("pieces", "largest_piece", "max_probability")},
}


def csv_texts(listed: ReviewList) -> dict[str, str]:
    """By name the content of the tables, in the order of the list; findings.csv only where there are some.

    A case that could not be done has a row without a rank at the end of review.csv: nobody must miss it.
    """
    scans = listed.scans.reset_index(names="case").assign(problem=None)
    scans["rank"] = scans.index + 1
    scans["n_members"] = scans.n_members.astype(int)
    for column in ("is_flagged", "is_empty"):
        scans[column] = scans[column].map({True: "yes", False: "no"})
    review = scans[[*_REVIEW]].rename(columns=_REVIEW).astype(object)
    failed = pd.DataFrame(listed.about.problems.items(), columns=["case", "problem"], dtype=object)
    texts = {
        REVIEW: _csv_text(pd.concat([review, failed])),
        STRUCTURES: _csv_text(structure_columns(listed.structures.reset_index(names="case"))),
        SCANS: _csv_text(scans[[*_SCANS]].rename(columns=_SCANS)),
    }
    findings = {case: listed.records[case].findings for case in scans.case}
    if any(findings.values()):
        texts[FINDINGS] = findings_csv_text(findings, scans.unit[0])
    return texts


def structure_columns(structures: pd.DataFrame) -> pd.DataFrame:
    """structures.csv, of rows of :func:`~nnunet_nacl.review.review_list.completed`; names of volumes say their unit."""
    parts, members = [], [column for column in structures if column.startswith(MEMBER)]
    for unit, part in structures.groupby("unit", sort=False):
        columns = {
            column: name.format(size="volume" if unit == "ml" else "area", unit=unit)
            for column, name in _STRUCTURES.items()
        }
        if len(members) > 1:
            columns |= {member: f"{columns['volume']} {member.removeprefix(MEMBER)}" for member in members}
        parts.append(part.assign(pieces=part.pieces.astype(int))[[*columns]].rename(columns=columns))
    return pd.concat(parts).sort_index() if parts else pd.DataFrame(columns=["case", "structure", "score"])


def promises(listed: ReviewList) -> dict[str, ListedScan]:
    """By case, as pages name it, what prediction.json keeps of the list, with six digits, in its order."""
    kept: dict[str, ListedScan] = {}
    for case, is_flagged in listed.scans.is_flagged.items():
        rows = listed.structures.loc[[case], ["name", "predicted_dice", "dice_low", "dice_high"]]
        values = {name: tuple(float(f"{x:.6g}") for x in dice) for name, *dice in rows.itertuples(index=False)}
        kept[printable(str(case))] = {"flagged": bool(is_flagged), "structures": values}
    return kept


def places_of_list(output: Path, cases: Iterable[str]) -> list[str]:
    """Files of a run beside segmentations: tables, document, page, further pages that are there, one of each case."""
    pages = [PAGE, *(path.name for path in output.glob("index_[0-9]*.html")), *map(page_of, cases)]
    return [DOCUMENT, REVIEW, STRUCTURES, SCANS, FINDINGS, *pages]


def remove_list(output: Path) -> None:
    """Remove the list of an earlier run and what came of it, before its segmentations change; files of others stay."""
    cases = [path.stem for path in (output / PAGES).glob("*.html")]
    for name in (OUTCOME, OUTCOME_PAGE, *places_of_list(output, cases)):
        if is_ours(output / name):
            (output / name).unlink(missing_ok=True)


def page_of(case: str) -> str:
    """Place of the page of a scan."""
    return f"{PAGES}/{case}.html"


def _csv_text(table: pd.DataFrame) -> str:
    """Of a table; numbers with six digits."""
    rows = table.astype(object).itertuples(index=False, name=None)
    return to_csv_text(list(table), ([float(f"{x:.6g}") if isinstance(x, float) else x for x in row] for row in rows))
