"""comparison.json, and what a second run leaves in the folder."""

from __future__ import annotations

import json
import math

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.page import check_output_folder, comparison_to_json, write_comparison
from nnunet_nacl.evaluation.tables import write_tables
from nnunet_nacl.metrics.overlap import Overlap
from tests.evaluation.synthetic import make_comparison, with_structure
from tests.evaluation.test_comparison import tables_of

TRAINERS = {"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 2.5}


def write(folder, *comparisons, figures=()):
    tables = write_tables(list(tables_of(*comparisons).values()), folder, comparisons[0].notes)
    return write_comparison(comparison_to_json(comparisons, tables, figures, command="nnunet_nacl compare"), folder)


def test_the_file_holds_every_number(tmp_path):
    dataset = make_comparison(TRAINERS, cases=8, notes=["something was left out"])
    records = dataset.records["nnUNetTrainer"]
    records[1] = with_structure(records[1], "1", Overlap(0, 0, 0, 200), math.nan)
    path = write(tmp_path, dataset)
    assert "NaN" not in path.read_text()
    data = json.loads(path.read_text())
    assert [trainer["name"] for trainer in data["trainers"]] == list(TRAINERS)
    assert data["notes"] == ["something was left out"] and data["settings"]["allow_missing"] is False
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
    assert row["mean"] < row["mean_reference"] and row["n_better"] > row["n_worse"]  # lower is better
    assert all((tmp_path / name).is_file() for table in data["tables"] for name in table["files"])
    assert "something was left out" in (tmp_path / "tables" / "calibration.csv").read_text()


def test_an_earlier_comparisons_files_go(tmp_path):
    several = [make_comparison(TRAINERS, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)]
    write(tmp_path, *several, figures=[{"id": "x", "files": ["figures/x.png"]}])
    (tmp_path / "figures").mkdir()
    for name in ("figures/x.png", "figures/mine.png", "tables/mine.csv"):
        (tmp_path / name).write_text("")
    write(tmp_path, make_comparison(TRAINERS))
    assert not (tmp_path / "figures/x.png").exists() and not (tmp_path / "tables/overview.csv").exists()
    assert (tmp_path / "figures/mine.png").exists() and (tmp_path / "tables/mine.csv").exists()
    assert (tmp_path / "tables/discrimination.csv").exists()


def test_an_edited_file_removes_nothing_elsewhere(tmp_path):
    folder, precious = tmp_path / "out", tmp_path / "precious.txt"
    path = write(folder, make_comparison(TRAINERS))
    precious.write_text("")
    data = json.loads(path.read_text())
    (folder / "figures").symlink_to(tmp_path)
    named = ["../precious.txt", str(precious), "comparison.json", "figures/precious.txt", "tables/\0"]
    data["figures"] = [{"id": "x", "files": named}]
    path.write_text(json.dumps(data))
    write(folder, make_comparison(TRAINERS))
    assert precious.exists() and path.exists()


def test_only_what_a_comparison_wrote_is_replaced_be_it_cut_short(tmp_path):
    write(tmp_path, make_comparison(TRAINERS))
    path = tmp_path / "comparison.json"
    path.write_text(path.read_text()[:200])
    left = tmp_path / "tables" / ".0123456789ab.nnunet_nacl.tmp"
    left.write_text("")
    check_output_folder(tmp_path)
    assert not left.exists() and json.loads(write(tmp_path, make_comparison(TRAINERS)).read_text())["datasets"]
    for name in ("comparison.json", "report.html"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text('{"tables": [1]}')
        with pytest.raises(UserError, match=f"{name} was not written by nnunet_nacl and would be lost"):
            check_output_folder(tmp_path / "other")
        (tmp_path / "other" / name).unlink()
