"""Looks at a drawn figure: its texts, and its artists by their mark."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text


def all_text(figure: Figure) -> str:
    """All texts that are shown as one, lines joined."""
    shown = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return " ".join(text.get_text().replace("\n", " ") for text in shown)


def marked(parent, gid: str) -> list:
    """The artists with that mark."""
    return parent.findobj(lambda artist: artist.get_gid() == gid)


def segments(parent, gid: str) -> list[tuple[float, ...]]:
    """Ends of the lines with that mark, flat."""
    return [tuple(map(float, np.ravel(one))) for lines in marked(parent, gid) for one in lines.get_segments()]


def points(lines) -> list[tuple[float, ...]]:
    """x and y of lines, flat, for comparison with the numbers given."""
    return [tuple(float(v) for v in np.ravel(line.get_xydata())) for line in lines]
