"""The measurement server over real connections: who may ask, what is taken, in what order, and what is remembered."""

import http.client
import json
import socket
import threading
import time
import zipfile

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError, WorkError
from mvit_search.latency.remote.packing import digest_of, pack
from mvit_search.latency.server import ServerSettings, listen
from mvit_search.latency.server.access import Access, Refused
from mvit_search.latency.server.settings import check_token, new_token, read_token, write_token
from tests.latency.measurement_server import PROTOCOL, TOKEN, FakeRuntime, serving, until

XXS = PRESETS["mobilevit-xxs"]


def submit(client, content=b"a network", suffix=".json", **headers):
    return client.post(f"/measurements?suffix={suffix}&name=net", content=content, headers=headers)


def result(client, job, wait=5):
    return client.get(f"/measurements/{job['id']}?wait={wait}").json()


class Gate:
    """Holds measurements up until it is opened."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, content):
        self.reached.set()
        assert self.open.wait(10)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def held(gate):
    """A server whose measurements wait at the gate."""
    with serving(FakeRuntime(during=gate), capacity=3) as server:
        yield server
        gate.open.set()


def test_health_needs_no_token_and_everything_else_does():
    with serving() as server, server.client(None) as nobody, server.client("wrong-" + TOKEN) as wrong:
        assert nobody.get("/health").json() == {"status": "ok"}
        for client, says in ((nobody, "no bearer token"), (wrong, "the token is wrong")):
            for answer in (client.get("/version"), submit(client), client.get("/measurements/x")):
                assert answer.status_code == 401
                assert answer.json()["detail"] == says
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert nobody.get("/docs").status_code == nobody.get("/openapi.json").status_code == 404
        assert server.runtime.measured == []


def test_the_version_says_what_a_client_pins_itself_to():
    with serving(max_upload_bytes=1000) as server, server.client() as client:
        version = client.get("/version").json()
        assert version["runtime"] == "fake"
        assert version["suffix"] == ".json"
        assert version["calibration"].endswith("fake-1")
        assert version["limits"]["max_upload_bytes"] == 1000
        assert version["protocol"] is None
        result(client, submit(client).json())
        assert client.get("/version").json()["protocol"] == PROTOCOL.words


def test_a_measurement_is_a_job_with_a_result():
    with serving() as server, server.client() as client:
        answer = submit(client, b'{"macs": 2e9}')
        assert answer.status_code == 202
        job = result(client, answer.json())
        assert (job["state"], job["name"], job["cached"], job["failure"]) == ("done", "net", False, None)
        assert job["measurement"]["p50_ms"] == 2.0
        assert job["measurement"]["protocol"]["device"] == "a desk"
        assert client.get("/measurements/0123").status_code == 404


@pytest.mark.parametrize(
    "error", [WorkError("the model failed"), InputError("network", "x", "has an open side"), OSError("?")]
)
def test_a_failure_is_recorded_and_the_next_one_is_measured(error):
    def during(content):
        if content == "bad":
            raise error

    with serving(FakeRuntime(during=during)) as server, server.client() as client:
        bad, good = submit(client, b"bad").json(), submit(client, b"good").json()
        failed = result(client, bad)
        assert failed["state"] == "failed"
        kinds = {WorkError: "work", InputError: "input", OSError: "internal"}
        assert failed["failure"]["kind"] == kinds[type(error)]
        if not isinstance(error, OSError):
            assert failed["failure"]["why"] == str(error)
        assert result(client, good)["state"] == "done"
        # A failure is not remembered: it may have been the moment's.
        assert submit(client, b"bad").json()["id"] != bad["id"]


def test_one_at_a_time_in_the_order_they_came(held, gate):
    with held.client() as client:
        jobs = [submit(client, content).json() for content in (b"1", b"2", b"3")]
        assert gate.reached.wait(5)
        states = [result(client, job, wait=0) for job in jobs]
        assert [(s["state"], s["ahead"]) for s in states] == [("running", None), ("queued", 1), ("queued", 2)]
        gate.open.set()
        assert result(client, jobs[-1])["state"] == "done"
        assert held.runtime.measured == ["1", "2", "3"]
        assert held.runtime.most_at_once == 1


def test_a_full_queue_says_when_to_come_again(held, gate):
    with held.client() as client:
        submit(client, b"running")
        assert gate.reached.wait(5)
        for content in (b"1", b"2", b"3"):
            assert submit(client, content).status_code == 202
        refused = submit(client, b"4")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert "queue is full" in refused.json()["detail"]


def test_the_same_network_in_flight_is_measured_once(held, gate):
    with held.client() as client:
        first, other, again = (submit(client, content).json() for content in (b"same", b"other", b"same"))
        queued = submit(client, b"other").json()
        assert first["id"] == again["id"]
        assert other["id"] == queued["id"]
        gate.open.set()
        result(client, other)
        assert held.runtime.measured == ["same", "other"]


def test_a_known_result_is_not_measured_again():
    with serving() as server, server.client() as client:
        job = result(client, submit(client).json())
        again = submit(client)
        assert again.status_code == 200
        assert (again.json()["cached"], again.json()["measurement"]) == (True, job["measurement"])
        assert len(server.runtime.measured) == 1


def test_results_on_disk_hold_once_the_protocol_is_seen_to_be_the_same(tmp_path):
    def fresh(server, content):
        with server.client() as client:
            return not result(client, submit(client, content).json())["cached"]

    with serving(FakeRuntime(), cache=tmp_path / "cache") as server:
        assert [fresh(server, content) for content in (b"a", b"b", b"a")] == [True, True, False]
    with serving(FakeRuntime(), cache=tmp_path / "cache") as server:
        # The first one shows what is measured with now; after that the others are known.
        assert [fresh(server, content) for content in (b"a", b"b")] == [True, False]
    other = FakeRuntime(protocol=MeasuringProtocolOf("another desk"))
    with serving(other, cache=tmp_path / "cache") as server:
        assert [fresh(server, content) for content in (b"a", b"b", b"b")] == [True, True, False]


def MeasuringProtocolOf(device):
    from dataclasses import replace

    return replace(PROTOCOL, device=device)


def test_the_cache_is_bounded_and_survives_a_broken_file(tmp_path):
    with serving(cache=tmp_path, cached_results=2) as server, server.client() as client:
        for content in (b"1", b"2", b"3"):
            result(client, submit(client, content).json())
        assert len(list(tmp_path.glob("*.json"))) == 2
        for path in tmp_path.glob("*.json"):
            path.write_text("{")
    with serving(cache=tmp_path) as server, server.client() as client:
        for content in (b"1", b"3"):
            assert result(client, submit(client, content).json())["state"] == "done"


def test_an_upload_that_says_that_it_is_too_large_is_not_read():
    with serving(max_upload_bytes=1000) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": str(10**12)}
        connection.request("POST", "/measurements?suffix=.json", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 413
        assert "1000 bytes" in json.loads(answer.read())["detail"]
        connection.close()


def test_an_upload_without_a_length_is_stopped_as_soon_as_it_is_too_large():
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 10_000
            yield bytes(10_000)

    with serving(max_upload_bytes=100_000) as server, server.client() as client:
        answer = submit(client, endless())
        assert answer.status_code == 413
        assert sent < 50_000_000
        assert client.get("/health").status_code == 200
        assert server.runtime.measured == []
        assert list(server.server.config.app.state.desk.uploads.iterdir()) == []


def test_an_upload_that_trickles_or_breaks_off_is_given_up():
    with serving(upload_seconds=0.3) as server:
        desk = server.server.config.app.state.desk
        head = f"POST /measurements?suffix=.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
            slow.sendall(f"{head}Content-Length: 100\r\n\r\na".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as broken:
            broken.sendall(f"{head}Content-Length: 100\r\n\r\na".encode())
        until(lambda: not list(desk.uploads.iterdir()))
        assert server.runtime.measured == []


def test_too_many_requests_are_told_when_to_come_again():
    with serving(requests_per_minute=3, attempts_per_minute=2) as server:
        with server.client() as client:
            codes = [client.get("/version").status_code for _ in range(4)]
            assert codes == [200, 200, 200, 429]
            assert 1 <= int(client.get("/version").headers["Retry-After"]) <= 20
        with server.client("wrong-" + TOKEN) as wrong:
            assert [wrong.get("/version").status_code for _ in range(3)] == [401, 401, 429]
            assert wrong.get("/health").status_code == 200


def test_buckets_fill_again_and_strangers_do_not_use_up_the_holders():
    now = 0.0
    access = Access(TOKEN, 60, 2, lambda: now)
    for _ in range(60):
        access.check(f"Bearer {TOKEN}", "a")
    with pytest.raises(Refused) as refused:
        access.check(f"Bearer {TOKEN}", "b")
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    now = 1.0
    access.check(f"Bearer {TOKEN}", "a")
    statuses = []
    for address in ("c", "c", "c", "d"):
        with pytest.raises(Refused) as refused:
            access.check(None, address)
        statuses.append(refused.value.status)
    assert statuses == [401, 401, 429, 401]
    now = 2.0
    access.check(f"Bearer {TOKEN}", "c")


def test_an_artifact_of_another_kind_or_digest_is_refused():
    with serving() as server, server.client() as client:
        kind = submit(client, suffix=".onnx")
        assert (kind.status_code, "fake measures .json" in kind.json()["detail"]) == (415, True)
        digest = submit(client, **{"X-Artifact-Digest": "sha256:" + "0" * 64})
        assert (digest.status_code, "arrived as sha256:" in digest.json()["detail"]) == (400, True)
        assert submit(client, **{"X-Artifact-Digest": "md5:1"}).status_code == 400
        assert client.post("/measurements", content=b"x").status_code == 422
        assert server.runtime.measured == []


def test_a_package_is_unpacked_measured_and_removed(tmp_path):
    runtime = FakeRuntime(suffix=".mlpackage")
    runtime.write(XXS, 1000, tmp_path / "net.mlpackage")
    pack(tmp_path / "net.mlpackage", tmp_path / "net.zip")
    digest = digest_of(tmp_path / "net.mlpackage")
    with serving(runtime) as server, server.client() as client:
        answer = submit(client, (tmp_path / "net.zip").read_bytes(), ".mlpackage", **{"X-Artifact-Digest": digest})
        job = result(client, answer.json())
        assert (job["state"], job["digest"]) == ("done", digest)
        until(lambda: not list(server.server.config.app.state.desk.uploads.iterdir()))


def test_a_package_that_tries_to_leave_its_folder_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("Manifest.json", "{}")
        archive.writestr("../../escaped", "bad")
    with serving(FakeRuntime(suffix=".mlpackage")) as server, server.client() as client:
        answer = submit(client, (tmp_path / "bad.zip").read_bytes(), ".mlpackage")
        assert (answer.status_code, "tries to leave its folder" in answer.json()["detail"]) == (422, True)
        uploads = server.server.config.app.state.desk.uploads
        assert list(uploads.iterdir()) == []
        assert not (uploads.parent / "escaped").exists()
        assert server.runtime.measured == []


def test_behind_a_proxy_with_a_path():
    """Whether the proxy cuts the path off or not."""
    with serving(root_path="/phone") as server, server.client() as client:
        assert client.get("/phone/health").status_code == client.get("/health").status_code == 200
        assert client.get("/phone/version").json()["runtime"] == "fake"


def test_the_address_behind_a_proxy_counts_only_where_the_proxy_is_believed():
    for proxies, codes in (("127.0.0.1", [401, 401]), ("10.0.0.1", [401, 429])):
        with serving(attempts_per_minute=1, proxies=proxies) as server, server.client(None) as client:
            told = [client.get("/version", headers={"X-Forwarded-For": f"192.0.2.{i}"}).status_code for i in (1, 2)]
            assert told == codes


def test_stopping_ends_what_runs_and_tells_those_who_wait(gate):
    with serving(FakeRuntime(during=gate)) as server, server.client() as client:
        running, waiting = submit(client, b"1").json(), submit(client, b"2").json()
        assert gate.reached.wait(5)
        answers = {}
        threads = [
            threading.Thread(target=lambda job=job: answers.update({job["id"]: result(client, job, wait=20)}))
            for job in (running, waiting)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        start = time.monotonic()
        server.server.should_exit = True
        for thread in threads:
            thread.join(5)
        assert time.monotonic() - start < 3
        assert answers[waiting["id"]]["failure"]["kind"] == "closing"
        assert answers[running["id"]]["state"] == "running"
        uploads = server.server.config.app.state.desk.uploads
        gate.open.set()
        server.stop()
        assert server.runtime.measured == ["1"]
        assert not uploads.exists()


def test_tokens_are_drawn_kept_and_checked(tmp_path):
    token = new_token()
    assert check_token(token) == token != new_token()
    write_token(tmp_path / "token", token)
    assert read_token(tmp_path / "token") == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="cannot be written"):
        write_token(tmp_path / "token", token)
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "absent")
    for bad in ("", "short", "sixteen letters and spaces", "sixteen-letters-ü"):
        with pytest.raises(InputError) as caught:
            check_token(bad)
        assert not bad or bad not in str(caught.value)
    assert TOKEN not in repr(ServerSettings(TOKEN))


@pytest.mark.parametrize(
    "wrong", [{"capacity": 0}, {"max_upload_bytes": 0}, {"root_path": "phone"}, {"root_path": "/a/"}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        ServerSettings(TOKEN, **wrong)


def test_a_port_in_use_is_told():
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="cannot be listened on"):
        listen("127.0.0.1", taken.getsockname()[1])
