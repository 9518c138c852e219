"""Draws the reliability of one trainer on several masks, for docs/compare.md.

    python docs/figures/reliability_figure.py RECORDS [RECORDS ...] -o masks.png

RECORDS is the folder of records that `nnunet_nacl evaluate` or `nnunet_nacl compare` made: one per
fold.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nnunet_nacl.cases.record import CaseRecord, read_record
from nnunet_nacl.comparison.reliability_figure import draw_reliability
from nnunet_nacl.metrics import BinStats, ece
from nnunet_nacl.metrics.statistics import bin_accuracy_bands

MASKS = ("foreground", "predicted", "all")


def draw(cases: list[CaseRecord], path: Path, *, title: str, subtitle: str) -> None:
    """Write the figure, and print the error of each mask: pooled over voxels, and as mean over
    cases.

    Args:
        cases: Of one trainer.
        path: PNG, SVG or PDF.
        title: Heading.
        subtitle: Second line; the number of cases is added.
    """
    pooled = {}
    bands = {}
    for mask in MASKS:
        stats_of_cases = [case.bins[mask] for case in cases]
        pooled[mask] = BinStats.merge(stats_of_cases)
        counts = np.stack([stats.count.sum(axis=0) for stats in stats_of_cases])
        correct = np.stack([stats.correct.sum(axis=0) for stats in stats_of_cases])
        bands[mask] = bin_accuracy_bands(counts, correct, n_bootstrap=10_000, seed=0)
        mean = np.nanmean([ece(stats) for stats in stats_of_cases])
        print(f"{mask}: ECE pooled {ece(pooled[mask]):.3f}, mean over cases {mean:.3f}")
    size = f"{len(cases)} cases"
    if subtitle:
        size = f"{subtitle}, {size}"
    draw_reliability(pooled, path, bands=bands, title=title, subtitle=size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="RECORDS", help="folders of records"
    )
    parser.add_argument("-o", required=True, type=Path, metavar="FILE")
    parser.add_argument("-title", default="One network, three masks")
    parser.add_argument("-subtitle", default="")
    arguments = parser.parse_args()
    cases = []
    for folder in arguments.folders:
        cases += [read_record(path) for path in sorted(folder.glob("*.npz"))]
    draw(cases, arguments.o, title=arguments.title, subtitle=arguments.subtitle)


if __name__ == "__main__":
    main()
