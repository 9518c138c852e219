"""Tables and figures of a comparison under the numbers that they have in the NACL paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.documents.comparison_file import TABLES
from nnunet_nacl.files import replacing
from nnunet_nacl.show.text_table import Table

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


def write_paper_numbers(tables: Sequence[Table], figures: Iterable[dict[str, Any]], folder: Path) -> Path:
    """``paper/table_N_...`` and ``paper/figure_N_...``: copies. Figures 4 and 5, of logits, are not among them.

    Args:
        tables: As written.
        figures: As ``write_figures`` lists them.
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
    return place
