"""The tokens `seed<n>` and `noda` in real trainings."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.integration.chains import NACL_2D
from tests.integration.workspace import Workspace


def trained_weights(run: Callable, space: Workspace, tokens: str, workers: str) -> dict[str, torch.Tensor]:
    """The final weights of a training that starts from nothing, whatever an earlier one of its name left."""
    name = f"nnUNetTrainerNACL_2epochs_2iters_{tokens}"
    arguments = (NACL_2D.dataset_id, "2d", "0", "-tr", name, "-device", "cpu")
    run("nnUNetv2_train", *arguments, nnUNet_n_proc_DA=workers)
    fold = space.model_folder(NACL_2D.dataset_id, name, NACL_2D.plans_name, "2d") / "fold_0"
    checkpoint = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert (checkpoint["inference_allowed_mirroring_axes"] is None) == ("noda" in tokens)
    return checkpoint["network_weights"]


def test_a_seed_repeats_a_training_to_the_last_digit(workspace: Workspace) -> None:
    runs = ((workspace.run, "seed3"), (workspace.run_warm, "seed3"), (workspace.run_warm, "noda_seed4"))
    first, second, other = (trained_weights(run, workspace, tokens, workers="1") for run, tokens in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("conv.weight"))
