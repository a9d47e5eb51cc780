"""`mvit-search device serve`: measure the networks of other machines on this one."""

import logging
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mvit_search.cli.output import say

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    runtime: Annotated[
        str | None,
        typer.Option(help="What measures: mac, iphone, cpu-onnx, cpu-torch (default: mac on a Mac, else cpu-onnx)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token; made if it is not there (default: MVIT_SEARCH_TOKEN, else a new one)."),
    ] = None,
    max_upload: Annotated[str, typer.Option(help="Largest network it takes.", metavar="SIZE")] = "200MiB",
    queue: Annotated[int, typer.Option(min=1, max=1000, help="Measurements that may wait.")] = 32,
    requests_per_minute: Annotated[int, typer.Option(min=1, help="Most requests of the token's holder.")] = 600,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of known results (default: ~/.cache/mvit-search/measurements).")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep results in memory alone.")] = False,
    root_path: Annotated[str, typer.Option(help="Path under which a proxy shows it, e.g. /phone.")] = "",
    proxies: Annotated[
        str, typer.Option(help="Addresses of proxies whose X-Forwarded headers are believed.", metavar="A,B")
    ] = "127.0.0.1",
) -> None:
    """Serve measurements to `--target http://...` of a search, one at a time, to those who have the token."""
    from mvit_search._quantities import parse_bytes
    from mvit_search.errors import InputError
    from mvit_search.latency import load_runtime
    from mvit_search.latency.server import ServerSettings, listen, make_server

    measuring = load_runtime(runtime or ("mac" if platform.system() == "Darwin" else "cpu-onnx"))
    token, made = _token(token_file)
    settings = ServerSettings(
        token=token, max_upload_bytes=parse_bytes(max_upload, "--max-upload"), capacity=queue,
        requests_per_minute=requests_per_minute, cache=None if no_cache else cache or _cache_folder(),
        root_path=root_path, proxies=proxies,
    )  # fmt: skip
    measuring.require_device()
    try:
        server = make_server(measuring, settings)
    except OSError as error:
        raise InputError("--cache", str(settings.cache), f"cannot be written ({error.strerror})") from None
    with listen(host, port) as socket:
        _announce(measuring.name, host, socket.getsockname()[1], token if made else None)
        _log_to_stderr()
        # uvicorn ends in good order on Ctrl-C and then raises it again.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[socket])
    say("stopped")


def _token(path: Path | None) -> tuple[str, bool]:
    """The token, and whether it was made just now and kept nowhere."""
    from mvit_search.latency.server.settings import TOKEN_VARIABLE, check_token, new_token, read_token, write_token

    if path is not None:
        if not path.exists():
            write_token(path, new_token())
            say(f"new token written to {path}")
        elif path.stat().st_mode & 0o077:
            _warn(f"others on this machine can read {path}; chmod 600 keeps the token yours")
        return read_token(path), False
    if given := os.environ.get(TOKEN_VARIABLE):
        return check_token(given.strip(), TOKEN_VARIABLE), False
    return new_token(), True


def _announce(runtime: str, host: str, port: int, new_token: str | None) -> None:
    shown = f"[{host}]" if ":" in host else host
    say(f"measuring with {runtime} on http://{shown}:{port} (Ctrl-C stops)")
    if new_token is not None:
        say(f"token, new at each start without --token-file:\nexport MVIT_SEARCH_TOKEN={new_token}")
    if host not in _LOOPBACK:
        _warn("other machines can reach this; token and networks travel unencrypted without a TLS proxy in front")


def _warn(words: str) -> None:
    print(f"mvit-search: warning: {words}", file=sys.stderr, flush=True)


def _log_to_stderr() -> None:
    """What the server does, a line each; uvicorn's own words only where something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name, level in (("mvit_search.latency.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvit-search" / "measurements"
