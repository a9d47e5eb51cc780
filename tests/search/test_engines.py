"""One contract for every engine, with real processes and a real Ray; and what each does when workers die."""

import http.server
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mvit_search.errors import InputError, UnknownNameError, WorkError
from mvit_search.search.engines import EngineSettings, open_engine, pool
from mvit_search.search.engines._workers import default_workers, gpus_to_share
from mvit_search.search.engines.ray_cluster import _share_of_a_gpu
from mvit_search.search.task import Failure
from tests.search.engine_parts import OneAtATime, Script, alive, began, dies, eventually, lines, no_data, pids, task
from tests.search.engine_parts import value_of as value

ROOT = Path(__file__).resolve().parents[2]


def need_ray():
    # Not imported here: Ray reads what the engine sets as it is imported.
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of this machine, two CPUs, which drivers join by its address."""
    before = set(os.environ)
    # Read when Ray is imported: listen on loopback only, and print nothing, as the engine has it.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    need_ray()
    from ray.cluster_utils import Cluster

    # A node that is gone is noticed within two seconds instead of twenty.
    quick = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "_system_config": quick})
    yield made
    made.shutdown()
    for name in set(os.environ) - before:
        del os.environ[name]


@pytest.fixture
def opened(request, tmp_path):
    """Opens an engine with two workers, or as told; closes it in the end."""
    engines, notices = [], []

    def open_(name, make, **more):
        if name == "ray" and "address" not in more:
            more["address"] = request.getfixturevalue("cluster").address
        settings = EngineSettings(make, tmp_path, **{"workers": 2, "notice": notices.append, **more})
        engines.append(open_engine(name, settings))
        engines[-1].notices = notices
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def finish(engine):
    """All that runs, as {seed: evaluation}; nothing comes back twice."""
    done = {}
    while engine.running:
        for finished in engine.wait(None):
            assert finished.task.seed not in done
            done[finished.task.seed] = finished.evaluation
    return done


everywhere = pytest.mark.parametrize("name", ["in-process", "pool", "ray"])
elsewhere = pytest.mark.parametrize("name", ["pool", "ray"])


@everywhere
def test_every_task_comes_back_once_as_the_evaluator_valued_it(name, opened, tmp_path):
    script = Script(tmp_path, fails=(3,))
    engine = opened(name, script)
    assert engine.capacity == (1 if name == "in-process" else 2)
    assert engine.running == 0
    assert engine.wait(0) == []
    for seed in range(6):
        engine.submit(task(seed))
    assert engine.running == 6
    done = finish(engine)
    assert {seed: evaluation.value for seed, evaluation in done.items() if seed != 3} == {
        seed: value(seed) for seed in (0, 1, 2, 4, 5)
    }
    assert (done[3].value, done[3].error, done[3].failure) == (None, "loss is nan in epoch 1", Failure.DIVERGED)
    assert done[5].image_steps == 5
    assert engine.wait(None) == []
    made = [line[1] for line in lines(script.diary) if line[0] == "made"]
    assert len(made) == len(set(made)), "a process made its evaluator twice"


@everywhere
def test_weights_files_are_carried(name, opened, tmp_path):
    below, gone, keep, again = (tmp_path / name for name in ("below.st", "gone.st", "keep.st", "again.st"))
    below.write_bytes(b"weights")
    engine = opened(name, Script(tmp_path, fails=(3,)))
    engine.submit(task(1, rung=1, start_rung=0, start=below, keep=keep))
    engine.submit(task(2, rung=1, start_rung=0, start=gone, keep=again))
    engine.submit(task(3, keep=tmp_path / "failed.st"))
    done = finish(engine)
    assert done[1].value == value(1)
    assert keep.read_bytes() == b"weights>1"
    assert again.read_bytes() == b"nothing>2"
    assert not (tmp_path / "failed.st").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.st", "below.st", "diary", "keep.st"]


@everywhere
def test_an_error_of_the_factory_keeps_its_kind(name, opened):
    with pytest.raises(InputError, match="--data 'nowhere': no such folder") as caught:
        opened(name, no_data)
    assert caught.value.field == "--data"


@everywhere
def test_an_evaluator_that_raises_is_not_hushed_up(name, opened, tmp_path):
    engine = opened(name, Script(tmp_path, raises=(1,)))
    engine.submit(task(1))
    with pytest.raises(ValueError, match="seed 1"):
        finish(engine)
    engine.close()
    engine.close()


@everywhere
def test_stopped_tasks_come_back_and_workers_end(name, opened, tmp_path):
    script = Script(tmp_path, lingers=(1, 2))
    engine = opened(name, script)
    for seed in (1, 2, 3):
        engine.submit(task(seed))
    if name != "in-process":
        assert eventually(lambda: engine.wait(0.1) == [] and began(script.diary, 1) and began(script.diary, 2))
    engine.stop()
    done = finish(engine)
    assert all(evaluation.stopped for evaluation in done.values())
    assert len(done) == (0 if name == "in-process" else 3)
    engine.close()
    engine.close()
    workers = pids(script.diary) - {os.getpid()}
    assert eventually(lambda: not any(map(alive, workers)))


@elsewhere
def test_close_ends_workers_at_once(name, opened, tmp_path):
    script = Script(tmp_path, lingers=(1,))
    engine = opened(name, script)
    engine.submit(task(1))
    assert eventually(lambda: began(script.diary, 1))
    engine.close()
    assert engine.running == 0
    assert eventually(lambda: not any(map(alive, pids(script.diary))))


@elsewhere
def test_several_work_at_once_with_their_threads(name, opened, tmp_path):
    script = Script(tmp_path, meets={1: {2: 1}, 2: {1: 1}})
    engine = opened(name, script)
    for seed in (1, 2):
        engine.submit(task(seed))
    assert {seed: evaluation.value for seed, evaluation in finish(engine).items()} == {1: value(1), 2: value(2)}
    assert {line[3] for line in lines(script.diary) if line[0] == "began"} == {"1"}


@elsewhere
@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(name, opened, tmp_path, workers):
    with pytest.raises(InputError, match="--workers"):
        opened(name, Script(tmp_path), workers=workers, address=None)


def test_an_unknown_engine_is_refused_with_the_nearest(opened, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'pool'"):
        opened("pol", Script(tmp_path))


@elsewhere
def test_a_task_whose_worker_dies_is_tried_three_times_and_others_once(name, opened, tmp_path):
    # Seed 0 is at work while the others' workers die: it would be begun again if it were touched.
    script = Script(tmp_path, deaths={1: 1, 2: 3}, meets={0: {1: 2, 2: 3}})
    engine = opened(name, script)
    for seed in range(4):
        engine.submit(task(seed))
    done = finish(engine)
    assert {seed: began(script.diary, seed) for seed in range(4)} == {0: 1, 1: 2, 2: 3, 3: 1}
    assert {seed: evaluation.value for seed, evaluation in done.items()} == {
        0: value(0), 1: value(1), 2: None, 3: value(3),
    }  # fmt: skip
    cause = "signal 9" if name == "pool" else "its process ended"
    assert done[2].error == f"the worker process died 3 times ({cause})"
    assert done[2].failure is Failure.WORKER
    assert engine.notices.count(f"a worker died ({cause}): its task is tried again") == 3
    assert engine.capacity == 2


def test_an_idle_worker_that_dies_is_replaced_and_costs_no_task_a_try(opened, tmp_path):
    script = Script(tmp_path, deaths={1: 2})
    engine = opened("pool", script, workers=1)
    (idle,) = pids(script.diary)
    os.kill(idle, signal.SIGKILL)
    assert eventually(lambda: not alive(idle))
    engine.submit(task(1))
    assert finish(engine)[1].value == value(1)
    assert began(script.diary, 1) == 3


def test_workers_that_die_as_they_start_are_not_started_for_ever(opened):
    with pytest.raises(WorkError, match=r"die as they start \(exit code 3\)"):
        opened("pool", dies)


def test_the_pool_goes_on_with_the_workers_that_start(opened, tmp_path):
    engine = opened("pool", OneAtATime(Script(tmp_path)))
    while engine.capacity == 2:
        for seed in range(3):
            engine.submit(task(seed))
        assert {seed: evaluation.value for seed, evaluation in finish(engine).items()} == {
            seed: value(seed) for seed in range(3)
        }
    assert engine.capacity == 1
    assert engine.notices == ["a worker dies as it starts (exit code 3): going on with 1"]


def test_each_worker_gets_a_gpu_in_turn(opened, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert gpus_to_share("cuda") == ["3", "5"]
    assert gpus_to_share("cuda:1") == gpus_to_share("cpu") == []
    script = Script(tmp_path, meets={1: {2: 1}, 2: {1: 1}})
    engine = opened("pool", script, device="cuda")
    for seed in (1, 2):
        engine.submit(task(seed))
    finish(engine)
    assert sorted(line[4] for line in lines(script.diary) if line[0] == "began") == ["3", "5"]


def test_default_workers_fill_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [default_workers("cpu", threads, 0) for threads in (1, 3, 16)] == [8, 2, 1]
    assert [default_workers("cuda", 1, gpus) for gpus in (0, 1, 2)] == [4, 4, 8]
    assert _share_of_a_gpu({"GPU": 1.0}, None) == _share_of_a_gpu({}, 8) == 0.25
    assert [_share_of_a_gpu({"GPU": 4.0}, workers) for workers in (3, 4, 16)] == [1.0, 1.0, 0.25]
    assert _share_of_a_gpu({"GPU": 1.0}, 3) == 0.3333


DRIVER = """
import signal
import sys
from pathlib import Path
from mvit_search.search.engines import EngineSettings, open_engine
from tests.search.engine_parts import Script, task

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have had it ignored
    folder = Path(sys.argv[2])
    engine = open_engine(sys.argv[1], EngineSettings(Script(folder, lingers=(1,)), folder, workers=1))
    if sys.argv[1] == "ray":
        import ray

        print(*(node["NodeManagerAddress"] for node in ray.nodes()), flush=True)
    engine.submit(task(1))
    done = []
    while not done:
        try:
            done = engine.wait(None)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    print(done[0].evaluation.value, flush=True)
    engine.close()
