"""A real measurement server on the loopback interface, in a thread, with a runtime that measures in no time."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from mvit_search.architecture import MobileViTConfig
from mvit_search.latency.runtime import Measurement, MeasuringProtocol
from mvit_search.latency.server import ServerSettings, listen, make_server
from mvit_search.profile import cost

TOKEN = "a-token-for-tests-alone"
PROTOCOL = MeasuringProtocol(
    runtime="Fake 1.0", device="a desk", system="none", compute_units="CPU", precision="fp32", io="array", threads=1,
    warmup=0, rule="at once",
)  # fmt: skip


def measurement(ms: float, protocol: MeasuringProtocol = PROTOCOL) -> Measurement:
    return Measurement(0.9 * ms, ms, 1.1 * ms, 0.99 * ms, 1.01 * ms, 20, 0.0, True, protocol)


@dataclass
class FakeRuntime:
    """Mirrors `Runtime`: a network's file holds its MACs, and a thousand million of them take a millisecond.

    `during` is called with the file's content while it is measured; it may hold the measurement up, or raise.
    """

    suffix: str = ".json"
    identity: str = "fake-1"
    protocol: MeasuringProtocol = PROTOCOL
    during: Callable[[str], object] = lambda content: None
    measured: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    name: str = "fake"

    def write(self, config: MobileViTConfig, num_classes: int, path: Path) -> None:
        content = json.dumps({"macs": cost(config, num_classes).macs})
        if self.suffix == ".json":
            path.write_text(content)
            return
        (path / "Data").mkdir(parents=True)
        (path / "Data" / "model").write_text(content)
        manifest = {"itemInfoEntries": {str(time.monotonic_ns()): {"path": "model"}}}
        manifest["rootModelIdentifier"] = next(iter(manifest["itemInfoEntries"]))
        (path / "Manifest.json").write_text(json.dumps(manifest))

    def measure(self, path: Path) -> Measurement:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            content = (path if path.is_file() else path / "Data" / "model").read_text()
            self.measured.append(content)
            self.during(content)
            macs = json.loads(content)["macs"] if content.startswith("{") else 1e9
            return measurement(macs / 1e9, self.protocol)
        finally:
            self.at_once -= 1


class Running:
    """A server that can be stopped, and started again at the same address."""

    def __init__(self, runtime: FakeRuntime, **settings: object) -> None:
        self.runtime, self.settings = runtime, ServerSettings(**{"token": TOKEN, **settings})
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server = make_server(self.runtime, self.settings)
        self._socket = listen("127.0.0.1", self.port)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()
        self._socket.close()

    def client(self, token: str | None = TOKEN) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=10)


@contextmanager
def serving(runtime: FakeRuntime | None = None, **settings: object) -> Iterator[Running]:
    running = Running(runtime or FakeRuntime(), **settings)
    try:
        yield running
    finally:
        if running.server.started and not running.server.should_exit:
            running.stop()


def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
