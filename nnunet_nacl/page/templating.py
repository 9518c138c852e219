"""Renders the templates of the page; everything that is put into one is escaped."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render", "source"]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nnunet_nacl.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, **values: Any) -> str:
    """A template with values in it."""
    return _environment().get_template(name).render(**values)


def source(name: str) -> str:
    """A file of the templates' folder as it is."""
    environment = _environment()
    return environment.loader.get_source(environment, name)[0]
