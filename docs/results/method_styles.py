"""One look per method in the figures of these studies: line, marker and legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matplotlib.lines import Line2D

from nnunet_nacl.show.layout import INK, PALETTE, line_look

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*", "d", "8", "H")


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
    """
    return {
        method: MethodStyle(
            line_look(i)["color"],
            _MARKERS[i % len(_MARKERS)],
            line_look(i)["linestyle"],
            i // len(PALETTE) % 2 == 0,
        )
        for i, method in enumerate(methods)
    }


def legend_handles(styles: Mapping[str, MethodStyle], lines: bool = True) -> list[Line2D]:
    """What a legend shows of the methods: their markers, on their lines where there are any."""
    return [
        Line2D([], [], label=method, **style.markers, **(style.line if lines else {"linestyle": "none"}))
        for method, style in styles.items()
    ]
