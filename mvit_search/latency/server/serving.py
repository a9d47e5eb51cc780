"""Serving with uvicorn, and an end that keeps nobody waiting."""

import socket

import uvicorn

from mvit_search.latency.runtime import Runtime
from mvit_search.latency.server.app import Desk, create_app
from mvit_search.latency.server.settings import ServerSettings

_MOST_CONNECTIONS = 100
_GRACE_SECONDS = 5


class MeasurementServer(uvicorn.Server):
    """Serves until it is interrupted; then it finishes the measurement under way and takes no other."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever waits for a result is answered now: uvicorn lets open requests end before it closes.
        self._desk.queue.close()
        await super().shutdown(sockets)


def server_for(runtime: Runtime, settings: ServerSettings) -> MeasurementServer:
    """A server for `runtime`; `.run(sockets=[listen(host, port)])` serves."""
    app = create_app(runtime, settings)
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, proxy_headers=True,
        forwarded_allow_ips=settings.proxies, limit_concurrency=_MOST_CONNECTIONS, server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS, lifespan="on", ws="none",
    )  # fmt: skip
    return MeasurementServer(config, app.state.desk)
