"""`nnunet_nacl_paper figures`: a comparison's tables and figures under the paper's numbers."""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_nacl.metrics.statistics import Interval
from nnunet_nacl_paper.comparison import (
    RANK_METRICS,
    SHORT,
    Comparison,
    Dataset,
    read_comparison,
    relative_difference,
)
from nnunet_nacl_paper.figures import panels, settings
from nnunet_nacl_paper.figures.radar import draw_radar
from nnunet_nacl_paper.files import InputError, replacing
from nnunet_nacl_paper.ranks import ranks_of, write_ranks

HELP = "ranks, and the paper's tables and figures, of what `nnunet_nacl compare` wrote"

_DESCRIPTION = """\
Reads comparison.json in the folder of a comparison and writes, into its folder paper/ (-o),
ranks.csv and case_ranks.csv, copies of the tables, and the figures, as far as the compared
trainers have what they show:
  table_1, table_2  segmentation, calibration (tables 3 and 4: of two priors, of two penalties)
  figure_1          radars of DSC and ECE            figure_8   radars over networks
  figure_2          sum ranks, mean case ranks       figure_9   over the share of the training cases
  figure_6          radars over a setting            figure_10  segmentation against calibration
  figure_7          one method relative to another (-relative)
"""
_TABLES = {1: r"segmentation|overview", 2: r"calibration(?!_masks)|overview"}
"""By number in the paper, how the names of a comparison's tables begin."""

_RELATIVE = (*RANK_METRICS, "ECE:predicted", "ECE:all", "NLL:dilated", "Brier:dilated")
_SCATTER = ("ECE:foreground", "ECE:union", "CECE_mean:foreground", "CECE_mean:union")
Groups = Mapping[str, Mapping[str, str]]
"""By what methods share: setting -> name of the method."""

_MASKS = ("foreground", "union", "dilated", "boundary", "predicted", "all")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "comparison", type=Path, metavar="COMPARISON", help="folder of `nnunet_nacl compare -o`"
    )
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="default: paper/ in it")
    relative = (
        "the two methods of figure 7, B against A, by name or label (default: the last against the"
        " first)"
    )
    parser.add_argument("-relative", metavar=("A", "B"), nargs=2, help=relative)


def run(args: argparse.Namespace) -> int:
    """Writes all that the comparison has."""
    comparison = read_comparison(args.comparison)
    pair = _find_pair(comparison, args.relative)
    folder = args.o or args.comparison / "paper"
    for old in (*folder.glob("table_*"), *folder.glob("figure_*")):
        old.unlink()
    write_ranks(comparison, folder)
    files = [folder / "ranks.csv", folder / "case_ranks.csv"]
    files += copy_tables(comparison, args.comparison, folder)
    files += write_figures(comparison, pair, folder)
    print(f"written: {len(files)} files in {folder}")
    return 0


def _find_pair(comparison: Comparison, asked: list[str] | None) -> tuple[str, str]:
    """Names of the two methods of figure 7.

    Args:
        asked: Their names or labels, as the user gives them; None for the first and the last.
    """
    if asked is None:
        first = comparison.ranked[0]
        second = comparison.ranked[-1]
    else:
        first, second = [_find_method(comparison, text) for text in asked]
    if first == second:
        raise InputError(
            f"-relative needs two different methods, got {comparison.labels[first]} twice."
        )
    return first, second


def _find_method(comparison: Comparison, text: str) -> str:
    """The name of the method that has a name or label."""
    names = {label: name for name, label in comparison.labels.items()}
    for name in comparison.labels:
        names[name] = name
    if text not in names:
        labels = ", ".join(comparison.labels.values())
        raise InputError(f"-relative {text}: not among those compared: {labels}.")
    return names[text]


def copy_tables(comparison: Comparison, source: Path, folder: Path) -> list[Path]:
    """Copy the tables that the paper has, under its numbers; the copies."""
    files = []
    for table in comparison.tables:
        numbers = [number for number, begins in _TABLES.items() if re.match(begins, table.id)]
        for number, name in itertools.product(numbers, table.files):
            files.append(folder / f"table_{number}_{Path(name).name}")
            with replacing(files[-1]) as temporary:
                shutil.copyfile(source / name, temporary)
    return files


