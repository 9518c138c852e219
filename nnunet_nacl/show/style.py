"""What all figures share: colours, settings that make a file the same on every run, saving."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.files import replacing

if TYPE_CHECKING:  # pages that need colours alone do not wait for it
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinguishable with any colour vision. Their yellow is left out, too faint on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
AMBER = "#F0E442"  # that yellow, for surfaces with an edge
PALETTE = (BLACK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
STRUCTURE_COLORS = (ORANGE, SKY, VERMILLION, GREEN, PURPLE, AMBER, BLUE)  # of label maps
_DASHED = 4  # the palette from here on has dashed lines: to some eyes purple is like green, orange like vermillion
INK, GREY, PALE = "#222222", "#6E6E6E", "#E6E6E6"

HEADING_SIZE, TEXT_SIZE, SMALL_SIZE = 12, 9, 8  # points; at 100 % nothing is smaller

_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
_LINES = ("-", "--", "-.", ":")

_SETTINGS = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
    "font.size": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE,
    "axes.titlesize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,  # it would stand where the label does
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.fontsize": TEXT_SIZE,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.7,
    **{f"{what}color": INK for what in ("text.", "axes.label", "axes.title", "xtick.label", "ytick.label")},
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.hinting": "no_hinting",  # else texts are up to 6 % wider than measured
    # Text stays text: it can be searched, selected, translated, edited for a journal and read aloud, and files are
    # smaller. Where the font is missing another one is taken; DejaVu Sans, by which the room is measured, is among the
    # widest, so that nothing overlaps then.
    "svg.fonttype": "none",
    "svg.hashsalt": "nnunet_nacl",
    "pdf.fonttype": 42,
}


def line_look(i: int) -> dict[str, Any]:
    """Keywords of ``Axes.plot`` for the line of the i-th method; the first one, the reference, is black."""
    row, column = divmod(i, len(PALETTE))
    return {"color": PALETTE[column], "linestyle": _LINES[(row + (column >= _DASHED)) % len(_LINES)], "linewidth": 1.6}


@contextmanager
def figure_settings() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's own matplotlibrc says; the former settings come back."""
    from matplotlib import style as matplotlib_style

    with matplotlib_style.context(["default", _SETTINGS]):
        yield


def check_path(path: str | os.PathLike) -> Path:
    """The path of a figure.

    Raises:
        ValueError: Its suffix is not one of PNG, SVG or PDF.
    """
    path = Path(path)
    if path.suffix.lower() not in _METADATA:
        raise ValueError(f"{path}: the figure's suffix must be one of {', '.join(_METADATA)}, got {path.suffix!r}.")
    return path


def save_figure(figure: Figure, path: str | os.PathLike, *, dpi: int = 150, title: str = "") -> Path:
    """Write a figure so that a killed run leaves the old file or the new one, never half of it.

    The same figure gives the same bytes on every run: no date, and names inside an SVG that follow from its content.

    Args:
        figure: What to write.
        path: Where to write; the suffix chooses PNG, SVG or PDF. Missing folders are made.
        dpi: Resolution of a PNG.
        title: Title in the file's metadata.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is another one.
        UserError: The file cannot be written.
    """
    path = check_path(path)
    kind = path.suffix.lower()
    metadata = {**_METADATA[kind], **({"Title": title} if title else {})}
    with figure_settings(), replacing(path) as temporary:
        figure.savefig(temporary, format=kind[1:], dpi=dpi, metadata=metadata)
    return path
