"""What a model needs no more is removed; a full disk leaves everything as it was."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl.campaign.stages import drop_optimiser_state
from nnunet_nacl.errors import UserError
from tests.processes import full_disk


def test_a_full_disk_keeps_the_checkpoint_and_is_one_line(tmp_path):
    path = tmp_path / "fold_0" / "checkpoint_final.pth"
    path.parent.mkdir()
    content = {"network_weights": {"w": torch.zeros(100_000)}, "optimizer_state": {"state": {0: torch.zeros(9)}}}
    torch.save(content | {"trainer_name": "nnUNetTrainer", "init_args": {"configuration": "2d"}}, path)
    before = path.read_bytes()
    with full_disk(100_000), pytest.raises(UserError, match="checkpoint_final.pth: cannot be written.*free some space"):
        drop_optimiser_state(path.parent)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]
    drop_optimiser_state(path.parent)
    assert torch.load(path, weights_only=True)["optimizer_state"] == {"state": {}}
