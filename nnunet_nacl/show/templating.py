"""Renders the templates of the pages, which need no other file; everything that is put into one is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.errors import printable
from nnunet_nacl.show.drawing import STRUCTURE_COLORS

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


def render_page(name: str, **values: Any) -> str:
    """A page over ``base.html``, with the one style and the one script that a browser runs on it."""
    script = files("nnunet_nacl.show").joinpath("templates", "page.js").read_text(encoding="utf-8")
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


def data_uri(content: bytes | str, suffix: str) -> str:
    """A picture as the value of ``src``; ``suffix`` is ``.png`` or ``.svg``."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(raw).decode()}"


def embed_figure(folder: Path, files: Sequence[str]) -> str:
    """One of the two files of a figure in ``folder``: SVG unless it is large, else PNG."""
    found = {Path(name).suffix: folder / name for name in files}
    suffix = ".svg" if found[".svg"].stat().st_size <= _LARGEST_SVG else ".png"
    return data_uri(found[suffix].read_bytes(), suffix)
