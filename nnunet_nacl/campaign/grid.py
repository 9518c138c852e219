"""From a campaign to its jobs: which documents each needs, and where they lie.

A job is named by its parts joined by slashes: ``train/Dataset027_ACDC/2d/nnUNetTrainerNACL/fold_0``. Its document,
which says that it is done, is ``done/<job>.json`` in the campaign's folder; its log is ``logs/<job>.log``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict

STAGES = ("prepare", "preprocess", "train", "calibrate", "evaluate", "compare")
"""In the order in which they run."""


def done_file(job: str) -> str:
    """The document of a job, in the campaign's folder."""
    return f"done/{job}.json"


def log_file(job: str) -> str:
    """The log of a job, in the campaign's folder."""
    return f"logs/{job}.log"


@dataclass(frozen=True)
class Grid:
    """Data sets x configurations x folds x trainers x seeds.

    Attributes:
        campaign: As :func:`~nnunet_nacl.campaign.campaign_file.read_campaign` gives it.
    """

    campaign: dict[str, Any]

    @property
    def datasets(self) -> list[str]:
        """Full names."""
        return [dataset["name"] for dataset in self.campaign["datasets"]]

    def dataset(self, name: str) -> dict[str, Any]:
        """What the campaign says of a data set."""
        return next(dataset for dataset in self.campaign["datasets"] if dataset["name"] == name)

    def models(self) -> Iterator[tuple[str, str, str]]:
        """Data set, configuration and trainer of each model."""
        for dataset in self.datasets:
            for configuration in self.campaign["configurations"]:
                for names in self.campaign["replicates"].values():
                    for trainer in names.values():
                        yield dataset, configuration, trainer

    @property
    def has_evaluation(self) -> bool:
        """Whether models need measuring beyond their validation."""
        return bool(self.campaign["treatments"]) or self.campaign["cases"] == "test"

    @property
    def is_calibrated(self) -> bool:
        """Whether models are calibrated."""
        return any("calibrated" in treatment for treatment in self.campaign["treatments"])

    def cores(self, stage: str) -> int:
        """CPU cores that a job of a stage uses."""
        return self.campaign["threads" if stage == "train" else "processes"]

    def gpus(self, stage: str) -> int:
        """GPUs that a job of a stage uses."""
        predicts = stage == "train" or (stage == "evaluate" and self.campaign["cases"] == "test")
        return int(predicts and self.campaign["device"] == "cuda")

    def comparisons(self) -> Iterator[tuple[str, str, list[str]]]:
        """Name, configuration and trainers of each comparison; replicates of a seed are compared with each other."""
        for configuration in self.campaign["configurations"]:
            for name, trainers in self.campaign["comparisons"].items():
                for seed, names in self.campaign["replicates"].items():
                    yield (f"{name}_seed{seed}" if seed else name), configuration, [names[t] for t in trainers]

    def jobs(self) -> Iterator[str]:
        """All jobs, stage by stage."""
        for dataset in self.campaign["datasets"]:
            if dataset["source"] != "dataset":
                yield f"prepare/{dataset['name']}"
        for dataset in self.datasets:
            for configuration in self.campaign["configurations"]:
                yield f"preprocess/{dataset}/{configuration}"
        models = list(self.models())
        for model in models:
            yield from self.training_jobs(*model)
        if self.is_calibrated:
            yield from ("/".join(("calibrate", *model)) for model in models)
        if self.has_evaluation:
            yield from ("/".join(("evaluate", *model)) for model in models)
        yield from (f"compare/{configuration}/{name}" for name, configuration, _ in self.comparisons())

    def training_jobs(self, *model: str) -> list[str]:
        """The folds of a model."""
        return ["/".join(("train", *model, f"fold_{fold}")) for fold in self.dataset(model[0])["folds"]]

    def needs(self, job: str) -> list[str]:
        """The jobs whose documents a job waits for."""
        stage, *parts = job.split("/")
        if stage == "preprocess":
            dataset, configuration = parts
            earlier = self.campaign["configurations"][: self.campaign["configurations"].index(configuration)]
            if earlier:  # one after the other: they write the same plans, perhaps the same data
                return [f"preprocess/{dataset}/{earlier[-1]}"]
            return [f"prepare/{dataset}"] if self.dataset(dataset)["source"] != "dataset" else []
        if stage == "train":
            dataset, configuration, trainer, _ = parts
            before = self.training_jobs(dataset, "3d_lowres", trainer) if "cascade" in configuration else []
            return [f"preprocess/{dataset}/{configuration}", *before]
        if stage == "calibrate":
            return self.training_jobs(*parts)
        if stage == "evaluate":
            return ["/".join(("calibrate", *parts))] if self.is_calibrated else self.training_jobs(*parts)
        if stage == "compare":
            configuration, name = parts
            return [job for dataset in self.datasets for t in self.compared(configuration, name)
                    for job in self.measured(dataset, configuration, t)]  # fmt: skip
        return []

    def measured(self, *model: str) -> list[str]:
        """The jobs after which a model can be compared."""
        return ["/".join(("evaluate", *model))] if self.has_evaluation else self.training_jobs(*model)

    def compared(self, configuration: str, name: str) -> list[str]:
        """Trainers of a comparison."""
        return next(names for n, c, names in self.comparisons() if (n, c) == (name, configuration))

    def targets(self) -> list[str]:
        """What the whole campaign is done with: the comparisons, or the models where nothing is compared."""
        comparisons = [job for job in self.jobs() if job.startswith("compare/")]
        return [*comparisons, *(job for model in self.models() for job in self.measured(*model))]


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
        from nnunet_nacl.documents.map_file import MAP_FILE

        try:
            made = (self.folder / MAP_FILE).stat().st_mtime_ns
            validations = [fold / "validation" / "summary.json" for fold in self.folds.values()]
            if made <= max(summary.stat().st_mtime_ns for summary in validations):
                return False
            return read_dict(self.folder / MAP_FILE).get("folds") == sorted(self.folds)
        except (UserError, OSError):
            return False
