"""Figures of predicted against true Dice, for methods of which `calibrate` learned to predict it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.learned_dice import PredictedDice
from nnunet_nacl.show.figure_choice.described import DescribedFigure
from nnunet_nacl.show.predicted_dice import covered_cases, draw_predicted_dice

__all__ = ["PREDICTED_DICE", "quality_figures"]

PREDICTED_DICE = "predicted_dice"  # with this their ids begin


def quality_figures(
    comparison: Comparison, predicted: Mapping[str, Mapping[str, PredictedDice]]
) -> Iterator[DescribedFigure]:
    """One figure for each data set and method, a panel for each structure.

    Args:
        comparison: What was computed.
        predicted: By data set and method.
    """
    several = len(comparison.datasets) > 1
    for dataset in comparison.datasets:
        for number, entry in enumerate(comparison.entries, 1):
            found = predicted.get(dataset.name, {}).get(entry.name)
            if found is None:
                continue
            names = list(dataset.structures.values())
            true = [[case.dice[key] for case in dataset.results[entry.name]] for key in dataset.structures]
            estimate, low, high = (
                [values[key].tolist() for key in dataset.structures]
                for values in (found.estimate, found.low, found.high)
            )
            counted = zip(names, (covered_cases(*lines) for lines in zip(true, low, high)))
            level = f"{100 * found.level:g} %"
            caption = (
                "Dice predicted from the probabilities, by what other cases taught, against the true Dice; bars: "
                f"{level} intervals. A case outside its interval has a marker of its own."
                + "".join(f" {text[:1].upper()}{text[1:]}." for text in found.reservations)
            )
            inside = ", ".join(f"{name} {a} of {n} cases" for name, (a, n) in counted)
            draw = partial(draw_predicted_dice, names, estimate, true, low, high, level=found.level)
            suffix = f"_{number}" + (f"_{dataset.name}" if several else "")
            title = f"Predicted Dice: {entry.label}"
            alt = f"Predicted against true Dice of {entry.label}. Within their {level} interval: {inside}."
            yield DescribedFigure(f"{PREDICTED_DICE}{suffix}", title, dataset.where, caption, alt, draw, dataset.name)
