"""Reaching a Ray cluster, or starting one on this machine; what cannot be reached is refused in seconds."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mvit_search.errors import InputError, WorkError

_PROBE_S = 3.0
_FIELD = "--ray-address"
_FORM = "must be auto, HOST:PORT or ray://HOST:PORT"

# HTTP/2's connection preface and an empty SETTINGS frame (RFC 9113, section 3.4). Any gRPC server answers with its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME = 4


def start_ray(cpus: int, gpus: int | None) -> Any:
    """Start a Ray cluster of this machine alone, which listens on loopback; returns the module `ray`.

    Args:
        gpus: None lets Ray count them.
    """
    # Left to itself, Ray writes a token into the home folder, for every later cluster. Older versions know of none.
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray reads it as it is imported. Off, as on macOS, Ray takes 127.0.0.1 for the machine's address.
    with _environment("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"):
        ray = _imported()
        try:
            with _own_sigterm():
                ray.init(
                    address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )  # fmt: skip
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise WorkError(f"a Ray cluster does not start on this machine: {_line(error)}") from None
    return ray


def connect_ray(address: str) -> Any:
    """Join the cluster at an address as its driver; returns the module `ray`.

    Raises:
        InputError: malformed, nobody listens there, it is not Ray, or another version.
    """
    ray = _imported()
    if address != "auto":
        _probe(ray, address)
    try:
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # of many kinds, by what went wrong
        ray.shutdown()
        if address == "auto":
            advice = "start it with `ray start --head`, or give HOST:PORT"
        else:
            advice = "a driver that runs on no node of the cluster needs ray://HOST:10001, and ray[client]"
        raise InputError(_FIELD, address, f"cannot be joined: {_line(error)}", advice) from None
    return ray


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Whatever its log level, Ray prints pages about every node that goes, on stdout. Lines that match this it skips.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError:
        advice = 'pip install "mvit-search[ray]"'
        raise InputError("--engine", "ray", "needs Ray, which is not installed", advice) from None
    if ray.is_initialized():
        raise InputError("--engine", "ray", "this process has joined a Ray cluster already", "call ray.shutdown()")
    return ray


def _probe(ray: Any, address: str, given: str | None = None) -> None:
    """Ask the port whether a gRPC server is there: Ray itself would try for minutes. `given`: what the user wrote."""
    shown = given or address
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or "/" in host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(_FIELD, shown, _FORM, "for example 10.0.0.5:6379")
    try:
        frame = _first_frame(host, int(port))
    except OSError as error:
        # A cluster listens on the address that it gives its machine, and Ray looks there when it is told this one.
        if host in ("localhost", "127.0.0.1") and (own := ray.util.get_node_ip_address()) != "127.0.0.1":
            return _probe(ray, f"{own}:{port}", shown)
        reason = error.strerror or str(error) or type(error).__name__
        advice = "is the cluster up, and the port open? `ray start --head` prints the address"
        raise InputError(_FIELD, shown, f"does not answer ({reason})", advice) from None
    if len(frame) < 4 or frame[3] != _SETTINGS_FRAME:
        advice = "`ray start --head` prints the address to give"
        raise InputError(_FIELD, shown, "is not the address of a Ray cluster: something else answers", advice)
    return None


def _first_frame(host: str, port: int) -> bytes:
    """What a server says to HTTP/2's preface; under TLS, where it would have to be said otherwise, as if it had."""
    with socket.create_connection((host, port), _PROBE_S) as peer:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return bytes((0, 0, 0, _SETTINGS_FRAME))
        peer.settimeout(_PROBE_S)
        peer.sendall(_PREFACE)
        return peer.recv(9)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place of the program's; one that only ends the process may stay Ray's."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
