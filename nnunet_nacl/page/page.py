"""Puts the page together: comparison.json, figures and cases become one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

import nnunet_nacl
from nnunet_nacl.comparison.comparison_json import read_comparison
from nnunet_nacl.comparison.output_folder import remove_temporaries
from nnunet_nacl.figures.reliability import FEW_VOXELS
from nnunet_nacl.files import write_atomically
from nnunet_nacl.page.data_uris import data_uri, embed_figure
from nnunet_nacl.page.drawing import LOWEST_CONFIDENCE, STRUCTURE_COLORS, confidence_colors
from nnunet_nacl.page.findings import key_findings, verdicts
from nnunet_nacl.page.gallery import Gallery, make_gallery
from nnunet_nacl.page.glossary import glossary
from nnunet_nacl.page.quality_terms import quality_terms
from nnunet_nacl.page.templating import render, source

__all__ = ["PAGE_NAME", "Page", "make_page"]

PAGE_NAME = "report.html"

_INTERVAL = re.compile(r"\[([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?), ")


@dataclass(frozen=True)
class Page:
    """What was written, and what is missing on it."""

    path: Path
    size: int
    problems: list[str] = field(default_factory=list)


def make_page(
    folder: Path, *, gallery: bool = True, channel: int = 0, say: Callable[[str], None] = lambda text: None
) -> Page:
    """Write report.html into the output folder of `nnunet_nacl compare`.

    Args:
        folder: Holds comparison.json and figures.
        gallery: Whether cases are shown.
        channel: Image channel of the gallery.
        say: Is told what is being done.

    Returns:
        The page. What was missing for the gallery or the figures is in its problems; the page says it too.

    Raises:
        UserError: There is no usable comparison.json, or the page cannot be written.
    """
    data = read_comparison(folder)
    remove_temporaries(folder)
    n_bins = data["settings"]["evaluation"]["n_bins"]
    galleries = [
        make_gallery(dataset, data["trainers"], n_bins=n_bins, channel=channel, say=say)
        for dataset in (data["datasets"] if gallery else ())
    ]
    figures = [{**figure, "src": embed_figure(folder, figure["files"])} for figure in data["figures"]]
    text = _render(data, figures, galleries)
    path = folder / PAGE_NAME
    write_atomically(path, text)
    problems = [f"{', '.join(figure['files'])}: no such figure in {folder}." for figure in figures if not figure["src"]]
    problems += [problem for entry in galleries for problem in entry.problems]
    return Page(path, len(text.encode()), list(dict.fromkeys(problems)))


def _render(data: Mapping[str, Any], figures: Sequence[Mapping[str, Any]], galleries: Sequence[Gallery]) -> str:
    style = render("page.css", colors=STRUCTURE_COLORS)
    script = source("page.js")
    datasets, trainers = data["datasets"], data["trainers"]
    names = ", ".join(dataset["name"] for dataset in datasets)
    version = f"nnunet_nacl {nnunet_nacl.__version__}"
    tested = any(row["p_holm"] is not None for row in data["statistics"])
    n_cases = sum(len(dataset["cases"]) for dataset in datasets)
    contents = [("notes", "Read this first")] if data["notes"] else []
    contents += [("findings", "Key findings"), ("compared", "What was compared"), ("tables", "Tables")]
    contents += [("figures", "Figures")] + ([("cases", "Cases")] if galleries else [])
    anchor = _Anchors()
    return render(
        "page.html",
        title=f"{len(trainers)} methods on {names}",
        lead=f"{', '.join(trainer['label'] for trainer in trainers)}: segmentation and calibration on the same "
        f"{n_cases} cases",
        date=_date(data["created"]),
        generated_by=version,
        made_by=f"Compared by {data['generated_by']}, page made by {version}.",
        style=Markup(style),
        script=Markup(script),
        script_hash=_hash(script),
        contents=[*contents, ("reading", "How to read the numbers")],
        notes=data["notes"],
        findings=[
            {"dataset": dataset["name"], "leaders": key_findings(data, dataset), "verdicts": verdicts(data, dataset)}
            for dataset in datasets
        ],
        p_corrected=tested,
        trainers=trainers,
        datasets=[{**dataset, "left_out": _left_out(data, dataset)} for dataset in datasets],
        left_out=any(dataset["left_out"] for dataset in datasets),
        facts=_facts(data),
        command=_command(data["command"]),
        tables=[_titled(_table(table), len(datasets), anchor("table", table["id"])) for table in data["tables"]],
        figures=[_titled(figure, len(datasets), anchor("figure", figure["id"])) for figure in figures],
        galleries=[{**vars(entry), "anchor": anchor("cases", entry.dataset)} for entry in galleries],
        pictured=any(case.panels.pictures for entry in galleries for case in entry.cases),
        colors=len(STRUCTURE_COLORS),
        lowest_confidence=f"{LOWEST_CONFIDENCE:g}",
        few_voxels=FEW_VOXELS,
        scale=_scale() if galleries else "",
        regions=any(dataset["regions"] for dataset in datasets),
        glossary=[
            *glossary(data["columns"].values(), data["settings"]["evaluation"], tested=tested),
            *quality_terms(data["tables"]),
        ],
    )


def _table(table: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[_cell(cell) for cell in row] for row in table["rows"]]
    numbers = [any(row[i]["value"] is not None for row in rows) for i in range(len(table["columns"]))]
    return {
        **table,
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


def _titled(entry: Mapping[str, Any], n_datasets: int, anchor: str) -> dict[str, Any]:
    """With an id, and the data set in its title where there are several."""
    of = f": {entry['dataset']}" if n_datasets > 1 and entry["dataset"] else ""
    return {**entry, "title": entry["title"] + of, "anchor": anchor}


def _command(text: str) -> str:
    """One option per line, still as it can be pasted into a shell."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    option = re.compile(r"--?[A-Za-z][\w-]*")
    return "".join((" \\\n  " if option.fullmatch(word) else " ") + shlex.quote(word) for word in words).strip()


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings, evaluation = data["settings"], data["settings"]["evaluation"]
    return [
        ("Compared on", _date(data["created"])),
        ("Reference", data["trainers"][0]["label"]),
        ("Confidence bins", str(evaluation["n_bins"])),
        ("Reach of the mask dilated", f"{evaluation['dilation_mm']:g} mm"),
        ("Reach of the mask boundary", f"{evaluation['boundary_mm']:g} mm"),
        ("Bootstrap draws", f"{settings['n_bootstrap']:,}, seed {settings['seed']}"),
        ("Level of the intervals", f"{settings['confidence'] * 100:g} %"),
        ("Made with", data["generated_by"]),
    ]


def _left_out(data: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Cases that not all methods have, as a clause; empty where there is none."""
    labels = {trainer["name"]: trainer["label"] for trainer in data["trainers"]}
    found = {name: cases for name, cases in dataset["left_out"].items() if cases}
    return "; ".join(f"{labels.get(name, name)}: {', '.join(cases)}" for name, cases in found.items())


def _date(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d}"
    except ValueError:
        return text


class _Anchors:
    """Ids for elements, each given once: letters, digits and hyphens, whatever the data are called."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, kind: str, text: str) -> str:
        start = f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', text).strip('-')}"
        anchor, number = start, 1
        while anchor in self._given:
            number += 1
            anchor = f"{start}-{number}"
        self._given.add(anchor)
        return anchor


def _hash(text: str) -> str:
    """As a content security policy wants it: the browser runs this script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _scale() -> str:
    """The colours of the confidence map as a strip."""
    colors = confidence_colors(np.linspace(LOWEST_CONFIDENCE, 1, 200))
    stream = io.BytesIO()
    Image.fromarray(np.repeat(colors[None], 14, axis=0)).save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue(), ".png")
