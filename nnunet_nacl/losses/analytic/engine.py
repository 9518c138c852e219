"""The autograd function around the terms, and one sample as the terms see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunet_nacl.label_space import Target

__all__ = ["Sample", "Term", "mean_with_analytic_gradient", "wants_analytic_gradient"]


class Sample:
    """One sample: logits, labels, and the buffer that its gradient is written to.

    Attributes:
        logits: (K, *spatial).
        gradient: (K, *spatial), contiguous.
        labels: (*spatial), one byte per voxel for up to 255 classes; ignored voxels hold 0.
        valid: Boolean (*spatial) or None.
    """

    def __init__(self, logits: Tensor, gradient: Tensor, labels: Tensor, valid: Tensor | None) -> None:
        self.logits = logits
        self.gradient = gradient
        # Comparing bytes and writing bytes is ten times as fast as comparing wider labels and writing booleans.
        self.labels = labels.to(torch.uint8 if logits.shape[0] <= 255 else torch.int32)
        self.valid = valid

    @cached_property
    def present(self) -> list[bool]:
        """For each class whether any voxel has it. Most patches hold few of many classes."""
        labels = self.labels.reshape(-1)
        counts = torch.bincount(labels if labels.dtype == torch.uint8 else labels.long(),
                                minlength=self.logits.shape[0])
        return (counts > 0).tolist()

    def softmax(self) -> tuple[Tensor, Tensor]:
        """Write the softmax into ``gradient``.

        Returns:
            The largest logit and the excess e, both (*spatial), with ``-log p_k = (largest - l_k) + e``. Kept apart,
            they lose no digits where logits are large; e = -log max_k p_k, which cannot underflow.
        """
        torch.softmax(self.logits, 0, out=self.gradient)
        return self.logits.amax(0), self.gradient.amax(0).log_().neg_()

    def members(self) -> Iterator[tuple[int, Tensor]]:
        """Each class that occurs, with its indicator; the buffer is used again for the next one."""
        member = torch.empty_like(self.labels)
        for k, present in enumerate(self.present):
            if present:
                yield k, torch.eq(self.labels, k, out=member)

    def cross_entropy(self, smoothing: float = 0.0) -> Tensor:
        """Write p - (1 - smoothing) onehot(y) into ``gradient`` and return -log p_y, (*spatial)."""
        largest, excess = self.softmax()
        return excess.add_(largest.sub_(self.subtract_labels(1 - smoothing)))

    def subtract_labels(self, scale: float = 1.0) -> Tensor:
        """Subtract ``scale`` [k = y] from ``gradient`` and return the true class's logit, (*spatial)."""
        true_logit = torch.zeros_like(self.logits[0])
        for k, member in self.members():
            self.gradient[k].sub_(member, alpha=scale)
            true_logit.addcmul_(self.logits[k], member)
        return true_logit


Term = Callable[[Sample], Tensor]
"""Writes a sample's gradient, of order 1, into its buffer, and returns the loss of every voxel, (*spatial)."""


def wants_analytic_gradient(logits: Tensor) -> bool:
    """Whether the in-place form is the better one here.

    Elsewhere than on the CPU the loops over classes would be bound by kernel launches, and torch.compile fuses the
    plain formulas by itself.
    """
    return logits.device.type == "cpu" and not torch.compiler.is_compiling()


def mean_with_analytic_gradient(logits: Tensor, target: Target, term: Term) -> Tensor:
    """Mean of a term over valid voxels, differentiable once.

    Args:
        logits: (B, K, *spatial), float32 or float64, on the CPU.
        target: Labels (B, *spatial) and mask.
        term: What is computed.

    Returns:
        Scalar of the logits' dtype; 0 where no voxel is valid.
    """
    return _MeanWithAnalyticGradient.apply(logits, target, term)


class _MeanWithAnalyticGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Target, term: Term) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = 0.0
        for i in range(logits.shape[0]):
            sample = Sample(logits[i], gradient[i], target.labels[i],
                            None if target.valid is None else target.valid[i])
            loss = term(sample)
            if sample.valid is not None:
                ignored = ~sample.valid
                loss.masked_fill_(ignored, 0)
                sample.gradient.masked_fill_(ignored, 0)
            total += float(loss.sum())
        ctx.count = max(int(target.num_valid), 1)
        ctx.save_for_backward(gradient)
        return logits.new_tensor(total / ctx.count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # The stored gradient is of order 1 and must stay as it is: backward may run again. 1 / N comes in here, in
        # float32, together with the scale of a GradScaler: N alone would flush half precision gradients to zero.
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_output / ctx.count), None, None
