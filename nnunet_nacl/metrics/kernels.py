"""Compiled counting: one fused pass over the probabilities of a chunk. Imports numba: imported only where it is used.

Voxels are taken in their natural order, in blocks that stay in the cache. Of a block, the plain voxels (see
:mod:`nnunet_nacl.metrics.counters`) are summed by loops that become vector instructions; the others are binned one by
one. Counts are integers and every sum is accumulated in double precision.

Only the loops over plain voxels may be reassociated by the compiler, which is what lets it keep several partial sums:
the order of adding changes, nothing else. No other liberty of "fast math" is taken. All functions are in one file
because numba looks at the file of the outermost one alone to see whether what it has cached is still valid.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from nnunet_nacl.metrics.counters import SMALLEST

__all__ = ["IGNORED", "load"]

IGNORED = 128  # bit of a voxel's mask bits: it is in no mask at all

_BLOCK = 4096  # voxels whose probabilities are still in the cache when they are needed again
_FACTORS = 512  # numbers above 1/2 whose product cannot leave the range of double precision
_FLUSH = 1e-200  # a product of probabilities below this is turned into a logarithm

_PLAIN = {"nogil": True, "error_model": "numpy"}
_REORDERED = {**_PLAIN, "fastmath": {"reassoc", "contract"}}


def load(regions: bool, *, cached: bool = True):
    """The function that counts chunks of classes or regions; numba compiles it when it is first called.

    Args:
        regions: Which of the two.
        cached: Whether to keep what is compiled on disk, where numba can: beside this file, in the user's cache
            folder, or in NUMBA_CACHE_DIR.
    """
    function = _count_regions if regions else _count_classes
    if cached:
        try:
            return njit(cache=True, **_PLAIN)(function)
        except RuntimeError:  # none of these folders can be written
            pass
    return njit(**_PLAIN)(function)


def _bin(value, edges, n_bins):
    # Rounding is monotone, so the product can only be one bin too high. Comparisons with NaN are false, and the product
    # is limited before it becomes an integer: whatever comes in, the result is a bin.
    if not value > edges[1]:
        return 0
    index = int(min(value * n_bins, n_bins - 1.0))
    while value <= edges[index]:
        index -= 1
    return index


def _largest(raw, largest):
    """Largest bit pattern: non-negative numbers are in their order, negative ones and NaN come after them."""
    for i in range(raw.shape[0]):
        largest = max(largest, raw[i])
    return largest


def _sum_rows(row1, row2, row3, row4, weight, total, sums):
    """Sums of the weighted values of four rows at once, and of their squares; adds all values to ``total``."""
    value1, value2, value3, value4, square = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(weight.shape[0]):
        a, b, c, d, w = row1[i], row2[i], row3[i], row4[i], weight[i]
        total[i] += (a + b) + (c + d)
        p = np.float64(a * w)
        value1 += p
        square += p * p
        p = np.float64(b * w)
        value2 += p
        square += p * p
        p = np.float64(c * w)
        value3 += p
        square += p * p
        p = np.float64(d * w)
        value4 += p
        square += p * p
    sums[0] += value1
    sums[1] += value2
    sums[2] += value3
    sums[3] += value4
    return square


def _sum_background(row, weight, total):
    """Sum of the weighted values, of their squared distances to 1, and of their logarithms; sets ``total``."""
    value, square, product = 0.0, 0.0, 1.0
    for i in range(row.shape[0]):
        total[i] = row[i]
        p = np.float64(row[i])
        value += p if weight[i] > 0 else 0.0
        rest = 1.0 - p if weight[i] > 0 else 0.0
        square += rest * rest
        product *= p if weight[i] > 0 else 1.0
    return value, square, math.log(product)


def _sum_region(row, weight):
    """Sum and sum of squares of the weighted values, and the logarithms of 1 less them."""
    value, square, product = 0.0, 0.0, 1.0
    for i in range(row.shape[0]):
        p = np.float64(row[i] * weight[i])
        value += p
        square += p * p
        product *= 1.0 - p
    return value, square, math.log(product)


def _worst_sum(total, tolerance):
    bad = 0
    for i in range(total.shape[0]):
        bad |= not (total[i] >= 1 - tolerance and total[i] <= 1 + tolerance)
    return bad


def _divide(group, plain, weight, special):
    """Weight 1 for plain voxels and 0 for others; lists the others that are not ignored."""
    num_ignored, num_plain = 0, 0
    for i in range(group.shape[0]):
        num_plain += plain[i]
        num_ignored += group[i] >> 7
        weight[i] = plain[i]
        plain[i] |= group[i] >> 7
    found = 0
    if num_plain + num_ignored < group.shape[0]:
        for i in range(group.shape[0]):
            special[found] = i
            found += 1 - plain[i]
    return found, num_plain


def _count_classes(
    probs, raw, offset, truth, bits, edges, threshold, one, tolerance, products,
    count, confidence, correct, class_count, class_confidence, class_positive, nll, brier,
    plain_values, plain_rest,
):  # fmt: skip
    """Add the voxels of a chunk to the sums of :class:`~nnunet_nacl.metrics.groups.GroupSums`.

    The lowest bin of ``class_count`` is left out: it is what the others leave.

    Args:
        probs: (K, N), C order; the chunk starts at ``offset`` and has as many voxels as ``truth``.
        raw: The same memory as unsigned integers.
        truth: (n,) labels.
        bits: (n,) uint8 mask bits, or with IGNORED.
        edges: (n_bins + 1,) edges in the type of ``probs``, the outer ones infinite.
        threshold: Above it a background probability leaves all others in the lowest bin.
        one: Bit pattern of 1.
        tolerance: Of the sum over classes; negative: check nothing.
        products: (groups,) pending products of probabilities, for ``nll``.
        plain_values: (K + 3,) sums of the plain voxels' probabilities; of the last three entries no use is made.
        plain_rest: (3,) their Brier scores, logarithms of the background's probability, and how many.

    Returns:
        Whether values were found that may be no probabilities; the sums are then incomplete.
    """
    num_classes, n_bins = class_count.shape[1], class_count.shape[2]
    group = np.empty(_BLOCK, np.uint8)
    plain = np.empty(_BLOCK, np.uint8)
    weight, total = np.empty(_BLOCK, probs.dtype), np.empty(_BLOCK, probs.dtype)
    special = np.empty(_BLOCK + 1, np.int64)
    column = np.empty(num_classes, probs.dtype)
    nothing = np.zeros(_BLOCK, probs.dtype)
    for start in range(0, truth.shape[0], _BLOCK):
        stop = min(start + _BLOCK, truth.shape[0])
        size = stop - start
        low, high = offset + start, offset + stop
        labels, part, row = truth[start:stop], bits[start:stop], probs[0, low:high]
        for i in range(size):
            group[i] = part[i] | (labels[i] != 0)
            plain[i] = (group[i] == 0) & (row[i] > threshold)
        found, num_plain = _divide(group[:size], plain[:size], weight[:size], special)
        for a in range(0, size, _FACTORS):
            b = min(a + _FACTORS, size)
            value, square, log = _sum_background(row[a:b], weight[a:b], total[a:b])
            plain_values[0] += value
            plain_rest[0] += square
            plain_rest[1] += log
        for k in range(1, num_classes, 4):
            row1 = probs[k, low:high]
            row2 = probs[k + 1, low:high] if k + 1 < num_classes else nothing[:size]
            row3 = probs[k + 2, low:high] if k + 2 < num_classes else nothing[:size]
            row4 = probs[k + 3, low:high] if k + 3 < num_classes else nothing[:size]
            sums = plain_values[k : k + 4]
            plain_rest[0] += _sum_rows(row1, row2, row3, row4, weight[:size], total[:size], sums)
        plain_rest[2] += num_plain
        if tolerance >= 0:
            largest = raw[0, low]
            for k in range(num_classes):
                largest = _largest(raw[k, low:high], largest)
            if largest > one or _worst_sum(total[:size], tolerance):
                return True
        for j in range(found):
            i = special[j]
            label = np.int64(labels[i])
            best, squares = 0, 0.0
            top = probs[0, low + i]
            for k in range(num_classes):
                p = probs[k, low + i]
                column[k] = p
                if p > top:
                    best, top = k, p
                q = np.float64(p)
                if k == label:
                    q = 1.0 - q
                squares += q * q
            g = np.int64(group[i])
            if best != 0:
                g |= 2
            for k in range(num_classes):
                p = column[k]
                if p <= edges[1]:
                    class_confidence[g, k, 0] += p
                else:
                    b = _bin(p, edges, n_bins)
                    class_count[g, k, b] += 1
                    class_confidence[g, k, b] += p
            b = _bin(top, edges, n_bins)
            count[g, 0, b] += 1
            confidence[g, 0, b] += top
            correct[g, 0, b] += best == label
            own = column[label]
            class_positive[g, label, _bin(own, edges, n_bins)] += 1
            brier[g, 0] += squares
            product = products[g] * max(np.float64(own), SMALLEST)
            if product < _FLUSH:
                nll[g, 0] -= math.log(product)
                product = 1.0
            products[g] = product
    return False


def _count_regions(
    probs, raw, offset, truth, truth_offset, bits, edges, edges_double, threshold, one, products,
    count, confidence, correct, class_count, class_confidence, class_positive, nll, brier,
    plain_values, plain_rest,
):  # fmt: skip
    """As for classes, for regions. ``truth`` is (R, M) uint8; ``one`` may be the largest pattern: check nothing.

    ``products`` is (groups, R), ``plain_values`` (R,), ``plain_rest`` (2 R + 1,): the sums
    of squares of the plain voxels' probabilities, of the logarithms of 1 less them, and how many.
    """
    num_regions, n_bins = class_count.shape[1], class_count.shape[2]
    group = np.empty(_BLOCK, np.uint8)
    plain = np.empty(_BLOCK, np.uint8)
    weight, highest = np.empty(_BLOCK, probs.dtype), np.empty(_BLOCK, probs.dtype)
    special = np.empty(_BLOCK + 1, np.int64)
    for start in range(0, bits.shape[0], _BLOCK):
        stop = min(start + _BLOCK, bits.shape[0])
        size = stop - start
        low, high = offset + start, offset + stop
        first = truth_offset + start
        part = bits[start:stop]
        for i in range(size):
            group[i] = part[i]
            highest[i] = 0
        largest = raw[0, low]
        for k in range(num_regions):
            row, inside = probs[k, low:high], truth[k, first : first + size]
            for i in range(size):
                highest[i] = row[i] if row[i] > highest[i] else highest[i]
                group[i] |= inside[i]
            largest = _largest(raw[k, low:high], largest)
        if largest > one:
            return True
        for i in range(size):
            plain[i] = (group[i] == 0) & (highest[i] < threshold)
        found, num_plain = _divide(group[:size], plain[:size], weight[:size], special)
        for k in range(num_regions):
            row = probs[k, low:high]
            for a in range(0, size, _FACTORS):
                b = min(a + _FACTORS, size)
                value, square, log = _sum_region(row[a:b], weight[a:b])
                plain_values[k] += value
                plain_rest[k] += square
                plain_rest[num_regions + k] += log
        plain_rest[2 * num_regions] += num_plain
        for j in range(found):
            i = special[j]
            g = np.int64(group[i])
            for k in range(num_regions):
                if probs[k, low + i] > 0.5:
                    g |= 2
            for k in range(num_regions):
                p = probs[k, low + i]
                inside_k = truth[k, first + i] != 0
                b = _bin(p, edges, n_bins)
                class_count[g, k, b] += 1
                class_confidence[g, k, b] += p
                class_positive[g, k, b] += inside_k
                double = np.float64(p)
                positive = p > 0.5
                sure = double if positive else 1.0 - double
                b = _bin(sure, edges_double, n_bins)
                count[g, k, b] += 1
                confidence[g, k, b] += sure
                correct[g, k, b] += positive == inside_k
                own = double if inside_k else 1.0 - double
                brier[g, k] += 2 * (1.0 - own) * (1.0 - own)
                product = products[g, k] * max(own, SMALLEST)
                if product < _FLUSH:
                    nll[g, k] -= math.log(product)
                    product = 1.0
                products[g, k] = product
    return False


_bin = njit(**_PLAIN)(_bin)
_largest = njit(**_PLAIN)(_largest)
_worst_sum = njit(**_PLAIN)(_worst_sum)
_divide = njit(**_PLAIN)(_divide)
_sum_rows = njit(**_REORDERED)(_sum_rows)
_sum_background = njit(**_REORDERED)(_sum_background)
_sum_region = njit(**_REORDERED)(_sum_region)
