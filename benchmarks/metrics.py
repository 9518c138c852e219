"""Time and memory of the metrics, side by side with torchmetrics and MONAI on one core.

    taskset -c 0 python benchmarks/metrics.py [--small]

Synthetic softmax maps, 6 % foreground. torchmetrics and MONAI measure the foreground alone (ECE and one binary error
per class); ours measures six masks and all metrics. The masks in mm are timed apart.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time

import numpy as np
import torch

SPACING_MM = (1.5, 0.8, 0.8)


def make_case(classes: int, shape: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """A smooth synthetic case: ellipsoid organs over 6 % of the volume, uncertain near their surfaces."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij"))
    radius = (0.06 * 8 / (classes - 1) * 3 / (4 * np.pi)) ** (1 / 3)
    side = int(np.ceil((classes - 1) ** (1 / 3)))
    centres = (np.stack(np.unravel_index(np.arange(classes - 1), (side,) * 3), 1) + 0.5) / side * 2 - 1
    depth = np.stack([1 - np.sqrt(((grid - c.reshape(3, 1, 1, 1)) ** 2).sum(0)) / radius for c in centres])
    best, organ = depth.max(0), depth.argmax(0)
    truth = np.where(best > 0, organ + 1, 0).astype(np.uint8)
    logits = torch.empty(classes, *shape)
    logits[0] = 7
    logits[1:] = torch.as_tensor(7 + 25 * np.clip(depth, -0.9, 0.4))
    logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(logits, 0), truth


class PeakMemory:
    """Highest resident memory above the start, sampled every millisecond."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        self._start, self.peak, self._stop = self._resident(), 0, threading.Event()
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


def timed(function, repeat: int = 5) -> tuple[float, float]:
    """Median seconds of process time, and peak extra bytes of one run."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    with PeakMemory() as memory:
        function()
    return statistics.median(times), memory.peak


def report(name: str, seconds: float, reference: float, memory: float) -> None:
    """One line: time, time over torchmetrics', peak memory over the array."""
    print(f"  {name:32s}{seconds:8.3f} s  {seconds / reference:5.2f} x  memory {memory:5.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the volume")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    from nnunet_nacl.metrics import count_masks
    from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask
    from nnunet_nacl.metrics.surface import surface_distances

    shape = (64, 128, 128) if args.small else (128, 256, 256)
    for classes in (4, 14):
        probs, truth = make_case(classes, shape)
        size = probs.numel() * 4
        print(f"\nK={classes} {shape}, {size / 2**20:.0f} MiB, foreground {(truth > 0).mean():.1%}")
        start = time.process_time()
        masks = {"dilated": dilated_mask(truth, 2, SPACING_MM), "boundary": boundary_mask(truth, 2, SPACING_MM)}
        print(f"  building dilated and boundary      {time.process_time() - start:8.3f} s")
        labels = torch.as_tensor(truth)

        def torchmetrics_foreground(probs=probs, labels=labels, classes=classes):
            index = (labels != 0).flatten().nonzero().squeeze(1)
            p, y = probs.flatten(1)[:, index].T, labels.flatten()[index].long()
            multiclass_calibration_error(p, y, classes, n_bins=15)
            for k in range(classes):
                binary_calibration_error(p[:, k], (y == k).long(), n_bins=15)

        def monai_foreground(probs=probs, labels=labels, classes=classes):
            from monai.metrics.calibration import calibration_binning

            index = (labels != 0).flatten().nonzero().squeeze(1)
            p, y = probs.flatten(1)[:, index], labels.flatten()[index].long()
            calibration_binning(p[None], torch.nn.functional.one_hot(y, classes).T[None].float(), num_bins=15)

        def ours(probs=probs, truth=truth, masks=masks):
            return count_masks(probs, truth, extra_masks=masks)

        reference, memory = timed(torchmetrics_foreground, 3)
        report("torchmetrics, foreground, ECE", reference, reference, memory / size)
        try:
            seconds, memory = timed(monai_foreground, 3)
            report("MONAI, foreground, binning", seconds, reference, memory / size)
        except ImportError:
            print("  MONAI has no calibration binning in this version")
        seconds, memory = timed(ours)
        report("ours, six masks, all metrics", seconds, reference, memory / size)

        from medpy.metric import binary

        for name, organ in (("small organ", 1), ("all organs", None)):
            mask = truth == organ if organ else truth > 0
            other = np.roll(mask, (1, 2, -1), axis=(0, 1, 2))
            start = time.process_time()
            distances = surface_distances(mask, other, SPACING_MM)
            seconds = time.process_time() - start
            start = time.process_time()
            expected = binary.hd95(other, mask, SPACING_MM), binary.assd(other, mask, SPACING_MM)
            theirs = time.process_time() - start
            exact = np.allclose((distances.hausdorff(), distances.assd), expected, rtol=0, atol=1e-9)
            print(f"  HD95 and ASSD, {name:12s} {seconds:8.3f} s  {seconds / theirs:7.4f} x medpy's, equal: {exact}")


if __name__ == "__main__":
    main()
