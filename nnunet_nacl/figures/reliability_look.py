"""How a reliability diagram looks, in a figure as in the small drawings of a page."""

from __future__ import annotations

from nnunet_nacl.figures.style import GREEN, VERMILLION

__all__ = ["ACCURACY", "ACCURACY_EDGE", "FEW_OPACITY", "FEW_VOXELS", "GAP_EDGES", "GAP_FACES"]

ACCURACY, ACCURACY_EDGE = "#4A9CCB", "#003E63"
GAP_EDGES = {"over": VERMILLION, "under": GREEN}
GAP_FACES = {"over": "#FFFFFF", "under": "#CDE4F1"}  # the latter lies inside the bar: a paler blue
FEW_VOXELS = 100  # bins with fewer voxels are drawn pale: their accuracy means little
FEW_OPACITY = 0.35
