"""Figure of losses.md: validation loss and Dice by epoch, a column for each setting.

    python docs/results/figures_losses.py FIGURE.png study/DATASET/TRAINER ...

Losses are drawn as a share of their own range, since those of different formulas have no common scale; Dice is what
nnU-Net measures on patches while training. The last two fifths, whose means tell whether a loss is flat, are shaded.
Lines of one colour are trainings with other seeds. Structures that no network begins to find are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from losses_values import BEGUN, settings

from nnunet_nacl.show.layout import PALE, SMALL_SIZE, figure_settings, line_look, save_figure, wrap

LOSS = "validation loss"


def share_of_range(values: np.ndarray) -> np.ndarray:
    """0 at the lowest, 1 at the highest of them; all 0 where they are equal."""
    return (values - values.min()) / (np.ptp(values) or 1.0)


def draw(folders: list[Path], path: Path) -> None:
    """Write the figure."""
    curves = {
        title: {loss: [one.curves for one in own] for loss, own in of_loss.items()}
        for title, of_loss in settings(folders).items()
    }
    tables = [one for of_loss in curves.values() for own in of_loss.values() for one in own]
    columns = dict.fromkeys(name for table in tables for name in table if name.startswith("Dice "))
    rows = [LOSS, *(name for name in columns if any((table.get(name, 0) > BEGUN).any() for table in tables))]
    looks = {loss: line_look(i) for i, loss in enumerate(dict.fromkeys(loss for of in curves.values() for loss in of))}
    size = (2.2 * len(curves) + 0.8, 1.5 * len(rows) + 1.0)
    figure, axes = plt.subplots(
        len(rows), len(curves), figsize=size, sharex="col", sharey="row", squeeze=False, layout="constrained"
    )
    for column, (title, of_loss) in zip(axes.T, curves.items()):
        column[0].set_title(wrap(title.replace(" (", "\n("), 2.2, SMALL_SIZE), fontsize=SMALL_SIZE)
        column[-1].set_xlabel("epoch")
        for name, axis in zip(rows, column):
            for loss, own in of_loss.items():
                for i, table in enumerate(own):
                    if name in table:
                        values = table[name].to_numpy()
                        drawn = share_of_range(values) if name == LOSS else values
                        axis.plot(
                            table.index, drawn, **{**looks[loss], "linewidth": 1.0, "alpha": 1 if i == 0 else 0.5}
                        )
            epochs = max(len(table) for own in of_loss.values() for table in own)
            axis.axvspan(epochs - 2 * (epochs // 5), epochs - 1, color=PALE, zorder=0)
    for name, axis in zip(rows, axes[:, 0]):
        axis.set_ylabel(
            f"{LOSS},\nshare of its range" if name == LOSS else name.replace(" ", "\n", 1), fontsize=SMALL_SIZE
        )
    axes[0, 0].set_ylim(-0.02, 0.5)  # the first epochs are above
    handles = [plt.Line2D([], [], label=loss, **look) for loss, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    with figure_settings():
        draw([folder.resolve() for folder in arguments.folders], arguments.figure)


if __name__ == "__main__":
    main()
