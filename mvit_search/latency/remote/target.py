"""A target on another machine: networks are written here and measured by a measurement server."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mvit_search import __version__
from mvit_search.architecture import MobileViTConfig
from mvit_search.errors import InputError, TargetUnavailable, WorkError
from mvit_search.latency.base import Latency
from mvit_search.latency.remote.client import ServerClient, Session, token_from_environment, too_large
from mvit_search.latency.remote.packing import digest_of, pack
from mvit_search.latency.runtime import Measurement, Runtime
from mvit_search.latency.server.settings import API

_LONGEST_MEASUREMENT_S = 120.0
"""After so long in the server's queue the caller is told; asking again finds the same job."""


@dataclass(frozen=True)
class ServerVersion:
    """What a server says of itself.

    Attributes:
        runtime: what it measures with; the runtime of that name writes the networks here.
        calibration: identity of its machine, runtime and protocol.
        max_upload_bytes: largest network it takes.
        longest_wait_seconds: for so long it holds a request for a result.
    """

    runtime: str
    calibration: str
    max_upload_bytes: int
    longest_wait_seconds: float

    @classmethod
    def of(cls, document: dict[str, Any], url: str) -> "ServerVersion":
        """From the answer to `GET /version`.

        Raises:
            InputError: the server is of another version, or none.
        """
        api, version = document.get("api"), document.get("version")
        if api != API:
            rule = f"speaks version {api} of the protocol (mvit-search {version}), this is {API} ({__version__})"
            raise InputError("target", url, rule, "install the same version of mvit-search on both machines")
        try:
            limits = document["limits"]
            return cls(
                str(document["runtime"]), str(document["calibration"]), int(limits["max_upload_bytes"]),
                float(limits["longest_wait_seconds"]),
            )  # fmt: skip
        except (LookupError, TypeError, ValueError):
            raise InputError("target", url, "is no measurement server (its version says too little)") from None


def connect(url: str, runtime_named: Callable[[str], Runtime]) -> "RemoteTarget":
    """The target at an address, with the token of the environment.

    Raises:
        InputError: no token, no such address, or as `RemoteTarget.connect` says.
    """
    return RemoteTarget.connect(ServerClient(url, token_from_environment()), runtime_named)


class RemoteTarget:
    """Measures on the machine of a measurement server. Make one with `connect`.

    A server whose machine, runtime or protocol is another than at the beginning is refused: its figures would not
    compare. A server that does not answer is a `TargetUnavailable`; the same call may be made again.
    """

    def __init__(
        self, client: ServerClient, version: ServerVersion, runtime: Runtime,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._client, self._version, self._runtime, self._clock = client, version, runtime, clock
        self._protocol: str | None = None

    @classmethod
    def connect(cls, client: ServerClient, runtime_named: Callable[[str], Runtime]) -> Self:
        """Ask the server what it is; `runtime_named` finds the runtime here that writes what it runs.

        Raises:
            InputError: it does not answer, refuses the token, or is of another version.
        """
        try:
            with client.session() as session:
                version = ServerVersion.of(session.version(), client.url)
        except TargetUnavailable as error:
            words = str(error).removeprefix(f"{client.url}: ")
            advice = "is `mvit-search device serve` running there, and the address right?"
            raise InputError("target", client.url, f"does not answer ({words})", advice) from None
        return cls(client, version, runtime_named(version.runtime))

    @property
    def name(self) -> str:
        return self._client.url

    @property
    def measured(self) -> bool:
        return True

    @property
    def calibration(self) -> str:
        return self._version.calibration

    @property
    def suffix(self) -> str:
        """What the server's runtime runs: `.mlpackage`, `.onnx` or `.json`."""
        return self._runtime.suffix

    def latency(self, config: MobileViTConfig, num_classes: int = 1000) -> Latency:
        """Write the network, have it measured, and wait for the result.

        Raises:
            InputError: the server refuses the network or the token, cannot measure at all, or has changed.
            TargetUnavailable: it does not answer, or has no result for minutes.
            WorkError: the network cannot be written, or failed on the server.
        """
        with tempfile.TemporaryDirectory(prefix="mvit-search-") as folder:
            path = Path(folder) / f"network{self.suffix}"
            self._runtime.write(config, num_classes, path)
            return self.latency_of_file(path, f"mvit-{config.digest()[:12]}")

    def latency_of_file(self, path: Path, name: str) -> Latency:
        """Have the network at `path`, which ends in `suffix`, measured; `name` is for the server's log.

        Raises:
            InputError, TargetUnavailable, WorkError: as `latency`.
        """
        with tempfile.TemporaryDirectory(prefix="mvit-search-") as folder, self._client.session() as session:
            measurement = self._measured(session, path, name, Path(folder) / "upload.zip")
        if self._protocol not in (None, measurement.protocol.digest):
            raise self._changed(measurement.protocol.words)
        self._protocol = measurement.protocol.digest
        return measurement.latency(self.name)

    def _measured(self, session: Session, path: Path, name: str, packed: Path) -> Measurement:
        """The server's measurement of the artifact at `path`; a folder is packed at `packed`."""
        digest = digest_of(path)
        if path.is_dir():
            pack(path, packed)
            path = packed
        if (size := path.stat().st_size) > self._version.max_upload_bytes:
            raise too_large(self.name, name, size, self._version.max_upload_bytes)
        deadline = self._clock() + _LONGEST_MEASUREMENT_S
        while True:
            job = session.submit(path, suffix=self.suffix, name=name, digest=digest)
            finished = self._finished(session, job, deadline)
            if finished is not None:
                return self._result(finished)

    def _finished(self, session: Session, job: dict[str, Any], deadline: float) -> dict[str, Any] | None:
        """The job once it is over; None if the server was started anew and knows nothing of it."""
        known: dict[str, Any] | None = job
        while known is not None:
            if known.get("calibration") != self.calibration:
                raise self._changed(str(known.get("calibration")))
            if known.get("state") in ("done", "failed"):
                return known
            if self._clock() > deadline:
                place = f"{known.get('state')}, {known.get('ahead') or 0} ahead"
                raise TargetUnavailable(f"{self.name}: no result after {_LONGEST_MEASUREMENT_S:.0f} s ({place})")
            known = session.result(str(known.get("id")), self._version.longest_wait_seconds)
        return None

    def _result(self, job: dict[str, Any]) -> Measurement:
        if job["state"] == "failed":
            failure = job.get("failure") or {}
            why = f"{self.name}: {failure.get('why')}"
            match failure.get("kind"):
                case "closing":
                    raise TargetUnavailable(why)
                case "input":
                    raise InputError("target", self.name, f"cannot measure: {failure.get('why')}")
                case _:
                    raise WorkError(why)
        try:
            return Measurement.of(job["measurement"])
        except (LookupError, TypeError):
            rule = "sent a measurement that cannot be read"
            raise InputError("target", self.name, rule, "is it another version?") from None

    def _changed(self, now: str) -> InputError:
        rule = f"now measures in another way ({now}) than when this began ({self.calibration})"
        return InputError("target", self.name, rule, "bring back what was there, or begin a new run with --name")
