"""What all figures share: colours, one look per method, settings that make a file the same on every run, saving."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib import style as matplotlib_style
from matplotlib.figure import Figure

__all__ = [
    "AMBER",
    "BLACK",
    "BLUE",
    "FORMATS",
    "GREEN",
    "GREY",
    "HEADING_SIZE",
    "INK",
    "MAX_WIDTH",
    "MethodStyle",
    "ORANGE",
    "PALETTE",
    "PALE",
    "PURPLE",
    "SKY",
    "SMALL_SIZE",
    "TEXT_SIZE",
    "VERMILLION",
    "check_path",
    "figure_settings",
    "method_styles",
    "save_figure",
    "styles_for",
]

# Okabe and Ito's palette: distinguishable with any colour vision. Their yellow is left out, too faint on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
AMBER = "#F0E442"  # that yellow, for surfaces with an edge
PALETTE = (BLACK, BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_DASHED = 4  # the palette from here on has dashed lines: to some eyes purple is like green, orange like vermillion
INK, GREY, PALE = "#222222", "#6E6E6E", "#E6E6E6"

# At 100 % nothing is smaller than 8 points, and no figure is wider than a page of text on a screen.
HEADING_SIZE, TEXT_SIZE, SMALL_SIZE = 12, 9, 8
MAX_WIDTH = 9.0

FORMATS = (".png", ".svg", ".pdf")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*", "d", "8", "H")
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
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.fontsize": TEXT_SIZE,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
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


@dataclass(frozen=True)
class MethodStyle:
    """How a method looks, in every figure: no two of the first fifteen share a marker, so colour is never needed.

    Attributes:
        color: Hexadecimal.
        marker: For points and lines.
        linestyle: For lines.
        filled: Whether the marker is filled.
    """

    color: str
    marker: str
    linestyle: str
    filled: bool

    @property
    def markers(self) -> dict:
        """Keywords of ``Axes.plot`` for the marker; a dark edge holds pale colours off the paper."""
        return {
            "marker": self.marker,
            "markersize": 7,
            "markeredgewidth": 0.8 if self.filled else 1.6,
            "markeredgecolor": INK if self.filled else self.color,
            "markerfacecolor": self.color if self.filled else "white",
        }

    @property
    def line(self) -> dict:
        """Keywords of ``Axes.plot`` for the line."""
        return {"color": self.color, "linestyle": self.linestyle, "linewidth": 1.6}


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """The look of each method by its place in the comparison; the first one, the reference, is black.

    Give every figure the same list, so that a method looks the same in all of them.

    Raises:
        ValueError: A method is given twice.
    """
    methods = list(methods)
    if len(set(methods)) != len(methods):
        twice = sorted({method for method in methods if methods.count(method) > 1})
        raise ValueError(f"Every method needs a label of its own, got more than once: {', '.join(twice)}.")
    return {
        method: MethodStyle(
            PALETTE[i % len(PALETTE)],
            _MARKERS[i % len(_MARKERS)],
            _LINES[(i // len(PALETTE) + (i % len(PALETTE) >= _DASHED)) % len(_LINES)],
            i // len(PALETTE) % 2 == 0,
        )
        for i, method in enumerate(methods)
    }


def styles_for(methods: Sequence[str], order: Sequence[str] | None) -> Mapping[str, MethodStyle]:
    """Styles of ``methods`` by their places in ``order``; by their own places where no order is given.

    Raises:
        ValueError: A method is not in the order.
    """
    styles = method_styles(methods if order is None else order)
    for method in methods:
        if method not in styles:
            raise ValueError(f"The method {method!r} is not in the order {list(order or ())}.")
    return styles


@contextmanager
def figure_settings() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's own matplotlibrc says; the former settings come back."""
    with matplotlib_style.context(["default", _SETTINGS]):
        yield


def check_path(path: str | os.PathLike) -> Path:
    """The path of a figure.

    Raises:
        ValueError: Its suffix is not one of PNG, SVG or PDF.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: the figure's suffix must be one of {', '.join(FORMATS)}, got {path.suffix!r}.")
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
        OSError: The file cannot be written.
    """
    path = check_path(path)
    kind = path.suffix.lower()[1:]
    metadata: dict = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    if title:
        metadata["Title"] = title
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".tmp")
    os.close(handle)
    try:
        with figure_settings():
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
