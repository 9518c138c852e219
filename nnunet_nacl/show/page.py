"""Renders pages that need no other file, and the one of a comparison: comparison.json and figures.

Everything that is put into a template is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.documents.comparison_file import PAGE_NAME
from nnunet_nacl.documents.results import MASK_NOTES, MASKS
from nnunet_nacl.errors import printable
from nnunet_nacl.files import write_atomically
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.show.case_tables import DETECTED, MAIN_DIFFERENCES, PREDICTED_DICE, PRESENCE, QUALITY, WORKLOAD
from nnunet_nacl.show.drawing import STRUCTURE_COLORS
from nnunet_nacl.show.text_table import NOT_TESTED

_OF_QUALITY = (PREDICTED_DICE, QUALITY, WORKLOAD, PRESENCE, DETECTED)
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes; a drawing with that many points is smaller, and quicker to show, as PNG


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nnunet_nacl.show", "templates"),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: Any) -> Any:
    """Text without what would turn the text around it the other way, or cannot be written: shown as its escape."""
    return printable(value) if type(value) is str else value


def render(name: str, **values: Any) -> str:
    """A template with values in it."""
    return _environment().get_template(name).render(**values)


def render_page(name: str, scripts: Sequence[str] = ("page.js",), **values: Any) -> str:
    """A page over ``base.html``, with the one style and the scripts, as one, that a browser runs on it."""
    templates = files("nnunet_nacl.show").joinpath("templates")
    script = "".join(templates.joinpath(each).read_text(encoding="utf-8") for each in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        name,
        version=f"nnunet_nacl {nnunet_nacl.__version__}",
        style=Markup(render("page.css", colors=STRUCTURE_COLORS)),
        script=Markup(script),
        script_hash=f"sha256-{digest}",  # as a content security policy wants it
        colors=len(STRUCTURE_COLORS),
        **values,
    )


def make_page(data: Mapping[str, Any], folder: Path) -> Path:
    """Write report.html into the output folder of `nnunet_nacl compare`, which has just written all else.

    Args:
        data: Content of comparison.json.
        folder: Holds the figures.

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
        main=main,
        not_tested=NOT_TESTED,
        tested=any(row["p_holm"] is not None for row in data["statistics"]),
        labels={trainer["name"]: trainer["label"] for trainer in data["trainers"]},
        command=_command(data["command"]),
        tables=[table for table in tables if not table["id"].startswith(_OF_QUALITY)],
        figures=[figure for figure in figures if not figure["id"].startswith(_OF_QUALITY)],
        quality={
            "tables": [table for table in tables if table["id"].startswith(_OF_QUALITY)],
            "figures": [figure for figure in figures if figure["id"].startswith(_OF_QUALITY)],
        },
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
        "rows": rows,
        "columns": [{"text": text, "number": number} for text, number in zip(table["columns"], numbers)],
        "marked": any(cell["best"] or cell["second"] for row in rows for cell in row),
    }


def _command(text: str) -> str:
    """One option per line, still as it can be pasted into a shell."""
    option = re.compile(r"--?[A-Za-z][\w-]*")
    words = shlex.split(text)
    return "".join((" \\\n  " if option.fullmatch(word) else " ") + shlex.quote(word) for word in words).strip()


def data_uri(content: bytes | str, suffix: str) -> str:
    """A picture as the value of ``src``; ``suffix`` is ``.png`` or ``.svg``."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(raw).decode()}"


def embed_figure(folder: Path, files: Sequence[str]) -> str:
    """One of the two files of a figure in ``folder``: SVG unless it is large, else PNG."""
    found = {Path(name).suffix: folder / name for name in files}
    suffix = ".svg" if found[".svg"].stat().st_size <= _LARGEST_SVG else ".png"
    return data_uri(found[suffix].read_bytes(), suffix)
