"""What the demo is to do, with the defaults that depend on the device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.demo.demo_schedule import DEFAULT_TRAINERS, Schedule, with_schedule
from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.known_trainers import check_known

DEFAULT_FOLDER = "nnunet_nacl_demo"
DEVICES = ("cpu", "cuda", "mps")

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
    if data is not None and download is not None:
        raise UserError("give either --data or --download, not both")
    device = device or ("cuda" if _has_cuda() else "cpu")
    if device not in DEVICES:
        raise UserError(f"-device must be one of {', '.join(DEVICES)}, received {device!r}")
    folds = _unique(folds)
    for fold in folds:
        if fold not in ("0", "1", "2", "3", "4", "all"):
            raise UserError(f"-f takes the folds 0 to 4 or all, received {fold!r}")
    virtual = data is None and download is None
    default = SCHEDULES["gpu" if device != "cpu" else "virtual brains" if virtual else "cpu"]
    given = (default[0] if epochs is None else epochs, default[1] if iterations is None else iterations)
    trainers = _unique([with_schedule(name, Schedule(*given, adam)) for name in trainers])
    if not trainers or not folds:
        raise UserError("-tr and -f need at least one value each")
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


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _unique(values) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values))
