"""Tables and figures of a comparison under the numbers that they have in the NACL paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.fold_names import fold_folders
from nnunet_nacl.comparison.resolution import Selection
from nnunet_nacl.documents.comparison_file import TABLES
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing
from nnunet_nacl.show.calibration_progress import draw_calibration_progress, draw_training_records
from nnunet_nacl.show.text_table import Table
from nnunet_nacl.training_record import FILE_NAME, read_training_record

PAPER = "paper"
"""Folder beside comparison.json."""

# How ids begin. Tables 3 and 4 and figure 3 are tables 1 and 2 and figure 7 of comparisons of two priors or penalties.
_NUMBERS = {
    "table": {r"discrimination|overview": 1, r"calibration(?!_masks)|overview": 2},
    "figure": {
        "radar_": 1,
        "rank_": 2,
        "hyper_": 6,
        "relative_difference": 7,
        "networks_": 8,
        "training_share": 9,
        "scatter": 10,
    },
}


def write_paper_numbers(
    tables: Sequence[Table], figures: Iterable[dict[str, Any]], selections: Sequence[Selection], folder: Path
) -> Path:
    """``paper/table_N_...`` and ``paper/figure_N_...``: copies, and figures 4 and 5 from the records of the trainings.

    Figures 4 and 5 are of the first fold of each model that is compared as it is; other packages' trainers, and
    nnU-Net's own, leave no record.

    Args:
        tables: As written.
        figures: As ``write_figures`` lists them.
        selections: What was compared, by data set.
        folder: Of the comparison.
    """
    place = folder / PAPER
    for old in (*place.glob("table_*"), *place.glob("figure_*")):
        old.unlink()
    found = [("table", one.id, [f"{TABLES}/{one.id}.{ending}" for ending in ("csv", "md", "tex")]) for one in tables]
    found += [("figure", one["id"], one["files"]) for one in figures]
    for kind, name, files in found:
        for number in [number for begins, number in _NUMBERS[kind].items() if re.match(begins, name)]:
            for file in files:
                with replacing(place / f"{kind}_{number}_{Path(file).name}") as temporary:
                    shutil.copyfile(folder / file, temporary)
    for one in selections:
        suffix = f"_{one.name}" if len(selections) > 1 else ""
        records = _records(one)
        for label, record in records.items():
            slug = re.sub("[^A-Za-z0-9]+", "-", label).strip("-")
            draw_calibration_progress(record, place / f"figure_4_{slug}{suffix}.png", title=label)
        if records:
            draw_training_records(records, place / f"figure_5_training_records{suffix}.png")
    return place


def _records(selection: Selection) -> dict[str, dict[str, Any]]:
    """By label, the record of each model's first fold that has one with an epoch."""
    found: dict[str, dict[str, Any]] = {}
    for one in selection.predictions:
        if one.folder is None or not one.entry.is_model or one.entry.treatment or one.entry.label in found:
            continue
        own = one.folder.folder.parent
        for path in (own / FILE_NAME, *(fold / FILE_NAME for fold in fold_folders(own).values())):
            if path.is_file():
                try:
                    record = read_training_record(path)
                except UserError:
                    continue  # damaged: no reason to lose the comparison
                if record["epochs"]:
                    found[one.entry.label] = record
                    break
    return found
