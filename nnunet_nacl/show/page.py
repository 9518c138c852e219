"""The page of a comparison: comparison.json, its tables and figures, in one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.case.results import MASK_NOTES, MASKS
from nnunet_nacl.compare.comparison_file import PAGE_NAME
from nnunet_nacl.compare.figures import MAIN_DIFFERENCES
from nnunet_nacl.compare.tables import NOT_TESTED
from nnunet_nacl.files import write_atomically
from nnunet_nacl.numbers.calibration_error import MASK_METRICS
from nnunet_nacl.show.rendering import render_page
from nnunet_nacl.show.tables import Table

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes; a drawing with that many points is smaller, and quicker to show, as PNG


def make_page(data: Mapping[str, Any], tables: Sequence[Table], folder: Path) -> Path:
    """Write report.html into the output folder of `nnunet_nacl compare`, which has just written all else.

    Args:
        data: Content of comparison.json.
        tables: Its tables.
        folder: Holds the figures.

    Returns:
        Its path. UserError if it cannot be written.
    """
    figures = [{**figure, "src": embed_figure(folder, figure["files"])} for figure in data["figures"]]
    main = {figure["dataset"]: figure for figure in figures if figure["id"].startswith(MAIN_DIFFERENCES)}
    used, settings = {column["mask"] for column in data["columns"].values()}, data["settings"]
    evaluation, date = settings["evaluation"], data["created"].partition("T")[0]
    text = render_page(
        "page.html",
        data=data,
        date=date,
        main=main,
        tables=tables,
        figures=[figure for figure in figures if figure not in main.values()],
        not_tested=NOT_TESTED,
        tested=any(row["verdict"] != "untested" for row in data["statistics"]),
        command=data["command"],
        facts={
            "Compared on": date,
            "Reference": data["trainers"][0]["label"],
            "Confidence bins": evaluation["n_bins"],
            "Bootstrap draws": f"{settings['n_bootstrap']:,}, seed {settings['seed']}",
            "Level of the intervals": f"{100 * settings['confidence']:g} %",
            "Made with": data["generated_by"],
        },
        calibration_metrics=MASK_METRICS,
        masks={mask: MASK_NOTES[mask].format(**evaluation) for mask in MASKS if mask in used},
    )
    write_atomically(folder / PAGE_NAME, text)
    return folder / PAGE_NAME


def embed_figure(folder: Path, files: Sequence[str]) -> str:
    """The value of ``src`` for one of the two files of a figure: SVG unless it is large, else PNG."""
    found = {Path(name).suffix: folder / name for name in files}
    suffix = ".svg" if found[".svg"].stat().st_size <= _LARGEST_SVG else ".png"
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(found[suffix].read_bytes()).decode()}"
