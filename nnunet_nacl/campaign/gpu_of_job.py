"""A GPU for each of the jobs that share a node."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.file_lock import locked


@contextlib.contextmanager
def own_gpu(needed: bool = True) -> Iterator[dict[str, str]]:
    """CUDA_VISIBLE_DEVICES for a job, of a GPU that no other job of this user's holds while the block runs.

    Of the GPUs that the job sees. A scheduler that has given it one (SLURM with ``--gres``) has done so already; then,
    and without GPUs, nothing is set. A lock of the operating system marks a GPU as taken: a killed job frees it.

    Args:
        needed: Whether the job computes on a GPU.

    Raises:
        UserError: All are taken: more jobs run on this node than it has GPUs.
    """
    seen = _visible() if needed else []
    if len(seen) < 2:
        yield {}
        return
    folder = Path(tempfile.gettempdir()) / f"nnunet_nacl_gpus_{os.getuid()}"
    for device in seen:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(folder / f"{device}.lock", "taken"))
            except UserError:
                continue
            yield {"CUDA_VISIBLE_DEVICES": device}
            return
    raise UserError(f"the GPUs {', '.join(seen)} are all taken by other jobs; run fewer at the same time (--gpus).")


def _visible() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device.strip() for device in given.split(",") if device.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True)
    except OSError:
        return []
    return listed.stdout.decode().split() if listed.returncode == 0 else []
