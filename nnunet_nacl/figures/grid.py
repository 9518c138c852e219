"""Panels of one size beside each other, such as one per metric, and what each of them is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from nnunet_nacl.figures.sheet import Sheet, line_height, wrap
from nnunet_nacl.figures.style import MAX_WIDTH, MethodStyle, styles_for

__all__ = ["Grid", "of_panel", "shown_methods"]

_LEFT, _RIGHT, _BELOW, _TITLE = 0.72, 0.15, 0.55, 0.3  # inches
_COLUMNS = {1: 1, 2: 2, 4: 2}  # else 3


class Grid:
    """Where the panels lie; their headings are broken to fit.

    Args:
        titles: Headings of the panels, from the upper left.
        widest: Width in inches of a panel that has a row for itself, and of one that shares it, where there is room.
        height: Height in inches of a panel; None makes them square.
        gap: Inches between two panels of a row, for the numbers and label of the right one.
    """

    def __init__(self, titles: Iterable[str], *, widest: tuple[float, float], height: float | None, gap: float) -> None:
        titles = list(titles)
        self._columns = _COLUMNS.get(len(titles), 3)
        alone, shared = widest
        room = (MAX_WIDTH - _LEFT - _RIGHT - (self._columns - 1) * gap) / self._columns
        self.width = min(alone if self._columns == 1 else shared, room)
        self.height = self.width if height is None else height
        self._titles = [wrap(title, self.width, 10) for title in titles]
        self._head = max(title.count("\n") for title in self._titles) * line_height(10) + _TITLE
        self._gap = gap

    def sheet(self, **keywords: Any) -> Sheet:
        """A sheet with room for the panels; the keywords are those of :class:`~nnunet_nacl.figures.sheet.Sheet`."""
        rows = -(-len(self._titles) // self._columns)
        width = _LEFT + self._columns * self.width + (self._columns - 1) * self._gap + _RIGHT
        return Sheet(width, rows * self._step, **keywords)

    def axes(self, sheet: Sheet) -> Iterator[Axes]:
        """The panels on that sheet, with heading and grid lines."""
        for i, title in enumerate(self._titles):
            row, column = divmod(i, self._columns)
            axis = sheet.axes(
                _LEFT + column * (self.width + self._gap), row * self._step + self._head, self.width, self.height
            )
            axis.set_title(title, pad=5)
            axis.grid(True)
            yield axis

    @property
    def _step(self) -> float:
        return self._head + self.height + _BELOW


def of_panel(value: str | Mapping[str, str], panel: str, name: str) -> str:
    """What belongs to a panel, where ``value`` is one for all panels or one for each.

    Raises:
        ValueError: There is none for this one.
    """
    if isinstance(value, str):
        return value
    if panel not in value:
        raise ValueError(f"{name} lacks the panel {panel!r}: it has {', '.join(value)}.")
    return value[panel]


def shown_methods(panels: Mapping[str, Mapping[str, Any]], order: Sequence[str] | None) -> dict[str, MethodStyle]:
    """The methods that any panel holds, in the order of the comparison, and how each looks.

    Raises:
        ValueError: There is none, or one is not in the order.
    """
    methods = list(dict.fromkeys(method for found in panels.values() for method in found))
    if not methods:
        raise ValueError("There must be at least one panel with one method, got none.")
    return {method: look for method, look in styles_for(methods, order).items() if method in methods}
