"""What the trainers record about calibration while they train: the sums of an epoch, and the file that keeps them.

Nothing here needs nnU-Net, so that a record can be read and drawn anywhere.
"""

from __future__ import annotations

from nnunet_nacl.training_record.epoch_sums import MASKS, EpochSums, MaxLogitBins
from nnunet_nacl.training_record.progress_json import FILE_NAME, TrainingRecord, read_training_record

__all__ = ["FILE_NAME", "MASKS", "EpochSums", "MaxLogitBins", "TrainingRecord", "read_training_record"]
