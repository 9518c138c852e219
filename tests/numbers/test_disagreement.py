"""What the folds disagree about: sums over blocks against the same on whole arrays."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nnunet_nacl.case.labels import Labels
from nnunet_nacl.nnunet.trust import label_manager_of
from nnunet_nacl.numbers import disagreement as module
from nnunet_nacl.numbers.disagreement import MemberSums
from nnunet_nacl.numbers.overlap import count_overlap
from nnunet_nacl.numbers.voxel_uncertainty import mutual_information
from tests.runs.folders import CLASSES, REGIONS


def make(labels: dict) -> tuple[Labels, object]:
    content = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": [1, 2]}
    manager = label_manager_of({"label_manager": "LabelManager"}, content, "here")
    return Labels.of(manager, content, "here"), manager


def disagreement(labels: dict, members: list[np.ndarray]):
    known, manager = make(labels)
    sums = MemberSums(
        [known.values[channel] for channel in known.foreground],
        lambda probs: np.asarray(manager.convert_probabilities_to_segmentation(probs)),
        regions=known.regions,
        to_probs=lambda logits: manager.apply_inference_nonlin(logits).numpy(),
    )
    for logits in members:
        sums.add(logits)
    return sums.result(np.mean(members, axis=0))


def test_sure_of_opposite_things_and_of_the_same() -> None:
    """Two classes of three, each sure where the other is: the mean's entropy is log 2 of at most log 3."""
    first = np.full((3, 1, 2, 2), -50.0)
    first[0] = 0
    second = first.copy()
    first[1, 0, 0] = second[2, 0, 0] = 60  # the upper row: classes 1 and 2; the lower: background
    found = disagreement(CLASSES, [first, second])
    expected = np.log(2) / np.log(3)
    np.testing.assert_allclose(found.mutual_information[0], [[expected] * 2, [0, 0]], atol=1e-3)
    assert found.foreground_mutual_information == pytest.approx(expected, abs=1e-3)  # the mean is a tie: foreground
    np.testing.assert_array_equal(found.voxels, [[2, 0], [0, 2]])
    np.testing.assert_array_equal(found.dice, [0, 0])
    same = disagreement(CLASSES, [first, first])
    np.testing.assert_array_equal(same.dice, [1, np.nan])
    assert not same.mutual_information.any() and same.foreground_mutual_information == 0
    background = np.zeros_like(first)
    background[0] = 9
    nothing = disagreement(CLASSES, [background, background])
    assert np.isnan(nothing.dice).all() and np.isnan(nothing.foreground_mutual_information)


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_blocks_agree_with_whole_arrays(labels, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_VOXELS", 17)
    known, manager = make(labels)
    rng = np.random.default_rng(0)
    channels = len(known.values)
    members = [rng.normal(scale=3, size=(channels, 3, 7, 5)).astype(np.float16) for _ in range(3)]
    found = disagreement(labels, members)
    probs = [manager.apply_inference_nonlin(logits).numpy() for logits in members]
    information = mutual_information(probs, regions=known.regions)
    np.testing.assert_allclose(found.mutual_information, information, atol=2e-3)
    segmentations = [np.asarray(manager.convert_probabilities_to_segmentation(p)) for p in probs]
    for i, channel in enumerate(known.foreground):
        masks = [known.mask(segmentation, channel) for segmentation in segmentations]
        pairs = [count_overlap(a, b).dice for a, b in combinations(masks, 2)]
        assert found.dice[i] == pytest.approx(np.mean(pairs))
        np.testing.assert_array_equal(found.voxels[:, i], [mask.sum() for mask in masks])
    average = np.asarray(manager.convert_logits_to_segmentation(np.mean(members, axis=0)))
    assert found.foreground_mutual_information == pytest.approx(information[average != 0].mean(), abs=1e-3)
