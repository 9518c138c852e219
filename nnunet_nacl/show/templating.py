"""Renders the templates of the page; everything that is put into one is escaped."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render", "source"]


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


def source(name: str) -> str:
    """A file of the templates' folder as it is."""
    return files("nnunet_nacl.show").joinpath("templates", name).read_text(encoding="utf-8")
