"""What holds for every input, tried on many drawn by hypothesis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl import losses
from tests.losses.cases import (
    CASES,
    CONFIGURED,
    IGNORE,
    NAMES,
    PADDINGS,
    PENALTY_FORMS,
    PRIORS,
    assert_same,
    value_and_gradient,
)

few = settings(max_examples=15, derandomize=True)

NEIGHBORHOODS = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([3, 5]),
        "prior": st.sampled_from(PRIORS),
        "sigma": st.sampled_from([0.7, 1.0, 2.0]),
        "padding": st.sampled_from(PADDINGS),
    }
)
ANY_LOSS = st.sampled_from(CONFIGURED)
NACL_SETTINGS = st.builds(
    lambda form, neighborhood: {**form, **neighborhood}, st.sampled_from(PENALTY_FORMS), NEIGHBORHOODS
)


class Problem(NamedTuple):
    """logits (B, K, *spatial), labels (B, 1, *spatial) without ignored ones, valid (B, 1, *spatial)."""

    logits: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor

    @property
    def target(self):
        return torch.where(self.valid, self.labels, IGNORE)

    @property
    def num_classes(self):
        return self.logits.shape[1]


@st.composite
def problems(draw, dims=(1, 2, 3), min_size=1, min_classes=2):
    spatial = draw(st.sampled_from(dims).flatmap(lambda n: st.tuples(*[st.integers(min_size, 4)] * n)))
    batch = draw(st.integers(1, 2))
    num_classes = draw(st.integers(min_classes, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    share_valid = draw(st.sampled_from([0.5, 0.9, 1.0]))
    valid = random.random((batch, 1, *spatial)) < share_valid
    valid.flat[random.integers(valid.size)] = True
    return Problem(
        torch.from_numpy(random.normal(0, 2, (batch, num_classes, *spatial))),
        torch.from_numpy(random.integers(0, num_classes, (batch, 1, *spatial))),
        torch.from_numpy(valid),
    )


def proportions(problem, **neighborhood):
    return classes(problem.labels, problem.valid, problem.num_classes, **neighborhood)


def classes(labels, valid, num_classes, **neighborhood):
    """tau of (B, 1, *spatial); one spatial axis is passed without the channel's, which would look like two of them."""
    if labels.ndim == 3:
        labels, valid = labels[:, 0], valid[:, 0]
    return losses.neighborhood_proportions(labels, num_classes, valid=valid, **neighborhood)


def at_valid(tau, problem):
    """tau as (voxels, K) at valid voxels."""
    return tau.movedim(1, -1)[problem.valid[:, 0]]


# ---------------------------------------------------------------------------------------------------------------------
# tau


@few
@given(problems(), NEIGHBORHOODS)
def test_proportions_are_proportions(problem, neighborhood):
    tau = at_valid(proportions(problem, **neighborhood), problem)
    assert (tau >= 0).all() and (tau <= 1 + 1e-6).all()
    total = tau.sum(1)
    if neighborhood["padding"] == "zeros":
        assert (total <= 1 + 1e-6).all()
    else:
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    # a voxel is its own neighbour
    own = tau.gather(1, problem.labels[problem.valid][:, None])
    assert (own > 0).all()


@few
@given(problems(), NEIGHBORHOODS, st.randoms(use_true_random=False))
def test_renaming_the_classes_renames_the_proportions(problem, neighborhood, random):
    if neighborhood["padding"] == "background":  # class 0 is a class apart there
        names = [0, *random.sample(range(1, problem.num_classes), problem.num_classes - 1)]
    else:
        names = random.sample(range(problem.num_classes), problem.num_classes)
    renamed = problem._replace(labels=torch.tensor(names)[problem.labels])
    expected = at_valid(proportions(problem, **neighborhood), problem)
    result = at_valid(proportions(renamed, **neighborhood), problem)
    torch.testing.assert_close(result[:, names], expected, rtol=0, atol=1e-6)


@few
@given(problems(dims=(1, 2)), NEIGHBORHOODS, st.integers(0, 2**16))
def test_away_from_the_border_only_the_neighbourhood_counts(problem, neighborhood, seed):
    """Set the map anywhere into a wider one: where the kernel stays inside the old map, tau stays the same."""
    random = np.random.default_rng(seed)
    radius = neighborhood["kernel_size"] // 2
    spatial = problem.labels.shape[2:]
    grown = [size + 2 * radius for size in spatial]  # so that something is left inside
    wide = [size + 3 for size in grown]
    labels = torch.from_numpy(random.integers(0, problem.num_classes, (1, 1, *wide)))
    valid = torch.from_numpy(random.random((1, 1, *wide)) < 0.8)
    inner_labels = torch.from_numpy(random.integers(0, problem.num_classes, (1, 1, *grown)))
    inner_valid = torch.from_numpy(random.random((1, 1, *grown)) < 0.8)
    shift = [int(random.integers(0, 4)) for _ in spatial]
    placed = (..., *[slice(s, s + size) for s, size in zip(shift, grown)])
    labels[placed], valid[placed] = inner_labels, inner_valid
    core = (..., *[slice(radius, size - radius) for size in grown])
    small = classes(inner_labels, inner_valid, problem.num_classes, **neighborhood)[core].movedim(1, -1)
    large = classes(labels, valid, problem.num_classes, **neighborhood)[placed][core].movedim(1, -1)
    counted = inner_valid[core][:, 0]
    in_small, in_large = small[counted], large[counted]
    torch.testing.assert_close(in_large, in_small, rtol=0, atol=1e-6)


