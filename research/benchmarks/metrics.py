"""Time and memory of the metrics, side by side with torchmetrics and MONAI on one core.

    python research/benchmarks/metrics.py [--small] [--core N] [--output PAGE]

Synthetic softmax maps, 6 % foreground. torchmetrics and MONAI measure the foreground alone (ECE and
one binary error per class); ours measures six masks and all metrics. The masks in mm are timed
apart.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from page import join_section, pin_to_one_core, table, write_section

Result = TypeVar("Result")

SPACING_MM = (1.5, 0.8, 0.8)
SIX_MASKS = "ours, six masks, all metrics"


def make_case(
    classes: int, shape: tuple[int, int, int], seed: int = 0
) -> tuple[torch.Tensor, np.ndarray]:
    """A smooth synthetic case: ellipsoid organs over 6 % of the volume, uncertain near their
    surfaces."""
    coordinates = [np.linspace(-1, 1, length, dtype=np.float32) for length in shape]
    grid = np.stack(np.meshgrid(*coordinates, indexing="ij"))
    num_organs = classes - 1
    radius = (0.06 * 8 / num_organs * 3 / (4 * np.pi)) ** (1 / 3)
    side = int(np.ceil(num_organs ** (1 / 3)))
    cells = np.stack(np.unravel_index(np.arange(num_organs), (side,) * 3), 1)
    centres = (cells + 0.5) / side * 2 - 1
    depth = np.empty((num_organs, *shape))
    for organ, centre in enumerate(centres):
        distance = np.sqrt(((grid - centre.reshape(3, 1, 1, 1)) ** 2).sum(0))
        depth[organ] = 1 - distance / radius
    truth = np.where(depth.max(0) > 0, depth.argmax(0) + 1, 0).astype(np.uint8)
    logits = torch.empty(classes, *shape)
    logits[0] = 7
    logits[1:] = torch.as_tensor(7 + 25 * np.clip(depth, -0.9, 0.4))
    logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(logits, 0), truth


class PeakMemory:
    """Highest resident memory above the start, sampled every millisecond; Linux with glibc.

    Freed memory would hide what is taken again: it is given back first, and from then on whenever
    it is freed, by the option of malloc that maps everything larger than 64 KiB apart. Time nothing
    after this.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        libc = ctypes.CDLL(None)
        mmap_threshold = -3
        libc.mallopt(mmap_threshold, 1 << 16)
        libc.malloc_trim(0)
        self._start = self._resident()
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, self._resident() - self._start)
            time.sleep(0.001)

    @staticmethod
    def _resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of process time of each, every round running all of them once; the first round
    is not counted."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(1 + rounds):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def once(function: Callable[[], Result]) -> tuple[Result, float]:
    """Result and seconds of process time."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def counters(
    probs: torch.Tensor, truth: np.ndarray, masks: dict[str, np.ndarray]
) -> dict[str, Callable[[], object]]:
    """What is compared, by name; torchmetrics first."""
    from monai.metrics.calibration import calibration_binning
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_calibration_error,
    )

    from nnunet_nacl.metrics import count_masks

    labels = torch.as_tensor(truth)
    classes = len(probs)

    def foreground() -> tuple[torch.Tensor, torch.Tensor]:
        index = (labels != 0).flatten().nonzero().squeeze(1)
        return probs.flatten(1)[:, index], labels.flatten()[index].long()

    def torchmetrics() -> None:
        p, y = foreground()
        p = p.T
        multiclass_calibration_error(p, y, classes, n_bins=15)
        for k in range(classes):
            binary_calibration_error(p[:, k], (y == k).long(), n_bins=15)

    def monai() -> None:
        p, y = foreground()
        one_hot = torch.nn.functional.one_hot(y, classes).T[None].float()
        calibration_binning(p[None], one_hot, num_bins=15)

    return {
        "torchmetrics, foreground, ECE and one binary error per class": torchmetrics,
        "MONAI, foreground, binning": monai,
        "ours, four masks, all metrics": lambda: count_masks(probs, truth),
        SIX_MASKS: lambda: count_masks(probs, truth, extra_masks=masks),
    }


def surfaces(truth: np.ndarray) -> list[list[str]]:
    """Rows of the table of surface distances."""
    from medpy.metric import binary

    from nnunet_nacl.metrics.surfaces import assd, hausdorff, surface_distances

    rows = []
    for name, mask in (("one organ", truth == 1), ("all organs", truth > 0)):
        other = np.roll(mask, (1, 2, -1), axis=(0, 1, 2))
        distances, seconds = once(partial(surface_distances, mask, other, SPACING_MM))
        hd95, hd95_seconds = once(partial(binary.hd95, other, mask, SPACING_MM))
        mean, assd_seconds = once(partial(binary.assd, other, mask, SPACING_MM))
        theirs = hd95_seconds + assd_seconds
        difference = max(abs(hausdorff(distances) - hd95), abs(assd(distances) - mean))
        times = [f"{seconds:.3f}", f"{theirs:.2f}", f"{seconds / theirs:.4f}"]
        rows.append([name, *times, f"{difference:.0e}"])
    return rows


def verdict_on(time_ratio: float, extra: float) -> str:
    """Whether the goals are reached, in a sentence."""
    time_verdict = "reached" if time_ratio <= 0.4 else "not reached"
    memory_verdict = "reached" if extra <= 0.15 else "not reached"
    return (
        f"Goals for six masks: time {time_verdict} ({time_ratio:.2f} x, goal 0.4 x), "
        f"memory {memory_verdict} ({extra:.3f} x, goal 0.15 x)."
    )


def measure(classes: int, shape: tuple[int, int, int], rounds: int) -> str:
    """Markdown of one case."""

    probs, truth = make_case(classes, shape)
    size = probs.numel() * 4
    masks, building_seconds = once(lambda: build_masks(truth))
    functions = counters(probs, truth, masks)
    seconds = interleaved(functions, rounds)
    distances = surfaces(truth)
    torchmetrics_seconds = next(iter(seconds.values()))
    verdict = ""
    rows = []
    for name, count in functions.items():
        with PeakMemory() as memory:
            count()
        time_ratio = seconds[name] / torchmetrics_seconds
        extra = memory.peak / size
        goal = ""
        if name == SIX_MASKS:
            goal = "0.4; memory 0.15"
            verdict = verdict_on(time_ratio, extra)
        rows.append([name, f"{seconds[name]:.3f}", f"{time_ratio:.2f}", f"{extra:.3f}", goal])
    paragraphs = [
        f"**{classes} classes, {shape}, float32**, {size / 2**20:.0f} MiB, foreground"
        f" {(truth > 0).mean():.1%}",
        table(
            ["counting", "CPU s", "x torchmetrics", "extra memory / array", "goal: at most"], rows
        ),
        verdict,
        f"Building `dilated` and `boundary` (2 mm), not in these times: {building_seconds:.3f} s.",
        table(
            ["HD95 and ASSD", "CPU s", "medpy CPU s", "x medpy", "largest difference in mm"],
            distances,
        ),
    ]
    return "\n\n".join(paragraphs)


def build_masks(truth: np.ndarray) -> dict[str, np.ndarray]:
    """The two masks in mm around a truth."""
    from nnunet_nacl.metrics.distance_masks import boundary_mask, dilated_mask

    return {
        "dilated": dilated_mask(truth, 2, SPACING_MM),
        "boundary": boundary_mask(truth, 2, SPACING_MM),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="an eighth of the volume")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, help="core to run on; default: the first")
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    pin_to_one_core(args.core)
    shape = (64, 128, 128) if args.small else (128, 256, 256)
    parts = []
    for classes in (4, 14):
        parts.append(measure(classes, shape, args.rounds))
        print(parts[-1], end="\n\n", flush=True)
    text = join_section(
        "## Calibration metrics",
        f"From arrays in memory: synthetic organs, medians of {args.rounds} interleaved rounds, CPU"
        " time of one pinned core. Extra memory: the highest resident memory during a run above"
        " that before it.",
        *parts,
    )
    if args.output:
        write_section(args.output, "metrics", text)


if __name__ == "__main__":
    main()
