"""The measurement server: measures the networks of others on this machine, one at a time, for those with the token.

`settings` loads nothing but the standard library; everything else needs the extra `server`.
"""

import socket
from typing import TYPE_CHECKING

from mvit_search.errors import InputError
from mvit_search.latency.runtime import Runtime
from mvit_search.latency.server.settings import ServerSettings

if TYPE_CHECKING:
    from mvit_search.latency.server.serving import MeasurementServer

__all__ = ["ServerSettings", "listen", "make_server"]


def make_server(runtime: Runtime, settings: ServerSettings) -> "MeasurementServer":
    """A server for `runtime`; `.run(sockets=[listen(host, port)])` serves until it is interrupted.

    Raises:
        InputError: the extra `server` is not installed.
        OSError: the folder of results cannot be made.
    """
    try:
        from mvit_search.latency.server.serving import server_for
    except ModuleNotFoundError as error:
        advice = "pip install 'mvit-search[server]'"
        raise InputError("device serve", None, f"needs {error.name}, which is not installed", advice) from None
    return server_for(runtime, settings)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        InputError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        rule = f"cannot be listened on ({error.strerror or error})"
        advice = "give another --port, or 0 for any free one"
        raise InputError("--host and --port", f"{host}:{port}", rule, advice) from None
