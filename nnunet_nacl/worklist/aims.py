"""What the settings of a list become where labels and map are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.findings import finding_channels
from nnunet_nacl.cases.views import choose_maps
from nnunet_nacl.estimators.bad_limits import check_bad, check_share, read_bad
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.estimators.recall import SensitiveAim
from nnunet_nacl.settings import ListSettings
from nnunet_nacl.utilities.errors import UserError


@dataclass(frozen=True)
class Aims:
    """What a list and the files beside it aim at.

    Attributes:
        wanted: The settings, which say all that needs neither labels nor map.
        flags: By which score scans are flagged; None: by none, they are ranked only.
        sensitive: What sensitive labels aim at; None: there are none.
        maps: Images of the uncertainty, as :func:`~nnunet_nacl.cases.views.choose_maps` gives them.
        findings: Channels of the structures whose components are listed.
    """

    wanted: ListSettings = ListSettings()
    flags: Flags | None = None
    sensitive: SensitiveAim | None = None
    maps: tuple[str, ...] = ()
    findings: tuple[int, ...] = ()

    @property
    def bad(self) -> Mapping[str, float] | None:
        """By name of each structure that counts, the Dice below which it is bad; None: nothing is
        bad."""
        return None if self.flags is None else self.flags.bad


def read_aims(
    wanted: ListSettings, labels: Labels, calibrator: Calibrator, num_networks: int | None
) -> Aims:
    """What the settings want of the list.

    Args:
        wanted: What is asked for.
        labels: The structures.
        calibrator: The map, and what it has learned.
        num_networks: How many are averaged; None where nobody knows, as of saved predictions.

    Raises:
        UserError: The settings do not fit, or the map has not learned what they need.
    """
    maps = () if wanted.maps is None else choose_maps(wanted.maps, num_networks or 1)
    flags = _read_flags(wanted, labels, calibrator)
    recall = check_share(wanted.recall, "recall")
    sensitive = None
    if recall is not None:
        may_be_several = num_networks is None or num_networks > 1
        sensitive = calibrator.sensitive(recall, labels.structures, may_be_several)
    if not 0 < wanted.unlike < 1:
        raise UserError(f"[[unlike]] is a probability, above 0 and below 1, got {wanted.unlike:g}.")
    findings = finding_channels(labels, wanted.findings, calibrator.quality.with_findings)
    return Aims(wanted, flags, sensitive, maps, findings)


def _read_flags(wanted: ListSettings, labels: Labels, calibrator: Calibrator) -> Flags | None:
    """By which score scans are flagged; None without ``bad``."""
    check_bad(wanted.bad, structures=wanted.structures, find=wanted.find, miss=wanted.miss)
    bad = read_bad(wanted.bad, labels.structures, wanted.structures)
    if bad is None:
        return None
    learned = calibrator.quality.learned
    if learned is None:
        raise UserError(f"[[bad]]: nothing is known of Dice: {' '.join(calibrator.missing)}")
    find = check_share(wanted.find, "find")
    miss = check_share(wanted.miss, "miss")
    return Flags.of(learned.scores, bad, labels.structures, find, miss)
