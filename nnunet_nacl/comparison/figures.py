"""Draws a comparison's figures, each as PNG and SVG, and says what each one shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_nacl.comparison.compare import Comparison
from nnunet_nacl.comparison.document import FIGURES
from nnunet_nacl.comparison.picture import Picture
from nnunet_nacl.comparison.pictures import make_pictures
from nnunet_nacl.comparison.spans import make_span_pictures

__all__ = ["draw_figures"]

_ENDINGS = ("png", "svg")


def draw_figures(
    comparison: Comparison, folder: Path, *, relative: tuple[str, str] | None = None, progress: bool = False
) -> list[dict[str, Any]]:
    """Write ``figures/<id>.png`` and ``.svg`` of every figure that the comparison has numbers for.

    Args:
        comparison: The numbers.
        folder: Output folder of the comparison.
        relative: Names of the trainers whose relative difference is drawn, the second against the first; None takes
            the last against the first.
        progress: Show a progress bar on stderr.

    Returns:
        One entry of comparison.json per figure: ``id``, ``dataset``, ``title``, ``caption``, ``alt``, ``files``.
    """
    from tqdm import tqdm

    pictures = [*make_pictures(comparison, relative), *make_span_pictures(comparison)]
    entries = []
    for picture in tqdm(pictures, desc="figures", disable=not progress, leave=False):
        entries.append(_draw(picture, comparison, folder))
    return entries


def _draw(picture: Picture, comparison: Comparison, folder: Path) -> dict[str, Any]:
    files = [f"{FIGURES}/{picture.id}.{ending}" for ending in _ENDINGS]
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    for name in files:
        picture.draw(folder / name, title=picture.title, subtitle=picture.subtitle, notes=tuple(comparison.notes))
    return {
        "id": picture.id,
        "dataset": picture.dataset,
        "title": picture.title,
        "caption": picture.caption,
        "alt": picture.alt,
        "files": files,
    }
