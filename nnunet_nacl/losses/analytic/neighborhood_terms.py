"""Terms that look at a voxel's neighbourhood: NACL and SVLS."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nnunet_nacl.label_space import Target
from nnunet_nacl.losses.analytic.engine import Chunk
from nnunet_nacl.losses.priors import Neighborhood

__all__ = ["NeighborhoodPenaltyTerm", "SmoothedNeighborhoodTerm"]


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


class NeighborhoodPenaltyTerm:
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
        self._shares = _Shares(neighborhood, logits, target, prior_scale)
        self.halo = self._shares.halo
        self._penalty = penalty
        self._factor = factor

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, log_excess = chunk.softmax()
        true_logit = torch.zeros_like(largest)
        excess = torch.zeros_like(largest)
        distance = torch.empty_like(largest)
        size = torch.empty_like(largest)
        for member, logit, grad in zip(self._shares.write(chunk, distance), chunk.logits, chunk.gradient):
            if member is None:
                torch.neg(logit, out=distance)
            else:
                distance.sub_(logit)
                true_logit.addcmul_(logit, member)
                grad.sub_(member)
            if self._penalty == "l1":
                excess.add_(torch.abs(distance, out=size))
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
        self.halo = self._shares.halo

    def __call__(self, chunk: Chunk) -> Tensor:
        largest, log_excess = chunk.softmax()
        loss = torch.zeros_like(largest)
        share = torch.empty_like(largest)
        cost = torch.empty_like(largest)
        for member, logit, grad in zip(self._shares.write(chunk, share), chunk.logits, chunk.gradient):
            if member is not None:
                loss.addcmul_(share, torch.sub(largest, logit, out=cost).add_(log_excess))  # tau_k (-log p_k)
                grad.sub_(share)
        return loss
