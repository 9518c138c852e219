"""Figures for trainers that differ in one setting: share of the training cases, or a hyper-parameter of the loss."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.columns import RANK_METRICS
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.entries import Entry, short_labels, variant_of
from nnunet_nacl.registration.grammar import TOKENS, Variant, format_name
from nnunet_nacl.show.figure_choice.described import DescribedFigure, describe, intervals_over, listed
from nnunet_nacl.show.radar import draw_radar
from nnunet_nacl.show.training_share import draw_training_share

_OF_PLANS = ("kernel_size", "network")
_HYPER = {token.field: token.name for token in TOKENS if token.is_number and token.methods}


def figures_over_settings(comparison: Comparison) -> Iterator[DescribedFigure]:
    """Lines over the training share (paper fig. 9), radars over networks (fig. 8) and over hyper-parameters (fig. 6).

    Each where trainers span it.
    """
    for dataset in comparison.datasets:
        if shares := entries_over(comparison.entries, "train_percent"):
            yield _training_share(comparison, dataset, shares)
        if networks := entries_over(comparison.entries, "network"):
            axes = {network: network or "nnU-Net's" for points in networks.values() for network in points}
            yield from _radars(comparison, dataset, "networks", "network", axes, networks)
        for field, name in _HYPER.items():
            for method, points in entries_over(comparison.entries, field).items():
                if len(points) >= 3:
                    axes = {value: f"{name} {'of the plans' if value is None else f'{value:g}'}" for value in points}
                    kind = f"hyper_{field}_{re.sub('[^A-Za-z0-9]+', '-', method).strip('-')}"
                    yield from _radars(comparison, dataset, kind, name, axes, {method: points})


def entries_over(entries: Sequence[Entry], field: str) -> dict[str, dict[Any, Entry]]:
    """Entries that differ in one setting only.

    Args:
        entries: Those compared.
        field: Attribute of :class:`~nnunet_nacl.registration.grammar.Variant`.

    Returns:
        Label of what they share -> value of the setting -> trainer, values in order; groups of at least two values.
        None stands for what the plans decide (kernel size, network).
    """
    groups: dict[Variant, dict[Any, Entry]] = {}
    for entry in entries:
        trainer = None if entry.path or entry.treatment else entry.trainer
        variant = None if trainer is None else variant_of(trainer)
        if variant is None:
            continue  # a repeated training is no other setting, nor is what is done after it
        value = getattr(variant, field)
        if value is None:
            value = _default(variant, field)
            if value is None and field not in _OF_PLANS:
                continue
        unset: dict[str, Any] = {field: None}
        groups.setdefault(replace(variant, **unset), {})[value] = entry
    groups = {base: points for base, points in groups.items() if len(points) >= 2}
    labels = short_labels([_name(base) for base in groups])
    return {
        label: dict(sorted(points.items(), key=lambda item: (item[0] is not None, item[0])))
        for label, points in zip(labels, groups.values())
    }


def _name(variant: Variant) -> str:
    try:
        return format_name(variant)
    except ValueError:  # a setting that needs the one left out, such as gaussian without its sigma's default
        return f"nnUNetTrainer{variant.method}"


def _default(variant: Variant, field: str) -> float | None:
    token = next(token for token in TOKENS if token.field == field)
    if field == "sigma" and variant.method == "NACL" and variant.prior is None:
        return None  # the mean prior has no width
    return token.defaults.get(variant.method)


def _training_share(
    comparison: Comparison, dataset: Dataset, groups: Mapping[str, Mapping[float, Entry]]
) -> DescribedFigure:
    titles = comparison.columns_of(dataset)
    panels = {
        titles[column_id].title: {
            label: {share: comparison.means[dataset.name, column_id, entry.name] for share, entry in points.items()}
            for label, points in groups.items()
        }
        for column_id in RANK_METRICS
    }
    better = {titles[column_id].title: titles[column_id].better for column_id in RANK_METRICS}
    sentences = [
        f"{title} of {label}: {listed((f'{share:g} %', one.mean) for share, one in line.items())}"
        for title, lines in panels.items()
        for label, line in lines.items()
    ]
    caption = (
        "Mean over cases against the share of the fold's training cases that was used, with "
        f"{intervals_over(dataset)}. The validation cases are the same for all."
    )
    draw = partial(draw_training_share, panels, better=better)
    title, alt = "Share of the training cases", f"{'; '.join(sentences)}."
    return describe(comparison, dataset, "training_share", title, caption, alt, draw, intervals=True)


def _radars(
    comparison: Comparison,
    dataset: Dataset,
    kind: str,
    setting: str,
    axes: Mapping[Any, str],
    groups: Mapping[str, Mapping[Any, Entry]],
) -> Iterator[DescribedFigure]:
    """A radar of DSC and one of ECE, an axis for each value of a setting, a line for each group of trainers."""
    for metric, column_id, short in (("dice", "Dice", "DSC"), ("ece", "ECE:foreground", "ECE foreground")):
        values = {
            label: [
                comparison.mean(dataset, column_id, points[value].name) if value in points else math.nan
                for value in axes
            ]
            for label, points in groups.items()
        }
        alt = "; ".join(f"{short} of {label}: {listed(zip(axes.values(), found))}" for label, found in values.items())
        what = next(iter(groups)) if len(groups) == 1 else "each method"
        caption = f"{short} (mean over cases) of {what} by {setting}, all else equal. Outward is better."
        better = comparison.columns[column_id].better
        draw = partial(draw_radar, list(axes.values()), values, better=better, metric=short)
        yield describe(comparison, dataset, f"{kind}_{metric}", f"{short} by {setting}", caption, f"{alt}.", draw)
