"""What the times of a trial were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine(device: str, at_once: int) -> dict[str, Any]:
    """What the times were measured on, and the versions behind the numbers."""
    packages = ("lossmith", "torch", "monai", "lightning-fabric", "numpy", "scipy")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads_per_trial": torch.get_num_threads(),
        "trials_at_once": at_once,
        "accelerator": torch.cuda.get_device_name() if device == "cuda" else "" if device == "cpu" else device,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine())
