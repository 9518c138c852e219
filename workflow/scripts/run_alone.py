"""Runs a command while it holds a lock, and with --gpu a GPU that no other job of this user's
holds.

    python run_alone.py [--gpu] LOCK COMMAND [ARGUMENT ...]

The locks are the operating system's: the command and all that it starts hold them, and a killed one
frees them. A GPU is one of those that the job sees; a scheduler that has given it a single one
(SLURM with --gres) has chosen already.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def is_taken(path: Path) -> bool:
    """Whether another holds a lock; else this process and the command hold it from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return True
    except OSError:  # a file system without locks: nothing is held
        return False
    os.set_inheritable(descriptor, True)
    return False


def visible_gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [device.strip() for device in given.split(",") if device.strip()]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True
        )
    except OSError:
        return []
    if listed.returncode != 0:
        return []
    return listed.stdout.decode().split()


def main() -> None:
    needs_gpu = sys.argv[1] == "--gpu"
    lock, *command = sys.argv[1 + needs_gpu :]
    if is_taken(Path(lock)):
        sys.exit(f"{lock} is held: a command of an earlier try is alive; end it, or wait.")
    gpus = []
    if needs_gpu:
        gpus = visible_gpus()
    if len(gpus) > 1:
        folder = Path(tempfile.gettempdir()) / f"nnunet_nacl_gpus_{os.getuid()}"
        free = next((gpu for gpu in gpus if not is_taken(folder / f"{gpu}.lock")), None)
        if free is None:
            sys.exit(
                f"the GPUs {', '.join(gpus)} are all taken by other jobs; run fewer at a time."
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = free
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
