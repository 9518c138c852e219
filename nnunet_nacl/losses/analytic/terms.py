"""The terms: of a voxel alone (smoothed labels, focal, entropy, margin), and of its neighbourhood (NACL, SVLS)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.label_space import Target
from nnunet_nacl.losses.analytic.engine import Chunk
from nnunet_nacl.losses.priors import Neighborhood

__all__ = ["EntropyTerm", "FocalTerm", "MarginTerm", "NeighborhoodPenaltyTerm", "SmoothedLabelTerm"]


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


class _Shares:
    """tau of one class at a time, times a constant."""

    def __init__(self, neighborhood: Neighborhood, logits: Tensor, target: Target, scale: float = 1.0) -> None:
        self._neighborhood = neighborhood
        self._dims = logits.ndim - 2
        self._dtype = logits.dtype
        self._scale = scale
        self._count_dtype = neighborhood.count_dtype(self._dims, logits.dtype)
        spatial = tuple(logits.shape[2:])
        self._outside: Tensor | None = None
        if neighborhood.padding in ("background", "zeros"):
            self._outside = neighborhood.outside_weight(spatial, logits.device, logits.dtype)
        # Without a mask all samples share the denominator.
        self._shared: Tensor | None = None
        if target.valid is None:
            self._shared = scale / neighborhood.total_weight(spatial, None, logits.device, logits.dtype)
        self.halo = neighborhood.sizes(self._dims)[0] // 2

    def write(self, chunk: Chunk, out: Tensor) -> Iterator[Tensor | None]:
        """Write scale tau_k into ``out`` for one class after the other.

        Yields:
            The valid voxels of the class; None where it has none and tau_k is 0 everywhere: ``out`` is then as it was.
        """
        factor = self._factor(chunk)
        member = torch.empty_like(chunk.labels_around)
        for k, present in enumerate(chunk.present):
            outside = self._outside if k == 0 and self._neighborhood.padding == "background" else None
            if not present and outside is None:
                yield None
                continue
            torch.eq(chunk.labels_around, k, out=member)
            if chunk.valid_around is not None:
                member.mul_(chunk.valid_around)
            sums = self._sum_around(member.to(self._count_dtype), chunk)
            torch.mul(sums if outside is None else sums + self._rows(outside, chunk), factor, out=out)
            yield member[:, chunk.rows_around]

    def _sum_around(self, around: Tensor, chunk: Chunk) -> Tensor:
        return self._neighborhood.weighted_sum(around, self._dims)[:, chunk.rows_around]

    def _factor(self, chunk: Chunk) -> Tensor:
        if self._shared is not None:
            return self._rows(self._shared, chunk)
        assert chunk.valid_around is not None  # else there is a denominator shared by all samples
        total = self._sum_around(chunk.valid_around.to(self._dtype), chunk)
        if self._outside is not None:
            total = total + self._rows(self._outside, chunk)
        return self._scale / torch.where(total > 0, total, torch.ones_like(total))

    @staticmethod
    def _rows(image: Tensor | None, chunk: Chunk) -> Tensor:
        """The slab's rows of a map of the whole image, or the map itself where it is one number for all voxels."""
        assert image is not None  # each is made wherever it is asked for
        return image[chunk.rows] if image.shape[0] > 1 else image


class NeighborhoodPenaltyTerm(_Shares):
    """-log p_y + factor sum_k P(m tau_k - l_k); gradient p_k - [k = y] - factor P'(m tau_k - l_k)."""

    def __init__(
        self,
        neighborhood: Neighborhood,
        logits: Tensor,
        target: Target,
        penalty: str,
        factor: float,
        prior_scale: float,
    ) -> None:
        super().__init__(neighborhood, logits, target, prior_scale)
        self._penalty, self._penalty_factor = penalty, factor

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, log_excess = chunk.softmax()
        true_logit = torch.zeros_like(largest)
        excess = torch.zeros_like(largest)
        distance = torch.empty_like(largest)
        size = torch.empty_like(largest)
        for member, logit, grad in zip(self.write(chunk, distance), chunk.logits, chunk.gradient):
            if member is None:
                torch.neg(logit, out=distance)
            else:
                distance.sub_(logit)
                true_logit.addcmul_(logit, member)
                grad.sub_(member)
            if self._penalty == "l1":
                excess.add_(torch.abs(distance, out=size))
                grad.sub_(distance.sign_(), alpha=self._penalty_factor)
            else:
                excess.addcmul_(distance, distance)
                grad.sub_(distance, alpha=2 * self._penalty_factor)
        cross_entropy = log_excess.add_(largest.sub_(true_logit))
        return cross_entropy.add_(excess, alpha=self._penalty_factor)


class SmoothedNeighborhoodTerm(_Shares):
    """-sum_k tau_k log p_k where tau sums to 1; gradient p - tau."""

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, log_excess = chunk.softmax()
        loss = torch.zeros_like(largest)
        share = torch.empty_like(largest)
        cost = torch.empty_like(largest)
        for member, logit, grad in zip(self.write(chunk, share), chunk.logits, chunk.gradient):
            if member is not None:
                loss.addcmul_(share, torch.sub(largest, logit, out=cost).add_(log_excess))  # tau_k (-log p_k)
                grad.sub_(share)
        return loss
