"""Draws l1_penalty.png: where free logits settle under NACL's L1 penalty.

    python docs/figures/l1_penalty_figure.py

Free logits are a tensor that gradient descent changes as it likes: what is left when no network
limits them. Dots are the result of minimising the package's own loss, lines are the formulas of
l1-penalty.md. The dots are printed: the probability of the true class so many voxels from an edge
(none: plain surroundings), and its logit above the mean of the others.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from nnunet_nacl.losses import nacl

DOCS = Path(__file__).resolve().parents[1]
LAMBDA = 0.1
SETTLED_COUNTS = (3, 5, 8, 14, 20)
"""Numbers of classes for which logits are left to settle."""


def settle(labels: torch.Tensor, num_classes: int, steps: int = 6000, **settings) -> np.ndarray:
    """Logits (K, length) that minimise NACL for a row of labels, by Adam with a rate that falls to
    nothing."""
    logits = torch.zeros(1, num_classes, len(labels), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.03)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: max(1e-4, 1 - step / steps) ** 2
    )
    for _ in range(steps):
        optimizer.zero_grad()
        mean_loss = nacl(logits, labels[None], check_labels=False, **settings)
        (mean_loss * len(labels)).backward()
        optimizer.step()
        schedule.step()
    return logits.detach()[0].numpy()


def probability(logits: np.ndarray, label: int) -> np.ndarray:
    weights = np.exp(logits - logits.max(0))
    return weights[label] / weights.sum(0)


def draw_cap(axis) -> list[dict[str, object]]:
    """Logit of the true class, in plain surroundings, against the number of classes."""
    rows: list[dict[str, object]] = []
    counts = np.arange(3, 21)
    rates = {"mean": LAMBDA / counts, "sum": np.full(len(counts), LAMBDA)}
    colors = {"mean": "tab:blue", "sum": "tab:orange"}
    for reduction, rate in rates.items():
        cap = np.log((counts - 1) * (1 - rate) / rate)
        axis.plot(counts, cap, color=colors[reduction], label=f"{reduction}: formula")
        settled_caps = []
        for count in SETTLED_COUNTS:
            voxel = torch.zeros(1)
            settled = settle(voxel, count, penalty_weight=LAMBDA, class_reduction=reduction)
            logits = settled[:, 0]
            settled_cap = logits[0] - logits[1:].mean()
            settled_caps.append(settled_cap)
            row = {"K": count, "reduction": reduction, "m": 1}
            rows.append(row | {"probability": probability(logits, 0), "logit": settled_cap})
        label = f"{reduction}: free logits"
        axis.plot(SETTLED_COUNTS, settled_caps, "o", color=colors[reduction], label=label)
    axis.set(
        xlabel="number of classes K",
        ylabel="logit of the true class, others 0",
        title=f"Cap in plain surroundings, $\\lambda$ = {LAMBDA}",
        xlim=(2.5, 20.5),
        ylim=(0, 9),
    )
    axis.set_xticks(range(4, 21, 4))
    axis.legend(frameon=False)
    return rows


def draw_edge(axis) -> list[dict[str, object]]:
    """Confidence along a row of voxels across an edge of two of three classes."""
    rows: list[dict[str, object]] = []
    labels = torch.tensor([0] * 8 + [1] * 8)
    distances = np.arange(16) - 7.5
    for scale, color, marker in ((1.0, "tab:blue", "o"), (5.0, "tab:green", "s")):
        logits = settle(labels, 3, penalty_weight=LAMBDA, prior_scale=scale)
        is_first = labels.numpy() == 0
        confidence = np.where(is_first, probability(logits, 0), probability(logits, 1))
        for distance, value in zip(distances, confidence):
            row = {"K": 3, "reduction": "mean", "m": int(scale)}
            rows.append(row | {"voxels from edge": distance, "probability": value})
        axis.plot(distances, confidence, marker + "-", color=color, label=f"m = {scale:g}")
    axis.axhline(
        1 - LAMBDA / 3, color="grey", linestyle="--", linewidth=1, label="1 $-$ $\\lambda$/K"
    )
    axis.axvline(0, color="lightgrey", zorder=0)
    axis.set(
        xlabel="voxels from the edge",
        ylabel="probability of the true class",
        ylim=(0.95, 1.0),
        title=f"Across an edge, K = 3, mean, $\\lambda$ = {LAMBDA}",
    )
    axis.legend(frameon=False)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    values = pd.DataFrame(draw_cap(axes[0]) + draw_edge(axes[1]))
    print(values.to_string(index=False))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "images" / "l1_penalty.png", dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