"""


@pytest.fixture
def driver(tmp_path):
    """Starts a driver in a process and a session of its own, with one task at work; returns the process."""
    started = []

    def start(name):
        file = tmp_path / "driver.py"
        file.write_text(DRIVER)
        process = subprocess.Popen(
            [sys.executable, file, name, tmp_path], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert eventually(lambda: began(tmp_path / "diary", 1) or process.poll() is not None)
        assert process.poll() is None
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def children(pid):
    """Processes that a process started, and those that they started."""
    of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            of.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for parent in found:
        found += of.get(parent, [])
    return found[1:]


@elsewhere
def test_workers_of_a_killed_driver_end(name, driver, tmp_path):
    if name == "ray":
        need_ray()
    process = driver(name)
    # Ray's two agents of a node try for another minute to reach the cluster's head, which is gone (docs/engines.md).
    started = [
        pid for pid in children(process.pid)
        if b"Agent" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    assert pids(tmp_path / "diary") <= set(started)
    process.kill()
    assert eventually(lambda: not any(map(alive, started)))


def test_ctrl_c_reaches_the_driver_and_not_the_workers(driver, tmp_path):
    process = driver("pool")
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    (tmp_path / "go").touch()
    assert process.communicate()[0] == f"{value(1)}\n"
    assert process.returncode == 0
    assert began(tmp_path / "diary", 1) == 1


def test_a_ray_of_this_machine_listens_on_loopback_and_ends_with_the_engine(driver, tmp_path):
    # In a process of its own: one that has started one cluster and then joins another is refused by Ray's nodes.
    need_ray()
    process = driver("ray")
    started = children(process.pid)
    assert pids(tmp_path / "diary") <= set(started)
    (tmp_path / "go").touch()
    assert process.communicate()[0] == f"127.0.0.1\n{value(1)}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "diary",
        "driver.py",
        "go",
    ]  # it is also the home folder
    assert process.returncode == 0
    assert eventually(lambda: not any(map(alive, started)))


def test_joining_a_cluster_leaves_the_programs_handler_and_happens_once(opened, tmp_path):
    ours = lambda number, frame: None  # noqa: E731
    before = signal.signal(signal.SIGTERM, ours)
    try:
        opened("ray", Script(tmp_path))
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(InputError, match="joined a Ray cluster already"):
        opened("ray", Script(tmp_path))


def test_nodes_may_join_and_leave_while_tasks_run(opened, cluster, tmp_path, capfd):
    script = Script(tmp_path, lingers=(1, 2, 3))
    engine = opened("ray", script, workers=None)
    assert engine.capacity == 2
    node = cluster.add_node(num_cpus=1, num_gpus=0)
    assert eventually(lambda: engine.capacity == 3)
    for seed in (1, 2, 3):
        engine.submit(task(seed))
    assert eventually(lambda: all(began(script.diary, seed) for seed in (1, 2, 3)))
    cluster.remove_node(node, allow_graceful=False)
    assert eventually(lambda: engine.wait(0.1) == [] and engine.capacity == 2)
    (tmp_path / "go").touch()
    assert {seed: evaluation.value for seed, evaluation in finish(engine).items()} == {
        seed: value(seed) for seed in (1, 2, 3)
    }
    assert sum(began(script.diary, seed) for seed in (1, 2, 3)) == 4
    assert engine.notices[0] == "the Ray cluster has room for 3 tasks now, before for 2"
    assert "the Ray cluster has room for 2 tasks now, before for 3" in engine.notices
    assert sum("its task is tried again" in line for line in engine.notices) == 1
    assert "raylet" not in "".join(capfd.readouterr())


def test_tasks_on_a_shared_gpu_keep_their_worker(opened, cluster, tmp_path):
    node = cluster.add_node(num_cpus=2, num_gpus=1)  # Ray only counts them
    script = Script(tmp_path)
    try:
        engine = opened("ray", script, workers=None, device="cuda")
        assert engine.capacity == 2  # a quarter of a GPU each, but only two CPUs beside it
        for seed in range(6):
            engine.submit(task(seed))
        assert len(finish(engine)) == 6
    finally:
        cluster.remove_node(node)
    assert {line[4] for line in lines(script.diary) if line[0] == "began"} == {"0"}
    assert len(pids(script.diary)) <= 2


def test_a_cluster_without_room_is_waited_for(opened, cluster, tmp_path):
    engine = opened("ray", Script(tmp_path), threads=3)
    assert engine.notices == ["the Ray cluster has no node for a task yet: waiting for one"]
    assert engine.capacity == 0
    engine.submit(task(1))
    assert engine.wait(0.2) == []
    node = cluster.add_node(num_cpus=3, num_gpus=0)
    try:
        assert finish(engine)[1].value == value(1)
        assert eventually(lambda: engine.capacity == 1)
    finally:
        cluster.remove_node(node)


def test_another_version_on_a_node_is_refused(opened, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("mvit_search.search.engines.ray_cluster.__version__", "0.0.1")
    with pytest.raises(InputError, match="install the same version everywhere"):
        opened("ray", Script(tmp_path))


@pytest.fixture(params=["nobody", "web server", "silent"])
def wrong_address(request):
    """Where no Ray is: a closed port, something that answers otherwise, something that never answers."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if request.param == "silent":
            port.listen()
        if request.param != "web server":
            yield f"127.0.0.1:{port.getsockname()[1]}"
            return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_without_a_cluster_is_refused_at_once(opened, tmp_path, wrong_address, scheme):
    need_ray()
    with pytest.raises(InputError, match=r"--ray-address '(ray://)?127") as caught:
        opened("ray", Script(tmp_path), address=scheme + wrong_address)
    assert "Ray cluster" in str(caught.value) or "does not answer" in str(caught.value)


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:99999", "host:x", "http://host:1"])
def test_a_malformed_address_is_refused(opened, tmp_path, address):
    need_ray()
    with pytest.raises(InputError, match="must be auto, HOST:PORT or ray://HOST:PORT"):
        opened("ray", Script(tmp_path), address=address)


def test_a_numbered_gpu_is_refused_with_ray(opened, tmp_path):
    with pytest.raises(InputError, match="give --device cuda"):
        opened("ray", Script(tmp_path), device="cuda:1", address=None)


def test_without_ray_the_extra_is_named(opened, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "mvit-search\[ray\]"'):
        opened("ray", Script(tmp_path), address=None)


def test_the_stop_file_of_an_earlier_run_is_removed(opened, tmp_path):
    pool.stop_file(tmp_path).touch()
    engine = opened("pool", Script(tmp_path, lingers=(1,)), workers=1)
    assert not pool.stop_file(tmp_path).exists()
    engine.stop()
    assert pool.stop_file(tmp_path).exists()
