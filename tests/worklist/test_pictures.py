"""Pictures: which slice is shown, how it is turned, its proportions and colours, and how large all
of them are."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry, slicing_axis
from nnunet_nacl.cases.record import read_pictures, record_path
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cases.views import VoxelUncertainty
from nnunet_nacl.metrics.voxel_uncertainty import VarianceByBlock
from nnunet_nacl.nnunet.preprocessing import for_pictures
from nnunet_nacl.worklist.drawing import draw_slice
from nnunet_nacl.worklist.pages import scan_page
from nnunet_nacl.worklist.pictures import draw_scan
from nnunet_nacl.worklist.slices import Grid, View, anatomical_axes
from tests.comparison.html_check import Page
from tests.runs.folders import read
from tests.worklist.conftest import SCANS
from tests.worklist.records import list_of, record, structure

LONG_SIDE = (320, 480)


@pytest.mark.parametrize(
    ("spacing_mm", "axis"),
    [((1, 1, 3), 2), ((1, 1.005, 1), 0), ((1, 1.02, 1.02), 1), ((999, 1, 1), 0)],
)
def test_slices_lie_across_the_largest_spacing(spacing_mm, axis):
    assert slicing_axis(spacing_mm) == axis


ORIENTATIONS = [
    np.stack([sign * np.eye(3)[axis] for axis, sign in zip(order, signs)], axis=1)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
# world x grows to the left, y to the back, z to the head: rows and columns of the picture that show
# these
VIEWS = {"axial": ((1, 1), (0, 1)), "coronal": ((2, -1), (0, 1)), "sagittal": ((2, -1), (1, 1))}


def simpleitk(directions) -> Geometry:
    n = len(directions)
    stuff = {
        "spacing": (0.5, 2, 3)[:n],
        "origin": (7,) * n,
        "direction": tuple(np.ravel(directions)),
    }
    return Geometry.of({"spacing": (3, 2, 0.5), "sitk_stuff": stuff})


def nibabel(**affines) -> Geometry:
    return Geometry.of({"spacing": (3, 2, 0.5), "nibabel_stuff": affines})


def around(axis: int, geometry: Geometry) -> View:
    """All of the second slice across an axis of (4, 5, 6) voxels."""
    return View.around(np.ones(np.delete((4, 5, 6), axis), bool), axis, 1, geometry, LONG_SIDE)


def test_all_48_orientations_are_turned_as_usual_and_size_and_spacing_with_them():
    # the file's first axis is the array's last
    n_turned = 0
    indices = np.indices((4, 5, 6))[::-1]
    for directions in ORIENTATIONS:
        views = [around(axis, simpleitk(directions)) for axis in range(3)]
        assert {view.plane for view in views} == set(VIEWS)
        for view in views:
            for direction, (world, sign) in enumerate(VIEWS[view.plane]):
                shown = view(sum(directions[world, i] * indices[i] for i in range(3)))
                steps = np.diff(shown, axis=direction)
                assert (np.sign(steps) == sign).all()
                assert not np.diff(shown, axis=1 - direction).any()
        grid = views[0].grid
        turned = views[0].transpose
        assert (grid.shape, grid.spacing_mm) == (
            ((6, 5), (0.5, 2)) if turned else ((5, 6), (2, 0.5))
        )
        n_turned += turned
    assert n_turned == 24
    views = [around(axis, simpleitk(np.eye(3))) for axis in range(3)]
    assert ["".join(view.edges) for view in views] == ["RLAP", "RLSI", "APSI"]


def test_nibabel_says_the_same_as_simpleitk():
    for directions in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ directions * (0.5, 2, 3)
        expected = anatomical_axes(simpleitk(directions))
        assert anatomical_axes(nibabel(original_affine=affine)) == expected
        assert (
            anatomical_axes(nibabel(original_affine=np.eye(4), reoriented_affine=affine))
            == expected
        )


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((999, 1, 1)),
        simpleitk(np.eye(2)),
        simpleitk([[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        nibabel(original_affine=np.zeros((4, 4))),
    ],
)
def test_unknown_orientations_are_shown_as_stored(geometry):
    assert anatomical_axes(geometry) is None
    volume = np.arange(120).reshape(4, 5, 6)
    view = around(1, geometry)
    assert (view.plane, view.edges) == ("", ())
    assert np.array_equal(view(volume), volume[:, 1])


@given(
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
@settings(max_examples=100)
@example((1, 250), (1.0, 9.999999999999998))
def test_a_pixel_is_as_high_as_wide_in_millimetres(shape, spacing_mm):
    grid = Grid(shape, spacing_mm, LONG_SIDE)
    height, width = grid.pixels
    assert max(height, width) <= 481
    assert min(height, width) >= 1
    for pixel, size in zip((height, width), grid.size_mm):
        assert abs(pixel * grid.pixel_mm - size) <= max(grid.pixel_mm, 1e-9)
    assert grid.enlarge(np.zeros(shape)).shape == (height, width)
    length, bar = grid.scale_bar()
    assert 0 < length <= 0.4 * grid.size_mm[1] + 1e-9
    assert bar == pytest.approx(length / grid.pixel_mm, abs=1)
    assert f"{length:e}"[0] in "125"


def test_slices_are_spaced_evenly_with_the_least_certain_place_of_each_structure(reviewed_scans):
    parent, _ = reviewed_scans
    drawn = read_pictures(record_path(parent / "out" / RECORDS, "b"))
    numbers = [number for number, *_ in drawn["slices"]]
    assert {number for number, *_ in drawn["places"].values()} <= {*numbers}
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert drawn["of"] == 6
    first = next(iter(drawn["places"].values()))[0]
    [layers] = [layers for number, *layers in drawn["slices"] if number == first]
    assert [Image.open(io.BytesIO(base64.b64decode(layer))).format for layer in layers] == [
        "JPEG",
        "PNG",
        "PNG",
    ]
    segmentation = read(parent / "out" / "b.nii.gz")
    for number, _, lines, _ in drawn["slices"]:
        alpha = Image.open(io.BytesIO(base64.b64decode(lines))).convert("RGBA").getchannel("A")
        assert alpha.getextrema() == (0, 255 * segmentation[number - 1].any()), (
            "clear beside the outlines"
        )
    many = read_pictures(record_path(parent / "out" / RECORDS, SCANS[0]))
    numbers = [number for number, *_ in many["slices"]]
    assert len(numbers) == 64
    assert {number for number, *_ in many["places"].values()} <= {*numbers}
    assert many["of"] == 160
    assert set(np.diff(numbers)) <= {1, 2, 3, 4}


def test_a_thin_slice_lies_in_a_black_picture_with_room_for_its_letters():
    """Four slices of 2 mm, as seen from the front: 64 voxels wide, and 8 mm high."""
    labels = Labels(("0", "1"), (0, 1), False, None, (0, 1))
    grid = Grid((4, 64), (2.0, 1.0), (180, 240))
    height, width = grid.pixels
    assert height < 25
    bright = np.tile([0.0, 1.0], (4, 32))
    nothing = np.zeros((4, 64), np.int8)
    picture = draw_slice(bright, nothing, labels, grid, "RLSI", mark=(1, 60)).convert("L")
    assert picture.size == (width, 96)
    pixels = np.asarray(picture)
    top = (96 - height) // 2
    for edge in (slice(0, 20), slice(-60, -40)):  # beside letters in the middle and the scale bar
        assert not pixels[:top, edge].any()
        assert pixels[top : top + height, edge].any()
    letters = {
        "upper": pixels[: top - 2, width // 3 : -width // 3],
        "lower": pixels[top + height + 2 :, width // 3 : -width // 3],
    }
    assert all((letter == 255).any() for letter in letters.values())


def test_the_page_of_a_picture_without_other_slices_speaks_of_none(tmp_path):
    shape = (1, 60, 80)
    labels = Labels(("0", "1"), (0, 1), False, None, (0, 1))
    segmentation = np.zeros(shape, np.int8)
    segmentation[0, 20:40, 30:50] = 1
    image = for_pictures(np.random.default_rng(0).random(shape, np.float32))
    case = Case("flat", labels, Geometry((999.0, 1.0, 1.0)), segmentation)
    case = replace(case, image=image, images=(Path("flat_0000.nii.gz"),))
    uncertainty = VoxelUncertainty({}, np.ones(shape), VarianceByBlock(1, shape, (999.0, 1.0, 1.0)))
    scan = record("flat", structure(0.6, name="1"))
    folder = SimpleNamespace(plans={})
    drawn = draw_scan(scan, case, uncertainty, {"1": (0, 20, 30)}, folder, with_page=True)
    drawn.save(record_path(tmp_path / RECORDS, "flat"))
    page = Page(scan_page(list_of([drawn], output=tmp_path), "flat"))
    assert not page.faults
    assert "The ring marks the place where the network is least certain of 1." in page.text
    assert "through the slices" not in page.text
    [slider] = [element for element in page.all("input") if element.get("id") == "slider"]
    assert "hidden" in slider


def test_a_page_stays_small_whatever_the_image(tmp_path):
    """Noise, with small pieces of eight structures throughout."""
    rng = np.random.default_rng(0)
    shape = (70, 330, 330)
    labels = Labels(tuple(map(str, range(9))), tuple(range(9)), False, None, tuple(range(9)))
    segmentation = np.kron(rng.integers(0, 9, (7, 33, 33)), np.ones((10, 10, 10), np.int8))
    case = Case("noise", labels, Geometry((1.0, 1.0, 1.0)), segmentation)
    index = (40, 165, 165)
    image = for_pictures(rng.random(shape, np.float32))
    folder = SimpleNamespace(plans={})
    case = replace(case, image=image, images=(Path("noise_0000.nii.gz"),))
    uncertainty = VoxelUncertainty(
        {}, rng.random(shape, np.float32), VarianceByBlock(9, shape, (1.0, 1.0, 1.0))
    )
    places = {"1": index, "2": (7, 100, 300)}
    scan = record("noise", structure(0.6, name="1"), structure(0.5, name="2"))
    drawn = draw_scan(scan, case, uncertainty, places, folder, with_page=True)
    pictures = json.loads(drawn.pictures)
    assert 500_000 < len(drawn.pictures) < 1_500_000
    assert {name: number for name, (number, *_) in pictures["places"].items()} == {"1": 41, "2": 8}
    assert {8, 41} < {number for number, *_ in pictures["slices"]}
    drawn.save(record_path(tmp_path / RECORDS, "noise"))
    page = scan_page(list_of([drawn], output=tmp_path), "noise")
    assert 500_000 < len(page) < 1_500_000
    assert not Page(page).faults
    alone = draw_scan(scan, case, uncertainty, places, folder, with_page=False)
    assert (alone.places, alone.pictures) == (drawn.places, b"")
