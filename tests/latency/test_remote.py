"""Measuring through a server: the same figure as there, and one clear line for whatever is in the way."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError, TargetUnavailable, WorkError
from mvit_search.latency import CpuOnnxRuntime, load_target
from mvit_search.latency.remote.client import ServerClient, Session, check_url, token_from_environment
from mvit_search.latency.remote.target import RemoteTarget
from mvit_search.profile import cost
from tests.latency.measurement_server import PROTOCOL, TOKEN, FakeRuntime, serving
from tests.latency.networks import SHORT, TINY

XXS, XS = PRESETS["mobilevit-xxs"], PRESETS["mobilevit-xs"]


def connect(server, token=TOKEN, runtime=None, pauses=None):
    """A target that notes its pauses instead of sleeping."""
    sleep = (lambda seconds: None) if pauses is None else pauses.append
    return RemoteTarget.connect(ServerClient(server.url, token, sleep=sleep), lambda name: runtime or server.runtime)


@contextmanager
def answering(status, body=b"{}", **headers):
    """A web server that gives one and the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("suffix", [".json", ".mlpackage"])
def test_a_latency_says_what_measured_it(suffix):
    with serving(FakeRuntime(suffix=suffix)) as server:
        target = connect(server)
        latency = target.latency(XXS)
        assert latency.ms == pytest.approx(cost(XXS).macs / 1e9)
        assert latency.low_ms < latency.ms < latency.high_ms
        assert latency.source.startswith("measured: a desk")
        assert latency.protocol == PROTOCOL.words
        assert latency.target == target.name == server.url
        assert target.measured
        assert target.calibration.endswith("fake-1")
        # Written anew, with another identifier in its manifest, it is still the same network.
        target.latency(XXS)
        assert len(server.runtime.measured) == 1


def test_a_package_of_somebody_else_is_measured_where_it_stands(tmp_path):
    with serving(FakeRuntime(suffix=".mlpackage")) as server:
        target = connect(server)
        package = tmp_path / "their network.mlpackage"
        server.runtime.write(XXS, 1000, package)
        before = sorted(tmp_path.rglob("*"))
        assert target.suffix == ".mlpackage"
        assert target.latency_of_file(package, package.name) == target.latency(XXS)
        assert len(server.runtime.measured) == 1
        assert sorted(tmp_path.rglob("*")) == before


def test_onnx_runtime_measures_through_a_server():
    """Written and timed for real; the file of a network is the same whenever it is written."""
    runtime = CpuOnnxRuntime(timing=SHORT)
    with serving(runtime) as server:
        target = connect(server)
        latency, again = target.latency(TINY, 10), target.latency(TINY, 10)
        assert latency == again
        assert latency.source.startswith("measured: ")
        assert "ONNX Runtime" in latency.protocol
        with server.client() as client:
            bad = client.post("/measurements?suffix=.onnx&name=bad", content=b"no network").json()
            failed = client.get(f"/measurements/{bad['id']}?wait=10").json()
            assert failed["failure"]["kind"] == "input"
            assert "ONNX" in failed["failure"]["why"]


def test_the_number_of_classes_counts():
    with serving() as server:
        target = connect(server)
        assert target.latency(XXS, 10).ms < target.latency(XXS, 1000).ms


def test_an_address_is_a_target(monkeypatch):
    monkeypatch.setenv("MVIT_SEARCH_TOKEN", TOKEN)
    monkeypatch.setattr("mvit_search.latency.load_runtime", lambda name: {"fake": FakeRuntime()}[name])
    with serving() as server:
        assert load_target(f"{server.url}/").latency(XS).ms > 0


def test_the_token_comes_from_the_environment(monkeypatch, tmp_path):
    for variable in ("MVIT_SEARCH_TOKEN", "MVIT_SEARCH_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InputError, match=r"MVIT_SEARCH_TOKEN: is not set; .*device serve"):
        token_from_environment()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("MVIT_SEARCH_TOKEN_FILE", str(tmp_path / "token"))
    assert token_from_environment() == TOKEN
    monkeypatch.setenv("MVIT_SEARCH_TOKEN", "short")
    with pytest.raises(InputError, match="has 5 characters"):
        token_from_environment()


def test_a_wrong_token_is_bad_input_that_shows_neither_token():
    with serving() as server:
        with pytest.raises(InputError, match="the token is wrong") as caught:
            connect(server, token="wrong-" + TOKEN)
        assert TOKEN not in str(caught.value)
        assert "device serve" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://phone:1",
        "http://",
        "http://:8765",
        "http://phone:99999",
        "http://phone?x=1",
        "http://phone/#x",
        "http://[",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError):
        check_url(url)


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(InputError, match="must not hold a name or password") as caught:
        check_url("https://me:secret@phone:1")
    assert "secret" not in str(caught.value)
    assert check_url("https://phone.example/under/") == "https://phone.example/under"


def test_a_server_that_is_not_there_at_the_start_is_bad_input():
    with serving() as server:
        pass
    pauses = []
    with pytest.raises(InputError, match=r"does not answer \(.*refused.*device serve"):
        connect(server, pauses=pauses)
    assert pauses == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (404, b"nothing", {}, "is no measurement server"),
        (200, b"<html>", {}, "is no measurement server"),
        (200, b"[]", {}, "is no measurement server"),
        (200, b'{"api": 1}', {}, "says too little"),
        (200, b'{"api": 99, "version": "9.0"}', {}, "install the same version of mvit-search"),
        (301, b"", {"Location": "https://elsewhere/version"}, "give that address"),
    ],
)
def test_what_is_no_server_of_ours_is_told(status, body, headers, says):
    with answering(status, body, **headers) as server:
        server.runtime = FakeRuntime()
        with pytest.raises(InputError, match=says):
            connect(server)


