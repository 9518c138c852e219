"""One model of a campaign: where nnU-Net keeps it, and how commands are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import Grid
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict

__all__ = ["CampaignModel", "dataset_number", "nnunet_folder"]


def nnunet_folder(campaign: dict[str, Any], kind: str, dataset: str) -> Path:
    """The folder of a data set in nnUNet_``kind``: raw, preprocessed or results."""
    return Path(campaign["environment"][f"nnUNet_{kind}"]) / dataset


def dataset_number(dataset: str) -> str:
    """As nnU-Net's commands take it: 4 for Dataset004_Hippocampus."""
    return str(int(dataset.removeprefix("Dataset").partition("_")[0]))


@dataclass(frozen=True)
class CampaignModel:
    """A trainer on a data set, with all its folds.

    Attributes:
        campaign: As :func:`~nnunet_nacl.campaign.campaign_file.read_campaign` gives it, with its environment.
        dataset: Full name.
        configuration: Of the plans.
        trainer: Full name.
    """

    campaign: dict[str, Any]
    dataset: str
    configuration: str
    trainer: str

    @property
    def folder(self) -> Path:
        """Where nnU-Net keeps it."""
        name = f"{self.trainer}__{self.campaign['plans']}__{self.configuration}"
        return nnunet_folder(self.campaign, "results", self.dataset) / name

    @property
    def folds(self) -> dict[str, Path]:
        """Folders of the folds by their names, 0 to 4 or all."""
        return {str(fold): self.folder / f"fold_{fold}" for fold in Grid(self.campaign).dataset(self.dataset)["folds"]}

    def arguments(self, *folds: str) -> list[str]:
        """On a command line, with all folds unless some are given."""
        number, plans = dataset_number(self.dataset), self.campaign["plans"]
        return ["-d", number, "-c", self.configuration, "-f", *(folds or self.folds), "-tr", self.trainer, "-p", plans]

    def job(self, stage: str, *more: str) -> str:
        """The job of a stage."""
        return "/".join((stage, self.dataset, self.configuration, self.trainer, *more))

    @property
    def is_calibrated(self) -> bool:
        """Whether `nnunet_nacl calibrate`, which writes the map last, was run on all folds once they were validated."""
        from nnunet_nacl.cases.checkpoints import CALIBRATED
        from nnunet_nacl.documents.map_file import MAP_FILE

        try:
            made = (self.folder / MAP_FILE).stat().st_mtime_ns
            validations = [fold / "validation" / "summary.json" for fold in self.folds.values()]
            if made <= max(summary.stat().st_mtime_ns for summary in validations):
                return False
            if not all((fold / CALIBRATED).is_file() for fold in self.folds.values()):
                return False
            return read_dict(self.folder / MAP_FILE).get("folds") == sorted(self.folds)
        except (UserError, OSError):
            return False
