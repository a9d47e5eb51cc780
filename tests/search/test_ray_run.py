"""A whole run on a Ray cluster that loses a worker and a node: nothing finished is lost, nothing is valued twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""
RUN = (
    "run", "--budget", "3M", "--target", "iphone12", "--trials", "8", "--epochs", "2", "--images", "200",
    "--final-seeds", "1", "--no-cache", "--fidelity", "halving", "--rungs", "1,2", "--eta", "2", "--name", "run",
)  # fmt: skip


def working() -> list[int]:
    """Processes that are at a task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::work"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.slow
def test_a_run_outlives_a_worker_and_a_node(tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        address = next(line.strip() for line in cluster.stdout if line.count(":") == 1 and line[0].isdigit())
        command = [sys.executable, "-c", "from mvit_search.cli import main; main()", *RUN]
        command += ["--ray-address", address, "--results-dir", str(tmp_path / "results"), "--json"]
        run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = [next(run.stderr) for _ in range(3)]
        until = time.monotonic() + 60
        while not (workers := working()) and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(workers[0], signal.SIGKILL)
        said += [next(run.stderr) for _ in range(3)]
        cluster.stdin.write("go\n")
        cluster.stdin.flush()
        out, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
    finally:
        cluster.terminate()
        cluster.communicate()
    document = json.loads(out)
    assert document["trained"] + document["stopped"] == 8
    assert document["failed"] == 0
    events = [json.loads(line) for line in (tmp_path / "results/run/events.jsonl").read_text().splitlines()]
    ends = Counter((e["digest"], e["seed"], e["rung"]) for e in events if e["kind"] == "end")
    assert max(ends.values()) == 1
    assert all(event["value"] is not None for event in events if event["kind"] == "end")
    assert any("a worker died" in line for line in (*said, *err.splitlines()))
