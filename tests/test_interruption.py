"""Signals that end a command raise KeyboardInterrupt, but for those that are ignored."""

from __future__ import annotations

import signal
from functools import partial

from nnunet_nacl.interruption import termination_as_interrupt


def test_what_is_ignored_as_by_nohup_stays_so(request):
    request.addfinalizer(partial(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with termination_as_interrupt():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
