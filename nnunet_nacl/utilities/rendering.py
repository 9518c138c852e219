"""Renders HTML pages by jinja2 that need no other file; what is put into a template is escaped."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import nnunet_nacl
from nnunet_nacl.utilities.errors import UserError, first_line, one_line, printable
from nnunet_nacl.utilities.files import write_atomically

STRUCTURE_COLORS = (
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
)
"""Of structures, in their order; behind the last they begin again, and numbers tell them apart.

After the first three each is the one farthest (Oklab) from greys and from those before, to an eye
with and without red-green blindness (Machado et al., IEEE TVCG 15, 2009), and light enough to be
seen on black."""

_TEMPLATES = "templates"
"""Folder in this package."""


def _make_printable(value: object) -> object:
    """What a template puts into a page: no text turns round what is beside it, and none is
    invisible."""
    if type(value) is str:  # Markup, which is a str too, is a page's own
        return printable(value)
    return value


_PAGES = Environment(
    loader=PackageLoader("nnunet_nacl.utilities", _TEMPLATES),
    autoescape=True,
    finalize=_make_printable,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_page(template: str, scripts: Sequence[str] = ("page.js",), **values: object) -> str:
    """The text of a page over ``base.html``, which needs no other file.

    Args:
        template: Name of its file.
        scripts: Files that a browser runs on it, as one script.
        values: What the template names.
    """
    script = "".join(_read_template(file) for file in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = _PAGES.get_template("page.css").render(colors=STRUCTURE_COLORS)
    return _PAGES.get_template(template).render(
        version=f"nnunet_nacl {nnunet_nacl.__version__}",
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",  # as a content security policy wants it
        colors=len(STRUCTURE_COLORS),
        **values,
    )


def _read_template(name: str) -> str:
    folder = files("nnunet_nacl.utilities").joinpath(_TEMPLATES)
    return folder.joinpath(name).read_text(encoding="utf-8")


def write_page(path: Path, make_text: Callable[[], str]) -> str | None:
    """Make the text of a page and write it.

    A page only shows what other files hold. So whatever goes wrong costs the page alone: the caller
    tells the reason and goes on. The page of an earlier run, which would show other values, is then
    removed.

    Returns:
        In one line why that failed; None where it did not.
    """
    try:
        write_atomically(path, make_text())
    except UserError as error:
        reason: str = error.message
    except Exception as error:  # what is lost is this page; the caller tells the reason
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        reason = one_line(f"the page cannot be made: {type(error).__name__}: {first_line(error)}")
    else:
        return None
    path.unlink(missing_ok=True)
    return reason
