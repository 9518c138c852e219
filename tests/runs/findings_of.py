"""The findings of a case, by one pass over its probabilities and, where they are calibrated, one over the network's."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.io.case import Case
from nnunet_nacl.runs.components import ComponentSums


def find_components(case: Case, channels: Sequence[int] | None = None) -> list[StructureFindings]:
    """The findings of a case in its segmentation as it is.

    Args:
        case: With probabilities; what overlaps the truth is known if it has one.
        channels: Of the structures; None for all.

    Raises:
        ValueError: The case has no probabilities.
    """
    sums, network = ComponentSums(case, channels), case.probabilities.network
    for where, probs in case.probabilities.blocks():
        sums.add(where, probs)
    if network is not case.probabilities:
        for where, probs in network.blocks():
            sums.add_network(where, probs)
    return sums.findings()
