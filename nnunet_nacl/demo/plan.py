"""What a demo does and where everything lies, worked out from its arguments before anything is
run."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.demo.small_configuration import SMALL
from nnunet_nacl.demo.virtual_brains import BAD_DICE, TASK_NAME
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.utilities.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """How long a network is trained."""

    epochs: int
    iterations_per_epoch: int


VIRTUAL_BRAINS_SCHEDULE = Schedule(10, 100)
"""With it the demo takes at most ten minutes on two CPU cores."""
CPU_SCHEDULE = Schedule(40, 50)
GPU_SCHEDULE = Schedule(50, 100)

DEFAULT_LOSSES = ("DiceCE", "NACL")
DEFAULT_BAD_DICE = 0.8
MOST_PROCESSES = 8


@dataclass(frozen=True)
class DemoPlan:
    """Data, networks, folders and resources of one demo.

    Attributes:
        folder: Everything goes there.
        task: The Decathlon task that is trained on; virtual brains are written there.
        is_virtual: Whether the data are virtual brains.
        dataset: nnU-Net's name of the task.
        trainers: Their names, with the schedule.
        configuration: nnU-Net's configuration.
        folds: Folds to train.
        device: ``cpu``, ``cuda`` or ``mps``.
        cores: CPU cores that this process may use.
        bad_dice: Dice below which a segmentation is bad.
    """

    folder: Path
    task: Path
    is_virtual: bool
    dataset: str
    trainers: tuple[str, ...]
    configuration: str
    folds: tuple[str, ...]
    device: str
    cores: int
    bad_dice: float

    @property
    def roots(self) -> dict[str, Path]:
        """nnU-Net's environment variables and the folders that they name."""
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: self.folder / name for name in names}

    @property
    def raw(self) -> Path:
        """The data set in nnU-Net's raw format."""
        return self.roots["nnUNet_raw"] / self.dataset

    @property
    def preprocessed(self) -> Path:
        """Plans, folds and preprocessed cases."""
        return self.roots["nnUNet_preprocessed"] / self.dataset

    @property
    def results(self) -> Path:
        """The folders of the models."""
        return self.roots["nnUNet_results"] / self.dataset

    @property
    def logs(self) -> Path:
        """What the commands print."""
        return self.folder / "logs" / self.dataset

    @property
    def parent_configuration(self) -> str:
        """nnU-Net's own configuration, of which the trained one may be a smaller copy."""
        return self.configuration.removesuffix(SMALL)

    @property
    def trainings_at_once(self) -> int:
        """How many networks are trained at the same time."""
        if self.device != "cpu":
            return 1
        return min(self.cores, len(self.trainers) * len(self.folds))

    @property
    def num_processes(self) -> int:
        """Processes of a command that works on several cases at once."""
        return min(self.cores, MOST_PROCESSES)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the commands."""
        scripts = sysconfig.get_path("scripts")
        search_path = os.environ.get("PATH", os.defpath)
        variables = dict(os.environ)
        variables.update({name: str(root) for name, root in self.roots.items()})
        variables["PATH"] = os.pathsep.join([scripts, search_path])
        variables["PYTHONUNBUFFERED"] = "1"
        if self.device == "cpu":
            variables["nnUNet_n_proc_DA"] = "1"
            variables["nnUNet_def_n_proc"] = "1"
            variables["OMP_NUM_THREADS"] = str(max(1, self.cores // self.trainings_at_once))
            # Threads that spin while they wait take a hundred times as long on a busy machine.
            variables["OMP_WAIT_POLICY"] = "PASSIVE"
        return variables


def plan_demo(
    output: str,
    *,
    data: str | None = None,
    trainers: Sequence[str] | None = None,
    configuration: str | None = None,
    folds: Sequence[str] = ("0",),
    device: str | None = None,
) -> DemoPlan:
    """Works out what a demo does.

    Args:
        output: Folder of the demo.
        data: A task of the Medical Segmentation Decathlon; None: virtual brains.
        trainers: Names of trainers; None: nnU-Net's loss and NACL under a short schedule.
        configuration: nnU-Net's configuration; None: ``2d``, on the CPU ``2d_small``.
        folds: Folds to train.
        device: ``cpu``, ``cuda`` or ``mps``; None: a GPU if there is one.

    Raises:
        UserError: ``data`` is no folder of that format.
    """
    import torch
    from joblib import cpu_count

    folder = Path(os.path.abspath(output))
    task = Path(os.path.abspath(data or folder / "data" / TASK_NAME))  # a link keeps its name
    task_name = re.fullmatch(r"Task([0-9]{1,3})_([A-Za-z0-9.-]+)", task.name)
    is_virtual = data is None
    if task_name is None or not (is_virtual or task.is_dir()):
        raise UserError(
            f"[[data]] {task}: give a folder of the Decathlon's format named TaskNN_Name"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    default_configuration = "2d"
    if device == "cpu":
        default_configuration += SMALL
    if trainers is None:
        trainers = default_trainers(choose_schedule(device, is_virtual))
    bad_dice = BAD_DICE if is_virtual else DEFAULT_BAD_DICE
    return DemoPlan(
        folder=folder,
        task=task,
        is_virtual=is_virtual,
        dataset=f"Dataset{int(task_name[1]):03d}_{task_name[2]}",
        trainers=tuple(trainers),
        configuration=configuration or default_configuration,
        folds=tuple(folds),
        device=device,
        cores=cpu_count(),
        bad_dice=bad_dice,
    )


def choose_schedule(device: str, is_virtual: bool) -> Schedule:
    """A schedule short enough for a demo on the device."""
    if device != "cpu":
        return GPU_SCHEDULE
    if is_virtual:
        return VIRTUAL_BRAINS_SCHEDULE
    return CPU_SCHEDULE


def default_trainers(schedule: Schedule) -> list[str]:
    """Names of the trainers of the default losses under a schedule, with the paper's optimiser."""
    tokens = f"{schedule.epochs}epochs_{schedule.iterations_per_epoch}iters_adam"
    return [f"{PREFIX}{loss}_{tokens}" for loss in DEFAULT_LOSSES]
