"""Writes the badges of the README, docs/images/badge_*.svg, from the installed package's metadata.
Nothing is fetched.

python tools/write_badges.py [FOLDER]
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import metadata
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
_CHARACTER, _MARGIN = 6.5, 6  # pixels
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{left}: {right}">
<rect width="{width}" height="20" rx="3" fill="#555"/>
<path d="M{middle} 0h{rest}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{rest}z" fill="#00695c"/>
<g fill="#fff" font-family="Verdana, 'DejaVu Sans', sans-serif" font-size="11">
<text x="{margin}" y="14" textLength="{left_width}">{left}</text>
<text x="{right_at}" y="14" textLength="{right_width}">{right}</text>
</g>
</svg>
"""


def badge(left: str, right: str) -> str:
    """SVG of two words side by side."""
    left_width, right_width = (round(_CHARACTER * len(text)) for text in (left, right))
    middle = left_width + 2 * _MARGIN
    width = middle + right_width + 2 * _MARGIN
    return _SVG.format(
        left=left,
        right=right,
        width=width,
        middle=middle,
        rest=width - middle - 3,
        margin=_MARGIN,
        left_width=left_width,
        right_at=middle + _MARGIN,
        right_width=right_width,
    )


def badges() -> dict[str, str]:
    """Content of each file by its name."""
    known = metadata("nnunet_nacl")
    oldest = re.search(r"[\d.]+", known["Requires-Python"])[0]
    (nnunet,) = (each for each in known.get_all("Requires-Dist") if each.startswith("nnunetv2"))
    licence = known["License-Expression"] or known["License"]
    words = {
        "licence": licence,
        "python": f"{oldest} or newer",
        "nnunet": f"{re.search(r'>=([0-9.]+)', nnunet)[1]} or newer",
    }
    titles = {"licence": "licence", "python": "Python", "nnunet": "nnU-Net"}
    return {f"badge_{name}.svg": badge(titles[name], text) for name, text in words.items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    for name, content in badges().items():
        (folder / name).write_text(content, encoding="utf-8")
