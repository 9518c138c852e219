"""What a model needs no more is removed; a full disk leaves everything as it was."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl.campaign.slimming import drop_optimiser_state
from nnunet_nacl.errors import UserError

resource = pytest.importorskip("resource", reason="limits on files are POSIX's")


def test_a_full_disk_keeps_the_checkpoint_and_is_one_line(tmp_path):
    path = tmp_path / "fold_0" / "checkpoint_final.pth"
    path.parent.mkdir()
    torch.save({"network_weights": torch.zeros(100_000), "optimizer_state": {"state": {0: torch.zeros(9)}}}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="checkpoint_final.pth: cannot be written.*free some space"):
            drop_optimiser_state(path.parent)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]
    drop_optimiser_state(path.parent)
    assert torch.load(path, weights_only=True)["optimizer_state"] == {"state": {}}
