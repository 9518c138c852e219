"""Compares what a campaign has finished, at any moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import Grid, done_file
from nnunet_nacl.campaign.shell_commands import run_side_by_side
from nnunet_nacl.campaign.stages import comparison_command, treated_entries

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
            log = folder / "logs" / "so_far" / configuration / f"{name}_{dataset}.log"
            entries = treated_entries(campaign, finished)
            compare = comparison_command(campaign, [dataset], configuration, entries, output, "--paper-figures")
            run_side_by_side([[replace(compare, log_file=log)]], {})
            made.append(output)
            print(f"  page: {output / 'report.html'}")
    return 0 if made else 1
