"""The autograd function around the terms, and the part of a batch that they see at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from nnunet_nacl.label_space import Target

_CHUNK_VOXELS = 1 << 17
"""Voxels worked on at a time: maps of one class then stay in a core's own cache, and small patches share the price
of an operation."""


class Chunk:
    """Several whole samples, or a slab of one: logits, labels, and the buffer that the gradient is written to.

    Attributes:
        logits: (K, b, *slab).
        gradient: (K, b, *slab).
        labels: (b, *slab), one byte per voxel for up to 255 classes; ignored voxels hold 0.
        valid: Boolean (b, *slab) or None.
        labels_around: Labels with as many neighbouring rows of the first spatial axis as the term asked for, where
            the image has them.
        valid_around: The mask likewise.
        rows: Which rows of the image the slab holds.
        rows_around: Which of the rows of ``labels_around`` are the slab's own.
    """

    def __init__(
        self, logits: Tensor, gradient: Tensor, target: Target, samples: slice, rows: slice, halo: int
    ) -> None:
        self._logits = logits[samples, :, rows]
        self._gradient = gradient[samples, :, rows]
        self.logits = self._logits.transpose(0, 1)
        self.gradient = self._gradient.transpose(0, 1)
        self.rows = rows
        around = slice(max(rows.start - halo, 0), min(rows.stop + halo, logits.shape[2]))
        self.rows_around = slice(rows.start - around.start, rows.stop - around.start)
        # Comparing bytes and writing bytes is ten times as fast as comparing wider labels and writing booleans.
        label_dtype = torch.uint8 if logits.shape[1] <= 255 else torch.int32
        self.labels_around = target.labels[samples, around].to(label_dtype)
        self.labels = self.labels_around[:, self.rows_around]
        self.valid_around = None if target.valid is None else target.valid[samples, around]
        self.valid = None if self.valid_around is None else self.valid_around[:, self.rows_around]

    @cached_property
    def present(self) -> list[bool]:
        """For each class whether any voxel has it, here or around. Most patches hold few of many classes."""
        labels = self.labels_around.reshape(-1)
        counts = torch.bincount(
            labels if labels.dtype == torch.uint8 else labels.long(), minlength=self.logits.shape[0]
        )
        return (counts > 0).tolist()

    def softmax(self) -> tuple[Tensor, Tensor]:
        """Write the softmax into ``gradient``.

        Returns:
            The largest logit and the excess e, both (b, *slab), with ``-log p_k = (largest - l_k) + e``. Kept apart,
            they lose no digits where logits are large; e = -log max_k p_k, which cannot underflow.
        """
        torch.softmax(self._logits, 1, out=self._gradient)
        return self.logits.amax(0), self.gradient.amax(0).log_().neg_()

    def members(self) -> Iterator[tuple[int, Tensor]]:
        """Each class that occurs, with its indicator; the buffer is used again for the next one."""
        member = torch.empty_like(self.labels, memory_format=torch.contiguous_format)
        for k, present in enumerate(self.present):
            if present:
                yield k, torch.eq(self.labels, k, out=member)

    def cross_entropy(self, smoothing: float = 0.0) -> Tensor:
        """Write p - (1 - smoothing) onehot(y) into ``gradient`` and return -log p_y, (b, *slab)."""
        largest, excess = self.softmax()
        return excess.add_(largest.sub_(self.subtract_labels(1 - smoothing)))

    def new_map(self, value: float) -> Tensor:
        """A map of one number per voxel, (b, *slab)."""
        return torch.full(self.labels.shape, value, dtype=self.logits.dtype, device=self.logits.device)

    def subtract_labels(self, scale: float = 1.0) -> Tensor:
        """Subtract ``scale`` [k = y] from ``gradient`` and return the true class's logit, (b, *slab)."""
        true_logit = self.new_map(0.0)
        for k, member in self.members():
            self.gradient[k].sub_(member, alpha=scale)
            true_logit.addcmul_(self.logits[k], member)
        return true_logit


class Term(Protocol):
    """A loss as the autograd function below calls it.

    Attributes:
        halo: Rows of the first spatial axis around a slab whose labels it needs.
    """

    @property
    def halo(self) -> int: ...

    def __call__(self, chunk: Chunk) -> Tensor:
        """Write the chunk's gradient, of order 1, into its buffer; return the loss of every voxel, (b, *slab)."""
        ...


_plain_formulas: ContextVar[bool] = ContextVar("plain_formulas", default=False)


@contextmanager
def automatic_differentiation() -> Iterator[None]:
    """Leave gradients to PyTorch inside of this context: slower, but differentiable any number of times."""
    token = _plain_formulas.set(True)
    try:
        yield
    finally:
        _plain_formulas.reset(token)


def wants_analytic_gradient(logits: Tensor) -> bool:
    """Whether the in-place form is the better one here.

    Elsewhere than on the CPU the loops over classes would be bound by kernel launches, torch.compile fuses the
    plain formulas by itself, and the transforms of torch.func (grad, vmap, jvp) need operations that they know.
    """
    if logits.device.type != "cpu" or torch.compiler.is_compiling() or _plain_formulas.get():
        return False
    return not torch._C._are_functorch_transforms_active()  # what torch.autograd.Function itself asks


class MeanWithAnalyticGradient(torch.autograd.Function):
    """Mean of a term over valid voxels, differentiable once; 0 where no voxel is valid.

    Applied to logits (B, K, *spatial) on the CPU, float32 or float64, the target, and the term.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Target, term: Term) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = 0.0
        for samples, rows in _chunks(logits.shape):
            chunk = Chunk(logits, gradient, target, samples, rows, term.halo)
            loss = term(chunk)
            if chunk.valid is not None:
                ignored = ~chunk.valid
                loss.masked_fill_(ignored, 0)
                chunk.gradient.masked_fill_(ignored, 0)
            total += float(loss.sum())
        ctx.count = max(int(target.num_valid), 1)
        ctx.save_for_backward(gradient)
        return logits.new_tensor(total / ctx.count)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: the stored gradient would pass for a constant
            raise RuntimeError(
                "losses of CPU logits compute their gradient beside their value and cannot be differentiated twice: "
                "wrap the computation in `with nnunet_nacl.losses.automatic_differentiation():`."
            )
        # The stored gradient is of order 1 and must stay as it is: backward may run again. 1 / N comes in here, in
        # float32, together with the scale of a GradScaler: N alone would flush half precision gradients to zero.
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_output / ctx.count), None, None


def _chunks(shape: torch.Size) -> Iterator[tuple[slice, slice]]:
    """Cut a batch into samples and, where one is large, each into rows of its first spatial axis."""
    batch, _, length, *others = shape
    row_voxels = max(torch.Size(others).numel(), 1)
    if length * row_voxels <= _CHUNK_VOXELS:
        step = _CHUNK_VOXELS // max(length * row_voxels, 1)
        for first in range(0, batch, step):
            yield slice(first, min(first + step, batch)), slice(0, length)
        return
    step = max(_CHUNK_VOXELS // row_voxels, 1)
    for sample in range(batch):
        for first in range(0, length, step):
            yield slice(sample, sample + 1), slice(first, min(first + step, length))
