"""From a campaign to its jobs: which documents each needs, and where they lie.

A job is named by its parts joined by slashes: ``train/Dataset027_ACDC/2d/nnUNetTrainerNACL/fold_0``. Its document,
which says that it is done, is ``done/<job>.json`` in the campaign's folder; its log is ``logs/<job>.log``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["STAGES", "Grid", "done_file", "log_file"]

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
    def needs_probabilities(self) -> bool:
        """Whether the probabilities of the validation cases are needed once: to calibrate and to decide."""
        return bool(self.campaign["treatments"])

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

    def training_jobs(self, dataset: str, configuration: str, trainer: str) -> list[str]:
        """The folds of a model."""
        folds = self.dataset(dataset)["folds"]
        return [f"train/{dataset}/{configuration}/{trainer}/fold_{fold}" for fold in folds]

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

    def measured(self, dataset: str, configuration: str, trainer: str) -> list[str]:
        """The jobs after which a model can be compared."""
        model = dataset, configuration, trainer
        return ["/".join(("evaluate", *model))] if self.has_evaluation else self.training_jobs(*model)

    def compared(self, configuration: str, name: str) -> list[str]:
        """Trainers of a comparison."""
        return next(names for n, c, names in self.comparisons() if (n, c) == (name, configuration))

    def targets(self) -> list[str]:
        """What the whole campaign is done with: the comparisons, or the models where nothing is compared."""
        comparisons = [job for job in self.jobs() if job.startswith("compare/")]
        return [*comparisons, *(job for model in self.models() for job in self.measured(*model))]

    def inputs(self, job: str, folder: Path | None = None) -> list[str]:
        """The documents that a job waits for."""
        return [str((folder or Path()) / done_file(needed)) for needed in self.needs(job)]
