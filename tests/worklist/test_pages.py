"""The pages of a list and of its scans: what stands on them, and what is needed to make them
again."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from markupsafe import escape

from nnunet_nacl.cases.record import PlacePicture, read_record, record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.utilities.command_lines import editor_lines
from nnunet_nacl.worklist import pages as module
from nnunet_nacl.worklist.aims import Aims
from nnunet_nacl.worklist.list_files import page_of
from nnunet_nacl.worklist.pages import review_page, scan_page, write_list
from nnunet_nacl.worklist.review_list import review_list
from tests.comparison.html_check import Page
from tests.runs.predictions import reviewed
from tests.worklist.conftest import SCANS
from tests.worklist.records import calibrator, list_of, record, structure


def flags_of(bad: dict[str, float], threshold: float | None) -> Flags:
    return Flags(
        bad=bad,
        find=0.9,
        miss=None,
        threshold=threshold,
        n_scans=20,
        n_bad_patients=10,
        share_bad=0.5,
        share_found=0.9,
        share_flagged=0.5,
    )


def test_a_page_that_would_be_too_large_has_pictures_of_the_first_ranks(tmp_path, monkeypatch):
    records = [
        record(
            f"scan {i}",
            structure(0.9 - i / 1000),
            places={"s0": PlacePicture("here", "A" * 50_000, (9, 9))},
        )
        for i in range(5)
    ]
    monkeypatch.setattr(module, "LARGEST_PICTURES_OF_LIST", 100_000)
    write_list(list_of(records, pages="none", output=tmp_path))
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert not page.faults
    assert "Review list: , 5 scans" in page.text
    assert "0 of 5 scans are flagged" in page.text
    rows = dict(re.findall(r'data-case="(.*?)"(.*?)</tr>', text, re.S))
    assert list(rows) == [f"scan {i}" for i in range(4, -1, -1)]
    assert ["AAAA" in row for row in rows.values()] == [True, True, False, False, False]
    assert ["left out, to keep this page small" in row for row in rows.values()] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_intervals_of_a_scan_that_is_unlike_are_not_supported():
    known = calibrator((0.4, 0.6), (1.0, 3.0))
    listed = list_of([record("a"), record("odd", profile=(1.0,))], known)
    text = review_page(listed)
    cells = {
        case: re.findall(rf'data-case="{case}".*?</tr>', text, re.S)[0] for case in ("a", "odd")
    }
    volumes = "segmented 2 ml, predicted 2.5 ml (1 to 3)<"
    assert f'0.50 (0.40 to 0.60)</span><span class="small">{volumes}' in cells["a"]
    assert f"interval not supported; {volumes}" in cells["odd"]
    assert "unlike: odd<" in cells["odd"]
    assert "not supported" not in cells["a"]
    assert 'x="40.0%" width="20.0%"' in cells["a"]
    assert 'cx="50.0%"' in cells["a"]


def test_a_segmented_volume_outside_its_interval_is_named():
    records = [record("a"), record("odd", profile=(1.0,)), record("area", unit="mm2")]
    outside = Page(review_page(list_of(records, calibrator(volume=(2.1, 3.0)))))
    [after_a, after_odd] = outside.text.split("segmented 2 ml, predicted 2.5 ml (2.1 to 3)")[1:]
    assert after_a.startswith("; the segmented volume lies outside this interval")
    assert not after_odd.startswith(";"), "which does not hold for a scan that is unlike"
    assert "segmented 2 mm²" in outside.text
    known = calibrator(volume=(2.1, 3.0), no_better=("1",))
    assert "segmented volume lies outside" not in Page(review_page(list_of(records, known))).text
    at_the_end = Page(review_page(list_of(records[:1], calibrator(volume=(1.0, 2.0)))))
    assert "segmented volume lies outside" not in at_the_end.text


def test_the_strip_has_a_dot_for_each_scan_on_its_side_of_the_limit():
    """Bad below .6, and flagged from a score of -.1 down: the limit is a predicted Dice of .5, the
    edge of a bin."""
    dice = {"a": 0.1, "b": 0.5, "c": 0.5001, "d": 0.5002, "e": 0.9}
    records = [
        record(case, structure(value), differences=("odd",) * (case == "e"))
        for case, value in dice.items()
    ]
    records.append(record("f", structure(math.nan, pieces=0)))
    flags = flags_of({"s0": 0.6}, threshold=0.5 - 0.6)
    page = Page(review_page(list_of(records, calibrator(), flags, also=1)))
    [limit] = [line["x1"] for line in page.all("line") if line.get("class") == "limit"]
    dots = [dot for dot in page.all("circle") if "r" in dot and "class" in dot]
    places = [(float(dot["cx"][:-1]), float(dot["cy"])) for dot in dots]
    low, high = (float(page.all("line")[0][end][:-1]) for end in ("x1", "x2"))
    assert limit == f"{low + 0.5 * (high - low)}%"
    [bad] = [line["x1"] for line in page.all("line") if line.get("class") == "bad"]
    assert float(bad[:-1]) == pytest.approx(low + 0.6 * (high - low))
    assert "The dotted line is the Dice below which a scan is bad, 0.6: the limit" in page.text
    assert not page.faults
    assert len(set(places)) == 6
    left = [dot["class"] for dot, (x, _) in zip(dots, places) if low < x < float(limit[:-1])]
    right = [dot["class"] for dot, (x, _) in zip(dots, places) if x > float(limit[:-1])]
    assert left == ["flagged"] * 2 and sorted(right) == ["", "chosen", "flagged"], (
        "e is flagged for another reason"
    )
    assert [dot["class"] for dot, (x, _) in zip(dots, places) if x < low] == ["flagged"], (
        "f has no score"
    )
    without = Page(review_page(list_of(records)))
    assert not [line for line in without.all("line") if line.get("class") in ("limit", "bad")]


@pytest.mark.parametrize(("low", "reaches"), [(0.59, True), (0.6, False)])
def test_a_scan_without_a_flag_whose_interval_reaches_below_a_bad_dice_says_why(low, reaches):
    records = [record("flagged", structure(0.4)), record("b", structure(0.7))]
    records.append(record("odd", structure(0.7), profile=(1.0,)))
    flags = flags_of({"s0": 0.6}, threshold=-0.1)
    listed = list_of(records, calibrator((low, 0.9)), flags)
    assert listed.may_be_bad == ({"b"} if reaches else set())
    said = "1 scan without a flag has an interval that reaches below a bad Dice: such a Dice is"
    assert (said in Page(review_page(listed)).text) == reaches
    of_scan = "Not flagged, though an interval reaches" if reaches else "Not flagged."
    assert listed.text_of_unflagged("b").startswith(of_scan)


def least_certain_voxel(probs: np.ndarray) -> np.ndarray:
    """Of (z, y, x) probabilities with voxels of ``SPACING_MM``: the most uncertain block of 2 x 5 x
    10 voxels by a loop, and in it the voxel."""
    variance = probs * (1 - probs)
    blocks = {}
    for z, y, x in np.ndindex(*(-(-n // step) for n, step in zip(probs.shape, (2, 5, 10)))):
        block = np.zeros(probs.shape, bool)
        block[2 * z : 2 * z + 2, 5 * y : 5 * y + 5, 10 * x : 10 * x + 10] = True
        blocks[variance[block].sum()] = block
    return np.argwhere((variance == variance[blocks[max(blocks)]].max()) & blocks[max(blocks)])[0]


def test_list_page_and_ring_show_the_least_certain_place_of_the_structure_to_look_at(
    reviewed_scans,
):
    parent, of_all = reviewed_scans
    only_anterior = Aims(flags=flags_of({"anterior": 0.5}, threshold=None))
    of_one = review_list(of_all.records.values(), replace(of_all.run, aims=only_anterior))
    for listed, case, shown in (
        (of_all, "b", "posterior"),
        (of_all, SCANS[0], "posterior"),
        (of_all, SCANS[3], "posterior"),  # which was not segmented
        (of_one, "b", "anterior"),  # the same records, and only this structure counts
    ):
        assert listed.structures_by_need(case)[0] == shown
        rows = dict(re.findall(r'data-case="(.*?)"(.*?)</tr>', review_page(listed), re.S))
        channel = 1 + [*listed.structures.loc[case]["name"]].index(shown)
        probs = np.load(parent / "predictions" / f"{case}.npz")["probabilities"].astype(float)
        z, y, x = (int(index) for index in least_certain_voxel(probs[channel]))
        text = scan_page(listed, case)
        slices = json.loads(re.findall(r'id="slices">(.*?)</script>', text, re.S)[0])
        n_slices, n_rows, n_columns = probs.shape[1:]
        assert slices["first"] == z + 1 and z + 1 in [n for n, *_ in slices["slices"]]
        # these small slices are shown as a whole, seen from the feet, and grow to the left and back
        assert slices["ring"] == pytest.approx([(x + 0.5) / n_columns, (y + 0.5) / n_rows])
        planes = (f"axial slice {z + 1} of", f"coronal slice {y + 1} of", f"sagittal slice {x + 1}")
        assert all(plane in text for plane in planes)
        assert f"axial slice {z + 1} of {n_slices}, at {shown}" in rows[str(escape(case))]
        assert f"at the least certain place of {shown}, in the ring" in text


def test_every_scan_has_a_page_that_needs_nothing_else_and_links_to_the_next(reviewed_scans):
    parent, listed = reviewed_scans
    order = [*listed.scans.index]
    pages = {}
    assert sorted(order) == sorted(SCANS) == sorted(listed.cases("has_page"))
    for case in order:
        text = (parent / "out" / page_of(case)).read_text(encoding="utf-8")
        page = Page(text)
        pages[case] = page
        assert not page.faults
        assert len(text) < 1_500_000
        assert "default-src 'none'" in text
        assert "https://" not in text
        reasons = [reason.text for reason in listed.scans.reasons[case]]
        assert all(name in page.text for name in (*listed.structures.name, *reasons))
    assert "There is no picture" in pages["no image"].text
    assert len([image for image in pages["b"].all("img") if image.get("src")]) == 3, "three planes"
    links = {
        link["href"]
        for link in Page((parent / "out" / "index.html").read_text(encoding="utf-8")).all("a")
    }
    assert {unquote(link) for link in links} >= {page_of(case) for case in SCANS}
    runs = {p["data-run"] for page in pages.values() for p in page.all("p") if "data-run" in p}
    assert (
        runs
        == {json.loads((parent / "out" / "prediction.json").read_text())["run"]}
        == {listed.run.name}
    )


@pytest.mark.parametrize("name", ["it's ü 脳", '"$HOME" `x` \\n'])
def test_lines_for_editors_are_quoted_for_the_shell_and_for_python(tmp_path, name):
    image = str(tmp_path / f"{name}_0000.nii.gz")
    segmentation = tmp_path / f"{name}.nii.gz"
    lines = editor_lines(image, segmentation)
    assert shlex.split(lines["ITK-SNAP"]) == ["itksnap", "-g", image, "-s", str(segmentation)]
    command, flag, code = shlex.split(lines["3D Slicer"])
    opened = []
    util = SimpleNamespace(loadVolume=opened.append, loadSegmentation=opened.append)
    exec(code, {"slicer": SimpleNamespace(util=util)})  # as Slicer does
    assert (command, flag, opened) == ("Slicer", "--python-code", [image, str(segmentation)])
    alone = editor_lines("", segmentation)
    assert shlex.split(alone["ITK-SNAP"]) == ["itksnap", "-g", str(segmentation)]
    assert "loadVolume" not in alone["3D Slicer"]
    assert "ITK-SNAP" not in editor_lines("/series/0001.dcm", segmentation)


def test_pages_are_made_again_without_the_images(reviewed_scans, tmp_path):
    parent, _ = reviewed_scans
    run = reviewed(parent / "predictions", tmp_path / "out").run.name
    pages = {path.name: path.read_bytes() for path in (tmp_path / "out" / "review").glob("*.html")}
    for path in pages:
        (tmp_path / "out" / "review" / path).unlink()
    (parent / "images").rename(parent / "elsewhere")
    try:
        again = reviewed(parent / "predictions", tmp_path / "out")
    finally:
        (parent / "elsewhere").rename(parent / "images")
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "out" / "review").glob("*.html")
    } == pages
    assert again.run.name == run
    record = record_path(tmp_path / "out" / RECORDS, "b")
    read_record(record).save(record)  # without its pictures
    text = scan_page(again, "b")
    assert "There is no picture" in text
    assert not Page(text).faults
    record.write_text("{")
    problems = write_list(again)
    assert list(problems) == ["review/b.html"]
    assert f"{record}: its pictures cannot be read" in problems["review/b.html"]
