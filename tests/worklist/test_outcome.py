"""What came of the flags: counts, Dice, intervals and what is left unseen, in closed form."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from nnunet_nacl.cases.record import record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict
from nnunet_nacl.worklist.outcome.outcome import read_outcome
from nnunet_nacl.worklist.outcome.text import outcome_lines
from tests.comparison.html_check import Page
from tests.documents import check_document
from tests.runs.folders import CLASSES, REGIONS_WITH_IGNORE, describe, write_image, write_json
from tests.worklist.records import record

SPACING_MM = (2.0, 1.0, 1.0)
FLAGS = {"bad": {"anterior": 0.8}}


def delivered() -> np.ndarray:
    """100 voxels of label 1, and 50 of label 2."""
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[1], labels[2, :5] = 1, 2
    return labels


@pytest.fixture
def made(tmp_path):
    """Writes an output folder with six scans, two flagged, three others chosen by chance, and
    corrected labels."""

    def make(corrected: dict[str, np.ndarray], labels=CLASSES, flags=FLAGS, spacing=SPACING_MM):
        output = tmp_path / "out"
        back = tmp_path / "corrected"
        for folder in (output, back):
            folder.mkdir()
        dataset, plans = describe(labels, 6, ".nii.gz", "SimpleITKIO")
        write_json(output / "dataset.json", dataset)
        write_json(output / "plans.json", plans)
        names = [name for name in labels if name not in ("background", "ignore")]
        promised = {names[0]: (0.9, 0.8, 1.0), names[1]: (None, None, None)}
        scans = {
            case: {"flagged": case in "ab", "structures": promised} for case in (*"abcde", "-f")
        }
        write_json(
            output / "prediction.json", {"flags": flags, "random_check": [*"cde"], "scans": scans}
        )
        for case in scans:
            segmentation = output / f"{case}.nii.gz"
            write_image(delivered(), segmentation, SPACING_MM)
            record(case, files={segmentation.name: file_key(segmentation)}).save(
                record_path(output / RECORDS, case)
            )
        for case, array in corrected.items():
            write_image(array, back / f"{case}.nii.gz", spacing)
        return output, back

    return make


def half() -> np.ndarray:
    """Label 1 has half its voxels, and nothing else: Dice 2 * 50 / 150."""
    labels = delivered()
    labels[1, 5:], labels[2] = 0, 0
    return labels


def test_dice_intervals_and_what_is_bad(made):
    output, back = made({"a": half(), "c": delivered()})
    outcome = read_outcome(output, [], back)
    a, c = outcome.cases
    assert a.group == "flagged"
    assert a.n_changed == 100
    assert a.bad
    assert c.group == "chosen by chance"
    assert c.bad is False
    np.testing.assert_allclose(a.structures["anterior"], (2 / 3, 0.9, 0.8, 1.0))
    assert a.structures["posterior"][0] == 0
    assert math.isnan(a.structures["posterior"][1])
    anterior = outcome.predicted["anterior"]
    posterior = outcome.predicted["posterior"]
    assert (anterior.n, anterior.coverage.n, anterior.coverage.share) == (2, 2, 0.5)
    np.testing.assert_allclose(
        [anterior.dice, anterior.predicted_dice, anterior.error], [5 / 6, 0.9, 1 / 6]
    )
    assert anterior.width == pytest.approx(0.2)
    assert posterior.coverage.n == 0
    assert math.isnan(posterior.error)
    assert [tuple(group.values()) for group in outcome.groups.values()] == [
        (2, 1, 1, 1, 1),
        (3, 1, 0, 1, 0),
        (1, 0, 0, 0, 0),
    ]
    # of four, one chosen and good: 1/4 is above 0.05
    assert outcome.unseen == 0
    assert outcome.unseen_upper == 3 / 6
    assert outcome.warnings == []


def test_regions_overlap_and_ignored_voxels_do_not_count(made):
    truth = half()
    truth[0] = 3
    output, back = made({"a": truth}, REGIONS_WITH_IGNORE)
    [found] = read_outcome(output, [], back).cases
    whole, core = found.structures.values()
    assert found.n_changed == 100
    assert whole[0] == 2 * 50 / 200
    assert core[0] == 0


def test_renumbered_labels_are_pointed_out_and_others_are_errors(made):
    missing = delivered()
    missing[missing == 1] = 0
    output, back = made({"a": missing, "b": (missing == 2).astype(np.uint8), "c": half()})
    outcome = read_outcome(output, [], back)
    [warning] = outcome.warnings
    assert "b.nii.gz: label 1 lies where 2 was delivered (their Dice is 1.00)" in warning
    write_image(delivered() * 4, back / "d.nii.gz", SPACING_MM)
    with pytest.raises(UserError, match=r"d\.nii\.gz.*label 4, 8"):
        read_outcome(output, [], back)


def test_what_does_not_belong_to_the_list_is_an_error(made):
    output, back = made({"a": delivered()}, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"a\.nii\.gz: other geometry than the delivered .*spacing"):
        read_outcome(output, [], back)
    with pytest.raises(UserError, match="the delivered segmentation itself"):
        read_outcome(output, [], output)
    write_json(output / "prediction.json", {"flags": None, "scans": {"a": {"flagged": True}}})
    with pytest.raises(
        UserError, match=r"out: not an output folder of this version: scans\.a\.structures: .*again"
    ):
        read_outcome(output, [], back)


def test_copies_that_nobody_edited_were_not_looked_at(made):
    output, back = made({"a": half(), "b": delivered()})
    (output / "review").mkdir()
    back.rename(output / "review" / "to_edit")
    assert [
        case.case for case in read_outcome(output, [], output / "review" / "to_edit").cases
    ] == ["a"]


def test_the_command_reads_marks_and_writes_a_page_and_json(made, tmp_path, capsys):
    output, _ = made({}, flags=None)
    marks = tmp_path / "marks.csv"
    marks.write_text(
        "run,case,mark,note,time\n,a,reject,,\n,b,ok,,\n,c,correct,,\n,d,ok,,\n,e,ok,,\n,'-f,ok,,\n"
    )
    (output / "outcome.html").write_text("<p>mine</p>")
    assert main(["review", "-back", str(output), "-marks", str(marks)]) == 2
    assert (
        "outcome.html was not written by nnunet_nacl and would be lost" in capsys.readouterr().err
    )
    (output / "outcome.html").unlink()
    assert main(["review", "-back", str(output), "-marks", str(marks)]) == 0
    printed = capsys.readouterr().out
    assert (
        "1 of 2 flagged scans that were looked at were corrected or rejected, and 1 of 4 others."
        in printed
    )
    assert "1 of 2 flagged scans that were judged are bad, and 1 of 4 others." in printed
    # 4 of 6 not flagged, 1 of 3 chosen bad; two bad among four leave at most one in three chosen
    # with probability 1/2
    assert "So 22.2 % of all scans are bad and not flagged" in printed
    assert "at most 33.3 %" in printed
    document = read_dict(output / "outcome.json")
    check_document("outcome", document)
    assert document["unseen"] == pytest.approx(4 / 6 / 3)
    assert document["unseen_upper"] == 2 / 6
    page = Page((output / "outcome.html").read_text(encoding="utf-8"))
    assert not page.faults
    assert "22.2 %" in page.text
    assert {"href": "index.html"} in page.all("a")
    for heading in ("looked at", "changed", "judged", "bad"):
        assert heading in page.text.lower().split("how to read it")[1], "columns are explained"


def marks_of(folder, **marks: str):
    """A file with a mark of each scan."""
    path = folder / "marks.csv"
    path.write_text("case,mark\n" + "".join(f"{case},{mark}\n" for case, mark in marks.items()))
    return path


def test_bad_scans_that_are_known_are_the_least_that_is_said(made, tmp_path):
    output, back = made({"f": delivered(), "c": delivered(), "d": delivered()})
    document = read_dict(output / "prediction.json")
    document["scans"]["f"] = document["scans"].pop("-f")
    write_json(output / "prediction.json", document | {"random_check": ["c"]})
    (output / "-f.nii.gz").rename(output / "f.nii.gz")
    write_image(delivered(), back / "c.nii.gz", SPACING_MM)
    write_image(half(), back / "f.nii.gz", SPACING_MM)  # Dice 2/3, below 0.8
    outcome = read_outcome(output, [marks_of(tmp_path, e="reject", a="reject", b="")], back)
    assert (
        outcome.warnings[0]
        == "the files of marks name scans without a mark, which do not count: b."
    )
    # c alone was drawn, and is good; e and f are bad and were not drawn, a is flagged
    assert outcome.groups["other"] == {"n": 3, "looked_at": 3, "changed": 2, "judged": 3, "bad": 2}
    assert outcome.unseen == pytest.approx(2 / 6)
    assert outcome.unseen_upper == pytest.approx(3 / 6)
    text = " ".join(outcome_lines(outcome))
    assert "2 are known to be bad. So at least 33.3 % of all scans are bad and not flagged" in text


def test_known_bad_scans_bound_a_draw_that_took_all_others(made, tmp_path):
    output, _ = made({}, flags=None)
    write_json(
        output / "prediction.json",
        read_dict(output / "prediction.json") | {"random_check": ["c", "d"]},
    )
    marks = {"c": "ok", "d": "ok", "e": "reject", "'-f": "reject"}
    outcome = read_outcome(output, [marks_of(tmp_path, **marks)], None)
    # the draw alone says 0 of 4
    assert outcome.unseen == outcome.unseen_upper == pytest.approx(2 / 6)
    undrawn = {"e": "reject", "'-f": "reject"}
    outcome = read_outcome(output, [marks_of(tmp_path, **undrawn)], None)
    assert math.isnan(outcome.unseen)
    assert math.isnan(outcome.unseen_upper)
    assert "At least 33.3 % of all scans are bad and not flagged: 2 of 6" in " ".join(
        outcome_lines(outcome)
    )


def test_a_segmentation_that_is_not_what_was_delivered_is_named_and_not_counted(made, tmp_path):
    output, back = made({"a": half(), "b": delivered(), "c": delivered()})
    write_image(half(), output / "a.nii.gz", SPACING_MM)  # corrected where it lay, and copied
    outcome = read_outcome(output, [marks_of(tmp_path, a="correct")], back)
    [warning] = outcome.warnings
    assert "a.nii.gz is not what was delivered" in warning
    assert "labels of a are not counted" in warning
    assert [(case.case, case.n_changed, len(case.structures)) for case in outcome.cases] == [
        ("a", None, 0),  # its mark
        ("b", 0, 2),  # copies that are the same are approved
        ("c", 0, 2),
    ]
    (output / "b.nii.gz").unlink()
    with pytest.raises(UserError, match=r"b\.nii\.gz: No such file"):
        read_outcome(output, [], back)


def test_corrected_labels_that_are_a_link_to_the_delivered_are_refused(made):
    output, back = made({"b": delivered()})
    os.link(output / "a.nii.gz", back / "a.nii.gz")
    with pytest.raises(UserError, match="a.nii.gz: the delivered segmentation itself"):
        read_outcome(output, [], back)


def test_without_a_record_labels_count_with_a_warning(made):
    output, back = made({"a": half(), "b": delivered()})
    record_path(output / RECORDS, "a").unlink()
    outcome = read_outcome(output, [], back)
    assert [case.n_changed for case in outcome.cases] == [100, 0]
    [warning] = outcome.warnings
    assert "no record says how a was delivered" in warning
