"""Ranks, tables and figures of a comparison, from what `nnunet_nacl compare` leaves."""

from __future__ import annotations

import csv
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata

from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.comparison_report import comparison_to_json
from nnunet_nacl.comparison.methods import label_methods, read_method
from nnunet_nacl.comparison.output_folder import files_of_comparison, write_comparison
from nnunet_nacl.comparison.table import write_tables
from nnunet_nacl_paper.comparison import read_comparison, relative_difference
from nnunet_nacl_paper.main import main
from nnunet_nacl_paper.ranks import ranks_of
from tests.comparison.synthetic import make_comparison
from tests.comparison.test_comparison import tables_of

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}
NAN = math.nan
OPTIONS = {"n_bootstrap": 500, "seed": 0}


def write(folder: Path, *comparisons: Comparison) -> Path:
    """The documents of a comparison, without its own figures."""
    files = files_of_comparison(folder)
    tables = write_tables(list(tables_of(*comparisons).values()), files)
    document = comparison_to_json(comparisons, tables, [], files.written, command="compare")
    write_comparison(document, files)
    return folder


def write_trainers(folder: Path, *names: str) -> Path:
    """The documents of a comparison of trainers."""
    methods = label_methods([read_method(name, is_model=True) for name in names])
    sharpness = {method.name: 1.0 + 0.3 * i for i, method in enumerate(methods)}
    return write(folder, make_comparison(sharpness, cases=6, methods=methods))


def draw_figures(folder: Path) -> set[str]:
    """Run the command; names of the figures, each a PNG and an SVG."""
    assert main(["figures", str(folder)]) == 0
    figures = {path.stem for path in (folder / "paper").glob("figure_*.png")}
    assert figures == {path.stem for path in (folder / "paper").glob("figure_*.svg")}
    return figures


def read_figure(folder: Path, name: str) -> str:
    return (folder / "paper" / f"figure_{name}.svg").read_text()


STANDARD = {
    "1_radar_dice",
    "1_radar_ece",
    "2_rank_mean",
    "2_rank_sum",
    "7_relative_difference",
    "10_scatter",
}


@pytest.fixture(scope="module")
def standard(tmp_path_factory) -> Path:
    """The folder of a comparison of THREE, which has its figures; tests must not change them."""
    folder = write(tmp_path_factory.mktemp("standard"), make_comparison(THREE, cases=8))
    draw_figures(folder)
    return folder


def test_figures_of_an_earlier_run_are_removed(tmp_path) -> None:
    folder = write(tmp_path, make_comparison(THREE, cases=8))
    (folder / "paper").mkdir()
    (folder / "paper" / "figure_99_of_an_earlier_one.png").touch()
    assert draw_figures(folder) == {f"figure_{name}" for name in STANDARD}


def test_tables_have_the_papers_numbers(standard: Path) -> None:
    for number, name in ((1, "segmentation"), (2, "calibration")):
        copied = standard / "paper" / f"table_{number}_{name}.csv"
        original = standard / "tables" / f"{name}.csv"
        assert copied.read_bytes() == original.read_bytes()


def test_ranks_are_written_by_method(standard: Path) -> None:
    rows = list(csv.DictReader((standard / "paper" / "ranks.csv").open()))
    assert [row["method"] for row in rows] == ["nnU-Net", "CE", "NACL"]
    sums, _ = ranks_of(read_comparison(standard))
    assert [float(row["total"]) for row in rows] == sums["total"].tolist()


def test_a_figure_names_methods_measures_and_cases(standard: Path) -> None:
    figure = read_figure(standard, "10_scatter")
    for text in ("NACL", "8 cases", "ECE union"):
        assert text in figure


def test_any_two_methods_are_drawn_against_each_other(standard: Path, tmp_path) -> None:
    output = ["-o", str(tmp_path / "paper")]
    assert main(["figures", str(standard), "-relative", "NACL", "CE", *output]) == 0
    assert "CE against NACL" in read_figure(tmp_path, "7_relative_difference")


@pytest.mark.parametrize(
    ("names", "message"),
    [(("NACL", "x"), "-relative x: not among"), (("CE", "CE"), "two different")],
)
def test_a_pair_that_cannot_be_drawn_is_refused(standard: Path, capsys, names, message) -> None:
    assert main(["figures", str(standard), "-relative", *names]) == 2
    assert message in capsys.readouterr().err


