"""What a measurement was made on, as this machine tells it."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@cache
def processor() -> str:
    """Name and cores of this machine's processor: `AMD EPYC (2 cores)`."""
    cores = os.cpu_count() or 1
    return f"{_processor_name()} ({cores} core{'s' if cores > 1 else ''})"


def system() -> str:
    """Operating system and version, without its build: `Linux 6.18`, `macOS 15.1`."""
    if mac := platform.mac_ver()[0]:
        return f"macOS {mac}"
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def sysctl(name: str) -> str:
    """A fact that macOS keeps under `name`, such as `hw.model`; empty where there is none."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _processor_name() -> str:
    if platform.system() == "Darwin":
        return sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
