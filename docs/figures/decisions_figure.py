"""Draws decisions.png: labels of nnU-Net's argmax and of tuned networks beside the truth.

    python docs/figures/decisions_figure.py IMAGES ARGMAX TUNED TRUTH CASE...

IMAGES holds CASE_0000.nii.gz; ARGMAX and TUNED what `nnUNetv2_predict` made of them with
checkpoint_final.pth and with checkpoint_tuned.pth; TRUTH the label maps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

DOCS = Path(__file__).resolve().parents[1]
RIMS = {"truth": "white", "argmax": "#E69F00", "tuned": "#56B4E9"}
"""Colour of each label map, drawn in this order."""


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def draw_case(axes: Axes, image: np.ndarray, label_maps: dict[str, np.ndarray]) -> None:
    """The slice in which argmax and tuned labels differ most."""
    differing = label_maps["argmax"] != label_maps["tuned"]
    index = differing.sum(axis=(1, 2)).argmax()
    axes.imshow(image[index], cmap="gray", interpolation="nearest")
    for name, colour in RIMS.items():
        if label_maps[name][index].any():
            axes.contour(label_maps[name][index] > 0, [0.5], colors=colour, linewidths=1.5)
    axes.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("images", "argmax", "tuned", "truth"):
        parser.add_argument(name, type=Path)
    parser.add_argument("cases", nargs="+")
    args = parser.parse_args()
    figure = Figure(figsize=(3 * len(args.cases), 3.4), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(args.cases)))
    folders = {"truth": args.truth, "argmax": args.argmax, "tuned": args.tuned}
    for axes, case in zip(panels, args.cases):
        label_maps = {name: read(folder / f"{case}.nii.gz") for name, folder in folders.items()}
        draw_case(axes, read(args.images / f"{case}_0000.nii.gz"), label_maps)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in RIMS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, facecolor="0.6")
    figure.savefig(DOCS / "images" / "decisions.png", dpi=100)


if __name__ == "__main__":
    main()
