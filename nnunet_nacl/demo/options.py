"""What the demo is to do, with the defaults that depend on the device."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.grammar import PREFIX, Variant, format_name, parse
from nnunet_nacl.registration.health import check_known

DEFAULT_FOLDER = "nnunet_nacl_demo"
DEVICES = ("cpu", "cuda", "mps")
STOCK = PREFIX
DEFAULT_TRAINERS = (STOCK, f"{PREFIX}CE", f"{PREFIX}NACL")

# (epochs, iterations per epoch): the virtual brains' fits two CPU cores in 10 minutes for all three trainers.
SCHEDULES = {"virtual brains": (20, 100), "cpu": (40, 50), "gpu": (50, 100)}


@dataclass
class DemoSettings:
    """Options of the demo; what was not given is filled in.

    Attributes:
        folder: Where everything goes.
        data: Decathlon task folder of the user's, if any.
        download: Name of the Decathlon task to download, if any.
        trainers: Trainer names; they get the schedule where they have none.
        configuration: Configuration given by the user; None for the device's default.
        folds: Folds to train, 0 to 4 or all.
        device: `cpu`, `cuda` or `mps`; by default the GPU if there is one.
        epochs, iterations: Of the schedule; the defaults suit device and data.
        adam: Whether it has Adam as in the NACL paper, else nnU-Net's SGD.
        parallel: Trainings at the same time; by default as many as keep the cores busy, one on a GPU.
        cores: CPU cores that may be used.

    Raises:
        UserError: If options contradict each other or a name is not a trainer's.
    """

    folder: Path = Path(DEFAULT_FOLDER)
    data: Path | None = None
    download: str | None = None
    trainers: Sequence[str] = DEFAULT_TRAINERS
    configuration: str | None = None
    folds: Sequence[str] = ("0",)
    device: str = ""
    epochs: int | None = None
    iterations: int | None = None
    adam: bool = True
    parallel: Any = None
    cores: int = field(default_factory=lambda: available_cores())

    def __post_init__(self) -> None:
        import torch

        if self.data is not None and self.download is not None:
            raise UserError("give either --data or --download, not both")
        self.folder, self.data = Path(os.path.abspath(self.folder)), self.data and Path(self.data)
        self.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.folds = _unique(self.folds)
        for fold in self.folds:
            if fold not in ("0", "1", "2", "3", "4", "all"):
                raise UserError(f"-f takes the folds 0 to 4 or all, received {fold!r}")
        virtual = self.data is None and self.download is None
        usual = SCHEDULES["gpu" if self.device != "cpu" else "virtual brains" if virtual else "cpu"]
        self.epochs = usual[0] if self.epochs is None else self.epochs
        self.iterations = usual[1] if self.iterations is None else self.iterations
        schedule = Schedule(self.epochs, self.iterations, self.adam)
        self.trainers = _unique([with_schedule(name, schedule) for name in self.trainers])
        for name in self.trainers:
            try:
                check_known(name)
            except UserError as error:
                raise UserError(f"-tr {error}") from error
        count = len(self.trainers) * len(self.folds)
        if self.parallel is None:
            self.parallel = busy_cores(count, self.cores) if self.device == "cpu" else 1
        if self.parallel < 1:
            raise UserError(f"-np must be at least 1, received {self.parallel}")
        self.parallel = min(self.parallel, count)


def busy_cores(count: int, cores: int) -> int:
    """How many of `count` trainings of one thread to run at the same time, so that no core is idle at the end.

    Three trainings share two cores better than two of them followed by one alone; and one alone with a thread per core
    comes to a standstill if the machine has anything else to do, since its threads wait for each other.
    """
    waves = max(1, count // cores)
    return -(-count // waves)


def available_cores() -> int:
    """CPU cores that this process may use, container limits included."""
    from joblib import cpu_count

    return cpu_count()


def _unique(values) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values))


_STOCK_EPOCHS = 1000
_STOCK_ITERATIONS = 250


@dataclass(frozen=True)
class Schedule:
    """Length and optimiser of the trainings.

    Attributes:
        epochs: Number of epochs.
        iterations: Iterations per epoch.
        adam: Adam as in the NACL paper, else nnU-Net's SGD.
    """

    epochs: int
    iterations: int
    adam: bool = True


def with_schedule(name: str, schedule: Schedule) -> str:
    """The trainer that is run for a name given by the user.

    A name of ours without schedule tokens gets the demo's, so that all trainers compare; `nnUNetTrainer` becomes its
    loss, Dice + CE, under it. Names with schedule tokens and other people's trainers keep their own.

    Raises:
        UserError: If the name is of one of our methods but breaks the grammar, or a value is out of range.
    """
    if schedule.epochs < 1 or schedule.iterations < 1:
        raise UserError(f"-epochs and -iters must be at least 1, received {schedule.epochs} and {schedule.iterations}")
    try:
        variant = Variant("CE", dice=True) if name == STOCK else parse(name)
        if variant is None or variant.epochs or variant.iterations or variant.adam:
            return name
        variant = replace(variant, epochs=schedule.epochs, iterations=schedule.iterations, adam=schedule.adam)
        if variant == replace(Variant("CE", dice=True), epochs=_STOCK_EPOCHS, iterations=_STOCK_ITERATIONS):
            return STOCK
        return format_name(variant)
    except ValueError as error:
        raise UserError(str(error)) from error


def schedule_of(name: str) -> Schedule:
    """Reads a trainer's schedule from its name; nnU-Net's own where the name says nothing."""
    variant = parse(name)
    if variant is not None:
        return Schedule(variant.epochs or _STOCK_EPOCHS, variant.iterations or _STOCK_ITERATIONS, variant.adam)
    epochs = re.search(r"_(\d+)epochs?", name)
    return Schedule(int(epochs[1]) if epochs else _STOCK_EPOCHS, _STOCK_ITERATIONS, adam=False)


def short_name(name: str) -> str:
    """A trainer's name without nnU-Net's prefix and the schedule, for the progress bar."""
    return re.split(r"_(?:\d+epochs?|\d+iters|adam)", name.removeprefix(PREFIX))[0] or name


_EPOCH_BEGINS = re.compile(r"(?:^|: )Epoch (\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class TrainingProgress:
    """How far a trainer is on one fold, as the log of its commands tells.

    Attributes:
        trainer: Trainer name.
        log: nnU-Net's output, that of earlier runs before it.
        trained: Whether an earlier run did all epochs, so that only the validation is missing.
    """

    trainer: str
    log: Path
    trained: bool = False

    @property
    def epochs(self) -> int:
        """How many there are to be."""
        return schedule_of(self.trainer).epochs

    @property
    def epochs_done(self) -> int:
        """How many of them are done."""
        if self.trained:
            return self.epochs
        text = self._text()
        begun = list(_EPOCH_BEGINS.finditer(text))
        return int(begun[-1][1]) + (": Epoch time: " in text[begun[-1].end() :]) if begun else 0

    def described(self) -> str:
        """Where it stands, in a few words."""
        done = self.epochs_done
        if done == self.epochs and ": predicting " in self._text():
            return f"{short_name(self.trainer)} validating"
        return f"{short_name(self.trainer)} epoch {done}/{self.epochs}"

    def _text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
