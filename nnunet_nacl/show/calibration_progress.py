"""Calibration and Dice of nnU-Net's validation batches while networks train."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from typing_extensions import Unpack

from nnunet_nacl.show.layout import Frame, figure_settings, line_look, new_panels, write_figure

ECE_KEY, NLL_KEY = "val_ece_foreground", "val_nll"
"""Names in nnU-Net's logger, beside its own."""

_PANELS = {ECE_KEY: "ECE of the foreground", NLL_KEY: "NLL", "mean_fg_dice": "Dice"}
_PANEL = 2.9, 3.1  # inches
_LAST = 5  # epochs whose mean is told: a single one, of a few patches, tells little


@figure_settings()
def draw_calibration_progress(
    trainings: Mapping[str, Mapping[str, Sequence[float]]], path: str | os.PathLike, **frame: Unpack[Frame]
) -> Path:
    """Draw calibration and Dice over the epochs, a line for each training.

    Args:
        trainings: By the name that the legend shows, what a checkpoint of nnU-Net has under ``logging``: lists with a
            value per epoch. Values that are NaN, and keys that a training lacks, leave gaps.
        path, frame: As in :func:`~nnunet_nacl.show.layout.write_figure`, as are the path returned and its errors.
    """
    body, panels = new_panels(len(_PANELS), _PANEL)
    means: dict[str, list[str]] = {name: [] for name in trainings}
    for axes, (key, title) in zip(panels, _PANELS.items()):
        highest = 0.0
        for i, (name, logged) in enumerate(trainings.items()):
            values = np.array(logged.get(key, ()), dtype=float)
            # through few points a line would not be seen without markers
            axes.plot(values, marker="o" if len(values) <= 10 else "", gid=f"{key} {name}", **line_look(i))
            highest = max(highest, np.nan_to_num(values[len(values) // 10 :], posinf=0).max(initial=0))
            last = values[-_LAST:][np.isfinite(values[-_LAST:])]
            means[name] += [f"{title} {last.mean():.4f}"] if len(last) else []
        axes.set_title(title, loc="left")
        axes.set(xlabel="epoch", ylim=(0, 1 if key == "mean_fg_dice" else 1.1 * highest or 1))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.grid(True)
    legend = [
        Line2D([], [], **line_look(i), label=": ".join(filter(None, (name, ", ".join(means[name])))))
        for i, name in enumerate(trainings)
    ]
    remark = (
        f"Random patches of the validation cases; numbers are means of the last {_LAST} epochs. The first tenth of the "
        "epochs may run out of the picture."
    )
    heading: Frame = {"title": "Calibration while training", "dpi": 110, **frame}
    return write_figure(body, path, legend=legend, remarks=[remark], **heading)
