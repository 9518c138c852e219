"""What is asked of a list of scans, and the aims that follow with what a map has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.errors import UserError
from nnunet_nacl.quality.bad_limits import BadSpec, check_bad, read_bad, share_of
from nnunet_nacl.quality.flags import Flags
from nnunet_nacl.quality.recall import SensitiveAim
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE
from nnunet_nacl.worklist.review_list import Aims


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is asked of a list of scans, and of the files beside it.

    Attributes:
        bad: The Dice below which a structure, and so its scan, is bad: one of all structures, or by
            name; None: no scan is flagged by its predicted Dice.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        find: With ``bad``, share of the bad scans to be flagged; None: .9, or nothing with
            ``miss``.
        miss: With ``bad``, share of all scans that may be bad and not flagged.
        unlike: A scan is unlike the calibration scans if the p-value of its image, tested against
            theirs, is at most this.
        also: Scans to be chosen by chance among those that are not flagged.
        pages: Which scans have a page: ``flagged`` (and the next ten), ``all`` or ``none``.
        maps: Images of the uncertainty, names of :data:`~nnunet_nacl.cases.views.MAPS` and
            ``probabilities`` or ``fractional``; none of these: all of the first; None: no images.
        recall: Write labels, too, that find this share of the voxels of each structure; None: none.
        findings: Structures whose components are listed; none of these: all; None: as the map says.
        save_probabilities: Save the probabilities too (npz and pkl).
    """

    bad: BadSpec | None = None
    structures: Sequence[str] | None = None
    find: float | None = None
    miss: float | None = None
    unlike: float = DEFAULT_UNLIKE
    also: int = 0
    pages: str = "flagged"
    maps: Sequence[str] | None = None
    recall: float | None = None
    findings: Sequence[str] | None = None
    save_probabilities: bool = False


def read_aims(
    options: ListOptions,
    structures: Mapping[str, str],
    calibrator: Calibrator,
    num_networks: int | None,
) -> Aims:
    """What the options want of the list.

    Args:
        options: What is asked for.
        structures: Names of the structures, by nnU-Net's key.
        calibrator: The map, and what it has learned.
        num_networks: How many are averaged; None where nobody knows.

    Raises:
        UserError: The options do not fit, or the map has not learned what they need.
    """
    flags = _read_flags(options, structures, calibrator)
    sensitive = _read_sensitive(options, structures, calibrator, num_networks)
    if not 0 < options.unlike < 1:
        raise UserError(
            f"[[unlike]] is a probability, above 0 and below 1, got {options.unlike:g}."
        )
    return Aims(
        flags=flags,
        unlike=options.unlike,
        also=options.also,
        pages=options.pages,
        sensitive=sensitive,
    )


def _read_flags(
    options: ListOptions, structures: Mapping[str, str], calibrator: Calibrator
) -> Flags | None:
    """By which score scans are flagged; None without ``bad``."""
    check_bad(options.bad, structures=options.structures, find=options.find, miss=options.miss)
    if options.bad is None:
        return None
    bad = read_bad(options.bad, structures, options.structures)
    if calibrator.learned is None:
        raise UserError(f"[[bad]]: nothing is known of Dice: {' '.join(calibrator.missing)}")
    find = share_of(options.find, "find")
    miss = share_of(options.miss, "miss")
    return Flags.of(calibrator.learned.scores, bad, structures, find, miss)


def _read_sensitive(
    options: ListOptions,
    structures: Mapping[str, str],
    calibrator: Calibrator,
    num_networks: int | None,
) -> SensitiveAim | None:
    """What sensitive labels aim at; None without ``recall``."""
    recall = share_of(options.recall, "recall")
    if recall is None:
        return None
    may_be_several = num_networks is None or num_networks > 1
    return calibrator.sensitive(recall, structures, may_be_several)
