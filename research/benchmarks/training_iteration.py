"""Time of a whole nnU-Net training iteration with a trainer of ours and with nnU-Net's own, paired
in one process.

    python research/benchmarks/training_iteration.py 4 3d_fullres 0
    python research/benchmarks/training_iteration.py 4 2d 0 -tr nnUNetTrainerDiceNACL --rounds 30
    python research/benchmarks/training_iteration.py 4 2d 0 --output research/benchmarks/new.md

Needs a preprocessed dataset and nnU-Net's environment variables; the arguments are those of
nnUNetv2_train. Both trainers get the same plans, the same initial weights and the same batches of
augmented training data, and take their own ``train_step``: forward pass, loss at every scale of the
deep supervision, backward pass, clipping, optimiser. Every round times each once on one batch,
their order alternating, and gives one ratio. Data loading is not timed, and nothing is written to
nnUNet_results. On the CPU the process is pinned to one core and times are its CPU time. Memory is
the most that PyTorch's allocator hands out during one step, beyond what was there before it. Of a
validation step what measuring its calibration takes is timed, too.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import describe_machine, pin_to_one_core, table, write_section

STOCK = "nnUNetTrainer"
WARM_UP = 2


def make_trainer(name: str, args: argparse.Namespace, device: torch.device) -> Any:
    """An initialised trainer, as nnUNetv2_train makes it."""
    from nnunetv2.run.run_training import get_trainer_from_args

    fold = args.fold if args.fold == "all" else int(args.fold)
    trainer = get_trainer_from_args(
        args.dataset, args.configuration, fold, name, args.p, device=device
    )
    trainer.initialize()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    trainer.network.train()
    return trainer


def seconds_of_step(trainer: Any, batch: dict) -> float:
    """One training iteration: CPU time on the CPU, wall time on a GPU."""
    on_gpu = trainer.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    trainer.train_step(batch)  # reads the loss back from the device, and so waits for it
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def peak_bytes(trainer: Any, batch: dict) -> int:
    """Largest sum of tensors alive at once in one training iteration, beyond those that were there
    before."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.train_step(batch)
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        trainer.train_step(batch)
    with tempfile.TemporaryDirectory() as folder:
        # the profiler's own lists drop what happens inside ops
        profiler.export_chrome_trace(f"{folder}/trace.json")
        trace = json.loads(Path(folder, "trace.json").read_text(encoding="utf-8"))
    changes = [event for event in trace["traceEvents"] if event["name"] == "[memory]"]
    alive = 0
    peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def seconds_of_measuring(trainer: Any, batches: list[dict]) -> tuple[float, float]:
    """Medians of a validation step, and of what measuring calibration takes of it; nothing where it
    is not measured."""
    from nnunet_nacl_trainers import calibration_log

    clock = time.perf_counter if trainer.device.type == "cuda" else time.process_time
    count_batch = calibration_log.count_batch
    parts = []
    steps = []

    def timed(*arguments):
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        counted = count_batch(*arguments)  # sums on the CPU: it has waited for the GPU
        parts.append(clock() - start)
        return counted

    calibration_log.count_batch = timed
    with torch.no_grad():
        trainer.network.eval()
        for batch in batches:
            start = clock()
            trainer.validation_step(dict(batch))
            steps.append(clock() - start)
    calibration_log.count_batch = count_batch
    return float(np.median(steps)), float(np.median(parts or [0.0]))


@dataclass(frozen=True)
class Pair:
    """Two trainers on the same batches: nnU-Net's own first, then ours.

    Attributes:
        seconds: (rounds, 2) of an iteration.
        peak_bytes: Of an iteration of each.
        validation_step: Seconds of one of ours.
        measuring: Seconds that measuring calibration takes of that.
        description: Network and batch, in words.
    """

    seconds: np.ndarray
    peak_bytes: tuple[int, int]
    validation_step: float
    measuring: float
    description: str


