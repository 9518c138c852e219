"""Pictures inside the page: data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

__all__ = ["data_uri", "embed_figure"]

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_LARGEST_SVG = 400_000  # bytes; a drawing with that many points is smaller, and quicker to show, as PNG


def data_uri(content: bytes | str, suffix: str) -> str:
    """A picture as the value of ``src``; ``suffix`` is ``.png`` or ``.svg``."""
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(raw).decode()}"


def embed_figure(folder: Path, files: Sequence[str]) -> str | None:
    """One of the files of a figure, inside ``folder``: SVG unless it is large, else PNG; None where none is there."""
    root = folder.resolve()
    found: dict[str, Path] = {}
    for name in files:
        try:
            path = (root / name).resolve()
        except ValueError:  # no name of a file at all
            continue
        if path.suffix in _TYPES and path.is_file() and path.is_relative_to(root):
            found[path.suffix] = path
    svg, png = found.get(".svg"), found.get(".png")
    if svg and png and svg.stat().st_size > _LARGEST_SVG:
        svg = None
    chosen = svg or png
    return data_uri(chosen.read_bytes(), chosen.suffix) if chosen else None
