"""How far a campaign is, by the files of its jobs."""

from __future__ import annotations

import json
import os
import time

from nnunet_nacl.campaign.campaign_file import read_campaign
from nnunet_nacl.campaign.progress import progress_of
from tests.campaign.files import write_campaign_file

TRAIN = "train/Dataset004_Hippocampus/2d"


def write(path, content, age_s: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    os.utime(path, (time.time() - age_s,) * 2)


def test_done_running_killed_failed_and_the_time_left(tmp_path) -> None:
    campaign = read_campaign(write_campaign_file(tmp_path, folds=[0, 1, 2, 3]))
    running = {"state": "running", "started": time.time() - 400, "seconds_before": 200.0, "host": "node7"}
    write(tmp_path / f"done/{TRAIN}/nnUNetTrainer/fold_0.json", {"seconds": 3600.0})
    write(tmp_path / f"done/{TRAIN}/nnUNetTrainer/fold_1.json", {"seconds": 1200.0})
    write(tmp_path / f"jobs/{TRAIN}/nnUNetTrainer/fold_2.json", running)
    write(tmp_path / f"jobs/{TRAIN}/nnUNetTrainer/fold_3.json", running)
    write(tmp_path / f"jobs/{TRAIN}/nnUNetTrainerNACL/fold_0.json", running, age_s=300)
    write(tmp_path / f"jobs/{TRAIN}/nnUNetTrainerNACL/fold_1.json", {"state": "failed", "why": "no space"})
    progress = progress_of(campaign, tmp_path)
    # mean 2400 s; two run for 600 s, two wait: (2 x 1800 + 2 x 2400) / 2 = 4200 s
    assert progress.trainings == (
        "trainings: 2 of 8 done, 2 running, 2 waiting, 2 failed; about 70 min left with 2 at the same time"
    )
    killed, failed = progress.failures()
    assert f"{TRAIN}/nnUNetTrainerNACL/fold_0: killed on node7; it resumes" in killed
    assert f"no space (log: {tmp_path}/logs/{TRAIN}/nnUNetTrainerNACL/fold_1.log)" in failed
    assert ["train", "8", "2", "2", "2", "2"] in [line.split() for line in progress.table().splitlines()]
