"""Which GPUs this machine has. NVIDIA's driver is asked; for others torch has to be, in a process of its own.

Run as `python -m cnnsearch.execution.machine.gpus`, this is that process, which says what torch finds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from cnnsearch.errors import CnnsearchError
from cnnsearch.systems import processes
from cnnsearch.training.models.other_process import ask

GPUS = ("cuda", "xpu", "mps")
"""Kinds of GPU as torch calls them, the one to take first. See `training.compute.device_kinds`."""


def nvidia_gpus() -> list[tuple[str, int]]:
    """Names of NVIDIA's GPUs that this process may use, with their memory in bytes; 0 if the driver does not say."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if (visible is not None and visible.strip() in ("", "-1")) or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in listed.splitlines() if line.strip()]
    # A slice of a GPU (MIG) has less memory than is listed; how much is unknown.
    known = "MIG" not in (visible or "")
    gpus = [(name.strip(), int(mib) * 2**20 if known and mib.strip().isdigit() else 0) for name, _, mib in rows]
    return gpus if visible is None else gpus[: len(visible.split(","))]


def torch_may_have_others() -> bool:
    """Whether this torch may find a GPU of Intel or Apple. Asking it takes seconds, so most machines need not."""
    if processes.is_apple_silicon():
        return True
    try:
        found = importlib.util.find_spec("torch")
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8") if found and found.origin else ""
    except (OSError, ValueError, ImportError):
        return False
    return bool(re.search(r"^xpu\b[^=]*= *['\"]|^__version__ = ['\"][^'\"]*\+xpu", text, re.MULTILINE))


def other_gpus() -> tuple[list[tuple[str, int]], str]:
    """Ask torch for GPUs; returns names and memory of those of one kind, and the kind."""
    with contextlib.suppress(CnnsearchError):  # a torch that cannot be asked does not compute on GPUs either
        found = ask("cnnsearch.execution.machine.gpus", {}, "asking torch for GPUs failed")
        return [(str(name), int(memory)) for name, memory in found["gpus"]], str(found["kind"])
    return [], "cuda"


def main() -> None:
    """Print the first kind of GPU that torch finds, with names and memory."""
    from cnnsearch.training.compute.device_kinds import available

    first = available()[0]
    print(json.dumps({"kind": first.name, "gpus": first.gpus()}))


if __name__ == "__main__":
    main()
