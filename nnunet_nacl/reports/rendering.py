"""Renders HTML pages by jinja2 that need no other file; what is put into a template is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.errors import printable

STRUCTURE_COLORS = (
    *("#E69F00", "#56B4E9", "#CC0066", "#8800FF", "#BBFF00", "#00DD99", "#DD5500", "#9977FF", "#33FFFF", "#9944AA"),
    *("#EE6699", "#CCFFAA", "#5588CC", "#DDCC00", "#559955", "#CC0000", "#00DDFF", "#DD44BB", "#99BB66", "#88EE77"),
)
"""Of structures: after the first three each is the one farthest (Oklab) from greys and from those before, to an eye
with and without red-green blindness (Machado et al., IEEE TVCG 15, 2009), and light enough to be seen on black. After
20 they begin again, and numbers tell structures apart."""


_PAGES = Environment(
    loader=PackageLoader("nnunet_nacl.reports", "templates"),
    autoescape=True,
    finalize=lambda value: printable(value) if type(value) is str else value,  # no text turns that around it
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(name: str, scripts: Sequence[str] = ("page.js",), **values: Any) -> str:
    """A page over ``base.html``, with the one style and the scripts, as one, that a browser runs on it."""
    templates = files("nnunet_nacl.reports").joinpath("templates")
    script = "".join(templates.joinpath(file).read_text(encoding="utf-8") for file in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _PAGES.get_template(name).render(
        version=f"nnunet_nacl {nnunet_nacl.__version__}",
        style=Markup(_PAGES.get_template("page.css").render(colors=STRUCTURE_COLORS)),
        script=Markup(script),
        script_hash=f"sha256-{digest}",  # as a content security policy wants it
        colors=len(STRUCTURE_COLORS),
        **values,
    )
