"""Every method, label space, configuration and kind of plans: trained for a moment, validated and predicted."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_nacl.training.grammar import METHODS, parse
from nnunet_nacl_trainers.recording import ECE_KEY, NLL_KEY
from tests.integration import tiny_data as tiny
from tests.integration.chains import CHAINS, Chain, predictions
from tests.integration.workspace import epochs_in, training_log


def test_the_chains_cover_every_pair() -> None:
    trained = {
        (chain.label_space, configuration, chain.plans) for chain in CHAINS for configuration in chain.configurations
    }
    configurations = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
    factors = (tiny.LABEL_SPACES, configurations, tiny.PLANS)
    for first, second in itertools.combinations(range(3), 2):
        pairs = {(combination[first], combination[second]) for combination in trained}
        assert pairs >= set(itertools.product(factors[first], factors[second]))
    assert {parse(chain.trainer).method for chain in CHAINS} == set(METHODS)
    assert any(parse(chain.trainer).dice for chain in CHAINS)


def labels_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_calibration_recorded(fold: Path, num_epochs: int) -> None:
    """The final checkpoint has a value for every epoch."""
    logged = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["logging"]
    assert {len(values) for values in logged.values()} == {num_epochs}
    assert ECE_KEY in logged and min(logged[NLL_KEY]) > 0


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_it_trains_validates_and_predicts(trained, chain: Chain) -> None:
    space = trained(chain)
    (case,) = [
        path.name.removesuffix("_0000.nii.gz")
        for path in (space.dataset_folder(space.raw, chain.dataset_id) / "imagesTs").iterdir()
    ]
    image = labels_of(space.dataset_folder(space.raw, chain.dataset_id) / "imagesTs" / f"{case}_0000.nii.gz")
    num_labels = 3 if "ignore" in chain.label_space else 4
    for configuration in chain.configurations:
        model = space.model_folder(chain.dataset_id, chain.trainer, chain.plans_name, configuration)
        fold = model / ("fold_all" if configuration == "3d_lowres" else "fold_0")
        assert (fold / "checkpoint_final.pth").is_file()

        log = training_log(fold)
        assert epochs_in(log) == [0]
        losses = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
        assert len(losses) == 2 and np.isfinite(losses).all()
        assert "WARNING: calibration" not in log
        assert_calibration_recorded(fold, 1)
        assert chain.loss in tiny.read_json(fold / "debug.json")["loss"]

        validation = fold / "validation"
        truths = {path.name for path in validation.glob("*.nii.gz")}
        assert len(truths) == (tiny.NUM_TRAINING if configuration == "3d_lowres" else 1)
        summary = tiny.read_json(validation / "summary.json")
        assert len(summary["metric_per_case"]) == len(truths)
        with_probabilities = chain.npz and configuration == chain.configurations[-1]
        assert len(list(validation.glob("*.npz"))) == (len(truths) if with_probabilities else 0)
        measured = {case["case"] for case in tiny.read_json(validation / "calibration.json")["metric_per_case"]}
        sampled = {path.stem for path in (validation / "calibration_samples").iterdir()}
        assert measured == sampled == {name.removesuffix(".nii.gz") for name in truths}

        prediction = labels_of(predictions(space, chain, configuration) / f"{case}.nii.gz")
        assert prediction.shape == image.shape
        assert set(np.unique(prediction)) <= set(range(num_labels))
        if configuration == "3d_lowres":
            assert len(list((model / "predicted_next_stage" / "3d_cascade_fullres").iterdir())) == tiny.NUM_TRAINING
