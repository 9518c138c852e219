"""Makes report.html, the page of a comparison."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from nnunet_nacl.cases.case import MASK_NOTES
from nnunet_nacl.comparison.comparison_report import ComparisonReport
from nnunet_nacl.comparison.file_names import DIFFERENCES
from nnunet_nacl.comparison.headline import Headline
from nnunet_nacl.comparison.structure_metrics import COMPONENT_METRICS, OVERLAP_METRICS
from nnunet_nacl.comparison.table import Table
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.metrics.statistics import VERDICT_TEXTS
from nnunet_nacl.utilities.rendering import render_page

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
# bytes; a drawing with that many points is smaller, and quicker to show, as PNG
_LARGEST_SVG = 400_000


def comparison_page(
    data: ComparisonReport, headlines: Sequence[Headline], tables: Sequence[Table], folder: Path
) -> str:
    """The page by the content of comparison.json, with the figures that lie in its folder.

    Args:
        data: The content of comparison.json.
        headlines: What is told first, of each data set.
        tables: All tables.
        folder: That of the comparison.
    """
    settings = data["settings"]["evaluation"].values()
    masks = {}
    for mask, note in MASK_NOTES.items():
        masks[mask] = "; ".join(
            dict.fromkeys(note.format(**vars(of_data_set)) for of_data_set in settings)
        )
    main_figures = {}
    other_figures = []
    for figure in data["figures"]:
        embedded = {**figure, "src": _embedded(folder, figure["files"])}
        if figure["id"].startswith(DIFFERENCES):
            main_figures[figure["dataset"]] = embedded
        else:
            other_figures.append(embedded)
    return render_page(
        "page.html",
        data=data,
        headlines=headlines,
        tables=tables,
        anchors={table.id: f"table-{i}" for i, table in enumerate(tables, 1)},
        main=main_figures,
        figures=other_figures,
        verdict_texts=VERDICT_TEXTS,
        structure_metrics=OVERLAP_METRICS | COMPONENT_METRICS,
        calibration_metrics=MASK_METRICS,
        masks=masks,
    )


def _embedded(folder: Path, files: Sequence[str]) -> str:
    """The value of ``src`` for a figure: its SVG unless that is large, else its PNG."""
    by_suffix = {Path(name).suffix: folder / name for name in files}
    suffix = ".png" if by_suffix[".svg"].stat().st_size > _LARGEST_SVG else ".svg"
    content = base64.b64encode(by_suffix[suffix].read_bytes()).decode()
    return f"data:{_TYPES[suffix]};base64,{content}"
