"""Looks at a drawn figure: its texts, its artists by their mark, and whether everything is legible."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from nnunet_nacl.show.layout import figure_settings


def texts(figure: Figure) -> list[str]:
    """All texts that are shown."""
    return [artist.get_text() for artist in _shown(figure)]


def all_text(figure: Figure) -> str:
    """All texts as one, lines joined."""
    return " ".join(text.replace("\n", " ") for text in texts(figure))


def marked(parent, gid: str) -> list:
    """The artists with that mark."""
    return parent.findobj(lambda artist: artist.get_gid() == gid)


def points(lines) -> list[tuple[float, ...]]:
    """x and y of lines, flat, for comparison with the numbers given."""
    return [tuple(float(v) for v in np.ravel(line.get_xydata())) for line in lines]


def assert_legible(figure: Figure) -> None:
    """No text is smaller than 8 points, reaches out of the figure or lies on another text."""
    boxes = []
    with figure_settings():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        for artist in _shown(figure):
            assert artist.get_fontsize() >= 8, artist
            box = artist.get_window_extent(renderer)
            assert box.x0 >= -1 and box.y0 >= -1, (artist.get_text(), box)
            assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, (artist.get_text(), box)
            if not artist.get_rotation() % 90:  # of a slanted text only the upright box is known
                boxes.append((artist.get_text(), box.padded(-0.75)))
    for (first, a), (second, b) in combinations(boxes, 2):
        assert not a.overlaps(b), f"{first!r} lies on {second!r}"


def _shown(figure: Figure) -> list[Text]:
    def shown(artist) -> bool:
        return isinstance(artist, Text) and artist.get_visible() and bool(artist.get_text().strip())

    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                margin = 1e-9 * (high - low)
                outside = not low - margin <= tick.get_loc() <= high + margin
                for label in (tick.label1, tick.label2):
                    if outside or not axes.axison or not tick.get_visible():
                        hidden.add(label)
            if not axes.axison:
                hidden.update((axis.label, axis.offsetText))
    return [artist for artist in figure.findobj(shown) if artist not in hidden]
