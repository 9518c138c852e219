"""The files of a review list: their names, and the tables among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import InstanceOf

from nnunet_nacl.cases.findings import FINDINGS, findings_table
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.record_key import digest_of
from nnunet_nacl.cases.structure_values import MEMBER_VOLUME
from nnunet_nacl.utilities.csv_text import CsvColumn, to_csv_text
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import is_ours, to_json_text, write_atomically
from nnunet_nacl.utilities.json_files import decode, read_dict

DOCUMENT = "prediction.json"
PAGE = "index.html"
PAGES_FOLDER = "review"
"""Folder of the scans' pages, and of what is made for an editor."""

REVIEW = "review.csv"
STRUCTURES = "structures.csv"
SCANS = "scans.csv"
OUTCOME = "outcome.json"
OUTCOME_PAGE = "outcome.html"


def page_of(case: str) -> str:
    """File name of the page of a scan."""
    return f"{PAGES_FOLDER}/{case}.html"


def files_of_list(cases: Iterable[str]) -> list[str]:
    """Files of a run beside segmentations: tables, document, page, one of each case."""
    return [DOCUMENT, REVIEW, STRUCTURES, SCANS, FINDINGS, PAGE, *map(page_of, cases)]


def remove_list(output: Path) -> None:
    """Remove the list of an earlier run and what came of it, before its segmentations change.

    Files of others stay.
    """
    cases = [path.stem for path in (output / PAGES_FOLDER).glob("*.html")]
    for name in (OUTCOME, OUTCOME_PAGE, *files_of_list(cases)):
        if is_ours(output / name):
            (output / name).unlink(missing_ok=True)


def write_document(output: Path, document: Mapping[str, Any]) -> None:
    """Write prediction.json, last of a list, with the digest of each of the list's files.

    Its own is that of all else that it says.
    """
    digests = {}
    for name in files_of_list(document["scans"]):
        if (output / name).is_file():
            digests[name] = digest_of(output / name)
    digests[DOCUMENT] = _digest_of_content(document)
    write_atomically(output / DOCUMENT, to_json_text({**document, "files": digests}))


def edited_files(output: Path) -> list[Path]:
    """Files of an earlier list that are no longer as it wrote them.

    None where nothing is known of it: prediction.json is missing or damaged, or of a version that
    kept no digests.
    """
    try:
        document = read_dict(output / DOCUMENT)
        digests = decode(dict[InstanceOf[str], str], document.pop("files"), output)
    except (UserError, KeyError):
        return []
    edited = []
    for name in files_of_list(document.get("scans", {})):
        path = output / name
        if name not in digests or not path.is_file():
            continue
        digest = _digest_of_content(document) if name == DOCUMENT else digest_of(path)
        if digest != digests[name]:
            edited.append(path)
    return edited


def _digest_of_content(document: Mapping[str, Any]) -> str:
    """Of what a document says, however its lines are broken."""
    return hashlib.blake2b(to_json_text(dict(document)).encode(), digest_size=16).hexdigest()


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
        " absent; minus the Dice below which it is bad. Empty if the structure does not count.",
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
    MEMBER_VOLUME: CsvColumn(
        "{size}_{unit} {fold}", "{unit}", "Segmented by one fold; a column for each of several."
    ),
}


def csv_texts(
    scans: pd.DataFrame,
    structures: pd.DataFrame,
    records: Mapping[str, CaseRecord],
    problems: Mapping[str, str],
) -> dict[str, str]:
    """Content of each table by its name.

    A case that could not be done has a row without a rank at the end of review.csv: nobody must
    miss it. There is a findings.csv only where there are findings.

    Args:
        scans, structures, records: As of a :class:`~nnunet_nacl.worklist.review_list.ReviewList`.
        problems: By case why there is nothing of it.
    """
    rows = _scan_rows(scans)
    texts = {
        REVIEW: _csv_text(_with_failed_cases(rows, problems)),
        STRUCTURES: _csv_text(structures_table(structures)),
        SCANS: _csv_text(_file_columns(rows, SCAN_COLUMNS)),
    }
    findings = {case: records[case].findings for case in rows.case}
    if any(findings.values()):
        texts[FINDINGS] = _csv_text(findings_table(findings, rows.unit[0]))
    return texts


def _scan_rows(scans: pd.DataFrame) -> pd.DataFrame:
    """The scans with the columns of review.csv and scans.csv, by their names in the code."""
    rows = scans.reset_index(names="case")
    rows["problem"] = None
    rows["rank"] = rows.index + 1
    rows["n_members"] = rows.n_members.astype(int)
    for column in ("is_flagged", "is_empty"):
        rows[column] = rows[column].map({True: "yes", False: "no"})
    return rows


def _with_failed_cases(scans: pd.DataFrame, problems: Mapping[str, str]) -> pd.DataFrame:
    """review.csv, with a row for each case that failed behind the others."""
    done = _file_columns(scans, REVIEW_COLUMNS).astype(object)
    failed = pd.DataFrame(problems.items(), columns=["case", "problem"], dtype=object)
    return pd.concat([done, failed])


def structures_table(structures: pd.DataFrame) -> pd.DataFrame:
    """structures.csv, of completed structures; the names of volumes say their unit.

    Volumes of single networks have columns only where there are several networks.
    """
    columns = dict(STRUCTURE_COLUMNS)
    column_of_members = columns.pop(MEMBER_VOLUME)
    members = [column for column in structures if column.startswith(MEMBER_VOLUME)]
    if len(members) > 1:
        columns |= dict.fromkeys(members, column_of_members)

    unit = structures.unit.iat[0] if len(structures) else "ml"
    size = "volume" if unit == "ml" else "area"

    rows = structures.reset_index(names="case")
    rows["pieces"] = rows.pieces.astype(int)
    return _file_columns(rows, columns, size=size, unit=unit)


def _file_columns(
    table: pd.DataFrame, columns: Mapping[str, CsvColumn], **placeholders: str
) -> pd.DataFrame:
    """Those columns of a table, by their names in the file.

    ``placeholders`` are put into these names, as is ``fold``, the name of a single network.
    """
    file_names = {}
    for column, csv_column in columns.items():
        fold = column.removeprefix(MEMBER_VOLUME)
        file_names[column] = csv_column.name.format(fold=fold, **placeholders)
    return table[list(file_names)].rename(columns=file_names)


def _csv_text(table: pd.DataFrame) -> str:
    """Of a table; numbers with six digits."""
    rows = table.astype(object).itertuples(index=False, name=None)
    return to_csv_text(list(table), [_six_digits(row) for row in rows])


def _six_digits(row: Sequence[object]) -> list[object]:
    """The cells of a row, those that are numbers with fractions rounded to six digits."""
    return [float(f"{cell:.6g}") if isinstance(cell, float) else cell for cell in row]
