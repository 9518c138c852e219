"""NACL with its gradient computed beside its value, for the CPU.

Automatic differentiation keeps log-probabilities, one-hot labels, tau and the distances, each as large as the logits.
The gradient of CE + factor sum_k P(m tau_k - l_k) needs none of them afterwards::

    d/dl_k = p_k - [k = y] - factor P'(m tau_k - l_k)

so the softmax goes straight into the gradient's buffer, which is then finished in place, class by class, while tau_k
comes from sums over narrow integers. No tensor of the logits' size exists but that one and the gradient given back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunet_nacl.label_space import Target
from nnunet_nacl.losses.priors import Neighborhood

__all__ = ["nacl_with_analytic_gradient", "wants_analytic_gradient"]


def wants_analytic_gradient(logits: Tensor) -> bool:
    """Whether the in-place form is the better one here.

    Elsewhere than on the CPU the loop over classes would be bound by kernel launches, and torch.compile fuses the
    plain formula by itself.
    """
    return logits.device.type == "cpu" and not torch.compiler.is_compiling()


def nacl_with_analytic_gradient(logits: Tensor, target: Target, neighborhood: Neighborhood, penalty: str,
                                factor: float, prior_scale: float) -> Tensor:
    """Mean over valid voxels of -log p_y + factor sum_k P(prior_scale tau_k - l_k).

    Args:
        logits: (B, K, *spatial), float32 or float64, on the CPU.
        target: Labels (B, *spatial) and mask.
        neighborhood: What tau is taken over.
        penalty: ``l1`` or ``l2``.
        factor: lambda, divided by K where the penalty is averaged over classes.
        prior_scale: m.

    Returns:
        Scalar of the logits' dtype, differentiable once. 0 where no voxel is valid.
    """
    return _AnalyticNACL.apply(logits, target, neighborhood, penalty, factor, prior_scale)


class _AnalyticNACL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Target, neighborhood: Neighborhood, penalty: str, factor: float,
                prior_scale: float) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        constraint = _Constraint(target, neighborhood, prior_scale, logits)
        total = sum(
            _accumulate(logits[sample], gradient[sample], constraint, sample, penalty, factor)
            for sample in range(logits.shape[0])
        )
        ctx.count = max(int(target.num_valid), 1)
        ctx.save_for_backward(gradient)
        return logits.new_tensor(total / ctx.count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # The stored gradient is of order 1 and must stay as it is: backward may run again. 1 / N comes in here, in
        # float32, together with the scale of a GradScaler: N alone would flush half precision gradients to zero.
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_output / ctx.count), None, None, None, None, None


class _Constraint:
    """The prior m tau of one sample and one class at a time."""

    def __init__(self, target: Target, neighborhood: Neighborhood, prior_scale: float, logits: Tensor) -> None:
        self._neighborhood = neighborhood
        self._spatial = tuple(logits.shape[2:])
        self._dtype = logits.dtype
        self._prior_scale = prior_scale
        # Comparing labels in one byte and writing the result in that same dtype is ten times as fast as through bool.
        self.label_dtype = torch.uint8 if logits.shape[1] <= 255 else torch.int32
        self.labels = target.labels
        self.valid = target.valid
        count_dtype = neighborhood.count_dtype(len(self._spatial))
        self._count_dtype = logits.dtype if count_dtype.is_floating_point else count_dtype
        self._outside = None
        if neighborhood.padding == "background":
            inside = neighborhood.inside_weight(self._spatial, logits.device, logits.dtype)
            self._outside = neighborhood.full_weight(len(self._spatial)) - inside
        self._shared_scale = self._scale(None) if target.valid is None else None

    def _scale(self, valid: Tensor | None) -> Tensor:
        total = self._neighborhood.total_weight(self._spatial, valid, self.labels.device, self._dtype)
        return self._prior_scale / total

    def scale(self, sample: int) -> Tensor:
        """m / (weight of the neighbourhood): turns sums over neighbours into m tau."""
        return self._shared_scale if self.valid is None else self._scale(self.valid[sample])

    def adds_outside(self, k: int) -> bool:
        """Whether what lies outside of the image counts as class k."""
        return k == 0 and self._outside is not None

    def write(self, member: Tensor, k: int, scale: Tensor, out: Tensor) -> None:
        """Write m tau_k, given the voxels of class k, into ``out``."""
        sums = self._neighborhood.weighted_sum(member.to(self._count_dtype), len(self._spatial))
        if self.adds_outside(k):
            sums = sums + self._outside
        torch.mul(sums, scale, out=out)


def _accumulate(logits: Tensor, gradient: Tensor, constraint: _Constraint, sample: int, penalty: str,
                factor: float) -> float:
    """Fill ``gradient`` (K, *spatial) of one sample, unscaled, and return the sum of its loss over valid voxels."""
    labels = constraint.labels[sample].to(constraint.label_dtype)
    valid = None if constraint.valid is None else constraint.valid[sample].to(constraint.label_dtype)
    present = (torch.bincount(labels.reshape(-1).long() if labels.dtype != torch.uint8 else labels.reshape(-1),
                              minlength=logits.shape[0]) > 0).tolist()
    torch.softmax(logits, 0, out=gradient)
    # log p_y taken from p would be -inf where p_y underflows; the largest p is at least 1 / K.
    log_partition = logits.amax(0).sub_(gradient.amax(0).log_())
    scale = constraint.scale(sample)
    true_logit = torch.zeros_like(log_partition)
    distance = torch.empty_like(log_partition)
    member = torch.empty_like(labels)
    excess = 0.0
    for k, (logit, grad) in enumerate(zip(logits, gradient)):
        if valid is not None:
            grad.mul_(valid)
        if present[k] or constraint.adds_outside(k):
            torch.eq(labels, k, out=member)
            if valid is not None:
                member.mul_(valid)
            grad.sub_(member)
            true_logit.addcmul_(logit, member)
            constraint.write(member, k, scale, out=distance)
            distance.sub_(logit)
        else:
            torch.neg(logit, out=distance)
        if valid is not None:
            distance.mul_(valid)
        if penalty == "l1":
            excess += float(distance.abs().sum())
            grad.sub_(distance.sign_(), alpha=factor)
        else:
            excess += float(torch.dot(distance.reshape(-1), distance.reshape(-1)))
            grad.sub_(distance, alpha=2 * factor)
    cross_entropy = log_partition.sub_(true_logit)
    if valid is not None:
        cross_entropy.mul_(valid)
    return float(cross_entropy.sum()) + factor * excess
