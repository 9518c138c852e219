"""Signals that end a command raise KeyboardInterrupt, but for those that are ignored and in workers."""

from __future__ import annotations

import signal
import time
from functools import partial
from multiprocessing import get_context

from nnunet_nacl.interruption import termination_as_interrupt


def test_what_is_ignored_as_by_nohup_stays_so(request):
    request.addfinalizer(partial(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP)))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with termination_as_interrupt():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_workers_that_are_forked_meanwhile_end_as_they_would_otherwise():
    started = get_context("fork").Event()
    worker = get_context("fork").Process(target=lambda: started.set() or time.sleep(60))
    with termination_as_interrupt():
        worker.start()
        assert started.wait(60)
        worker.terminate()
        worker.join()
    assert worker.exitcode == -signal.SIGTERM
