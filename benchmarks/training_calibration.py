"""Share of an epoch's time that observing calibration takes, on a preprocessed dataset, in one process.

    python benchmarks/training_calibration.py 4 3d_fullres 0
    python benchmarks/training_calibration.py 4 2d 0 -p nnUNetPlans -tr nnUNetTrainerDiceNACL --rounds 40
    python benchmarks/training_calibration.py 4 2d 0 --output benchmarks/new.md

Needs a preprocessed dataset and nnU-Net's environment variables; the arguments are those of nnUNetv2_train. Every round
takes one training step, one validation step that is observed and one that is not, in turn, on batches of augmented
data; what the observer takes is timed inside the observed step, and the difference of the two steps is shown beside it.
What is done once per epoch (fetching the sums, nnU-Net's logger, a line in the log) is timed as well. An epoch is put
together from these: the share is

    (validation steps x observer + once per epoch) / (training steps x training step + validation steps x plain step)

of which every round gives one value. Data loading, nnU-Net's own progress.png and checkpoints are not in the
denominator, so that the real share is smaller. Nothing is written to nnUNet_results. On the CPU the process is pinned
to one core and times are its CPU time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from page import describe_machine, pin_to_one_core, table, write_section
from training_iteration import make_trainer

SCHEDULES = ((250, 50), (250, 25), (50, 5))
"""Training and validation steps per epoch: nnU-Net's own, and those of the names with `_250iters` and `_50iters`."""

EPOCHS = 1000
"""Of the training whose picture is timed: as many as nnU-Net trains."""

GOAL = 0.01
WARM_UP = 2


def make_clock(device: torch.device) -> Callable[[], float]:
    """CPU time on the CPU, wall time on a GPU that has done all its work."""
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def time_observer(recorder, clock: Callable[[], float]) -> list[float]:
    """Seconds of every call of the recorder's observer from now on, in the list that is given back."""
    seconds: list[float] = []
    observe = recorder._observe

    def timed(module, args) -> None:
        start = clock()
        observe(module, args)
        seconds.append(clock() - start)

    recorder._observe = timed
    return seconds


def measure(args: argparse.Namespace, device: torch.device) -> tuple[dict[str, np.ndarray], float, dict]:
    """Seconds of each part by round, those of a picture of a whole training, and what is to be said about the data."""
    trainer = make_trainer(args.tr, args, device)
    training, validation = trainer.get_dataloaders()
    training, validation = next(training), next(validation)
    recorder, clock = trainer.calibration_recorder, make_clock(device)
    recorder._drawn_s = float("inf")  # pictures are timed by themselves
    observer = time_observer(recorder, clock)

    def timed(action: Callable, *values) -> float:
        start = clock()
        action(*values)
        return clock() - start

    def plain() -> float:
        trainer.network.eval()
        with torch.no_grad():
            return timed(trainer.validation_step, dict(validation))

    seconds = {name: np.empty(args.rounds) for name in ("training", "observed", "plain", "observer", "once")}
    for i in range(-WARM_UP, args.rounds):
        trainer.network.train()
        row = {"training": timed(trainer.train_step, dict(training))}
        if i % 2:
            row["plain"] = plain()
        trainer.network.eval()
        row["once"] = timed(recorder.on_validation_epoch_start)
        with torch.no_grad():
            row["observed"] = timed(trainer.validation_step, dict(validation))
        row["once"] += timed(recorder.on_validation_epoch_end)
        row["observer"] = observer.pop()
        if not i % 2:
            row["plain"] = plain()
        trainer.current_epoch += 1
        if i >= 0:
            for name, value in row.items():
                seconds[name][i] = value
    logged = trainer.logger.get_checkpoint()
    trainer.logger.load_checkpoint({key: EPOCHS * values[-1:] for key, values in logged.items()})
    recorder.draw()
    picture = timed(recorder.draw)
    if recorder._warned:
        raise SystemExit(f"Observing failed: {recorder._warned}")
    facts = {
        "batch": tuple(validation["data"].shape),
        "heads": trainer.label_manager.num_segmentation_heads,
        "network": type(trainer.network).__name__,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }
    return seconds, picture, facts


def shares_of(seconds: dict[str, np.ndarray], training: int, validation: int) -> np.ndarray:
    """The share of an epoch's time in every round."""
    return (validation * seconds["observer"] + seconds["once"]) / (
        training * seconds["training"] + validation * seconds["plain"]
    )


def report(args: argparse.Namespace, seconds: dict[str, np.ndarray], picture: float, facts: dict) -> str:
    """The parts, and the share in each schedule with its spread."""
    from nnunet_nacl_trainers.recording import DRAWING_EVERY_S

    names = {
        "training": "training step",
        "plain": "validation step, not observed",
        "observed": "validation step, observed",
        "observer": "the observer in it",
        "once": "once per epoch",
    }
    rows = [
        [text, f"{1e3 * np.median(seconds[name]):.1f}", f"{1e3 * seconds[name].min():.1f}"]
        for name, text in names.items()
    ]
    difference = 1e3 * np.median(seconds["observed"] - seconds["plain"])
    results = []
    for training, validation in SCHEDULES:
        low, middle, high = np.percentile(100 * shares_of(seconds, training, validation), (25, 50, 75))
        results.append([f"{training} : {validation}", f"**{middle:.2f} %**", f"{low:.2f} to {high:.2f} %"])
    return "\n\n".join(
        [
            f"**Dataset {args.dataset}, {args.configuration}, fold {args.fold}, {args.p}, {args.tr}**: "
            f"{facts['network']} with {facts['parameters'] / 1e6:.1f} million parameters, batch {facts['batch']}, "
            f"{facts['heads']} heads, "
            f"{args.rounds} rounds",
            table(["part", "median ms", "fastest"], rows),
            f"Observed and plain step differ by {difference:.1f} ms (median of the rounds).",
            table(["training : validation steps", "share of the epoch, median", "quartiles"], results),
            f"Goal: at most {100 * GOAL:g} %, pictures included. They come on top with "
            f"{100 * picture / DRAWING_EVERY_S:.2f} %: one takes {picture:.1f} s with {EPOCHS} epochs, and is drawn "
            f"every {DRAWING_EVERY_S:g} s at most, and at the training's end.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or number")
    parser.add_argument("configuration", help="2d, 3d_fullres, ...")
    parser.add_argument("fold", help="a number or all")
    parser.add_argument("-p", default="nnUNetPlans", help="plans; default: %(default)s")
    parser.add_argument("-tr", default="nnUNetTrainerNACL", help="one of this package; default: %(default)s")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--core", type=int, help="which core to use; default: the first that is allowed")
    parser.add_argument("--output", type=Path, help="page whose section on this configuration is rewritten")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1.")
    # Both are read when nnunetv2 is imported or makes its loaders: no processes beside this one, no folders left over.
    os.environ["nnUNet_n_proc_DA"] = "0"
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        if args.device == "cpu":
            os.environ["OMP_NUM_THREADS"] = "1"
            pin_to_one_core(args.core)
        seconds, picture, facts = measure(args, torch.device(args.device))
    text = report(args, seconds, picture, facts)
    clock = "CPU time of one pinned core" if args.device == "cpu" else torch.cuda.get_device_name()
    text += f"\n\nMachine: {describe_machine()}; {clock}."
    print("\n" + text)
    if args.output is not None:
        write_section(
            args.output,
            f"training calibration, {args.dataset} {args.configuration}",
            f"## Calibration while training, {args.configuration}\n\n{text}",
        )


if __name__ == "__main__":
    main()
