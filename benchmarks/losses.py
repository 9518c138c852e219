"""Time and memory of every loss, forward and backward, on one pinned core, beside nnU-Net's and MONAI's losses.

    python benchmarks/losses.py
    python benchmarks/losses.py --rounds 3 --shapes 2d --noise
    python benchmarks/losses.py --output benchmarks/new.md

Times: every round runs every loss once, so that a slow moment of the machine hits all of them; the table holds medians
of the process's CPU time over the rounds, and ratios of those medians. Memory: the running maximum of what PyTorch's
CPU allocator hands out and takes back during one forward and backward pass (torch.profiler), the logits' own gradient
included, as a multiple of the logits' size.

Labels matter: class-by-class code skips classes that a sample does not hold. By default labels are smooth blobs on
background, as patches of medical images are (see ``blob_labels``); ``--noise`` draws every voxel's label at random.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from page import describe_machine, pin_to_one_core, table, write_section
from scipy.ndimage import gaussian_filter
from torch import Tensor

from nnunet_nacl import losses

SHAPES = {"2d": (12, 4, 256, 256), "3d": (2, 3, 96, 96, 96), "3d14": (2, 14, 64, 128, 128)}
FOREGROUND = 0.08
STOCK, MONAI, NACL = "nnU-Net Dice + CE", "MONAI NACLLoss", "NACL"

OURS = {
    NACL: losses.NACLLoss(check_labels=False),
    "NACL, ignore label": losses.NACLLoss(check_labels=False, ignore_label=255),
    "NACL, svls prior": losses.NACLLoss(check_labels=False, prior="svls"),
    "NACL, L2": losses.NACLLoss(check_labels=False, penalty="l2"),
    "NACL, softmax": losses.NACLLoss(check_labels=False, space="softmax"),
    "MbLS": losses.MbLSLoss(check_labels=False),
    "SVLS": losses.SVLSLoss(check_labels=False),
    "LS": losses.LabelSmoothingLoss(check_labels=False),
    "Focal": losses.FocalLoss(check_labels=False),
    "ECP": losses.ECPLoss(check_labels=False),
    "CE": losses.CELoss(check_labels=False),
}


def blob_labels(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Label maps (B, 1, *spatial), int16 as nnU-Net passes them: blobs over 8 % of every sample, background else.

    Each class has a smooth random field; the largest field wins where it exceeds a threshold. Up to four foreground
    classes all occur in every sample; of more, each sample holds half, drawn at random.
    """
    batch, num_classes, *spatial = shape
    labels = np.zeros((batch, 1, *spatial), np.int16)
    held = min(num_classes - 1, max(4, num_classes // 2))
    for i in range(batch):
        classes = np.sort(rng.permutation(np.arange(1, num_classes))[:held])
        fields = np.stack([gaussian_filter(rng.standard_normal(spatial, np.float32), 6) for _ in classes])
        best = fields.max(0)
        inside = best > np.quantile(best, 1 - FOREGROUND)
        labels[i, 0][inside] = classes[fields.argmax(0)][inside]
    return torch.from_numpy(labels)


def make_losses(shape: tuple[int, ...], logits: Tensor, target: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Every loss as a call without arguments; conversions that MONAI's loss asks of its caller are not timed."""
    stock = DC_and_CE_loss(
        {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss
    )
    calls = {STOCK: lambda: stock(logits, target)}
    try:
        from monai.losses import NACLLoss as MonaiNACLLoss
    except ImportError:
        print("MONAI is not installed, so that its loss is left out.")
    else:
        monai = MonaiNACLLoss(classes=shape[1], dim=len(shape) - 2)
        long_labels = target[:, 0].long()
        calls[MONAI] = lambda: monai(logits, long_labels)
    for name, module in OURS.items():
        calls[name] = lambda module=module: module(logits, target)
    return calls


def cpu_seconds(call: Callable[[], Tensor], logits: Tensor) -> float:
    """CPU time of one forward and backward pass."""
    logits.grad = None
    start = time.process_time()
    call().backward()
    return time.process_time() - start


def peak_bytes(call: Callable[[], Tensor], logits: Tensor) -> int:
    """Largest sum of tensors alive at once beyond those that were there before."""
    logits.grad = None
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call().backward()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")  # the profiler's own lists drop what happens inside ops
        events = json.loads(Path(folder, "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    alive = peak = 0
    for event in sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]):
        alive += event["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def measure(shape: tuple[int, ...], rounds: int, noise: bool) -> tuple[dict[str, float], dict[str, float], Tensor]:
    """Median seconds and peak memory (in logits) of every loss, and the labels they had."""
    rng = np.random.default_rng(0)
    if noise:
        target = torch.from_numpy(rng.integers(0, shape[1], (shape[0], 1, *shape[2:]), dtype=np.int16))
    else:
        target = blob_labels(shape, rng)
    # About what a network gives in the middle of its training.
    logits = torch.from_numpy(rng.standard_normal(shape, np.float32)) * 2
    logits.scatter_add_(1, target.long(), torch.full(target.shape, 4.0))
    logits.requires_grad_()
    calls = make_losses(shape, logits, target)
    memory = {name: peak_bytes(call, logits) / (4 * logits.numel()) for name, call in calls.items()}  # warms up too
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(cpu_seconds(call, logits))
    return {name: statistics.median(values) for name, values in seconds.items()}, memory, target


def report(shape: tuple[int, ...], seconds: dict[str, float], memory: dict[str, float], target: Tensor) -> str:
    """One shape's table."""
    monai_goal = 0.25 if shape[1] == 14 else 0.4
    rows = []
    for name, time_taken in seconds.items():
        of_stock, of_monai = time_taken / seconds[STOCK], time_taken / seconds.get(MONAI, float("nan"))
        goal = "" if name in (STOCK, MONAI) else "1"
        if name == NACL:
            goal = f"0.55; {monai_goal} x MONAI; memory 2"
        numbers = [f"{of_stock:.2f}", f"{of_monai:.2f}", f"{memory[name]:.2f}"]
        rows.append([name, f"{1e3 * time_taken:.1f}", *numbers, goal])
    held = [len(torch.unique(sample)) for sample in target]
    foreground = (target != 0).double().mean().item()
    return (
        f"**Logits {shape}**, {4 * np.prod(shape) / 2**20:.0f} MiB; labels: {foreground:.0%} foreground, "
        f"{min(held)} to {max(held)} of {shape[1]} classes per sample\n\n"
        + table(["loss", "CPU ms", "x stock", "x MONAI", "peak memory / logits", "goal: at most (x stock)"], rows)
    )


def read_shape(text: str) -> tuple[int, ...]:
    """A shape by its name, or as numbers with commas between them."""
    if text in SHAPES:
        return SHAPES[text]
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) not in (4, 5) or min(shape) < 1 or shape[1] < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(SHAPES)} nor batch,classes,x,y[,z].")
    return shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument(
        "--shapes",
        type=read_shape,
        nargs="+",
        default=list(SHAPES.values()),
        metavar="SHAPE",
        help=f"{', '.join(SHAPES)} or batch,classes,x,y[,z]; default: all three",
    )
    parser.add_argument("--noise", action="store_true", help="labels without any structure: the worst case")
    parser.add_argument("--core", type=int, help="which core to use; default: the first that is allowed")
    parser.add_argument("--output", type=Path, help="page whose section on losses is rewritten")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}.")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler reports its start and stop on stderr otherwise
    pin_to_one_core(args.core)
    tables = []
    for shape in args.shapes:
        tables.append(report(shape, *measure(shape, args.rounds, args.noise)))
        print(tables[-1], flush=True)
        print()
    labels = (
        "every voxel's label drawn at random"
        if args.noise
        else f"smooth blobs over {FOREGROUND:.0%} of every sample, background else; of more than four foreground "
        "classes a sample holds half"
    )
    text = "\n\n".join(
        [
            "## Losses",
            f"Forward and backward pass, float32, CPU time, medians of {args.rounds} interleaved rounds.\n"
            f"Labels: {labels}.\n"
            "Memory: the most that PyTorch's allocator had handed out at once, the gradient of the logits included.\n"
            "Stock is nnU-Net's `DC_and_CE_loss` with `MemoryEfficientSoftDiceLoss`.",
            f"Machine: {describe_machine()}.",
            *tables,
        ]
    )
    print(f"Machine: {describe_machine()}.")
    if args.output is not None:
        write_section(args.output, "losses", text)


if __name__ == "__main__":
    main()
