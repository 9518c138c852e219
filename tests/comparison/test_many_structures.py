"""Pages of more structures than there are colours, as the commands make them and as a browser shows
them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.rendering import STRUCTURE_COLORS
from tests.browser import chromium  # noqa: F401  (fixture)
from tests.comparison.html_check import Page
from tests.runs.folders import describe, write_image, write_json, write_prediction

SPACING_MM = (2.0, 1.0, 1.0)
SHAPE = (2, 24, 24)
BLOCK = 2  # voxels along rows and columns of each structure
CASES = ("case_0", "case_1", "case_2")


@dataclass(frozen=True)
class Made:
    """What the commands made of predictions with so many structures."""

    n_structures: int
    reviewed: Path
    compared: Path

    def pages(self) -> dict[str, Path]:
        """Kind of page -> the page."""
        return {
            "list": self.reviewed / "index.html",
            "scan": self.reviewed / "review" / f"{CASES[0]}.html",
            "outcome": self.reviewed / "outcome.html",
            "comparison": self.compared / "report.html",
        }


def blocks(n_structures: int) -> np.ndarray:
    """A label map with a block of voxels for each structure, and background behind the last."""
    columns = SHAPE[2] // BLOCK
    rows_of_blocks = np.arange(SHAPE[1]) // BLOCK
    columns_of_blocks = np.arange(SHAPE[2]) // BLOCK
    label = rows_of_blocks[:, None] * columns + columns_of_blocks + 1
    label[label > n_structures] = 0
    return np.broadcast_to(label, SHAPE).astype(np.uint8)


def write_predictions(folder: Path, images: Path, n_structures: int, seed: int) -> None:
    """A folder as nnUNetv2_predict leaves it, in which a tenth of the voxels has another label than
    the truth."""
    folder.mkdir()
    labels = {"background": 0} | {f"structure_{i}": i for i in range(1, n_structures + 1)}
    dataset, plans = describe(labels, len(CASES), ".nii.gz", "SimpleITKIO")
    write_json(folder / "dataset.json", dataset)
    write_json(folder / "plans.json", plans)
    write_json(
        folder / "predict_from_raw_data_args.json", {"list_of_lists_or_source_folder": str(images)}
    )
    rng = np.random.default_rng(seed)
    truth = blocks(n_structures)
    for case in CASES:
        is_wrong = rng.random(SHAPE) < 0.1
        segmentation = np.where(is_wrong, rng.integers(0, n_structures + 1, SHAPE), truth).astype(
            np.uint8
        )
        probs = np.full((n_structures + 1, *SHAPE), 0.1 / n_structures, np.float32)
        np.put_along_axis(probs, segmentation[None].astype(int), 0.9, axis=0)
        write_prediction(folder, case, probs, segmentation, SPACING_MM)


@pytest.fixture(scope="module", params=[21, 60, 117])
def made(request, tmp_path_factory) -> Made:
    n_structures = request.param
    root = tmp_path_factory.mktemp(f"{n_structures} structures")
    images = root / "images"
    truths = root / "truths"
    images.mkdir()
    truths.mkdir()
    for case in CASES:
        write_image(blocks(n_structures), truths / f"{case}.nii.gz", SPACING_MM)
        write_image(
            100 * blocks(n_structures).astype(np.int16), images / f"{case}_0000.nii.gz", SPACING_MM
        )
    for seed, name in enumerate(("ours", "theirs")):
        write_predictions(root / name, images, n_structures, seed)
    reviewed = root / "reviewed"
    compared = root / "compared"
    commands = (
        ["review", "-i", root / "ours", "-o", reviewed, "-np", "1"],
        ["review", "-back", reviewed, "-corrected", truths],
        [
            "compare",
            "-i",
            f"ours={root / 'ours'}",
            root / "theirs",
            "-gt",
            truths,
            "-o",
            compared,
            "-np",
            "1",
        ],
    )
    for command in commands:
        assert main(list(map(str, command))) == 0
    return Made(n_structures, reviewed, compared)


def test_every_page_is_whole(made):
    for kind, path in made.pages().items():
        page = Page(path.read_text(encoding="utf-8"))
        assert page.faults == [], kind
        assert f"structure_{made.n_structures}" in page.text, kind


def test_a_browser_shows_each_structure_by_a_colour_and_a_number(made, chromium):  # noqa: F811
    complaints = []
    browsing = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = browsing.new_page()
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in made.pages().values():
        page.goto(path.as_uri())
    assert complaints == []

    page.goto(made.pages()["scan"].as_uri())
    rows = page.locator(".structure > span:first-child")
    names = [text.strip() for text in rows.all_inner_texts()]
    assert names == [f"{i} structure_{i}" for i in range(1, made.n_structures + 1)]
    colour_of = "swatch => getComputedStyle(swatch).backgroundColor"
    colours = page.locator(".structure .swatch").evaluate_all(
        f"swatches => swatches.map({colour_of})"
    )
    expected = [STRUCTURE_COLORS[i % len(STRUCTURE_COLORS)] for i in range(made.n_structures)]
    assert colours == [rgb(colour) for colour in expected]

    page.goto(made.pages()["list"].as_uri())
    legend = page.locator(".legend li:has(.swatch)").all_inner_texts()
    assert [text.strip() for text in legend] == names, "list and scan page number alike"
    assert page.locator("tbody tr").count() == len(CASES)
    browsing.close()


def rgb(colour: str) -> str:
    """#RRGGBB as a browser says it."""
    return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:7], 16)})"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_have_a_row_for_each_structure(made):
    assert len(rows_of(made.reviewed / "structures.csv")) == len(CASES) * made.n_structures
    outcome = json.loads((made.reviewed / "outcome.json").read_text(encoding="utf-8"))
    assert len(outcome["predicted"]) == made.n_structures