def measure(args: argparse.Namespace, device: torch.device) -> Pair:
    """Time and memory of both trainers."""
    stock = make_trainer(STOCK, args, device)
    ours = make_trainer(args.tr, args, device)
    ours.network.load_state_dict(copy.deepcopy(stock.network.state_dict()))
    loader, _ = stock.get_dataloaders()
    batches = [next(loader) for _ in range(args.batches)]
    seconds = time_rounds((stock, ours), batches, args.rounds)
    several_batches = batches * (args.rounds // args.batches + 1)
    validation_step, measuring = seconds_of_measuring(ours, several_batches)
    return Pair(
        seconds=seconds,
        peak_bytes=(peak_bytes(stock, batches[0]), peak_bytes(ours, batches[0])),
        validation_step=validation_step,
        measuring=measuring,
        description=describe_network(stock, batches[0]),
    )


def time_rounds(trainers: tuple[Any, Any], batches: list[dict], rounds: int) -> np.ndarray:
    """(rounds, 2) seconds of an iteration of each trainer, whose order alternates."""
    seconds = np.empty((rounds, 2))
    for number in range(-WARM_UP, rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            taken = seconds_of_step(trainers[which], batches[number % len(batches)])
            if number >= 0:
                seconds[number, which] = taken
    return seconds


def describe_network(trainer: Any, batch: dict) -> str:
    """Network, batch, heads and scales in words."""
    network = type(trainer.network).__name__
    millions = sum(weights.numel() for weights in trainer.network.parameters()) / 1e6
    num_heads = trainer.label_manager.num_segmentation_heads
    target = batch["target"]
    num_scales = len(target) if isinstance(target, list) else 1
    return (
        f"{network} with {millions:.1f} million parameters, batch {tuple(batch['data'].shape)},"
        f" {num_heads} heads, {num_scales} scale(s)"
    )


def report(args: argparse.Namespace, pair: Pair) -> str:
    """The table, the ratio with its spread, and what measuring takes."""
    stock, ours = pair.seconds.T
    rows = []
    for name, seconds, peak in zip((STOCK, args.tr), (stock, ours), pair.peak_bytes):
        median_ms = 1e3 * np.median(seconds)
        fastest_ms = 1e3 * seconds.min()
        rows.append([name, f"{median_ms:.0f}", f"{fastest_ms:.0f}", f"{peak / 2**20:.0f}"])
    heading = (
        f"**Dataset {args.dataset}, {args.configuration}, fold {args.fold}, {args.p}**:"
        f" {pair.description}, {args.rounds} rounds on {args.batches} batch(es)"
    )
    times = table(["trainer", "median ms per iteration", "fastest", "peak MiB"], rows)
    ratio = f"{args.tr} / {STOCK}: {ratio_text(ours / stock)}"
    return "\n\n".join([heading, times, ratio, measuring_text(pair)])


def ratio_text(ratios: np.ndarray) -> str:
    """Median and quartiles of the rounds' ratios, and how far the median can be trusted."""
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    ci_low, ci_high = np.percentile(np.median(resampled, 1), (2.5, 97.5))
    return (
        f"median of the rounds' ratios **{middle:.3f}** (quartiles"
        f" {low:.3f} to {high:.3f}; 95 % interval of the median {ci_low:.3f} to"
        f" {ci_high:.3f}). Goal: at most 1.05."
    )


def measuring_text(pair: Pair) -> str:
    """What measuring takes of an epoch of nnU-Net's length."""
    ours = pair.seconds[:, 1]
    epoch = 250 * np.median(ours) + 50 * pair.validation_step
    share = 50 * pair.measuring / epoch
    return (
        f"Measuring calibration takes {1e3 * pair.measuring:.1f} ms of a validation step of"
        f" {1e3 * pair.validation_step:.0f} ms: {share:.2%} of an epoch of 250 training and 50"
        " validation steps. Goal: at most 1 %."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name or number")
    parser.add_argument("configuration", help="2d, 3d_fullres, ...")
    parser.add_argument("fold", help="a number or all")
    parser.add_argument("-p", default="nnUNetPlans", help="plans; default: %(default)s")
    parser.add_argument(
        "-tr", default="nnUNetTrainerNACL", help="compared with nnUNetTrainer; default: %(default)s"
    )
    parser.add_argument(
        "-device", default="cpu", choices=("cpu", "cuda"), help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument(
        "--batches", type=int, default=1, help="taken in turn; default: %(default)s"
    )
    parser.add_argument(
        "--core", type=int, help="which core to use; default: the first that is allowed"
    )
    parser.add_argument(
        "--output", type=Path, help="page whose section on this configuration is rewritten"
    )
    args = parser.parse_args()
    if args.rounds < 1 or args.batches < 1:
        parser.error("--rounds and --batches must be at least 1.")
    # Both are read when nnunetv2 is imported or makes its loaders: no processes beside this one, no
    # folders left over.
    os.environ["nnUNet_n_proc_DA"] = "0"
    # the profiler reports its start and stop on stderr otherwise
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        if args.device == "cpu":
            os.environ["OMP_NUM_THREADS"] = "1"
            pin_to_one_core(args.core)
        pair = measure(args, torch.device(args.device))
    text = report(args, pair)
    clock = "CPU time of one pinned core" if args.device == "cpu" else torch.cuda.get_device_name()
    text += f"\n\nMachine: {describe_machine()}; {clock}."
    print("\n" + text)
    if args.output is not None:
        write_section(
            args.output,
            f"training iteration, {args.dataset} {args.configuration}",
            f"## Training iteration, {args.configuration}\n\n{text}",
        )


if __name__ == "__main__":
    main()
