"""Fills the tables of README.md and docs/ from results.csv, and draws their figures.

    python research/results/render.py [--check]

A table of tables.py stands between `<!-- table: NAME -->` and `<!-- end -->`. With `--check`
nothing is written: exit status 1 if a page or figure is not what would be written, as after a row
of results.csv was changed or removed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from rows import HERE, read_csv, results
from scans import AS_TRAINED, BEST, ENTROPY, MEMBERS, PREDICTED, PRESENCE, orders_of
from study import MAP, RAW
from tables import CASES, TABLES, Values

from nnunet_nacl.metrics.risk_coverage import selective_risks
from nnunet_nacl.utilities.files import write_atomically

ROOT = HERE.parents[1]
IMAGES = ROOT / "docs" / "images"
TABLE = re.compile(r"(<!-- table: (\w+) -->)\n(.*?)(<!-- end -->)", re.DOTALL)
BAD = 0.5
"""Dice below which a scan is bad in the figures."""


def draw_reliability(axes: Sequence[Axes]) -> None:
    """Share of segmented voxels that are right, by confidence."""
    draw_curves(axes, "lidc_curve_reliability.csv", "accuracy")
    axes[0].set_ylabel("share of segmented voxels that are right")
    axes[0].legend()


def draw_raters(axes: Sequence[Axes]) -> None:
    """Share of the raters who marked a voxel, by confidence."""
    draw_curves(axes, "lidc_curve_raters.csv", "raters")
    axes[0].set_ylabel("share of the four raters who marked the voxel")
    axes[0].legend()


def draw_curves(axes: Sequence[Axes], file: str, share: str) -> None:
    """A column of a table by confidence, as trained and with a map; a panel a kind of cases."""
    curves = read_csv(file)
    for axis, (cases, title) in zip(axes, CASES.items()):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for method, colour in ((RAW, "tab:red"), (MAP, "tab:blue")):
            rows = curves[(curves.cases == cases) & (curves.method == method)]
            axis.fill_between(
                rows.confidence, rows.low, rows.high, color=colour, alpha=0.2, linewidth=0
            )
            axis.plot(rows.confidence, rows[share], ".-", color=colour, label=method)
        axis.set(
            title=f"{title} cases", xlabel="confidence", xlim=(0, 1), ylim=(0, 1), aspect="equal"
        )


def draw_patients(axes: Sequence[Axes]) -> None:
    """What a list finds and flags that was learned from few patients."""
    draws = read_csv("lidc_curve_patients.csv")
    # colour, and how far to the right
    looks = {"outer": ("tab:blue", -0.17), "folds": ("tab:orange", 0.18)}
    for axis, name in zip(axes, ("found", "flagged")):
        for cases, title in CASES.items():
            own = draws[(draws.cases == cases) & draws[name].notna()]
            sizes = sorted(own.patients.unique())
            if not sizes:
                continue
            colour, shift = looks[cases]
            axis.boxplot(
                [own[own.patients == size][name] for size in sizes],
                positions=np.arange(len(sizes)) + shift,
                widths=0.3,
                whis=(5, 95),
                showfliers=False,
                label=f"{title} cases",
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.5},
            )
            axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set(xlabel="calibration patients", ylim=(0, 1), title=f"share {name}")
    axes[0].axhline(0.9, color="0.5", linestyle=":")
    axes[0].legend(loc="lower right")


def draw_orders(axes: Sequence[Axes]) -> None:
    """Share of the bad scans found, by how many are looked at in an order."""
    scans = read_csv("lidc_scans.csv")
    for axis, (cases, title) in zip(axes, CASES.items()):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        own = scans[scans.cases == cases]
        if own.empty:
            continue
        orders = orders_of(own)
        for name in (PREDICTED, AS_TRAINED, ENTROPY):
            in_order = np.argsort(orders[name], kind="stable")
            bad = (orders.Dice < BAD).iloc[in_order].to_numpy()
            axis.plot(np.arange(1, len(bad) + 1) / len(bad), bad.cumsum() / bad.sum(), label=name)
        axis.set(
            title=f"{title} cases",
            xlabel="share of scans looked at",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
    axes[0].set_ylabel("share of bad scans found")
    axes[0].legend()


def draw_risk_coverage(axes: Sequence[Axes]) -> None:
    """Mean 1 - Dice of the scans that an order trusts most, by the share that these are."""
    scans = read_csv("lidc_scans.csv")
    colours = {
        PREDICTED: "tab:blue",
        ENTROPY: "tab:green",
        MEMBERS: "tab:red",
        PRESENCE: "tab:purple",
        BEST: "0.5",
    }
    for axis, (cases, title) in zip(axes, CASES.items()):
        own = scans[scans.cases == cases]
        if own.empty:
            continue
        orders = orders_of(own).dropna(subset="Dice")
        orders[BEST] = orders.Dice
        risk = 1 - orders.Dice.to_numpy()
        coverage = np.arange(1, len(risk) + 1) / len(risk)
        for name, colour in colours.items():
            if name in orders:  # no members before the ensemble
                curve = selective_risks(orders[name], risk)
                axis.plot(coverage, curve, color=colour, label=name)
        axis.axhline(risk.mean(), color="0.7", linewidth=1)
        axis.set(
            title=f"{title} cases",
            xlabel="share of scans kept, most trusted first",
            xlim=(0, 1),
            ylim=(0, 0.6),
        )
    axes[0].set_ylabel("mean 1 - Dice of the scans kept")
    axes[0].legend(loc="lower right")


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of the pages.

    Attributes:
        name: Of the file in docs/images.
        draw: What draws its two panels.
        source: Table of this folder that it shows.
    """

    name: str
    draw: Callable[[Sequence[Axes]], None]
    source: str

    @property
    def path(self) -> Path:
        """The image."""
        return IMAGES / f"{self.name}.png"

    @property
    def digest(self) -> str:
        """Of the table as it is now."""
        table = HERE / self.source
        return hashlib.sha256(table.read_bytes() if table.is_file() else b"").hexdigest()

    @property
    def is_up_to_date(self) -> bool:
        """Whether the image was drawn from the table as it is now."""
        return self.path.is_file() and Image.open(self.path).info.get("Source") == self.digest

    def write(self) -> None:
        """Draw the figure; without its table nothing is drawn."""
        if not (HERE / self.source).is_file():
            return
        figure = Figure((9, 4.6), layout="constrained")
        self.draw(figure.subplots(1, 2))
        figure.savefig(self.path, dpi=110, metadata={"Source": self.digest})


