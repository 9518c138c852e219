"""`nnunet_nacl_paper figures`: a comparison's tables and figures under the numbers that they have
in the paper."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
  table_1, table_2  discrimination, calibration (tables 3 and 4: of two priors, of two penalties)
  figure_1          radars of DSC and ECE            figure_8   radars over networks
  figure_2          sum ranks, mean case ranks       figure_9   over the share of the training cases
  figure_6          radars over a setting            figure_10  discrimination against calibration
  figure_7          one method relative to another (-relative)
"""
_TABLES = {r"discrimination|overview": 1, r"calibration(?!_masks)|overview": 2}
_RELATIVE = (*RANK_METRICS, "ECE:predicted", "ECE:all", "NLL:dilated", "Brier:dilated")
_SCATTER = ("ECE:foreground", "ECE:union", "CECE_mean:foreground", "CECE_mean:union")
Place = Callable[[str], Path]
Groups = Mapping[str, Mapping[str, str]]
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
    pair = _pair(comparison, args.relative)
    folder = args.o or args.comparison / "paper"
    for old in (*folder.glob("table_*"), *folder.glob("figure_*")):
        old.unlink()
    write_ranks(comparison, folder)
    files = [folder / "ranks.csv", folder / "case_ranks.csv"]
    for table in comparison.tables:
        for number in [
            number for begins, number in _TABLES.items() if re.match(begins, table["id"])
        ]:
            for name in table["files"]:
                files.append(folder / f"table_{number}_{Path(name).name}")
                with replacing(files[-1]) as temporary:
                    shutil.copyfile(args.comparison / name, temporary)
    files += write_figures(comparison, pair, folder)
    print(f"written: {len(files)} files in {folder}")
    return 0


def _pair(comparison: Comparison, asked: list[str] | None) -> tuple[str, str]:
    names = {label: name for name, label in comparison.labels.items()} | {
        name: name for name in comparison.labels
    }
    for text in asked or ():
        if text not in names:
            raise InputError(
                f"-relative {text}: not among those compared:"
                f" {', '.join(comparison.labels.values())}."
            )
    first, second = (
        (names[text] for text in asked) if asked else (comparison.ranked[0], comparison.ranked[-1])
    )
    if first == second:
        raise InputError(
            f"-relative needs two different methods, got {comparison.labels[first]} twice."
        )
    return first, second


def write_figures(comparison: Comparison, pair: tuple[str, str], folder: Path) -> list[Path]:
    """All figures that the comparison has; their files."""
    files: list[Path] = []
    for dataset in comparison.datasets:
        suffix, frame = (
            f"_{dataset.name}" if len(comparison.datasets) > 1 else "",
            {"subtitle": _where(dataset)},
        )

        def place(name: str, suffix: str = suffix) -> Path:
            return folder / f"figure_{name}{suffix}"

        files += _scatter(comparison, dataset, place, frame)
        files += _relative(comparison, dataset, pair, place, frame)
        files += _over_settings(comparison, dataset, place, frame)
    for metric in ("Dice", "ECE"):
        files += _radar(comparison, metric, folder)
    return files + list(_rank_heatmaps(comparison, folder))


def _where(dataset: Dataset) -> str:
    patients = f" of {len(set(dataset.patients.values()))} patients" if dataset.patients else ""
    over = "patients" if dataset.patients else "cases"
    return (
        f"{dataset.name}, {len(dataset.cases)} cases{patients}; 95 % bootstrap intervals over"
        f" {over}"
    )


def _scatter(comparison: Comparison, dataset: Dataset, place: Place, frame: dict) -> list[Path]:
    measures = {
        comparison.columns[column]["title"]: {
            label: (dataset.interval("Dice", name), dataset.interval(column, name))
            for name, label in comparison.labels.items()
        }
        for column in _SCATTER
    }
    return panels.draw_scatter(
        measures, place("10_scatter"), title="Discrimination and calibration", **frame
    )


def _relative(
    comparison: Comparison, dataset: Dataset, pair: tuple[str, str], place: Place, frame: dict
) -> list[Path]:
    differences, better = {}, {}
    for key in _RELATIVE:
        column, table = comparison.columns[key], dataset.table(key, pair)
        title = column["title"].removesuffix(f" ({column['unit']})")
        differences[title] = relative_difference(
            *table.T, **comparison.draws, groups=dataset.groups
        )
        better[title] = column["better"]
    first, second = (comparison.labels[name] for name in pair)
    path = place("7_relative_difference")
    return panels.draw_relative_difference(
        differences, path, better=better, title=f"{second} against {first}", **frame
    )