@few
@given(problems(dims=(2, 3)), NEIGHBORHOODS, st.randoms(use_true_random=False))
def test_flips_and_swapped_axes_commute(problem, neighborhood, random):
    axes = range(2, problem.labels.ndim)
    flipped = [axis for axis in axes if random.random() < 0.5]
    order = [0, 1, *random.sample(list(axes), len(axes))]
    sizes = [random.choice([1, 3, 5]) for _ in axes]
    if neighborhood["prior"] == "svls" and max(sizes) == 1:
        sizes[0] = 3

    def moved(tensor):
        return tensor.flip(flipped).permute(order)

    turned = Problem(*[moved(tensor) for tensor in problem])
    neighborhood = {**neighborhood, "kernel_size": tuple(sizes)}
    turned_neighborhood = {**neighborhood, "kernel_size": tuple(sizes[axis - 2] for axis in order[2:])}
    expected = at_valid(moved(proportions(problem, **neighborhood)), turned)
    result = at_valid(proportions(turned, **turned_neighborhood), turned)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    value, gradient = value_and_gradient(
        losses.nacl, problem.logits, problem.target, ignore_label=IGNORE, **neighborhood
    )
    turned_result = value_and_gradient(
        losses.nacl, turned.logits, turned.target, ignore_label=IGNORE, **turned_neighborhood
    )
    assert_same(turned_result, (value, moved(torch.from_numpy(gradient)).numpy()))


@few
@given(problems(dims=(1, 2)), NEIGHBORHOODS)
def test_a_kernel_of_size_one_along_an_axis_sees_slices(problem, neighborhood):
    """A stack of slices, each with a neighbourhood of its own, is the slices one by one."""
    size, spatial_dims = neighborhood["kernel_size"], problem.labels.ndim - 2
    in_slice = {**neighborhood, "kernel_size": (size,) * spatial_dims}
    through = {**neighborhood, "kernel_size": (1,) + (size,) * spatial_dims}
    stack = Problem(*[tensor.movedim(0, 1)[None] for tensor in problem])  # slices of the batch -> one axis
    tau = proportions(stack, **through)
    expected = at_valid(proportions(problem, **in_slice), problem)
    torch.testing.assert_close(tau[0].movedim(0, -1)[problem.valid[:, 0]], expected, rtol=0, atol=1e-6)


@few
@given(problems(dims=(1, 2)), st.sampled_from([3, 5]), st.sampled_from(["mean", "gaussian"]))
def test_an_axis_of_one_voxel_does_not_count_where_padding_is_valid(problem, size, prior):
    thin = problem._replace(labels=problem.labels[..., None], valid=problem.valid[..., None])
    expected = at_valid(proportions(problem, kernel_size=size, prior=prior), problem)
    result = at_valid(proportions(thin, kernel_size=size, prior=prior)[..., 0], problem)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


