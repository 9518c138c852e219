"""What the demo is to do, with the defaults that depend on the device."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.grammar import PREFIX, Variant, format_name, parse
from nnunet_nacl.registration.health import check_known

DEFAULT_FOLDER = "nnunet_nacl_demo"
DEVICES = ("cpu", "cuda", "mps")
STOCK = PREFIX
DEFAULT_TRAINERS = (STOCK, f"{PREFIX}CE", f"{PREFIX}NACL")

# (epochs, iterations per epoch): the virtual brains' fits two CPU cores in 10 minutes for all three trainers.
SCHEDULES = {"virtual brains": (20, 100), "cpu": (40, 50), "gpu": (50, 100)}


@dataclass(frozen=True)
class DemoSettings:
    """Options of the demo, resolved.

    Attributes:
        folder: Where everything goes.
        data: Decathlon task folder of the user's, if any.
        download: Name of the Decathlon task to download, if any.
        trainers: Full trainer names, with their schedules.
        configuration: Configuration given by the user; None for the device's default.
        folds: Folds to train.
        device: `cpu`, `cuda` or `mps`.
        cores: CPU cores that may be used.
        parallel: Trainings at the same time.
    """

    folder: Path
    data: Path | None
    download: str | None
    trainers: tuple[str, ...]
    configuration: str | None
    folds: tuple[str, ...]
    device: str
    cores: int
    parallel: int


def resolve(
    folder: str | os.PathLike = DEFAULT_FOLDER,
    data: str | os.PathLike | None = None,
    download: str | None = None,
    trainers: tuple[str, ...] = DEFAULT_TRAINERS,
    configuration: str | None = None,
    folds: tuple[str, ...] = ("0",),
    device: str | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    adam: bool = True,
    parallel: int | None = None,
) -> DemoSettings:
    """Fills in what was not given.

    Raises:
        UserError: If options contradict each other or a name is not a trainer's.
    """
    import torch

    if data is not None and download is not None:
        raise UserError("give either --data or --download, not both")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folds = _unique(folds)
    for fold in folds:
        if fold not in ("0", "1", "2", "3", "4", "all"):
            raise UserError(f"-f takes the folds 0 to 4 or all, received {fold!r}")
    virtual = data is None and download is None
    default = SCHEDULES["gpu" if device != "cpu" else "virtual brains" if virtual else "cpu"]
    given = (default[0] if epochs is None else epochs, default[1] if iterations is None else iterations)
    trainers = _unique([with_schedule(name, Schedule(*given, adam)) for name in trainers])
    for name in trainers:
        try:
            check_known(name)
        except UserError as error:
            raise UserError(f"-tr {error}") from error
    cores = available_cores()
    count = len(trainers) * len(folds)
    if parallel is None:
        parallel = busy_cores(count, cores) if device == "cpu" else 1
    if parallel < 1:
        raise UserError(f"-np must be at least 1, received {parallel}")
    task = None if data is None else Path(data)
    place, parallel = Path(os.path.abspath(folder)), min(parallel, count)
    return DemoSettings(place, task, download, trainers, configuration, folds, device, cores, parallel)


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
