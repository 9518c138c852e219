"""Draws uncertainty maps over the scan, one row a case, for docs/predict.md.

    python docs/figures/uncertainty_figure.py REVIEW SCANS CASE [CASE ...] -labels LABELS -o
    uncertainty.png

REVIEW is the output of `nnunet_nacl predict -maps` with several folds, SCANS and LABELS are
nnU-Net's imagesTr and labelsTr.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

# of the structures; Okabe and Ito's, told apart by the colour-blind
COLOURS = ("#56b4e9", "#e69f00")


def read(path: Path, where: sitk.Image) -> np.ndarray:
    """The image at the voxels of another one, found by position in space as a viewer does."""
    image = sitk.ReadImage(str(path))
    resampled = sitk.Resample(image, where, sitk.Transform(), sitk.sitkLinear)
    return sitk.GetArrayFromImage(resampled)


def largest_slice(truth: np.ndarray) -> int:
    """The slice that shows most of both structures."""
    first = (truth == 1).sum((1, 2))
    second = (truth == 2).sum((1, 2))
    return int((first * second).argmax())


def draw_case(axes, review: Path, scans: Path, labels: Path, row: dict[str, str]) -> None:
    """One row of the figure: the scan with both outlines, then the maps over it."""
    case = row["case"]
    where = sitk.ReadImage(str(review / f"{case}.nii.gz"))
    predicted = sitk.GetArrayFromImage(where)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels / f"{case}.nii.gz")))
    scan = read(scans / f"{case}_0000.nii.gz", where)
    maps = review / "maps" / case
    entropy = read(maps / f"{case}_entropy.nii.gz", where)
    information = read(maps / f"{case}_mutual_information.nii.gz", where)
    slice_ = largest_slice(truth)

    for axis in axes:
        axis.imshow(scan[slice_], cmap="gray", origin="lower")
        axis.set_xticks([])
        axis.set_yticks([])
    for label, colour in enumerate(COLOURS, 1):
        for mask, style in ((predicted == label, "solid"), (truth == label, "dotted")):
            if mask[slice_].any():
                axes[0].contour(
                    mask[slice_], [0.5], colors=colour, linestyles=style, linewidths=1.8
                )
    axes[0].set_ylabel(f"rank {row['rank']}: {case}", fontsize=9)
    for axis, values, most in ((axes[1], entropy, 1.0), (axes[2], information, 0.2)):
        shown = axis.imshow(
            values[slice_],
            cmap="inferno",
            origin="lower",
            vmin=0,
            vmax=most,
            alpha=(values[slice_] / most).clip(0, 1),
        )
        shown = plt.cm.ScalarMappable(shown.norm, shown.cmap)  # the bar without the transparency
        axis.figure.colorbar(shown, ax=axis, shrink=0.85)
    axes[1].set_xlabel(
        f"mean over the prediction {float(row['mean_foreground_entropy']):.2f}", fontsize=9
    )
    axes[2].set_xlabel(
        f"mean over the prediction {float(row['mean_foreground_mutual_information']):.3f}",
        fontsize=9,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("review", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("-labels", type=Path, required=True)
    parser.add_argument("-o", type=Path, default=Path("uncertainty.png"))
    args = parser.parse_args()

    rows = {}
    with open(args.review / "scans.csv", encoding="utf-8") as file:
        for rank, row in enumerate(csv.DictReader(file), 1):
            rows[row["case"]] = {**row, "rank": str(rank)}
    figure, axes = plt.subplots(
        len(args.cases), 3, figsize=(9, 3.6 * len(args.cases)), squeeze=False, layout="constrained"
    )
    titles = ("prediction solid, truth dotted", "entropy", "mutual information")
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=10)
    for row_axes, case in zip(axes, args.cases):
        draw_case(row_axes, args.review, args.scans, args.labels, rows[case])
    figure.savefig(args.o, dpi=100)


if __name__ == "__main__":
    main()