@few
@given(problems(min_classes=3), NEIGHBORHOODS)
def test_a_region_that_is_a_set_of_classes_has_their_shares(problem, neighborhood):
    """What is outside belongs to no region; to have class 0 in none either keeps `background` in line."""
    regions = torch.cat([problem.labels >= 1, problem.labels >= 2], dim=1)
    tau = proportions(problem, **neighborhood)
    expected = at_valid(torch.stack([tau[:, 1:].sum(1), tau[:, 2:].sum(1)], dim=1), problem)
    result = losses.region_proportions(regions, valid=problem.valid, **neighborhood)
    torch.testing.assert_close(at_valid(result, problem), expected, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# losses


@few
@given(problems(), ANY_LOSS, st.booleans())
def test_a_batch_entry_of_ignored_voxels_changes_nothing(problem, loss, regions):
    name, chosen = loss
    function = CASES[name].function
    if regions:
        membership = torch.cat([problem.labels == k for k in range(problem.num_classes)], 1)
        target, where = torch.cat([membership, ~problem.valid], 1).long(), {"regions": True}
        extra = torch.ones_like(target[:1])
    else:
        target, where = problem.target, {"ignore_label": IGNORE}
        extra = torch.full_like(target[:1], IGNORE)
    alone = value_and_gradient(function, problem.logits, target, **chosen, **where)
    longer = torch.cat([problem.logits, torch.full_like(problem.logits[:1], 3.0)])
    together = value_and_gradient(function, longer, torch.cat([target, extra]), **chosen, **where)
    assert (together[1][-1] == 0).all()
    assert_same((together[0], together[1][:-1]), alone)


@few
@given(problems(), ANY_LOSS)
def test_two_batches_joined_weigh_by_their_valid_voxels(problem, loss):
    name, chosen = loss
    function = CASES[name].function
    other = problem._replace(logits=problem.logits.flip(0) * 0.5, valid=torch.ones_like(problem.valid))
    values = [function(p.logits, p.target, ignore_label=IGNORE, **chosen) for p in (problem, other)]
    counts = [p.valid.sum() for p in (problem, other)]
    joined = function(
        torch.cat([problem.logits, other.logits]),
        torch.cat([problem.target, other.target]),
        ignore_label=IGNORE,
        **chosen,
    )
    expected = (values[0] * counts[0] + values[1] * counts[1]) / (counts[0] + counts[1])
    torch.testing.assert_close(joined, expected, rtol=1e-6, atol=1e-6)


@few
@given(problems(), ANY_LOSS, st.randoms(use_true_random=False))
def test_renaming_the_classes_renames_the_gradient(problem, loss, random):
    name, chosen = loss
    names = random.sample(range(problem.num_classes), problem.num_classes)
    labels = torch.tensor(names)[problem.labels]
    logits = torch.empty_like(problem.logits)
    logits[:, names] = problem.logits
    renamed = problem._replace(labels=labels, logits=logits)
    value, gradient = value_and_gradient(
        CASES[name].function, problem.logits, problem.target, ignore_label=IGNORE, **chosen
    )
    result = value_and_gradient(CASES[name].function, logits, renamed.target, ignore_label=IGNORE, **chosen)
    assert_same((result[0], result[1][:, names]), (value, gradient))


@few
@given(problems(), st.sampled_from(NAMES), st.floats(-50, 50))
def test_only_differences_of_logits_count_but_for_a_penalty_on_the_logits(problem, name, shift):
    shifts = shift * torch.arange(problem.labels.numel(), dtype=torch.float64).reshape(problem.labels.shape) / 10
    chosen = {"space": "softmax"} if name == "nacl" else {}
    plain = value_and_gradient(CASES[name].function, problem.logits, problem.labels, **chosen)
    shifted = value_and_gradient(CASES[name].function, problem.logits + shifts, problem.labels, **chosen)
    assert_same(shifted, plain, value_tolerance=1e-9, gradient_tolerance=1e-9)
    if name == "nacl" and abs(shift) > 5 and problem.labels.numel() > 2:
        moved = losses.nacl(problem.logits + 10 * shifts.abs(), problem.labels)
        assert moved > losses.nacl(problem.logits, problem.labels)


@few
@given(problems(), NACL_SETTINGS, st.floats(0, 5))
def test_the_penalty_is_linear_in_its_weight(problem, chosen, penalty_weight):
    ce = losses.cross_entropy(problem.logits, problem.target, ignore_label=IGNORE)
    once, often = (
        losses.nacl(problem.logits, problem.target, ignore_label=IGNORE, penalty_weight=weight, **chosen) - ce
        for weight in (1.0, penalty_weight)
    )
    assert once >= -1e-9
    torch.testing.assert_close(often, penalty_weight * once, rtol=1e-6, atol=1e-8)


@few
@given(problems(), NACL_SETTINGS)
def test_where_the_logits_are_the_prior_only_cross_entropy_is_left(problem, chosen):
    if chosen["space"] == "softmax":
        return
    tau = proportions(problem, **{key: chosen[key] for key in ("kernel_size", "prior", "sigma", "padding")})
    logits = torch.where(problem.valid, tau.double(), 0.0)
    with_penalty = losses.nacl(logits, problem.target, ignore_label=IGNORE, penalty_weight=10.0, **chosen)
    torch.testing.assert_close(
        with_penalty, losses.cross_entropy(logits, problem.target, ignore_label=IGNORE), rtol=0, atol=1e-5
    )


@few
@given(problems())
def test_order_of_the_losses(problem):
    """Focal only takes away from CE, so does the entropy penalty, the margin penalty adds; softened labels lie between
    the losses of single classes."""
    ce = losses.cross_entropy(problem.logits, problem.target, ignore_label=IGNORE)

    def value(loss, **chosen):
        return loss(problem.logits, problem.target, ignore_label=IGNORE, **chosen)

    assert 0 <= value(losses.focal) <= value(losses.focal, gamma=1.0) <= ce
    assert ce - 0.1 * np.log(problem.num_classes) <= value(losses.ecp, reduction="sum") < ce
    assert ce <= value(losses.mbls) <= value(losses.mbls, margin=1.0) <= value(losses.mbls, margin=0.0)
    nll = -problem.logits.log_softmax(1).movedim(1, -1)[problem.valid[:, 0]]
    for softened in (value(losses.label_smoothing), value(losses.svls)):
        assert nll.amin(1).mean() - 1e-9 <= softened <= nll.amax(1).mean() + 1e-9
