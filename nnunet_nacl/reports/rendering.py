"""Renders HTML pages by jinja2 that need no other file; what is put into a template is escaped."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.errors import UserError, first_line, one_line, printable
from nnunet_nacl.files import write_atomically

STRUCTURE_COLORS = (
    *(
        "#E69F00",
        "#56B4E9",
        "#CC0066",
        "#8800FF",
        "#BBFF00",
        "#00DD99",
        "#DD5500",
        "#9977FF",
        "#33FFFF",
        "#9944AA",
    ),
    *(
        "#EE6699",
        "#CCFFAA",
        "#5588CC",
        "#DDCC00",
        "#559955",
        "#CC0000",
        "#00DDFF",
        "#DD44BB",
        "#99BB66",
        "#88EE77",
    ),
)
"""Of structures: after the first three each is the one farthest (Oklab) from greys and from those
before, to an eye with and without red-green blindness (Machado et al., IEEE TVCG 15, 2009), and
light enough to be seen on black. After 20 they begin again, and numbers tell structures apart."""


_PAGES = Environment(
    loader=PackageLoader("nnunet_nacl.reports", "templates"),
    autoescape=True,
    # no text turns that around it
    finalize=lambda value: printable(value) if type(value) is str else value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(name: str, scripts: Sequence[str] = ("page.js",), **values: Any) -> str:
    """A page over ``base.html``, with the one style and the scripts, as one, that a browser runs on
    it."""
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


def write_page(path: Path, make_text: Callable[[], str]) -> str | None:
    """Make the text of a page and write it; in one line why that failed, None where it did not.

    A page only shows what other files hold. So whatever goes wrong costs the page alone: the caller
    tells the reason and goes on. The page of an earlier run, which would show other values, is then
    removed.
    """
    try:
        write_atomically(path, make_text())
    except UserError as error:
        reason = str(error)
    except Exception as error:  # what is lost is this page; the caller tells the reason
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        reason = one_line(f"the page cannot be made: {type(error).__name__}: {first_line(error)}")
    else:
        return None
    path.unlink(missing_ok=True)
    return reason
