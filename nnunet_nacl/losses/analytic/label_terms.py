"""Terms that look at a voxel alone: label smoothing, focal loss, entropy and margin penalties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.losses.analytic.engine import Sample

__all__ = ["EntropyTerm", "FocalTerm", "MarginTerm", "SmoothedLabelTerm"]


@dataclass(frozen=True)
class SmoothedLabelTerm:
    """-sum_k q_k log p_k with q = (1 - smoothing) onehot(y) + smoothing / K; gradient p - q."""

    smoothing: float = 0.0

    def __call__(self, sample: Sample) -> Tensor:
        loss = sample.softmax()
        true_logit = sample.subtract_labels(1 - self.smoothing)
        if not self.smoothing:
            return loss.sub_(true_logit)
        sample.gradient.sub_(self.smoothing / sample.logits.shape[0])
        # Two differences rather than one: logits may be so large that their sum would lose the small loss.
        excess = loss - sample.logits.mean(0)
        return loss.sub_(true_logit).mul_(1 - self.smoothing).add_(excess, alpha=self.smoothing)


@dataclass(frozen=True)
class FocalTerm:
    """(1 - p_y)^gamma c with c = -log p_y, so that p_y = exp(-c).

    Its gradient is that of c times d/dc = (1 - p_y)^gamma + gamma (1 - p_y)^(gamma - 1) p_y c.
    """

    gamma: float

    def __call__(self, sample: Sample) -> Tensor:
        log_partition = sample.softmax()
        cross_entropy = log_partition.sub_(sample.subtract_labels()).clamp_min_(0)
        if not self.gamma:
            return cross_entropy
        wrong = torch.expm1(-cross_entropy).neg_().clamp_min_(torch.finfo(cross_entropy.dtype).tiny)
        # (1 - p)^gamma / (1 - p) is taken as a quotient of c: c / (1 - p) tends to 1 where the power may not.
        power = wrong.pow(self.gamma)
        slope = (cross_entropy / wrong).clamp_max_(torch.finfo(cross_entropy.dtype).max).mul_(1 - wrong)
        sample.gradient.mul_(slope.mul_(self.gamma).add_(1).mul_(power))
        return power.mul_(cross_entropy)


@dataclass(frozen=True)
class EntropyTerm:
    """-log p_y - factor H with the entropy H = -sum_k p_k log p_k; gradient p_k (1 + factor (log p_k + H)) - [k = y]."""

    factor: float

    def __call__(self, sample: Sample) -> Tensor:
        log_partition = sample.softmax()
        entropy = torch.zeros_like(log_partition)
        log_prob = torch.empty_like(log_partition)
        for logit, prob in zip(sample.logits, sample.gradient):
            torch.sub(logit, log_partition, out=log_prob)
            entropy.addcmul_(prob, log_prob, value=-1)
        for logit, prob in zip(sample.logits, sample.gradient):
            torch.sub(logit, log_partition, out=log_prob)
            prob.mul_(log_prob.add_(entropy).mul_(self.factor).add_(1))
        return log_partition.sub_(sample.subtract_labels()).sub_(entropy, alpha=self.factor)


@dataclass(frozen=True)
class MarginTerm:
    """-log p_y + factor sum_k relu(max_j l_j - l_k - margin).

    Each class beyond the margin pushes its own logit up by ``factor`` and the largest one down by as much.
    """

    factor: float
    margin: float

    def __call__(self, sample: Sample) -> Tensor:
        loss = sample.softmax()
        largest = sample.logits.amax(0)
        excess_total = torch.zeros_like(loss)
        active_total = torch.zeros_like(loss)
        below = torch.empty_like(loss)
        for logit, grad in zip(sample.logits, sample.gradient):
            excess = torch.sub(largest, logit, out=below).sub_(self.margin).relu_()
            excess_total.add_(excess)
            active = excess.sign_()
            active_total.add_(active)
            grad.sub_(active, alpha=self.factor)
        for logit, grad in zip(sample.logits, sample.gradient):
            # Of several largest logits the first takes all, as torch.max does; afterwards nothing is left to take.
            taken = torch.eq(logit, largest, out=below).mul_(active_total)
            grad.add_(taken, alpha=self.factor)
            active_total.sub_(taken)
        return loss.sub_(sample.subtract_labels()).add_(excess_total, alpha=self.factor)
