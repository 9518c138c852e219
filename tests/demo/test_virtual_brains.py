"""Virtual brains: a complete Decathlon task, repeatable, half of whose scans to predict are
noisy."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import SimpleITK

from nnunet_nacl.demo import virtual_brains
from nnunet_nacl.demo.virtual_brains import (
    TASK_NAME,
    Template,
    load_template,
    write_virtual_brains,
)
from nnunet_nacl.utilities.errors import UserError


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The same few brains, made twice from a ball with a white core and a grey shell, which needs
    no nilearn."""
    radius = np.linalg.norm(
        np.indices((40, 44, 40)) - np.reshape([19.5, 21.5, 19.5], (3, 1, 1, 1)), axis=0
    )
    outer = 1 / (1 + np.exp((radius - 17.0) / 0.7))
    inner = 1 / (1 + np.exp((radius - 9.0) / 0.7))
    probabilities = np.float32([1 - outer, outer - inner, inner])
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-80, -90, -70)
    t1 = np.tensordot(np.array([0.0, 0.6, 0.9]), probabilities, axes=1)
    template = Template(t1, probabilities, affine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual_brains, "load_template", lambda: template)
        patch.setattr(virtual_brains, "NUM_TRAINING", 4)
        patch.setattr(virtual_brains, "NUM_VALIDATION", 4)
        patch.setattr(virtual_brains, "NUM_TEST", 2)
        return [
            write_virtual_brains(tmp_path_factory.mktemp("brains") / TASK_NAME) for _ in range(2)
        ]


def read(folder, kind, number):
    return SimpleITK.ReadImage(folder / kind / f"brain_{number:03d}.nii.gz")


def test_networks_are_trained_on_clean_scans_and_half_of_the_others_are_noisy(tasks):
    splits = json.loads((tasks[0] / "splits_final.json").read_text())
    clean = [f"brain_{number:03d}" for number in range(1, 5)]
    others = [f"brain_{number:03d}" for number in range(5, 9)]
    assert splits[0] == {"train": clean, "val": others} and len(splits) == 5
    validated: list[str] = []
    for split in splits[1:]:
        validated += split["val"]
    assert sorted(validated) == clean
    assert all(sorted(split["train"] + split["val"]) == clean for split in splits[1:])
    noise = []  # of the images, as it is outside the brain
    for number in range(1, 11):
        image = SimpleITK.GetArrayFromImage(
            read(tasks[0], "imagesTr" if number < 9 else "imagesTs", number)
        )
        noise.append(np.sqrt((image[:2] ** 2).mean()) / np.quantile(image, 0.98))
    assert (np.array(noise) > 3 * min(noise)).tolist() == [False] * 4 + [False, True] * 3


def test_without_nilearn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(UserError, match=r"nnunet_nacl\[demo\]"):
        load_template()
