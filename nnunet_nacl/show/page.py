"""Puts the page together: comparison.json, figures and cases become one HTML file that needs nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.documents.comparison_file import PAGE_NAME
from nnunet_nacl.documents.results import MASK_NOTES, MASKS
from nnunet_nacl.files import write_atomically
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.show.case_tables import DETECTED, PRESENCE, QUALITY, WORKLOAD
from nnunet_nacl.show.comparison_figures import MAIN_DIFFERENCES, PREDICTED_DICE
from nnunet_nacl.show.drawing import LOWEST_CONFIDENCE, confidence_scale
from nnunet_nacl.show.findings import headline, key_findings, verdicts
from nnunet_nacl.show.templating import data_uri, embed_figure, render_page

if TYPE_CHECKING:
    from nnunet_nacl.show.gallery import Gallery

_OF_QUALITY = (PREDICTED_DICE, QUALITY, WORKLOAD, PRESENCE, DETECTED)


def make_page(data: Mapping[str, Any], folder: Path, galleries: Sequence[Gallery] = ()) -> Path:
    """Write report.html into the output folder of `nnunet_nacl compare`, which has just written all else.

    Args:
        data: Content of comparison.json.
        folder: Holds the figures.
        galleries: Pictures of cases, of each data set; none leaves their part out.

    Returns:
        Its path. UserError if it cannot be written.
    """
    tables = [_table(table) for table in data["tables"]]
    figures = [{**figure, "src": embed_figure(folder, figure["files"])} for figure in data["figures"]]
    main = {figure["dataset"]: figure for figure in figures if figure["id"].startswith(MAIN_DIFFERENCES)}
    figures = [figure for figure in figures if figure not in main.values()]
    used = {column["mask"] for column in data["columns"].values()}
    evaluation = data["settings"]["evaluation"]
    text = render_page(
        "page.html",
        data=data,
        date=f"{datetime.fromisoformat(data['created']):%Y-%m-%d}",
        findings=[
            {
                "dataset": dataset["name"],
                "headline": headline(data, dataset),
                "figure": main.get(dataset["name"]),
                "leaders": key_findings(data, dataset),
                "verdicts": verdicts(data, dataset),
            }
            for dataset in data["datasets"]
        ],
        tested=any(row["p_holm"] is not None for row in data["statistics"]),
        labels={trainer["name"]: trainer["label"] for trainer in data["trainers"]},
        command=_command(data["command"]),
        tables=[table for table in tables if not table["id"].startswith(_OF_QUALITY)],
        figures=[figure for figure in figures if not figure["id"].startswith(_OF_QUALITY)],
        quality={
            "tables": [table for table in tables if table["id"].startswith(_OF_QUALITY)],
            "figures": [figure for figure in figures if figure["id"].startswith(_OF_QUALITY)],
        },
        galleries=galleries,
        pictured=any(case.caption for gallery in galleries for case in gallery.cases),
        lowest_confidence=f"{LOWEST_CONFIDENCE:g}",
        scale=data_uri(confidence_scale(), ".png") if galleries else "",
        calibration_metrics=MASK_METRICS,
        masks={mask: MASK_NOTES[mask].format(**evaluation) for mask in MASKS if mask in used},
    )
    write_atomically(folder / PAGE_NAME, text)
    return folder / PAGE_NAME


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"value": None, "best": False, "second": False}
    rows = [[{**plain, "text": cell} if isinstance(cell, str) else cell for cell in row] for row in table["rows"]]
    numbers = [any(row[i]["value"] is not None for row in rows) for i in range(len(table["columns"]))]
    return {
        **table,
        "folded": table["id"].startswith((PRESENCE, DETECTED)),
        "rows": rows,
        "columns": [{"text": text, "number": number} for text, number in zip(table["columns"], numbers)],
        "marked": any(cell["best"] or cell["second"] for row in rows for cell in row),
    }


def _command(text: str) -> str:
    """One option per line, still as it can be pasted into a shell."""
    option = re.compile(r"--?[A-Za-z][\w-]*")
    words = shlex.split(text)
    return "".join((" \\\n  " if option.fullmatch(word) else " ") + shlex.quote(word) for word in words).strip()
