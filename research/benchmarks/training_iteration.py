"""Time of a whole nnU-Net training iteration with a trainer of ours and with nnU-Net's own, paired
in one process.

    python research/benchmarks/training_iteration.py 4 3d_fullres 0
    python research/benchmarks/training_iteration.py 4 2d 0 -p nnUNetPlans -tr nnUNetTrainerDiceNACL
    --rounds 30 python research/benchmarks/training_iteration.py 4 2d 0 --output
    research/benchmarks/new.md

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
from pathlib import Path

import numpy as np
import torch
from page import describe_machine, pin_to_one_core, table, write_section

STOCK = "nnUNetTrainer"
WARM_UP = 2


def make_trainer(name: str, args: argparse.Namespace, device: torch.device):
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


def seconds_of_step(trainer, batch: dict) -> float:
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


def peak_bytes(trainer, batch: dict) -> int:
    """Largest sum of tensors alive at once in one training iteration, beyond those that were there
    before."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainer.train_step(batch)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        trainer.train_step(batch)
    with tempfile.TemporaryDirectory() as folder:
        # the profiler's own lists drop what happens inside ops
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    alive = peak = 0
    for event in sorted(
        (event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]
    ):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def seconds_of_measuring(trainer, batches: list[dict]) -> tuple[float, float]:
    """Medians of a validation step, and of what measuring calibration takes of it; nothing where it
    is not measured."""
    from nnunet_nacl_trainers import calibration_log

    clock = time.perf_counter if trainer.device.type == "cuda" else time.process_time
    count_batch, parts, steps = calibration_log.count_batch, [], []

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


def measure(args: argparse.Namespace, device: torch.device) -> tuple[np.ndarray, dict]:
    """Seconds (rounds, 2), stock first, and what is to be said about the data."""
    stock, ours = make_trainer(STOCK, args, device), make_trainer(args.tr, args, device)
    ours.network.load_state_dict(copy.deepcopy(stock.network.state_dict()))
    loader, _ = stock.get_dataloaders()
    batches = [next(loader) for _ in range(args.batches)]
    seconds = np.empty((args.rounds, 2))
    for i in range(-WARM_UP, args.rounds):
        for j in (0, 1) if i % 2 else (1, 0):
            taken = seconds_of_step((stock, ours)[j], batches[i % args.batches])
            if i >= 0:
                seconds[i, j] = taken
    measured = seconds_of_measuring(ours, batches * (args.rounds // args.batches + 1))
    target = batches[0]["target"]
    facts = {
        "batch": tuple(batches[0]["data"].shape),
        "scales": len(target) if isinstance(target, list) else 1,
        "heads": stock.label_manager.num_segmentation_heads,
        "network": type(stock.network).__name__,
        "parameters": sum(p.numel() for p in stock.network.parameters()),
        "peak_bytes": [peak_bytes(trainer, batches[0]) for trainer in (stock, ours)],
        "measuring": measured,
    }
    return seconds, facts


def report(args: argparse.Namespace, seconds: np.ndarray, facts: dict) -> str:
    """The table, and the ratio with its spread."""
    ratios = seconds[:, 1] / seconds[:, 0]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    # Medians of resampled rounds: how far the median itself can be trusted.
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    ci_low, ci_high = np.percentile(np.median(resampled, 1), (2.5, 97.5))
    rows = [
        [name, f"{1e3 * np.median(column):.0f}", f"{1e3 * column.min():.0f}", f"{peak / 2**20:.0f}"]
        for name, column, peak in zip((STOCK, args.tr), seconds.T, facts["peak_bytes"])
    ]
    step, measuring = facts["measuring"]
    share = 50 * measuring / (250 * np.median(seconds[:, 1]) + 50 * step)
    return "\n\n".join(
        [
            (
                f"**Dataset {args.dataset}, {args.configuration}, fold {args.fold}, {args.p}**:"
                f" {facts['network']} with {facts['parameters'] / 1e6:.1f} million parameters,"
                f" batch {facts['batch']}, {facts['heads']} heads, {facts['scales']} scale(s),"
                f" {args.rounds} rounds on {args.batches} batch(es)"
            ),
            table(["trainer", "median ms per iteration", "fastest", "peak MiB"], rows),
            (
                f"{args.tr} / {STOCK}: median of the rounds' ratios **{middle:.3f}** (quartiles"
                f" {low:.3f} to {high:.3f}; 95 % interval of the median {ci_low:.3f} to"
                f" {ci_high:.3f}). Goal: at most 1.05."
            ),
            (
                f"Measuring calibration takes {1e3 * measuring:.1f} ms of a validation step of"
                f" {1e3 * step:.0f} ms: {share:.2%} of an epoch of 250 training and 50 validation"
                " steps. Goal: at most 1 %."
            ),
        ]
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
        seconds, facts = measure(args, torch.device(args.device))
    text = report(args, seconds, facts)
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
