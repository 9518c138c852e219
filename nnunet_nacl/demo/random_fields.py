"""Smooth random fields, invertible deformations, and label maps drawn from known probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, special


def gaussian_field(shape: Sequence[int], sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a stationary Gaussian field whose value at every voxel is exactly standard normal.

    White noise is filtered with a periodic Gaussian kernel of unit L2 norm, so that no voxel, at the border
    neither, has another variance than its neighbours: what is drawn from the field has exact marginals.

    Args:
        shape: Spatial shape, any number of axes.
        sigma_voxels: Standard deviation of the filter; 0 gives white noise. Voxels that are 2 sigma apart
            correlate by exp(-1).
        random: Source of randomness.

    Returns:
        float64 array of that shape.

    Raises:
        ValueError: If sigma_voxels is negative.
    """
    if sigma_voxels < 0:
        raise ValueError(f"sigma_voxels must be 0 or more, received {sigma_voxels}")
    field = random.standard_normal(tuple(shape))
    if sigma_voxels == 0:
        return field
    for axis, size in enumerate(shape):
        distance = np.minimum(np.arange(size), size - np.arange(size))
        kernel = np.exp(-0.5 * (distance / sigma_voxels) ** 2)
        transfer = np.fft.rfft(kernel / np.sqrt(np.sum(kernel**2)))
        along_axis = [1] * len(shape)
        along_axis[axis] = transfer.size
        spectrum = np.fft.rfft(field, axis=axis) * transfer.reshape(along_axis)
        field = np.fft.irfft(spectrum, n=size, axis=axis)
    return field


def draw_labels(probabilities: np.ndarray, sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a label map whose label at each voxel has exactly the given probability.

    Gumbel-max: argmax_k (log p_k + g_k) has distribution p if the g_k are independent standard Gumbel. Each g_k is a
    smooth standard normal field turned into Gumbel values by the two distribution functions, so that neighbouring
    voxels agree (the labels form patches, as an annotator's would) while the distribution at each voxel stays p.

    Args:
        probabilities: (C, *spatial), each voxel summing to 1; zeros are allowed and never drawn.
        sigma_voxels: Smoothness of the randomness, see `gaussian_field`.
        random: Source of randomness.

    Returns:
        uint8 label map (*spatial).

    Raises:
        ValueError: If the probabilities are negative or do not sum to 1.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(0), 1, atol=1e-5):
        sums = probabilities.sum(0)
        raise ValueError(
            "probabilities must be 0 or more and sum to 1 over the first axis, received values from "
            f"{probabilities.min()} and sums from {sums.min()} to {sums.max()}"
        )
    best = np.full(probabilities.shape[1:], -np.inf)
    labels = np.zeros(probabilities.shape[1:], dtype=np.uint8)
    for label, class_probabilities in enumerate(probabilities):
        normal = gaussian_field(class_probabilities.shape, sigma_voxels, random)
        # log Phi(z) directly: 1 - Phi(z) would round to 0 in the upper tail, and the Gumbel value to infinity.
        gumbel = -np.log(-special.log_ndtr(normal))
        with np.errstate(divide="ignore"):
            score = np.log(class_probabilities) + gumbel
        better = score > best
        labels[better] = label
        best[better] = score[better]
    return labels


def exponential_displacement(velocity: np.ndarray, squarings: int = 4) -> np.ndarray:
    """Turns a smooth velocity field into an invertible displacement: the exponential of the velocity.

    The velocity is halved `squarings` times and the small displacement that it then is composed with itself as often
    (scaling and squaring; Arsigny et al. 2006), which keeps the map one to one.

    Args:
        velocity: (axes, *spatial) stationary velocity in voxels.
        squarings: Number of halvings.

    Returns:
        (axes, *spatial) displacement in voxels: where each voxel takes its value from, less its own position.

    Raises:
        ValueError: If the first axis does not count the spatial axes.
    """
    if velocity.shape[0] != velocity.ndim - 1:
        raise ValueError(f"velocity must be (axes, *spatial), received shape {velocity.shape}")
    displacement = velocity / 2**squarings
    identity = np.indices(velocity.shape[1:], dtype=np.float64)
    for _ in range(squarings):
        where = identity + displacement
        moved = [ndimage.map_coordinates(axis, where, order=1, mode="grid-wrap") for axis in displacement]
        displacement = displacement + np.stack(moved)
    return displacement
