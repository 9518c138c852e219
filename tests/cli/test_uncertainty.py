"""`nnunet_nacl uncertainty` as a user types it."""

from __future__ import annotations

import pytest

from nnunet_nacl.cli.main import main
from tests.cases.predictions import empty_prediction


def uncertainty(*arguments) -> int:
    return main(["uncertainty", *map(str, arguments), "-np", "1"])


def test_the_least_certain_cases_in_one_command(predict, tmp_path, capsys):
    folder = predict(cases=3)
    assert uncertainty("-i", folder, "-o", tmp_path / "review") == 0
    printed = capsys.readouterr().out
    assert printed.index("case_2") < printed.index("case_1") < printed.index("case_0")
    assert str(tmp_path / "review" / "review.csv") in printed and "not for clinical use" in printed
    assert "255 = 1" in printed and "3 of 3 cases" in printed and "no uncertainty of the volumes" in printed
    assert {p.name for p in (tmp_path / "review").iterdir()} == {
        "case_0",
        "case_1",
        "case_2",
        "review.csv",
        "uncertainty.json",
    }


def test_several_folders_and_every_option(predict, tmp_path, capsys):
    one, two = predict("one"), predict("two", seed=1)
    empty_prediction(one, "blank"), empty_prediction(two, "blank")
    arguments = ("-i", one, two, "-o", tmp_path / "review", "-maps", "entropy", "expected_entropy", "-dtype", "float32")
    arguments += ("--probabilities", "-djfile", one / "dataset.json", "-pfile", one / "plans.json", "--overwrite")
    assert uncertainty(*arguments) == 0
    printed = capsys.readouterr().out
    assert "mutual information" in printed and "1 empty" in printed and "no uncertainty of the volumes" not in printed
    assert "+-: standard deviation between the volumes that the 2 folders predicted" in printed
    assert len(list((tmp_path / "review" / "case_0").glob("*.nii.gz"))) == 2 + 3 + 1


def test_problems_are_listed_and_the_rest_is_done(predict, tmp_path, capsys):
    folder = predict()
    (folder / "case_0.npz").write_bytes(b"PK")
    (folder / "case_1.npz").unlink()
    assert uncertainty("-i", folder, "-o", tmp_path / "review") == 1
    out, err = capsys.readouterr()
    assert "case_2" in out and "2 could not be done" in err and "case_0.npz" in err and "case_1.npz" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "nowhere", "-o", "out"), "nowhere: no such folder"),
        (("-i", "predictions", "-o", "predictions"), "choose another -o"),
        (("-i", "predictions", "-o", "out", "-maps", "risk"), "no map 'risk'"),
        (("-i", "predictions", "-o", "out", "-np", "0"), "-np must be at least 1"),
    ],
)
def test_errors_are_one_line(predict, tmp_path, monkeypatch, capsys, arguments, message):
    predict()
    monkeypatch.chdir(tmp_path)
    assert main(["uncertainty", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nnunet_nacl uncertainty: error: ") and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("-o", "out"), ("-i", "predictions"), ("-i", "a", "-o", "b", "-dtype", "int8")])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["uncertainty", *arguments])
    assert stop.value.code == 2
