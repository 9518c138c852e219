"""`nnunet_nacl.predict` and `nnunet_nacl.review` write the folders of the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_nacl import predict, read_back, review
from nnunet_nacl.utilities.errors import UserError
from tests.nnunet.untrained import calibrate, make_model, make_scans, segmentations
from tests.nnunet.untrained import predict as by_command
from tests.review_tables import read_list

pytestmark = pytest.mark.usefixtures("one_thread")
RUN = {"created", "command", "run", "problems", "files"}


@pytest.fixture
def model(tmp_path) -> Path:
    """One fold with a map that has learned."""
    folder = make_model(tmp_path)
    calibrate(folder)
    return folder


def document(output: Path) -> dict:
    content = json.loads((output / "prediction.json").read_text())
    return {key: value for key, value in content.items() if key not in RUN}


def test_scans_are_segmented_and_listed_as_by_the_command(tmp_path, model, capfd):
    scans = make_scans(tmp_path / "scans", 3)
    assert (
        by_command(
            model, scans, tmp_path / "by_command", "-bad", "0.9", "-maps", "entropy", "-also", 1
        )
        == 0
    )
    capfd.readouterr()
    result = predict(
        model,
        scans,
        tmp_path / "out",
        bad=0.9,
        maps=["entropy"],
        also=1,
        device="cpu",
        progress=False,
    )
    assert capfd.readouterr().out == ""
    assert document(tmp_path / "out") == document(tmp_path / "by_command")
    # of the map's cases every volume is twice the predicted one; predicted Dice is off by a tenth
    (warning,) = [note for note in result.notes if "no closer to the true one" in note]
    assert warning.startswith("Predicted volume was no closer") and "anterior (off by " in warning
    assert warning.endswith("; a segmented volume outside its interval is not named.")
    expected = segmentations(tmp_path / "by_command")
    assert all(
        (found == expected[case]).all() for case, found in segmentations(tmp_path / "out").items()
    )

    rows = read_list(tmp_path / "out")
    assert [row["case"] for row in rows] == result.scans.index.tolist()
    assert result.flagged == [row["case"] for row in rows if row["flag"] == "yes"]
    dice = result.structures[result.structures.name == "anterior"].predicted_dice
    assert dice.tolist() == pytest.approx(
        [float(row["anterior predicted_dice"]) for row in rows], rel=1e-5
    )
    assert result.bad == {"1": 0.9, "2": 0.9} and not result.failed and not result.lost_pages


def test_a_list_from_saved_predictions_and_what_came_of_it(tmp_path, predict):  # noqa: F811  (the fixture)
    folder = predict(cases=3)
    result = review(folder, tmp_path / "out", maps=[])
    assert sorted(result.scans.index) == ["case_0", "case_1", "case_2"] and result.flagged == []
    assert result.maps == ("confidence", "entropy")
    marks = tmp_path / "marks.csv"
    run = result.review_list.run.name
    marks.write_text(f"run,case,mark,note,time\n{run},case_1,correct,,2026-01-01T00:00:00\n")
    came = read_back(tmp_path / "out", [marks])
    assert (
        came.outcome.groups["other"]["changed"] == 1
        and not (tmp_path / "out" / "outcome.json").exists()
    )
    written = came.write()
    assert written.document.name == "outcome.json" and written.page.name == "outcome.html"


def test_what_is_not_known_or_does_not_fit_is_refused_before_the_work(tmp_path, model):
    scans = make_scans(tmp_path / "scans", 1)
    for arguments, message in (
        ({"find": 0.9}, "find goes with bad, the Dice below which a scan is bad, such as bad=0.7"),
        ({"bad": 0.5, "structures": ["liver"]}, "structures liver: there is no such structure"),
        ({"codes": "codes.json"}, "codes and orientation go with DICOM series"),
        ({"previous_stage": scans}, f"previous_stage {scans}: 3d_fullres is no stage"),
        ({"part": 1}, "part must be from 0 to 0 for num_parts=1, got 1"),
        ({"maps": ["mutual_information"]}, "compares folds"),
    ):
        with pytest.raises(UserError, match=message):
            predict(model, scans, tmp_path / "out", device="cpu", **arguments)
    assert not (tmp_path / "out").exists()