def write_figures(comparison: Comparison, pair: tuple[str, str], folder: Path) -> list[Path]:
    """All figures that the comparison has; their files."""
    files: list[Path] = []
    for dataset in comparison.datasets:
        suffix = f"_{dataset.name}" if len(comparison.datasets) > 1 else ""
        figures = _DatasetFigures(comparison, dataset, folder, suffix)
        files += figures.draw_scatter()
        files += figures.draw_relative_difference(pair)
        files += figures.draw_settings()
    for metric in ("Dice", "ECE"):
        files += _draw_overall_radar(comparison, metric, folder)
    return files + list(_draw_rank_heatmaps(comparison, folder))


def _describe(dataset: Dataset) -> str:
    """Name and size of a data set."""
    cases = f"{dataset.name}, {len(dataset.cases)} cases"
    if not dataset.patients:
        return cases
    return f"{cases} of {len(set(dataset.patients.values()))} patients"


@dataclass(frozen=True)
class _DatasetFigures:
    """The figures of one data set.

    Attributes:
        folder: Where they go.
        suffix: Of their names.
    """

    comparison: Comparison
    dataset: Dataset
    folder: Path
    suffix: str

    @property
    def subtitle(self) -> str:
        """What all of them are drawn of."""
        drawn = "patients" if self.dataset.patients else "cases"
        return f"{_describe(self.dataset)}; 95 % bootstrap intervals over {drawn}"

    def path(self, name: str) -> Path:
        """Where a figure goes, without an ending."""
        return self.folder / f"figure_{name}{self.suffix}"

    def draw_scatter(self) -> list[Path]:
        """Figure 10."""
        measures = {}
        for column in _SCATTER:
            points = {}
            for name, label in self.comparison.labels.items():
                dice = self.dataset.interval("Dice", name)
                points[label] = (dice, self.dataset.interval(column, name))
            measures[self.comparison.columns[column].title] = points
        return panels.draw_scatter(
            measures,
            self.path("10_scatter"),
            title="Segmentation and calibration",
            subtitle=self.subtitle,
        )

    def draw_relative_difference(self, pair: tuple[str, str]) -> list[Path]:
        """Figure 7: the second method of a pair against the first."""
        differences = {}
        better = {}
        for key in _RELATIVE:
            column = self.comparison.columns[key]
            title = column.title.removesuffix(f" ({column.unit})")
            reference, values = self.dataset.table(key, pair).T
            differences[title] = relative_difference(
                reference,
                values,
                n_bootstrap=self.comparison.settings.n_bootstrap,
                seed=self.comparison.settings.seed,
                groups=self.dataset.groups,
            )
            better[title] = column.better
        first, second = [self.comparison.labels[name] for name in pair]
        return panels.draw_relative_difference(
            differences,
            self.path("7_relative_difference"),
            better=better,
            title=f"{second} against {first}",
            subtitle=self.subtitle,
        )

    def draw_settings(self) -> Iterator[Path]:
        """Figures 6, 8 and 9, of models that are compared as they are."""
        trainers = {}
        for trainer in self.comparison.trainers:
            if trainer.name == trainer.trainer:
                trainers[trainer.name] = trainer.trainer
        yield from self._draw_training_share(trainers)
        networks = settings.by_network(trainers)
        if networks:
            yield from self._draw_radars(networks, "network", self.path("8_networks"))
        for token, defaults in settings.HYPER.items():
            for shared, values in settings.by_number(trainers, token, defaults).items():
                if len(values) < 3:
                    continue
                points = {f"{token} {value:g}": name for value, name in values.items()}
                path = self.path(f"6_hyper_{token}_{settings.method_of(shared)}")
                yield from self._draw_radars({shared: points}, token, path)

    def _draw_training_share(self, trainers: Mapping[str, str]) -> list[Path]:
        """Figure 9, if methods differ in the share of the training cases."""
        all_cases = {settings.method_of(trainer): 100.0 for trainer in trainers.values()}
        shares = settings.by_number(trainers, "train", all_cases)
        if not shares:
            return []
        lines: dict[str, dict[str, Mapping[float, Interval]]] = {}
        for key in RANK_METRICS:
            lines[SHORT[key]] = {}
            for label, names in zip(settings.short(list(shares)), shares.values()):
                lines[SHORT[key]][label] = {
                    share: self.dataset.interval(key, name) for share, name in names.items()
                }
        return panels.draw_training_share(
            lines,
            self.path("9_training_share"),
            better={SHORT[key]: self.comparison.columns[key].better for key in RANK_METRICS},
            title="Share of the training cases",
            subtitle=self.subtitle,
        )

    def _draw_radars(self, groups: Groups, setting: str, path: Path) -> Iterator[Path]:
        """A radar of DSC and one of ECE.

        Each value of the setting has an axis, each group of methods a polygon.
        """
        axes = list(dict.fromkeys(itertools.chain(*groups.values())))
        for key, ending in (("Dice", "dice"), ("ECE:foreground", "ece")):
            values = {}
            for label, points in zip(settings.short(list(groups)), groups.values()):
                values[label] = [self._mean(key, points.get(value)) for value in axes]
            yield from draw_radar(
                axes,
                values,
                path.with_name(f"{path.name}_{ending}"),
                title=f"{SHORT[key]} by {setting}",
                subtitle=self.subtitle,
                better=self.comparison.columns[key].better,
                metric=self.comparison.columns[key].title,
            )

    def _mean(self, key: str, name: str | None) -> float:
        """A method's mean; NaN where there is none."""
        return np.nan if name is None else self.dataset.mean(key, name)