FIGURES = (
    DrawnFigure("results_reliability", draw_reliability, "lidc_curve_reliability.csv"),
    DrawnFigure("results_raters", draw_raters, "lidc_curve_raters.csv"),
    DrawnFigure("results_patients", draw_patients, "lidc_curve_patients.csv"),
    DrawnFigure("results_list", draw_orders, "lidc_scans.csv"),
    DrawnFigure("results_risk_coverage", draw_risk_coverage, "lidc_scans.csv"),
)


@dataclass(frozen=True)
class Page:
    """A page that has tables: its path, its text as it is, and as it is with the tables of
    results.csv."""

    path: Path
    text: str
    filled: str


def pages(values: Values) -> Iterator[Page]:
    """Each page that has a table."""

    def filled_table(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        return "\n".join([begin, *TABLES[name](values), end])

    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if TABLE.search(text):
            yield Page(path, text, TABLE.sub(filled_table, text))


def main() -> int:
    """Write, or check, all pages and figures; exit status 1 if a check finds a difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit status 1 if something would change",
    )
    only_check = parser.parse_args().check
    outdated_pages = [page for page in pages(Values(results())) if page.text != page.filled]
    outdated_figures = [figure for figure in FIGURES if not figure.is_up_to_date]
    if not only_check:
        for page in outdated_pages:
            write_atomically(page.path, page.filled)
        for figure in outdated_figures:
            figure.write()
    paths = [page.path for page in outdated_pages] + [figure.path for figure in outdated_figures]
    if not paths:
        print("all as results.csv has it")
        return 0
    for path in paths:
        print(f"{'differs' if only_check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if only_check else 0


if __name__ == "__main__":
    sys.exit(main())