def test_means_and_ranks_are_those_of_the_cases(tmp_path) -> None:
    first = make_comparison(THREE, cases=6, name="Dataset001_Made", seed=1)
    second = make_comparison(THREE, cases=7, name="Dataset002_Made", seed=2)
    second = replace(second, patients={case: case[:-1] for case in second.cases})
    comparison = read_comparison(write(tmp_path, first, second))
    names = list(THREE)
    places_by_dice = []
    for own, dataset in zip((first, second), comparison.datasets):
        for column in ("Dice", "HD95_mm", "ECE:foreground"):
            means = [dataset.mean(column, name) for name in names]
            assert means == own.means[column].tolist()
            values = dataset.table(column, names)
            np.testing.assert_array_equal(values, own.values[column][names].to_numpy())
        negative_dice = [-dataset.mean("Dice", name) for name in names]
        places_by_dice.append(rankdata(negative_dice))
    sums, within = ranks_of(comparison)
    assert sums["Dice"].tolist() == np.sum(places_by_dice, axis=0).tolist()
    assert within["ECE:foreground"][0].n == 6 + 7
    mean_ranks = [interval.mean for interval in within["total"]]
    assert sum(mean_ranks) == pytest.approx(1 + 2 + 3)
    scatters = {"figure_10_scatter_Dataset001_Made", "figure_10_scatter_Dataset002_Made"}
    assert scatters < draw_figures(tmp_path)


SCHEDULE = "_plainstart_100epochs_adam"


def test_a_figure_over_the_share_of_training_cases(tmp_path) -> None:
    names = []
    for method, share in itertools.product(("CE", "NACL"), ("_train10", "_train50", "")):
        names.append(f"nnUNetTrainer{method}{SCHEDULE}{share}_noda")
    assert "figure_9_training_share" in draw_figures(write_trainers(tmp_path, *names))
    figure = read_figure(tmp_path, "9_training_share")
    assert set(re.findall(">(CE|NACL)<", figure)) == {"CE", "NACL"}


def test_a_figure_over_networks_names_the_one_that_a_method_lacks(tmp_path) -> None:
    names = []
    for method, network in itertools.product(("NACL", "MbLS"), ("_unet", "", "_unetpp")):
        names.append(f"nnUNetTrainer{method}{network}{SCHEDULE}_noda")
    all_but_the_last = names[:-1]
    figures = draw_figures(write_trainers(tmp_path, *all_but_the_last))
    assert {"figure_8_networks_dice", "figure_8_networks_ece"} < figures
    assert "No value for MbLS: unetpp" in read_figure(tmp_path, "8_networks_dice")


def test_a_figure_over_three_values_of_a_setting(tmp_path) -> None:
    weights = ("", "_lambda0p2", "_lambda0p3")
    names = [f"nnUNetTrainerNACL{weight}_unet{SCHEDULE}_noda" for weight in weights]
    figures = draw_figures(write_trainers(tmp_path, *names))
    assert "figure_6_hyper_lambda_NACL_dice" in figures


def test_relative_difference_in_percent_of_the_cases_with_both_values() -> None:
    interval = relative_difference([1, 2, 3, NAN], [2, 2, 5, 9], **OPTIONS)
    assert interval.mean == pytest.approx(50)
    assert interval.n == 3
    assert interval.low <= 50 <= interval.high


def test_twice_the_reference_is_a_difference_of_100_percent_in_every_draw() -> None:
    interval = relative_difference([1, 2, 3], [2, 4, 6], **OPTIONS)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((100, 100, 100))


def test_a_relative_difference_to_nothing_is_undefined() -> None:
    for reference in ([0, 0], [NAN, NAN]):
        assert math.isnan(relative_difference(reference, [1, 1], **OPTIONS).mean)


def test_one_patient_has_a_relative_difference_without_interval() -> None:
    assert math.isnan(relative_difference([1], [2], **OPTIONS).low)
    assert math.isnan(relative_difference([1, 1], [2, 3], groups=["a", "a"], **OPTIONS).low)


def test_a_folder_without_a_comparison_is_refused(tmp_path, capsys) -> None:
    assert main(["figures", str(tmp_path)]) == 2
    assert "comparison.json: cannot be read" in capsys.readouterr().err


def test_a_damaged_comparison_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "comparison.json").write_text('{"trainers": 3}')
    assert main(["figures", str(tmp_path)]) == 2
    assert "Field required" in capsys.readouterr().err
