"""Renders the templates of the page; everything that is put into one is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.show.style import STRUCTURE_COLORS

__all__ = ["render", "render_page"]


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


# Marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm, and halves of surrogate pairs.
_NOT_PRINTABLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _printable(value: Any) -> Any:
    """Text without what would turn the text around it the other way, or cannot be written: shown as its escape."""
    if type(value) is not str:
        return value
    return _NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)


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
