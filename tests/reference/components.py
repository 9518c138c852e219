"""Connected components by flooding, voxel by voxel, as sets of indices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

Index = tuple[int, ...]


def components_of(mask: np.ndarray) -> list[set[Index]]:
    """The components of a mask; voxels that touch at a corner are connected."""
    left = {tuple(index) for index in np.argwhere(mask).tolist()}
    components = []
    while left:
        first = left.pop()
        component = {first}
        to_visit = [first]
        while to_visit:
            reached = left.intersection(neighbours_of(to_visit.pop()))
            left -= reached
            component |= reached
            to_visit += reached
        components.append(component)
    return components


def neighbours_of(index: Index) -> Iterator[Index]:
    for offset in product((-1, 0, 1), repeat=len(index)):
        yield tuple(position + step for position, step in zip(index, offset))


def found_components(truth: np.ndarray, predicted: np.ndarray) -> tuple[int, int, int]:
    """How many true components there are, how many of them share a voxel with the prediction, and
    how many predicted ones share none with the truth."""
    true_components = components_of(truth)
    predicted_components = components_of(predicted)
    true_voxels = set().union(*true_components)
    predicted_voxels = set().union(*predicted_components)
    touched = [component for component in true_components if component & predicted_voxels]
    false = [component for component in predicted_components if not component & true_voxels]
    return len(true_components), len(touched), len(false)
