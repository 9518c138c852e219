"""`nnunet_nacl predict`: how many threads PyTorch gets."""

from __future__ import annotations

import multiprocessing

import pytest
import torch

from nnunet_nacl.cli.predict import _set_threads


@pytest.mark.parametrize(
    ("device", "asked", "threads"),
    [("cpu", "3", []), ("cpu", None, [multiprocessing.cpu_count()]), ("cpu", "", [multiprocessing.cpu_count()])]
    + [("cuda", "3", [1]), ("cuda", None, [1])],
)
def test_on_the_cpu_as_many_threads_as_omp_num_threads_says(monkeypatch, device, asked, threads):
    """PyTorch has read the variable when it was loaded: there is nothing to set then."""
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    _set_threads(device)
    assert given == threads