def test_a_server_that_asks_for_patience_is_asked_again_when_it_says():
    pauses = []
    with answering(503, b'{"detail": "the queue is full"}', Retry_After="7") as server:
        server.runtime = FakeRuntime()
        with pytest.raises(InputError, match="503 the queue is full"):
            connect(server, pauses=pauses)
    assert pauses == [7.0, 7.0, 7.0]
    with answering(429, Retry_After="60") as server:
        server.runtime = FakeRuntime()
        with pytest.raises(InputError, match="429"):
            connect(server, pauses=pauses)
    assert len(pauses) == 3


def test_a_network_too_large_is_told_with_both_sizes_before_it_travels():
    with serving(max_upload_bytes=10) as server:
        target = connect(server)
        with pytest.raises(InputError, match=r"is \d+ B, and http://.* takes 10 B; .*--max-upload"):
            target.latency(XXS)


def test_a_network_too_large_for_the_server_alone_is_told_too():
    with serving(max_upload_bytes=10) as server:
        target = connect(server)
        target._version = replace(target._version, max_upload_bytes=10**9)
        with pytest.raises(InputError, match=r"is \d+ B, and .* larger than 10 B"):
            target.latency(XXS)


@pytest.mark.parametrize(
    ("error", "kind"), [(WorkError("out of memory"), WorkError), (InputError("iphone", None, "is locked"), InputError)]
)
def test_what_the_server_cannot_measure_is_told_in_its_words(error, kind):
    def during(content):
        raise error

    with serving(FakeRuntime(during=during)) as server:
        with pytest.raises(kind, match=str(error)) as caught:
            connect(server).latency(XXS)
        assert not isinstance(caught.value, TargetUnavailable)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"p50_ms": 0.0}, "above zero"), ({"p10_ms": None}, "measurement"), ({"x": 1}, "cannot be read")],
)
def test_a_measurement_that_cannot_be_is_no_latency(monkeypatch, change, says):
    sent = Session.result

    def result(session, job_id, wait_s):
        job = sent(session, job_id, wait_s)
        return {**job, "measurement": {**job["measurement"], **change}}

    with serving() as server:
        target = connect(server)
        monkeypatch.setattr(Session, "result", result)
        with pytest.raises(InputError, match=says):
            target.latency(XXS)


def test_a_server_that_is_gone_is_unavailable_and_may_come_back():
    with serving() as server:
        target = connect(server)
        first = target.latency(XXS).ms
        server.stop()
        with pytest.raises(TargetUnavailable, match="refused"):
            target.latency(XXS)
        server.start()
        assert target.latency(XXS).ms == first


def test_a_server_that_closes_or_forgets_during_a_measurement(monkeypatch):
    """Stopped while it measures, it is unavailable. Started anew without the job, it is sent the network again."""
    entered, leave = threading.Event(), threading.Event()

    def during(content):
        entered.set()
        leave.wait(5)

    with serving(FakeRuntime(during=during)) as server:
        target = connect(server)
        stopper = threading.Thread(target=lambda: (entered.wait(5), setattr(server.server, "should_exit", True)))
        releaser = threading.Timer(0.6, leave.set)
        stopper.start()
        releaser.start()
        with pytest.raises(TargetUnavailable):
            target.latency(XXS)
        stopper.join()
        releaser.join()
        server.stop()
        server.start()
        asked = []
        monkeypatch.setattr(Session, "result", lambda session, job_id, wait_s: asked.append(job_id))
        monkeypatch.setattr("mvit_search.latency.remote.target._LONGEST_MEASUREMENT_S", 0.0)
        with pytest.raises(TargetUnavailable):
            target.latency(XS)
        monkeypatch.undo()
        assert target.latency(XS).ms > 0


def test_a_server_that_measures_in_another_way_than_before_is_refused():
    with serving() as server:
        target = connect(server)
        target.latency(XXS)
        server.runtime.protocol = replace(PROTOCOL, device="another desk")
        with pytest.raises(InputError, match=r"now measures in another way .*another desk"):
            target.latency(XS)
        server.stop()
        server.runtime.identity = "fake-2"
        server.start()
        with pytest.raises(InputError, match=r"fake-2.*than when this began .*fake-1"):
            target.latency(XXS)


def test_a_long_queue_is_told_and_the_job_found_again(monkeypatch):
    gate = threading.Event()
    with serving(FakeRuntime(during=lambda content: gate.wait(10)), longest_wait_seconds=0.1) as server:
        target = connect(server)
        monkeypatch.setattr("mvit_search.latency.remote.target._LONGEST_MEASUREMENT_S", 0.3)
        with pytest.raises(TargetUnavailable, match=r"no result after 0 s \(running, 0 ahead\)"):
            target.latency(XXS)
        gate.set()
        assert target.latency(XXS).ms > 0
        assert len(server.runtime.measured) == 1


def test_a_proxy_of_the_environment_is_not_shown_the_token(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving() as server:
        assert connect(server).latency(XXS).ms > 0
