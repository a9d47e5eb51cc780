"""The benchmarks run and end with their figures; what the figures are is for a quiet machine to say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "profile_throughput.py",
        "fit_latency.py",
        "calibration_curve.py",
        "coreml_layouts.py",
        "proxy_throughput.py",
        "cifar10_table.py",
        "proxy_recipes.py",
        "ladder_schedules.py",
        "search_overhead.py",
        "search_efficiency.py",
    ],
)
def test_a_benchmark_prints_its_ratio(name):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, "--quick"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    ratios = re.findall(r"^ratio [a-z0-9-]+: ([0-9.]+)$", done.stdout, flags=re.MULTILINE)
    assert ratios
    assert done.stdout.rstrip().splitlines()[-1].startswith("ratio ")


def test_every_benchmark_knows_quick():
    scripts = sorted(BENCHMARKS.glob("*.py"))
    assert scripts
    assert all('"--quick"' in script.read_text() for script in scripts)