def _draw_overall_radar(comparison: Comparison, metric: str, folder: Path) -> list[Path]:
    """Figure 1: a polygon a method.

    An axis is a data set where there are three, else a structure or a mask.

    Args:
        metric: ``Dice`` or ``ECE``.
    """
    datasets = comparison.datasets
    key_of_mean = "Dice" if metric == "Dice" else "ECE:foreground"
    spokes: dict[str, tuple[Dataset, str]] = {}
    if len(datasets) >= 3:
        kind = "data set"
        spokes = {dataset.name: (dataset, key_of_mean) for dataset in datasets}
    else:
        kind = "structure" if metric == "Dice" else "mask"
        for dataset in datasets:
            before = f"{dataset.name} " if len(datasets) > 1 else ""
            for key, name in _keys_within(dataset, metric).items():
                spokes[f"{before}{name}"] = (dataset, key)
    values = {}
    for name, label in comparison.labels.items():
        values[label] = [dataset.mean(key, name) for dataset, key in spokes.values()]
    are_comparable = metric == "Dice" and len(datasets) == 1  # the structures of a data set
    return draw_radar(
        list(spokes),
        values,
        folder / f"figure_1_radar_{metric.lower()}",
        title=f"{SHORT[key_of_mean]} by {kind}",
        subtitle="; ".join(_describe(dataset) for dataset in datasets),
        better=comparison.columns[key_of_mean].better,
        metric=SHORT[key_of_mean],
        own_scales=not are_comparable,
    )


def _keys_within(dataset: Dataset, metric: str) -> dict[str, str]:
    """Columns of a metric by structure or mask, with that one's name."""
    if metric == "ECE":
        return {f"ECE:{mask}": mask for mask in _MASKS}
    keys = {f"Dice:{key}": name for key, name in dataset.structures.items()}
    if len(dataset.structures) > 1:
        keys["Dice"] = "mean"
    return keys


def _draw_rank_heatmaps(comparison: Comparison, folder: Path) -> Iterator[Path]:
    """Figure 2: sums of ranks, and mean ranks within a case."""
    sums, within = ranks_of(comparison)
    labels = [comparison.labels[name] for name in sums.index]
    metrics = [*SHORT.values(), "total"]
    notes = ["1 is the best; ECE and CECE on the foreground. The lowest of each column is framed."]
    yield from panels.draw_rank_heatmap(
        labels,
        metrics,
        sums.to_numpy(),
        folder / "figure_2_rank_sum",
        decimals=0,
        title="Sum of ranks",
        notes=notes,
    )
    means = pd.DataFrame(within).map(lambda interval: interval.mean)
    yield from panels.draw_rank_heatmap(
        labels,
        metrics,
        means.to_numpy(),
        folder / "figure_2_rank_mean",
        decimals=2,
        title="Mean rank within a case",
        notes=notes,
    )
