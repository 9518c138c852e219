"""Terms that look at a voxel's neighbourhood: NACL and SVLS."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nnunet_nacl.label_space import Target
from nnunet_nacl.losses.analytic.engine import Sample
from nnunet_nacl.losses.priors import Neighborhood

__all__ = ["NeighborhoodPenaltyTerm", "SmoothedNeighborhoodTerm"]


class _Shares:
    """tau of one sample, one class at a time, times a constant."""

    def __init__(self, neighborhood: Neighborhood, logits: Tensor, target: Target, scale: float = 1.0) -> None:
        self._neighborhood = neighborhood
        self._spatial = tuple(logits.shape[2:])
        self._scale = scale
        count_dtype = neighborhood.count_dtype(len(self._spatial))
        self._count_dtype = logits.dtype if count_dtype.is_floating_point else count_dtype
        self._outside: Tensor | None = None
        if neighborhood.padding == "background":
            self._outside = neighborhood.outside_weight(self._spatial, logits.device, logits.dtype)
        # Without a mask all samples share the denominator.
        self._shared = self._factor(None, logits) if target.valid is None else None

    def _factor(self, valid: Tensor | None, logits: Tensor) -> Tensor:
        total = self._neighborhood.total_weight(self._spatial, valid, logits.device, logits.dtype)
        return self._scale / total

    def write(self, sample: Sample, out: Tensor) -> Iterator[Tensor | None]:
        """Write scale tau_k into ``out`` for one class after the other.

        Yields:
            The valid voxels of the class; None where it has none and tau_k is 0 everywhere: ``out`` is then as it was.
        """
        factor = self._shared if self._shared is not None else self._factor(sample.valid, sample.logits)
        member = torch.empty_like(sample.labels)
        for k, present in enumerate(sample.present):
            outside = self._outside if k == 0 else None
            if not present and outside is None:
                yield None
                continue
            torch.eq(sample.labels, k, out=member)
            if sample.valid is not None:
                member.mul_(sample.valid)
            sums = self._neighborhood.weighted_sum(member.to(self._count_dtype), len(self._spatial))
            torch.mul(sums if outside is None else sums + outside, factor, out=out)
            yield member


class NeighborhoodPenaltyTerm:
    """-log p_y + factor sum_k P(m tau_k - l_k); gradient p_k - [k = y] - factor P'(m tau_k - l_k)."""

    def __init__(self, neighborhood: Neighborhood, logits: Tensor, target: Target, penalty: str, factor: float,
                 prior_scale: float) -> None:
        self._shares = _Shares(neighborhood, logits, target, prior_scale)
        self._penalty = penalty
        self._factor = factor

    def __call__(self, sample: Sample) -> Tensor:
        largest, log_excess = sample.softmax()
        true_logit = torch.zeros_like(largest)
        excess = torch.zeros_like(largest)
        distance = torch.empty_like(largest)
        for member, logit, grad in zip(self._shares.write(sample, distance), sample.logits, sample.gradient):
            if member is None:
                torch.neg(logit, out=distance)
            else:
                distance.sub_(logit)
                true_logit.addcmul_(logit, member)
                grad.sub_(member)
            if self._penalty == "l1":
                excess.add_(distance.abs())
                grad.sub_(distance.sign_(), alpha=self._factor)
            else:
                excess.addcmul_(distance, distance)
                grad.sub_(distance, alpha=2 * self._factor)
        cross_entropy = log_excess.add_(largest.sub_(true_logit))
        return cross_entropy.add_(excess, alpha=self._factor)


class SmoothedNeighborhoodTerm:
    """-sum_k tau_k log p_k where tau sums to 1; gradient p - tau."""

    def __init__(self, neighborhood: Neighborhood, logits: Tensor, target: Target) -> None:
        self._shares = _Shares(neighborhood, logits, target)

    def __call__(self, sample: Sample) -> Tensor:
        largest, log_excess = sample.softmax()
        loss = torch.zeros_like(largest)
        share = torch.empty_like(largest)
        cost = torch.empty_like(largest)
        for member, logit, grad in zip(self._shares.write(sample, share), sample.logits, sample.gradient):
            if member is not None:
                loss.addcmul_(share, torch.sub(largest, logit, out=cost).add_(log_excess))  # tau_k (-log p_k)
                grad.sub_(share)
        return loss
