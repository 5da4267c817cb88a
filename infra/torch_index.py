"""Print pip's option for PyTorch's CPU builds if this machine has no GPU and their index answers; else nothing.

PyPI's torch for Linux brings gigabytes of CUDA. Of equal versions pip takes the one with `+cpu`.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
SECONDS = 5


def option(index: str, gpu: bool) -> str:
    """`--extra-index-url …`, or an empty text."""
    if gpu:
        return ""
    try:
        with urllib.request.urlopen(f"{index}/torch/", timeout=SECONDS) as answer:
            return f"--extra-index-url {index}" if answer.status == 200 else ""
    except OSError:
        return ""


if __name__ == "__main__":
    sys.stdout.write(option(CPU_BUILDS, os.path.exists("/dev/nvidiactl") or shutil.which("nvidia-smi") is not None))
