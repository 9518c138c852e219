"""Puts the page together: comparison.json, figures and cases become one HTML file that needs nothing else."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunet_nacl.documents.comparison_file import PAGE_NAME
from nnunet_nacl.documents.results import MASK_NOTES, MASKS
from nnunet_nacl.files import write_atomically
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.show.detected_tables import DETECTED
from nnunet_nacl.show.drawing import LOWEST_CONFIDENCE, confidence_scale
from nnunet_nacl.show.figure_choice.standard import MAIN_DIFFERENCES
from nnunet_nacl.show.findings import headline, key_findings, verdicts
from nnunet_nacl.show.gallery import Gallery, make_gallery
from nnunet_nacl.show.predicted_dice import PREDICTED_DICE
from nnunet_nacl.show.presence_table import PRESENCE
from nnunet_nacl.show.quality_tables import QUALITY, WORKLOAD
from nnunet_nacl.show.reliability import FEW_VOXELS
from nnunet_nacl.show.templating import data_uri, embed_figure, render_page

_INTERVAL = re.compile(r"\[([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?), ")
_OF_QUALITY = re.compile(f"({PREDICTED_DICE}|{QUALITY}|{WORKLOAD}|{PRESENCE}|{DETECTED})(_|$)")


@dataclass(frozen=True)
class Page:
    """What was written, and what is missing on it."""

    path: Path
    size: int
    problems: list[str] = field(default_factory=list)


def make_page(
    data: Mapping[str, Any],
    folder: Path,
    *,
    gallery: bool = True,
    channel: int = 0,
) -> Page:
    """Write report.html into the output folder of `nnunet_nacl compare`, which has just written all else.

    Args:
        data: Content of comparison.json.
        folder: Holds the figures.
        gallery: Whether cases are shown.
        channel: Image channel of the gallery.

    Returns:
        The page. What was missing for the gallery is in its problems; they stand on the page, too.

    Raises:
        UserError: The page cannot be written.
    """
    n_bins = data["settings"]["evaluation"]["n_bins"]
    galleries = [
        make_gallery(dataset, data["trainers"], n_bins=n_bins, channel=channel)
        for dataset in (data["datasets"] if gallery else ())
    ]
    figures = [{**figure, "src": embed_figure(folder, figure["files"])} for figure in data["figures"]]
    text = _render(data, figures, galleries)
    path = folder / PAGE_NAME
    write_atomically(path, text)
    problems = [problem for entry in galleries for problem in entry.problems]
    return Page(path, len(text.encode()), list(dict.fromkeys(problems)))


def _render(data: Mapping[str, Any], figures: Sequence[Mapping[str, Any]], galleries: Sequence[Gallery]) -> str:
    tables = [_table(table) for table in data["tables"]]
    main = {figure["dataset"]: figure for figure in figures if figure["id"].startswith(MAIN_DIFFERENCES)}
    figures = [figure for figure in figures if figure not in main.values()]
    used = {column["mask"] for column in data["columns"].values()}
    evaluation = data["settings"]["evaluation"]
    return render_page(
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
        tables=[table for table in tables if not _OF_QUALITY.match(table["id"])],
        figures=[figure for figure in figures if not _OF_QUALITY.match(figure["id"])],
        quality={
            "tables": [table for table in tables if _OF_QUALITY.match(table["id"])],
            "figures": [figure for figure in figures if _OF_QUALITY.match(figure["id"])],
        },
        galleries=galleries,
        pictured=any(case.pictures for entry in galleries for case in entry.cases),
        lowest_confidence=f"{LOWEST_CONFIDENCE:g}",
        few_voxels=FEW_VOXELS,
        scale=data_uri(confidence_scale(), ".png") if galleries else "",
        calibration_metrics=MASK_METRICS,
        masks={mask: MASK_NOTES[mask].format(**evaluation) for mask in MASKS if mask in used},
    )


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[_cell(cell) for cell in row] for row in table["rows"]]
    numbers = [any(row[i]["value"] is not None for row in rows) for i in range(len(table["columns"]))]
    return {
        **table,
        "folded": table["id"].startswith((PRESENCE, DETECTED)),
        "rows": rows,
        "columns": [{"text": text, "number": number} for text, number in zip(table["columns"], numbers)],
        "marked": any(cell["best"] or cell["second"] for row in rows for cell in row),
    }


def _cell(cell: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(cell, str):  # an interval is sorted by its lower end
        interval = _INTERVAL.match(cell)
        value = float(interval[1]) if interval else None
        return {"text": cell, "value": value, "best": False, "second": False}
    value = cell["value"]
    return {**cell, "value": None if value is None or not math.isfinite(value) else value}


def _command(text: str) -> str:
    """One option per line, still as it can be pasted into a shell."""
    option = re.compile(r"--?[A-Za-z][\w-]*")
    words = shlex.split(text)
    return "".join((" \\\n  " if option.fullmatch(word) else " ") + shlex.quote(word) for word in words).strip()
