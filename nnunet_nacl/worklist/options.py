"""What is asked of a list of scans, and the aims that follow with what a map has learned."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.errors import UserError
from nnunet_nacl.quality.bad_limits import check_bad, read_bad, share_of
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.recall import SensitiveAim
from nnunet_nacl.settings import ListSettings
from nnunet_nacl.worklist.review_list import Aims


def read_aims(
    wanted: ListSettings,
    structures: Mapping[str, str],
    calibrator: Calibrator,
    num_networks: int | None,
) -> Aims:
    """What the options want of the list.

    Args:
        wanted: What is asked for.
        structures: Names of the structures, by nnU-Net's key.
        calibrator: The map, and what it has learned.
        num_networks: How many are averaged; None where nobody knows.

    Raises:
        UserError: The options do not fit, or the map has not learned what they need.
    """
    flags = _read_flags(wanted, structures, calibrator)
    sensitive = _read_sensitive(wanted, structures, calibrator, num_networks)
    if not 0 < wanted.unlike < 1:
        raise UserError(f"[[unlike]] is a probability, above 0 and below 1, got {wanted.unlike:g}.")
    return Aims(
        flags=flags,
        unlike=wanted.unlike,
        also=wanted.also,
        pages=wanted.pages,
        sensitive=sensitive,
    )


def _read_flags(
    wanted: ListSettings, structures: Mapping[str, str], calibrator: Calibrator
) -> Flags | None:
    """By which score scans are flagged; None without ``bad``."""
    check_bad(wanted.bad, structures=wanted.structures, find=wanted.find, miss=wanted.miss)
    bad = read_bad(wanted.bad, structures, wanted.structures)
    if bad is None:
        return None
    if calibrator.quality.learned is None:
        raise UserError(f"[[bad]]: nothing is known of Dice: {' '.join(calibrator.missing)}")
    find = share_of(wanted.find, "find")
    miss = share_of(wanted.miss, "miss")
    return Flags.of(calibrator.quality.learned.scores, bad, structures, find, miss)


def _read_sensitive(
    wanted: ListSettings,
    structures: Mapping[str, str],
    calibrator: Calibrator,
    num_networks: int | None,
) -> SensitiveAim | None:
    """What sensitive labels aim at; None without ``recall``."""
    recall = share_of(wanted.recall, "recall")
    if recall is None:
        return None
    may_be_several = num_networks is None or num_networks > 1
    return calibrator.sensitive(recall, structures, may_be_several)
