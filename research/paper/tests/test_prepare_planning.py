"""nnU-Net plans and preprocesses what `prepare` wrote, and keeps its grid and its split."""

from __future__ import annotations

import numpy as np
import pytest
from miniatures import MINIATURES

from nnunet_nacl.utilities.json_files import read_json
from tests.integration.tiny_data import write_fingerprint
from tests.integration.workspace import Workspace

pytestmark = pytest.mark.slow


def test_nnunet_plans_and_preprocesses_resized_slices_without_resampling_them(
    tmp_path, clean_environ
) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    space = Workspace(tmp_path, clean_environ)
    for folder in (space.raw, space.preprocessed, space.results):
        folder.mkdir()
    challenge = MINIATURES["acdc"](tmp_path / "in")
    printed = space.run_warm("nnunet_nacl_paper prepare acdc -np 1", challenge)
    (command,) = [line for line in printed.splitlines() if "plan_and_preprocess" in line]
    space.call_warm(write_fingerprint, 701)
    space.run_warm(command.removeprefix("$ "), "-npfp", 1, "-np", 1)
    preprocessed = space.dataset_folder(space.preprocessed, 701)
    splits = read_json(preprocessed / "splits_final.json")
    assert splits == read_json(space.dataset_folder(space.raw, 701) / "splits_final.json")
    plans = read_json(preprocessed / "nnUNetPlans.json")["configurations"]["2d"]
    assert plans["patch_size"] == [224, 224]
    assert plans["spacing"] == [1.0, 1.0]
    assert plans["normalization_schemes"] == ["RescaleTo01Normalization"]
    dataset = nnUNetDatasetBlosc2(str(preprocessed / plans["data_identifier"]))
    assert sorted(dataset.identifiers) == sorted(splits[0]["train"] + splits[0]["val"])
    for case in dataset.identifiers:
        data, labels, _, _ = dataset.load_case(case)
        assert data.shape == (1, 5, 224, 224)
        assert (data[:].min(), data[:].max()) == (0.0, 1.0)
        assert set(np.unique(labels[:])) == {0, 1, 2, 3}
