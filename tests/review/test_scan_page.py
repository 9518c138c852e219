"""The pages of scans: what stands on them, how large they are, and what is needed to make them again."""

from __future__ import annotations

import base64
import io
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.nnunet.preprocessed_case import for_pictures
from nnunet_nacl.numbers.voxel_uncertainty import Place
from nnunet_nacl.review.review_list import ReviewList, page_of, pictures_of
from nnunet_nacl.review.reviewed_case import FinishedCase, ReviewedCase
from nnunet_nacl.review.scan_page import all_pages, editor_lines
from nnunet_nacl.review.scan_pictures import draw_scan
from tests.review.test_review_list import review
from tests.runs.folders import read
from tests.runs.predictions import reviewed
from tests.show.conftest import SCANS
from tests.show.html_check import Page


def test_every_scan_has_a_page_that_needs_nothing_else_and_links_to_the_next(reviewed_scans):
    parent, listed = reviewed_scans
    order, pages = [row.case for row in listed.rows], {}
    assert sorted(order) == sorted(SCANS) == sorted(listed.paged)
    for case in order:
        pages[case] = page = Page(text := (parent / "out" / page_of(case)).read_text(encoding="utf-8"))
        assert not page.faults and len(text) < 1_500_000
        assert "default-src 'none'" in text and "https://" not in text
        assert all(structure in page.text for structure in listed.structures)
        assert all(reason in page.text for reason in listed.reasons[case])
    ways = {case: {link.get("rel"): link["href"] for link in page.all("a")} for case, page in pages.items()}
    assert "prev" not in ways[order[0]] and "next" not in ways[order[-1]]
    for case, other in zip(order, order[1:]):
        name = Path(page_of(other)).name
        assert unquote(ways[case]["next"]) == name and unquote(ways[other]["prev"]) == Path(page_of(case)).name
    assert "There is no picture" in pages["no image"].text
    assert len([image for image in pages["b"].all("img") if image.get("src")]) == 3, "three planes"
    links = {link["href"] for link in Page((parent / "out" / "index.html").read_text(encoding="utf-8")).all("a")}
    assert {unquote(link) for link in links} >= {page_of(case) for case in SCANS}
    runs = {p["data-run"] for page in pages.values() for p in page.all("p") if "data-run" in p}
    assert runs == {json.loads((parent / "out" / "prediction.json").read_text())["run"]} == {listed.run}


def test_slices_are_spaced_evenly_through_the_structures_with_the_least_certain_one(reviewed_scans):
    parent, listed = reviewed_scans
    drawn = json.loads((parent / "out" / pictures_of("b")).read_text())
    numbers = [number for number, *_ in drawn["slices"]]
    assert drawn["first"] in numbers and numbers == list(range(numbers[0], numbers[-1] + 1)) and drawn["of"] == 6
    assert f"axial slice {drawn['first']} of 6" in listed.finished["b"].place
    [layers] = [layers for number, *layers in drawn["slices"] if number == drawn["first"]]
    grey, lines, doubt = (Image.open(io.BytesIO(base64.b64decode(layer))) for layer in layers)
    assert (grey.format, lines.format, doubt.format) == ("JPEG", "PNG", "PNG") and list(lines.size) == drawn["size"]
    assert max(lines.size) == 320 and max(grey.size) <= 320
    segmentation = read(parent / "out" / "b.nii.gz")
    for number, _, lines, _ in drawn["slices"]:
        alpha = Image.open(io.BytesIO(base64.b64decode(lines))).convert("RGBA").getchannel("A")
        assert alpha.getextrema() == (0, 255 * segmentation[number - 1].any()), "clear beside the outlines"
    many = json.loads((parent / "out" / pictures_of(SCANS[0])).read_text())
    numbers = [number for number, *_ in many["slices"]]
    assert len(numbers) == 64 and many["first"] in numbers and many["of"] == 160
    assert set(np.diff(numbers)) <= {1, 2, 3, 4}
    text = Page((parent / "out" / page_of(SCANS[0])).read_text(encoding="utf-8")).text
    assert "64 are here, evenly spaced through the structures" in text


def test_a_page_stays_small_whatever_the_image(tmp_path):
    """Noise, with small pieces of eight structures throughout."""
    rng, shape = np.random.default_rng(0), (70, 330, 330)
    labels = Labels(tuple(map(str, range(9))), tuple(range(9)), False, None, tuple(range(9)))
    segmentation = np.kron(rng.integers(0, 9, (7, 33, 33)), np.ones((10, 10, 10), np.int8))
    case, index = Case("noise", labels, Geometry((1.0, 1.0, 1.0)), segmentation), (40, 165, 165)
    finished, doubt = FinishedCase(review("noise")), rng.random(shape, np.float32)
    scan = ReviewedCase(case, Place(index, 1), doubt, {}, finished)
    image, folder = for_pictures(rng.random(shape, np.float32)), SimpleNamespace(plans={})
    finished, [path] = draw_scan(tmp_path, folder, scan, image, [Path("noise_0000.nii.gz")])
    text = path.read_text()
    assert 500_000 < len(text) < 1_400_000 and json.loads(text)["first"] == 41
    assert 41 in [number for number, *_ in json.loads(text)["slices"]]
    page = dict(all_pages(ReviewList("", {"noise": finished}, ["s0"], ["p"]), tmp_path))[page_of("noise")]
    assert 500_000 < len(page) < 1_500_000 and not Page(page).faults
    assert draw_scan(None, folder, scan, image, [Path("noise_0000.nii.gz")]) == (finished, ())


def test_the_flagged_and_the_ten_next_have_a_page(tmp_path):
    finished = {f"{i:02}": FinishedCase(review(f"{i:02}", i / 100), ("odd",) * (i in (0, 15))) for i in range(20)}
    for pages, cases in {"flagged": [*range(11), 15], "all": range(20), "none": ()}.items():
        listed = ReviewList("", finished, ["s0"], ["p"], pages=pages)
        listed.write(tmp_path, all_pages)
        assert listed.paged == [f"{i:02}" for i in cases]
        assert listed.paged == sorted(path.stem for path in (tmp_path / "review").glob("*.html"))
        links = Page((tmp_path / "index.html").read_text()).all("a")
        assert sum(link["href"].startswith("review/") for link in links) == len(cases)


@pytest.mark.parametrize("name", ["plain", "with space", "it's", 'a "b"', "ü 脳", "$HOME `x` \\n"])
def test_lines_for_editors_are_quoted_for_the_shell_and_for_python(tmp_path, name):
    image, segmentation = str(tmp_path / f"{name}_0000.nii.gz"), tmp_path / f"{name}.nii.gz"
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
    first = reviewed(parent / "predictions", tmp_path / "out")
    pages = {path.name: path.read_bytes() for path in (tmp_path / "out" / "review").glob("*.html")}
    run = first.run
    for path in pages:
        (tmp_path / "out" / "review" / path).unlink()
    (parent / "images").rename(parent / "elsewhere")
    try:
        again = reviewed(parent / "predictions", tmp_path / "out")
    finally:
        (parent / "elsewhere").rename(parent / "images")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "review").glob("*.html")} == pages
    assert again.run == run
    (tmp_path / "out" / pictures_of("b")).write_text("{")
    text = dict(all_pages(again, tmp_path / "out"))[page_of("b")]
    assert "There is no picture" in text and not Page(text).faults
