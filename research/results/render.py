"""Fills the tables of README.md and docs/ from results.csv, and draws their figures.

    python research/results/render.py [--check]

A table of tables.py stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check` nothing is written: exit
status 1 if a page or figure is not what would be written, as after a row of results.csv was changed or removed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import ORDERS, orders_of
from rows import HERE, read_csv, results
from tables import CASES, TABLES, Values

from nnunet_nacl.files import write_atomically

ROOT = HERE.parents[1]
IMAGES = ROOT / "docs" / "images"


def _draw_reliability(axes: Any, file: str = "curve_reliability.csv", y: str = "accuracy") -> None:
    curves = read_csv(file)
    for axis, (cases, title) in zip(axes, CASES.items()):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for method, colour in (("as trained", "tab:red"), ("map", "tab:blue")):
            rows = curves[(curves.cases == cases) & (curves.method == method)]
            axis.fill_between(rows.confidence, rows.low, rows.high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(rows.confidence, rows[y], ".-", color=colour, label=method)
        axis.set(title=f"{title} cases", xlabel="confidence", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    raters = "share of the four raters who marked the voxel"
    axes[0].set_ylabel(raters if y == "raters" else "share of segmented voxels that are right")
    axes[0].legend()


def _draw_raters(axes: Any) -> None:
    _draw_reliability(axes, "curve_raters.csv", "raters")


def _draw_patients(axes: Any) -> None:
    draws = read_csv("curve_patients.csv")
    for axis, name in zip(axes, ("found", "flagged")):
        for offset, (cases, title) in enumerate(CASES.items()):
            own = draws[(draws.cases == cases) & draws[name].notna()]
            sizes = sorted(own.patients.unique())
            groups = [own[own.patients == size][name] for size in sizes]
            if not groups:
                continue
            at, colour = np.arange(len(sizes)) + 0.35 * offset - 0.17, ("tab:blue", "tab:orange")[offset]
            style = {"patch_artist": True, "boxprops": {"facecolor": colour, "alpha": 0.5}, "whis": (5, 95)}
            axis.boxplot(groups, positions=at, widths=0.3, showfliers=False, label=f"{title} cases", **style)
            axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set(xlabel="calibration patients", ylim=(0, 1), title=f"share {name}")
    axes[0].axhline(0.9, color="0.5", linestyle=":")
    axes[0].legend(loc="lower right")


def _draw_orders(axes: Any) -> None:
    scans = read_csv("lidc_scans.csv")
    for axis, (cases, title) in zip(axes, CASES.items()):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        if (own := scans[scans.cases == cases]).empty:
            continue
        orders = orders_of(own)
        for name in (ORDERS[0], ORDERS[2], ORDERS[3]):
            bad = (orders.Dice < 0.5).iloc[np.argsort(orders[name], kind="stable")].to_numpy()
            axis.plot(np.arange(1, len(bad) + 1) / len(bad), bad.cumsum() / bad.sum(), label=name)
        axis.set(title=f"{title} cases", xlabel="share of scans looked at", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes[0].set_ylabel("share of bad scans found")
    axes[0].legend()


FIGURES: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "results_reliability": (_draw_reliability, ("curve_reliability.csv",)),
    "results_raters": (_draw_raters, ("curve_raters.csv",)),
    "results_patients": (_draw_patients, ("curve_patients.csv",)),
    "results_list": (_draw_orders, ("lidc_scans.csv",)),
}
"""By file in docs/images: what draws it, and the tables of this folder that it shows."""


def figures(check: bool) -> Iterator[str]:
    """Draw what is not of these tables; gives the names of what is, or with `check` would be, drawn."""
    from PIL import Image

    for name, (draw, sources) in FIGURES.items():
        path, digest = IMAGES / f"{name}.png", hashlib.sha256()
        for source in sources:
            digest.update((HERE / source).read_bytes() if (HERE / source).is_file() else b"")
        if path.is_file() and Image.open(path).info.get("Source") == digest.hexdigest():
            continue
        yield str(path.relative_to(ROOT))
        if not check and all((HERE / source).is_file() for source in sources):
            from matplotlib.figure import Figure

            figure = Figure((9, 4.6), layout="constrained")
            draw(figure.subplots(1, 2))
            figure.savefig(path, dpi=110, metadata={"Source": digest.hexdigest()})


def pages(values: Values) -> Iterator[tuple[Path, str, str]]:
    """Each page that has a table: its path, its text, and its text with the tables of these values."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")

        def filled(match: re.Match[str]) -> str:
            return "\n".join([match[1], *TABLES[match[2]](values), match[4]])

        new = re.sub(r"(<!-- table: (\w+) -->)\n(.*?)(<!-- end -->)", filled, text, flags=re.DOTALL)
        if "<!-- table: " in text:
            yield path, text, new


def main() -> int:
    """Write, or check, all pages and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something would change")
    check, changed = parser.parse_args().check, []
    for path, old, new in pages(Values(results())):
        if old != new:
            changed.append(str(path.relative_to(ROOT)))
            if not check:
                write_atomically(path, new)
    changed += figures(check)
    print("\n".join(f"{'differs' if check else 'written'}: {name}" for name in changed) or "all as results.csv has it")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
