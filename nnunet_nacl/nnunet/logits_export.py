"""nnU-Net's export of one case, watched: the segmentation is nnU-Net's own, and the logits it was made of are kept.

nnU-Net resamples a network's logits to the image, makes the label map, and drops the logits; its probabilities, which
take twice their memory and gigabytes on the disk, are a function of them. Nothing of the export is done again here: a
label manager that says what it was shown stands in for nnU-Net's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nnunet_nacl.case.probabilities import Box, Probabilities, common_box


class ExportedLogits(Probabilities):
    """What nnU-Net makes of the logits of one case, and these logits: probabilities that are never all in memory.

    C is the number of channels: the K classes with the background, or the R regions.

    Args:
        segmentation: (*spatial) label map in the axis order of the reader, as nnU-Net writes it.
        logits: (C, *cropped) resampled to the image's spacing, float16 as the network gave them; nnU-Net's transposed
            axis order, inside its crop.
        properties: Of the case, as nnU-Net's preprocessing returned them.
        transpose_backward: Which transposed axis each axis of the reader is.
        label_manager: nnU-Net's, of the data set.
    """

    def __init__(
        self,
        segmentation: np.ndarray,
        logits: np.ndarray,
        properties: Mapping[str, Any],
        transpose_backward: Sequence[int],
        label_manager: Any,
    ) -> None:
        self.segmentation, self.logits, self.properties = segmentation, logits, properties
        self.transpose_backward, self.label_manager = transpose_backward, label_manager
        self.num_channels, self.regions = len(logits), bool(label_manager.has_regions)
        self.shape = tuple(int(properties["shape_before_cropping"][axis]) for axis in transpose_backward)

    @property
    def crop(self) -> Box:
        """nnU-Net's crop in the axis order of the reader: what lies outside no network has seen."""
        box = self.properties["bbox_used_for_cropping"]
        return tuple(slice(int(box[axis][0]), int(box[axis][1])) for axis in self.transpose_backward)

    @property
    def cropped_logits(self) -> np.ndarray:
        """(C, *crop) view of the logits in the axis order of the reader."""
        return self.logits.transpose([0] + [axis + 1 for axis in self.transpose_backward])

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) contiguous float32: what nnU-Net would have saved with ``--npz``, in a box of the image.

        The number of threads of PyTorch, and the box, decide about the last bit of its softmax.
        """
        probs = np.zeros((len(self.logits), *(part.stop - part.start for part in where)), np.float32)
        if not self.label_manager.has_regions:
            probs[0] = 1
        if shared := common_box(where, self.crop):
            target, source = shared
            seen = np.ascontiguousarray(self.cropped_logits[(slice(None), *source)])
            probs[(slice(None), *target)] = self.label_manager.apply_inference_nonlin(seen).numpy()
        return probs

    def whole(self) -> np.ndarray:
        """Bit by bit as nnU-Net saves them."""
        inner = self.label_manager.apply_inference_nonlin(self.logits).numpy()
        probs = np.zeros((len(inner), *self.shape), np.float32)
        probs[0] = not self.regions
        probs[(slice(None), *self.crop)] = inner.transpose([0] + [axis + 1 for axis in self.transpose_backward])
        return probs

    def odds_blocks(self) -> Iterator[tuple[Box, Any]]:
        """From the logits themselves: float32's sigmoid is 1 from z = 17 on, and these are not."""
        import torch

        for where in self.crop_layers():
            inner = tuple(slice(w.start - b.start, w.stop - b.start) for w, b in zip(where, self.crop))
            block = torch.from_numpy(np.ascontiguousarray(self.cropped_logits[(slice(None), *inner)])).float()
            yield where, block if self.regions else block[1:] - block[:1]


def watch_plans(plans_manager: Any, seen: Callable[[Any], None]) -> Any:
    """A copy of nnU-Net's plans manager whose label managers pass on the logits that nnU-Net shows them.

    nnU-Net makes the label map of the logits or, where it saves probabilities too, of those; either way it asks the
    label manager once, with all the resampled logits.

    Args:
        plans_manager: nnU-Net's.
        seen: Called with the logits, before they are worked on.
    """
    watching = copy.copy(plans_manager)
    watching.get_label_manager = lambda *args, **options: _watched(
        plans_manager.get_label_manager(*args, **options), seen
    )
    return watching


def _watched(label_manager: Any, seen: Callable[[Any], None]) -> Any:
    def watched(method: Callable[[Any], Any], logits: Any) -> Any:
        seen(logits)
        return method(logits)

    watching = copy.copy(label_manager)
    for name in ("convert_logits_to_segmentation", "apply_inference_nonlin"):
        setattr(watching, name, partial(watched, getattr(label_manager, name)))
    return watching


def export_logits(
    logits: Any,
    properties: Mapping[str, Any],
    configuration_manager: Any,
    plans_manager: Any,
    label_manager: Any,
    *,
    num_threads: int = 1,
) -> ExportedLogits:
    """Make the segmentation of one case as nnU-Net does, bit by bit, and keep the logits; nothing is written.

    Args:
        logits: (C, *preprocessed) of the network, a tensor on the CPU or an array.
        properties: Of the case, as nnU-Net's preprocessing returned them.
        configuration_manager: nnU-Net's.
        plans_manager: nnU-Net's.
        label_manager: nnU-Net's; it stays as it is.
        num_threads: Of PyTorch.
    """
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    shown: list[Any] = []
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans_manager,
        configuration_manager,
        _watched(label_manager, shown.append),
        dict(properties),
        num_threads_torch=num_threads,
    )
    return ExportedLogits(
        segmentation, np.asarray(shown[0]), properties, plans_manager.transpose_backward, label_manager
    )
