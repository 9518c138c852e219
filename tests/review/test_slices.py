"""Which slice is shown, which part of it, and that it looks as usual whichever way round the file stores it."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from nnunet_nacl.case.geometry import Geometry, slicing_axis
from nnunet_nacl.review.slices import View, anatomical_axes, crop_box


@pytest.mark.parametrize(
    ("spacing_mm", "preferred", "axis"),
    [
        ((3, 1, 1), 2, 0),
        ((1, 1, 3), 0, 2),
        ((1, 1, 1), 0, 0),
        ((1, 1, 1), 1, 1),
        ((1, 1.005, 1), 0, 0),
        ((1, 2, 2), 0, 1),
        ((999, 1, 1), 1, 0),
    ],
)
def test_slices_lie_across_the_largest_spacing(spacing_mm, preferred, axis):
    assert slicing_axis(spacing_mm, {"transpose_forward": [preferred, 1, 2]}) == axis


def test_the_part_that_is_shown_holds_all_that_is_occupied():
    occupied = np.zeros((300, 400), bool)
    occupied[100:160, 350:395] = True
    rows, columns = crop_box(occupied)
    assert (rows.start, rows.stop) == (70, 190) and (columns.start, columns.stop) == (327, 400)
    assert occupied[rows, columns].sum() == occupied.sum()
    occupied[:] = False
    occupied[5, 5] = True
    assert crop_box(occupied) == (slice(0, 29), slice(0, 29))
    assert crop_box(np.zeros((300, 400), bool)) == (slice(0, 300), slice(0, 400))
    assert crop_box(np.ones((40, 30), bool)) == (slice(0, 40), slice(0, 30))


ORIENTATIONS = [
    np.stack([sign * np.eye(3)[axis] for axis, sign in zip(order, signs)], axis=1)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
# world x grows to the left, y to the back, z to the head: rows and columns of the picture that show these
VIEWS = {"axial": ((1, 1), (0, 1)), "coronal": ((2, -1), (0, 1)), "sagittal": ((2, -1), (1, 1))}


def simpleitk(directions) -> Geometry:
    n = len(directions)
    stuff = {"spacing": (0.5, 2, 3)[:n], "origin": (7,) * n, "direction": tuple(np.ravel(directions))}
    return Geometry.of({"spacing": (3, 2, 0.5), "sitk_stuff": stuff})


def nibabel(**affines) -> Geometry:
    return Geometry.of({"spacing": (3, 2, 0.5), "nibabel_stuff": affines})


def world_coordinate(directions: np.ndarray, world: int, shape=(4, 5, 6)) -> np.ndarray:
    """World coordinate of each voxel, in nnU-Net's array axis order."""
    indices = np.indices(shape[::-1])[::-1]  # the file's first axis is the array's last
    return sum(directions[world, i] * indices[i] for i in range(3))


def around(axis: int, geometry: Geometry) -> View:
    """All of the second slice across an axis of (4, 5, 6) voxels."""
    return View.around(np.ones(np.delete((4, 5, 6), axis), bool), axis, 1, geometry)


@pytest.mark.parametrize("directions", ORIENTATIONS)
def test_all_48_orientations(directions):
    seen = set()
    for axis in range(3):
        view = around(axis, simpleitk(directions))
        seen.add(view.plane)
        for direction, (world, sign) in enumerate(VIEWS[view.plane]):
            shown = view(world_coordinate(directions, world))
            steps = np.diff(shown, axis=direction)
            assert (np.sign(steps) == sign).all() and not np.diff(shown, axis=1 - direction).any()
    assert seen == set(VIEWS)


def test_letters_at_the_edges():
    views = [around(axis, simpleitk(np.eye(3))) for axis in range(3)]
    assert [view.plane for view in views] == ["axial", "coronal", "sagittal"]
    assert ["".join(view.edges) for view in views] == ["RLAP", "RLSI", "APSI"]


def test_nibabel_says_the_same_as_simpleitk():
    for directions in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ directions * (0.5, 2, 3)
        expected = anatomical_axes(simpleitk(directions))
        assert anatomical_axes(nibabel(original_affine=affine)) == expected
        assert anatomical_axes(nibabel(original_affine=np.eye(4), reoriented_affine=affine)) == expected


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
    assert (view.plane, view.edges) == ("", ()) and np.array_equal(view(volume), volume[:, 1])


def test_spacing_and_size_follow_the_turn():
    turned = [view for d in ORIENTATIONS if (view := around(0, simpleitk(d))).transpose]
    assert len(turned) == 24 and {(view.grid.shape, view.grid.spacing_mm) for view in turned} == {((6, 5), (0.5, 2))}
    assert around(0, Geometry((3, 2, 0.5))).grid.spacing_mm == (2, 0.5)
