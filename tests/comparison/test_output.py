"""comparison.json, and what a second run leaves in the folder."""

from __future__ import annotations

import json
import math
import shutil
from itertools import chain
from pathlib import Path

import pytest

from nnunet_nacl.cases.record_key import digest_of
from nnunet_nacl.comparison.comparison_report import comparison_to_json
from nnunet_nacl.comparison.file_names import files_of_tables
from nnunet_nacl.comparison.output_folder import (
    check_output_folder,
    files_of_comparison,
    write_comparison,
)
from nnunet_nacl.comparison.table import write_tables
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.utilities.errors import UserError
from tests.comparison.synthetic import make_comparison, with_structure
from tests.comparison.test_comparison import tables_of

TRAINERS = {"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 2.5}
OF_OTHERS = "not written by nnunet_nacl, or changed since"


def write(folder, *comparisons, figures=()):
    files = files_of_comparison(folder)
    tables = write_tables(list(tables_of(*comparisons).values()), files, comparisons[0].notes)
    for figure in figures:
        for place in figure["files"]:
            with files.staging(place) as work:
                (work / Path(place).name).write_text("a figure")
    document = comparison_to_json(
        comparisons, tables, figures, files.written, command="nnunet_nacl compare"
    )
    return write_comparison(document, files)


def test_the_file_holds_every_number(tmp_path):
    dataset = make_comparison(TRAINERS, cases=8, notes=["something was left out"])
    records = dataset.records["nnUNetTrainer"]
    records[1] = with_structure(records[1], "1", Overlap(0, 0, 0, 200), math.nan)
    path = write(tmp_path, dataset)
    assert "NaN" not in path.read_text()
    data = json.loads(path.read_text())
    assert [trainer["name"] for trainer in data["trainers"]] == list(TRAINERS)
    assert data["notes"] == ["something was left out"]
    assert data["settings"]["allow_missing"] is False
    [written] = data["datasets"]
    assert written["cases"] == dataset.cases
    assert list(written["values"]) == list(written["means"]) == list(data["columns"])
    for column, by_trainer in written["values"].items():
        for name, values in by_trainer.items():
            expected = dataset.values[column][name].tolist()
            assert values == [None if math.isnan(value) else value for value in expected]
    assert written["means"]["Dice:1"]["nnUNetTrainer"]["n"] == 7
    row = next(row for row in data["statistics"] if row["column"] == "NLL:all")
    assert row["n_better"] + row["n_worse"] + row["n_equal"] == row["n"] == 8
    # lower is better
    assert row["mean"] < row["mean_reference"]
    assert row["n_better"] > row["n_worse"]


def test_the_file_names_every_table_with_its_size(tmp_path):
    dataset = make_comparison(TRAINERS, notes=["something was left out"])
    data = json.loads(write(tmp_path, dataset).read_text())
    places = set(chain.from_iterable(table["files"] for table in data["tables"]))
    assert places == data["files"].keys()
    assert places <= {*files_of_tables([dataset])}
    for place in places:
        assert (tmp_path / place).stat().st_size == data["files"][place]["size"]
    assert "something was left out" in (tmp_path / "tables" / "calibration.csv").read_text()


def test_an_earlier_comparisons_files_go(tmp_path):
    several = [make_comparison(TRAINERS, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)]
    write(tmp_path, *several, figures=[{"id": "x", "files": ["figures/x.png"]}])
    earlier = (tmp_path / "figures/x.png", tmp_path / "tables/overview.csv")
    mine = (tmp_path / "figures/mine.png", tmp_path / "tables/mine.csv")
    for path in mine:
        path.write_text("mine")
    assert all(path.exists() for path in earlier)
    write(tmp_path, make_comparison(TRAINERS))
    assert not any(path.exists() for path in earlier)
    assert all(path.exists() for path in mine)
    assert (tmp_path / "tables/segmentation.csv").exists()


def test_tables_that_an_earlier_version_wrote_under_other_names_go(tmp_path):
    comparison = make_comparison(TRAINERS)
    path = write(tmp_path, comparison)
    earlier = tmp_path / "tables" / "discrimination.csv"
    (tmp_path / "tables" / "segmentation.csv").rename(earlier)
    data = json.loads(path.read_text())
    data["files"]["tables/discrimination.csv"] = data["files"].pop("tables/segmentation.csv")
    data["schema_version"] = 4
    path.write_text(json.dumps(data))
    check_output_folder(tmp_path, [comparison])
    write(tmp_path, comparison)
    assert not earlier.exists()
    assert (tmp_path / "tables" / "segmentation.csv").exists()


def test_an_edited_file_removes_nothing_elsewhere(tmp_path):
    folder = tmp_path / "out"
    precious = tmp_path / "precious.txt"
    path = write(folder, make_comparison(TRAINERS))
    precious.write_text("mine")
    data = json.loads(path.read_text())
    (folder / "figures").symlink_to(tmp_path)
    named = [
        "../precious.txt",
        str(precious),
        "comparison.json",
        "figures/precious.txt",
        "tables/\0",
    ]
    data["files"] |= {place: {"size": 4, "digest": digest_of(precious)} for place in named}
    path.write_text(json.dumps(data))
    write(folder, make_comparison(TRAINERS))
    assert precious.exists()
    assert path.exists()


def test_a_comparison_may_be_made_again_in_its_folder(tmp_path):
    comparison = make_comparison(TRAINERS)
    write(tmp_path, comparison)
    left_by_a_killed_run = tmp_path / "tables" / ".0123456789ab.nnunet_nacl.tmp"
    left_by_a_killed_run.write_text("")
    check_output_folder(tmp_path, [comparison])
    assert not left_by_a_killed_run.exists()
    assert json.loads(write(tmp_path, comparison).read_text())["datasets"]


def test_with_a_damaged_file_nobody_knows_whose_the_tables_are(tmp_path):
    comparison = make_comparison(TRAINERS)
    path = write(tmp_path, comparison)
    path.write_text(path.read_text()[:200])
    with pytest.raises(UserError, match=rf"tables/calibration\.csv, .* {OF_OTHERS}"):
        check_output_folder(tmp_path, [comparison])
    shutil.rmtree(tmp_path / "tables")
    check_output_folder(tmp_path, [comparison])


@pytest.mark.parametrize("name", ["comparison.json", "report.html"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"tables": [1]}')
    with pytest.raises(UserError, match=f"{name} was not written by nnunet_nacl and would be lost"):
        check_output_folder(tmp_path, [make_comparison(TRAINERS)])


@pytest.mark.parametrize(
    "place", ["tables/statistics.csv", "figures/reliability_all.svg", "comparison.pending.json"]
)
def test_tables_and_figures_of_others_are_refused_before_any_work(tmp_path, place):
    """In a folder that is new to `compare`, and in one of its own where they were edited."""
    comparison = make_comparison(TRAINERS)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    for _ in range(2):
        (tmp_path / place).write_text("mine")
        with pytest.raises(UserError, match=f"{place}: {OF_OTHERS}, and would be lost"):
            check_output_folder(tmp_path, [comparison])
        (tmp_path / place).unlink()
        write(tmp_path, comparison, figures=[{"id": "x", "files": ["figures/reliability_all.svg"]}])
        check_output_folder(tmp_path, [comparison])


def test_a_comparison_that_was_killed_can_be_made_again(tmp_path):
    """Whatever had its name by then: its digest stands in a pending file, and goes with it."""
    comparison = make_comparison(TRAINERS)
    files = files_of_comparison(tmp_path)
    write_tables(list(tables_of(comparison).values()), files)
    assert not (tmp_path / "comparison.json").exists()
    assert (tmp_path / "comparison.pending.json").exists()
    check_output_folder(tmp_path, [comparison])
    other = make_comparison(TRAINERS, name="Dataset002_Made", seed=2)
    write(tmp_path, comparison, other)
    assert not (tmp_path / "tables" / "segmentation.csv").exists()
    assert not (tmp_path / "comparison.pending.json").exists()


def test_a_comparison_of_an_earlier_version_is_replaced(tmp_path):
    """It lists its files without digests."""
    comparison = make_comparison(TRAINERS)
    path = write(tmp_path, comparison)
    data = json.loads(path.read_text())
    del data["files"]
    path.write_text(json.dumps(data))
    check_output_folder(tmp_path, [comparison])
    write(tmp_path, comparison)
