"""Terms that look at a voxel alone: label smoothing, focal loss, entropy and margin penalties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.losses.analytic.engine import Chunk

__all__ = ["EntropyTerm", "FocalTerm", "MarginTerm", "SmoothedLabelTerm"]


@dataclass(frozen=True)
class SmoothedLabelTerm:
    """-sum_k q_k log p_k with q = (1 - smoothing) onehot(y) + smoothing / K; gradient p - q."""

    smoothing: float = 0.0
    halo = 0

    def __call__(self, chunk: Chunk) -> Tensor:
        loss = chunk.cross_entropy(self.smoothing)
        if not self.smoothing:
            return loss
        chunk.gradient.sub_(self.smoothing / chunk.logits.shape[0])
        # -log p_k = -log p_y + (l_y - l_k), averaged over k.
        true_logit = chunk.new_map(0.0)
        for k, member in chunk.members():
            true_logit.addcmul_(chunk.logits[k], member)
        return loss.add_(true_logit.sub_(chunk.logits.mean(0)), alpha=self.smoothing)


@dataclass(frozen=True)
class FocalTerm:
    """(1 - p_y)^gamma c with c = -log p_y, so that p_y = exp(-c).

    Its gradient is that of c times d/dc = (1 - p_y)^gamma + gamma (1 - p_y)^(gamma - 1) p_y c.
    """

    gamma: float
    halo = 0

    def __call__(self, chunk: Chunk) -> Tensor:
        cross_entropy = chunk.cross_entropy()
        if not self.gamma:
            return cross_entropy
        wrong = torch.expm1(-cross_entropy).neg_().clamp_min_(torch.finfo(cross_entropy.dtype).tiny)
        power = wrong.pow(self.gamma)
        # gamma (1 - p)^(gamma - 1) p c = (1 - p)^gamma gamma p c / (1 - p), where c / (1 - p) is at least 1 and finite.
        slope = (cross_entropy / wrong).mul_(torch.exp(-cross_entropy))
        chunk.gradient.mul_(slope.mul_(self.gamma).add_(1).mul_(power))
        return power.mul_(cross_entropy)


@dataclass(frozen=True)
class EntropyTerm:
    """-log p_y - factor H with the entropy H = -sum_k p_k log p_k.

    Its gradient is p_k (1 + factor (log p_k + H)) - [k = y].
    """

    factor: float
    halo = 0

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, excess = chunk.softmax()
        entropy = torch.zeros_like(excess)
        log_prob = torch.empty_like(excess)
        for logit, prob in zip(chunk.logits, chunk.gradient):
            torch.sub(logit, largest, out=log_prob).sub_(excess)
            entropy.addcmul_(prob, log_prob, value=-1)
        for logit, prob in zip(chunk.logits, chunk.gradient):
            torch.sub(logit, largest, out=log_prob).sub_(excess)
            prob.mul_(log_prob.add_(entropy).mul_(self.factor).add_(1))
        cross_entropy = excess.add_(largest.sub_(chunk.subtract_labels()))
        return cross_entropy.sub_(entropy, alpha=self.factor)


@dataclass(frozen=True)
class MarginTerm:
    """-log p_y + factor sum_k relu(max_j l_j - l_k - margin).

    Each class beyond the margin pushes its own logit up by ``factor`` and the largest one down by as much.
    """

    factor: float
    margin: float
    halo = 0

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, log_excess = chunk.softmax()
        excess_total = torch.zeros_like(largest)
        active_total = torch.zeros_like(largest)
        below = torch.empty_like(largest)
        for logit, grad in zip(chunk.logits, chunk.gradient):
            excess = torch.sub(largest, logit, out=below).sub_(self.margin).relu_()
            excess_total.add_(excess)
            active = excess.sign_()
            active_total.add_(active)
            grad.sub_(active, alpha=self.factor)
        for logit, grad in zip(chunk.logits, chunk.gradient):
            # Of several largest logits the first takes all, as torch.max does; afterwards nothing is left to take.
            taken = torch.eq(logit, largest, out=below).mul_(active_total)
            grad.add_(taken, alpha=self.factor)
            active_total.sub_(taken)
        cross_entropy = log_excess.add_(largest.sub_(chunk.subtract_labels()))
        return cross_entropy.add_(excess_total, alpha=self.factor)