def _over_settings(
    comparison: Comparison, dataset: Dataset, place: Place, frame: dict
) -> list[Path]:
    files: list[Path] = []  # of models that are compared as they are
    trainers = {
        one["name"]: one["name"] for one in comparison.trainers if one["name"] == one["trainer"]
    }
    everyone = dict.fromkeys(
        {match[1] for t in trainers.values() if (match := settings._METHOD.match(t))}, 100.0
    )
    if shares := settings.by_number(trainers, "train", everyone):
        labels = dict(zip(shares, settings.short(list(shares))))
        lines = {
            SHORT[key]: {
                labels[shared]: {share: dataset.interval(key, name) for share, name in line.items()}
                for shared, line in shares.items()
            }
            for key in RANK_METRICS
        }
        better = {SHORT[key]: comparison.columns[key]["better"] for key in RANK_METRICS}
        path = place("9_training_share")
        files += panels.draw_training_share(
            lines, path, better=better, title="Share of the training cases", **frame
        )
    if networks := settings.by_network(trainers):
        files += _radars(comparison, dataset, place("8_networks"), "network", networks, frame)
    for token, defaults in settings.HYPER.items():
        for shared, values in settings.by_number(trainers, token, defaults).items():
            if len(values) >= 3:
                named = {shared: {f"{token} {value:g}": name for value, name in values.items()}}
                method = settings._METHOD.sub(r"\1", shared).partition("_")[0]
                path = place(f"6_hyper_{token}_{method}")
                files += _radars(comparison, dataset, path, token, named, frame)
    return files


def _radars(
    comparison: Comparison, dataset: Dataset, path: Path, setting: str, groups: Groups, frame: dict
) -> Iterator[Path]:
    """A radar of DSC and one of ECE: an axis for each value of a setting, a polygon for each group
    of methods."""
    axes = list(dict.fromkeys(value for points in groups.values() for value in points))
    for key in ("Dice", "ECE:foreground"):
        values = {
            label: [
                dataset.mean(key, points[value]) if value in points else np.nan for value in axes
            ]
            for label, points in zip(settings.short(list(groups)), groups.values())
        }
        what = {
            "better": comparison.columns[key]["better"],
            "metric": comparison.columns[key]["title"],
        }
        place = path.with_name(f"{path.name}_{'dice' if key == 'Dice' else 'ece'}")
        yield from draw_radar(
            axes, values, place, title=f"{SHORT[key]} by {setting}", **what, **frame
        )


def _radar(comparison: Comparison, metric: str, folder: Path) -> list[Path]:
    """A polygon per method; an axis per data set where there are three, else per structure or
    mask."""
    datasets = comparison.datasets
    short, column = ("DSC", "Dice") if metric == "Dice" else ("ECE", "ECE:foreground")
    if len(datasets) >= 3:
        kind, spokes = "data set", [(dataset.name, dataset, column) for dataset in datasets]
    else:
        kind, spokes = ("structure" if metric == "Dice" else "mask"), []
        for dataset in datasets:
            before = f"{dataset.name} " if len(datasets) > 1 else ""
            keys = {f"ECE:{mask}": mask for mask in _MASKS}
            if metric == "Dice":
                keys = {f"Dice:{key}": name for key, name in dataset.structures.items()}
                keys |= {"Dice": "mean"} if len(dataset.structures) > 1 else {}
            spokes += [(f"{before}{name}", dataset, key) for key, name in keys.items()]
    values = {
        label: [dataset.mean(key, name) for _, dataset, key in spokes]
        for name, label in comparison.labels.items()
    }
    own = metric != "Dice" or len(datasets) > 1  # the structures of one data set are comparable
    what: dict[str, Any] = {
        "better": comparison.columns[column]["better"],
        "metric": short,
        "own_scales": own,
    }
    path = folder / f"figure_1_radar_{metric.lower()}"
    subtitle = "; ".join(_where(dataset).partition(";")[0] for dataset in datasets)
    return draw_radar(
        [axis for axis, _, _ in spokes],
        values,
        path,
        title=f"{short} by {kind}",
        subtitle=subtitle,
        **what,
    )


def _rank_heatmaps(comparison: Comparison, folder: Path) -> Iterator[Path]:
    sums, within = ranks_of(comparison)
    means = np.array([[one.mean for one in intervals] for intervals in within.values()]).T
    labels, metrics = [comparison.labels[name] for name in sums.index], [*SHORT.values(), "total"]
    what = {
        "sum": ("Sum of ranks", sums.to_numpy(), 0),
        "mean": ("Mean rank within a case", means, 2),
    }
    for kind, (title, ranks, decimals) in what.items():
        path = folder / f"figure_2_rank_{kind}"
        notes = [
            "1 is the best; ECE and CECE on the foreground. The lowest of each column is framed."
        ]
        yield from panels.draw_rank_heatmap(
            labels, metrics, ranks, path, decimals=decimals, title=title, notes=notes
        )
