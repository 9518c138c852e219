"""Ranks, tables and figures of a comparison, from what `nnunet_nacl compare` leaves."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.evaluation.comparison import Comparison
from nnunet_nacl.evaluation.comparison_json import comparison_to_json
from nnunet_nacl.evaluation.methods import label_methods, read_method
from nnunet_nacl.evaluation.output_folder import files_of_comparison, write_comparison
from nnunet_nacl.evaluation.table import write_tables
from nnunet_nacl_paper.comparison import read_comparison, relative_difference
from nnunet_nacl_paper.main import main
from nnunet_nacl_paper.ranks import ranks_of
from tests.evaluation.synthetic import make_comparison
from tests.evaluation.test_comparison import tables_of

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}
NAN = math.nan
OPTIONS = {"n_bootstrap": 500, "seed": 0}


def write(folder: Path, *comparisons: Comparison) -> Path:
    """The documents of a comparison, without its own figures."""
    files = files_of_comparison(folder)
    tables = write_tables(list(tables_of(*comparisons).values()), files)
    write_comparison(
        comparison_to_json(comparisons, tables, [], files.written, command="compare"), files
    )
    return folder


def named(names, folder: Path) -> Path:
    methods = label_methods([read_method(name, "-tr") for name in names])
    sharpness = {method.name: 1.0 + 0.3 * i for i, method in enumerate(methods)}
    return write(folder, make_comparison(sharpness, cases=6, methods=methods))


def drawn(folder: Path) -> set[str]:
    assert main(["figures", str(folder)]) == 0
    figures = {path.stem for path in (folder / "paper").glob("figure_*.png")}
    assert figures == {path.stem for path in (folder / "paper").glob("figure_*.svg")}
    return figures


STANDARD = {
    "1_radar_dice",
    "1_radar_ece",
    "2_rank_mean",
    "2_rank_sum",
    "7_relative_difference",
    "10_scatter",
}


def test_a_comparison_has_the_papers_tables_ranks_and_figures(tmp_path, capsys) -> None:
    folder = write(tmp_path, make_comparison(THREE, cases=8))
    (folder / "paper").mkdir()
    (folder / "paper" / "figure_99_of_an_earlier_one.png").touch()
    assert drawn(folder) == {f"figure_{name}" for name in STANDARD}
    for name in ("table_1_discrimination", "table_2_calibration"):
        copied, original = folder / "paper" / f"{name}.csv", folder / "tables" / f"{name[8:]}.csv"
        assert copied.read_bytes() == original.read_bytes()
    rows = list(csv.DictReader((folder / "paper" / "ranks.csv").open()))
    assert [row["method"] for row in rows] == ["nnU-Net", "CE", "NACL"]
    sums, _ = ranks_of(read_comparison(folder))
    assert [float(row["total"]) for row in rows] == sums["total"].tolist()
    text = (folder / "paper" / "figure_10_scatter.svg").read_text()
    assert "NACL" in text and "8 cases" in text and "ECE union" in text
    assert main(["figures", str(folder), "-relative", "NACL", "CE"]) == 0
    assert "CE against NACL" in (folder / "paper" / "figure_7_relative_difference.svg").read_text()
    for names, words in (
        (("NACL", "x"), "-relative x: not among"),
        (("CE", "CE"), "two different"),
    ):
        assert (
            main(["figures", str(folder), "-relative", *names]) == 2
            and words in capsys.readouterr().err
        )


def test_means_and_ranks_are_those_of_the_cases(tmp_path) -> None:
    datasets = [
        make_comparison(THREE, cases=5 + i, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)
    ]
    datasets[1] = replace(datasets[1], patients={case: case[:-1] for case in datasets[1].cases})
    read = read_comparison(write(tmp_path, *datasets))
    names, positions = list(THREE), []
    for own, dataset in zip(datasets, read.datasets):
        for column in ("Dice", "HD95_mm", "ECE:foreground"):
            means = [dataset.mean(column, name) for name in names]
            assert means == own.means[column].tolist()
            values = dataset.table(column, names)
            np.testing.assert_array_equal(values, own.values[column][names].to_numpy())
        positions.append(
            np.argsort(np.argsort([-dataset.mean("Dice", name) for name in names])) + 1
        )
    sums, within = ranks_of(read)
    assert sums["Dice"].tolist() == np.sum(positions, axis=0).tolist()
    assert within["ECE:foreground"][0].n == 13 and sum(
        one.mean for one in within["total"]
    ) == pytest.approx(6)
    assert {f"figure_10_scatter_{d.name}" for d in datasets} < drawn(tmp_path)


def test_figures_over_shares_networks_and_settings(tmp_path) -> None:
    token = "_plainstart_100epochs_adam{}_noda"
    shares = [
        f"nnUNetTrainer{m}{token.format(s)}"
        for m in ("CE", "NACL")
        for s in ("_train10", "_train50", "")
    ]
    assert "figure_9_training_share" in drawn(named(shares, tmp_path / "shares"))
    text = (tmp_path / "shares" / "paper" / "figure_9_training_share.svg").read_text()
    assert set(re.findall(">(CE|NACL)<", text)) == {"CE", "NACL"}
    networks = [
        f"nnUNetTrainer{m}{n}{token.format('')}"
        for m in ("NACL", "MbLS")
        for n in ("_unet", "", "_unetpp")
    ]
    assert {"figure_8_networks_dice", "figure_8_networks_ece"} < drawn(
        named(networks[:-1], tmp_path / "networks")
    )
    assert (
        "No value for MbLS: unetpp"
        in (tmp_path / "networks/paper/figure_8_networks_dice.svg").read_text()
    )
    penalty = [
        f"nnUNetTrainerNACL{weight}_unet{token.format('')}"
        for weight in ("", "_lambda0p2", "_lambda0p3")
    ]
    assert "figure_6_hyper_lambda_NACL_dice" in drawn(named(penalty, tmp_path / "penalty"))


def test_relative_difference_in_percent() -> None:
    interval = relative_difference([1, 2, 3, NAN], [2, 2, 5, 9], **OPTIONS)
    assert (
        interval.mean == pytest.approx(50)
        and interval.n == 3
        and interval.low <= 50 <= interval.high
    )
    # twice the reference in every case: every draw gives exactly 100 %
    double = relative_difference([1, 2, 3], [2, 4, 6], **OPTIONS)
    assert (double.mean, double.low, double.high) == pytest.approx((100, 100, 100))
    for reference in ([0, 0], [NAN, NAN]):
        assert math.isnan(relative_difference(reference, [1, 1], **OPTIONS).mean)
    assert math.isnan(relative_difference([1], [2], **OPTIONS).low)
    assert math.isnan(relative_difference([1, 1], [2, 3], groups=["a", "a"], **OPTIONS).low)


def test_a_folder_without_a_comparison_is_refused(tmp_path, capsys) -> None:
    assert (
        main(["figures", str(tmp_path)]) == 2
        and "comparison.json: cannot be read" in capsys.readouterr().err
    )
    (tmp_path / "comparison.json").write_text('{"trainers": 3}')
    assert main(["figures", str(tmp_path)]) == 2 and "Field required" in capsys.readouterr().err
