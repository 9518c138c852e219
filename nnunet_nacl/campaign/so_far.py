"""Compares what a campaign has finished, at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import Grid, done_file
from nnunet_nacl.campaign.shell_commands import Command, run_side_by_side
from nnunet_nacl.campaign.stages import comparison_command

__all__ = ["compare_so_far"]


def compare_so_far(campaign: dict[str, Any], folder: Path) -> int:
    """A comparison with its page of each data set, configuration and seed, of the trainers that are finished there.

    They lie in ``so_far/`` of the campaign's folder, beside what the finished campaign compares.

    Returns:
        1 if there are not two trainers to compare anywhere, else 0.
    """
    grid = Grid(campaign)
    made = []
    for name, configuration, trainers in grid.comparisons():
        for dataset in grid.datasets:
            finished = [
                trainer
                for trainer in trainers
                if all((folder / done_file(job)).is_file() for job in grid.measured(dataset, configuration, trainer))
            ]
            print(f"{name}, {dataset}, {configuration}: {len(finished)} of {len(trainers)} trainers are finished")
            if len(finished) < 2:
                continue
            output = folder / "so_far" / configuration / f"{name}_{dataset}"
            compare = comparison_command(campaign, [dataset], configuration, finished, output)
            for arguments, allowed in ((compare, (0,)), (("nnunet_nacl", "report", "-o", str(output)), (0, 1))):
                log = folder / "logs" / "so_far" / configuration / f"{name}_{dataset}.log"
                run_side_by_side([Command(arguments, log)], dict(os.environ), allowed=allowed)
            made.append(output)
            print(f"  page: {output / 'report.html'}")
    return 0 if made else 1
