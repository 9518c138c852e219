"""A figure of a comparison before it is drawn: its words and its numbers; and how all of them are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.documents.comparison_file import FIGURES
from nnunet_nacl.errors import UserError


@dataclass(frozen=True)
class DescribedFigure:
    """A figure.

    Attributes:
        id: Name of its files.
        title: Heading.
        subtitle: Second line of the figure: data, number of cases, what the intervals are.
        caption: What it shows and how it is read.
        alt: Its numbers in one or two sentences, for whoever cannot see it.
        draw: Function of (path, title, subtitle, notes) of the package `figures` with everything else bound.
        dataset: Name of the data set.
    """

    id: str
    title: str
    subtitle: str
    caption: str
    alt: str
    draw: Callable[..., Path]
    dataset: str


def intervals_over(dataset: Dataset) -> str:
    """What the intervals of a data set's figures are."""
    return f"95 % bootstrap intervals over {dataset.unit}"


def describe(
    comparison: Comparison,
    dataset: Dataset,
    kind: str,
    title: str,
    caption: str,
    alt: str,
    draw: Callable[..., Path],
    *,
    intervals: bool = False,
) -> DescribedFigure:
    """A figure of a data set; among several, it has the data set's name in the id.

    Args:
        comparison: Whose figure it is.
        dataset: What is shown.
        kind: Id without the data set.
        title: As in :class:`DescribedFigure`, as are the other ones.
        intervals: Whether the subtitle says what the intervals are.
    """
    subtitle = dataset.where + (f"; {intervals_over(dataset)}" if intervals else "")
    suffix = f"_{dataset.name}" if len(comparison.datasets) > 1 else ""
    return DescribedFigure(f"{kind}{suffix}", title, subtitle, caption, alt, draw, dataset.name)


def write_figures(
    figures: Sequence[DescribedFigure], folder: Path, notes: Sequence[str] = (), *, progress: bool = False
) -> list[dict[str, Any]]:
    """Write ``figures/<id>.png`` and ``.svg`` of each.

    Args:
        figures: What is drawn.
        folder: Output folder of the comparison.
        notes: Sentences at the foot of every figure.
        progress: Show a progress bar on stderr.

    Returns:
        One entry of comparison.json per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.

    Raises:
        UserError: A file cannot be written.
    """
    from tqdm import tqdm

    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    entries = []
    for figure in tqdm(figures, desc="figures", disable=not progress, leave=False):
        files = [f"{FIGURES}/{figure.id}.{ending}" for ending in ("png", "svg")]
        words = {"title": figure.title, "subtitle": figure.subtitle, "notes": tuple(notes)}
        try:
            figure.draw(folder / files[0], also=(".svg",), **words)
        except UserError as error:
            raise UserError(f"{error} Then run the same command again: what was measured is kept.") from None
        words = {key: getattr(figure, key) for key in ("id", "dataset", "title", "caption", "alt")}
        entries.append(words | {"files": files})
    return entries


def listed(values: Iterable[tuple[str, float]], decimals: int = 3) -> str:
    """``CE 0.054, NACL 0.057``; what is undefined is called so."""
    return ", ".join(f"{name} {'undefined' if math.isnan(v) else f'{v:.{decimals}f}'}" for name, v in values)
