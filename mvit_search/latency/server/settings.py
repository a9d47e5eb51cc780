"""What a measurement server may be told, with each default in one place; and the token."""

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from mvit_search.errors import InputError

API = 1
"""Version of the endpoints and of what they carry; a client of another one is refused."""

TOKEN_VARIABLE = "MVIT_SEARCH_TOKEN"
TOKEN_FILE_VARIABLE = "MVIT_SEARCH_TOKEN_FILE"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServerSettings:
    """How a measurement server behaves.

    Attributes:
        token: what a request must carry as its bearer token.
        max_upload_bytes: largest artifact, as it travels.
        upload_seconds: longest time for one upload to arrive.
        capacity: measurements that may wait; one more is told to come again.
        requests_per_minute: of the holder of the token.
        attempts_per_minute: of one address without the token.
        longest_wait_seconds: a request for a result is held no longer than that.
        kept_jobs: finished measurements that can still be asked for.
        cache: folder of the results; None keeps them in memory alone.
        cached_results: most results kept, in memory and on disk each.
        root_path: path under which a proxy shows the server, for instance `/phone`, if it passes that on.
        proxies: addresses whose `X-Forwarded-For` and `-Proto` are believed, comma-separated.

    Raises:
        InputError: the token is too short or could not stand in a header, or a number is out of range.
    """

    token: str = field(repr=False)
    max_upload_bytes: int = 200 << 20
    upload_seconds: float = 120.0
    capacity: int = 32
    requests_per_minute: int = 600
    attempts_per_minute: int = 10
    longest_wait_seconds: float = 25.0
    kept_jobs: int = 1000
    cache: Path | None = None
    cached_results: int = 10_000
    root_path: str = ""
    proxies: str = "127.0.0.1"

    def __post_init__(self) -> None:
        check_token(self.token)
        for name in ("max_upload_bytes", "capacity", "requests_per_minute", "attempts_per_minute", "cached_results"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "must be at least 1")
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", self.root_path):
            raise InputError("--root-path", self.root_path, "must be a plain path", "for example /phone")


def check_token(token: str, field: str = "token") -> str:
    """The token, if it can be one. Its value is in no message.

    Raises:
        InputError: it is short, or holds what a header cannot carry.
    """
    if len(token) < _SHORTEST_TOKEN:
        raise InputError(
            field, None, f"has {len(token)} characters", f"use at least {_SHORTEST_TOKEN}, drawn at random"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InputError(field, None, "holds a space or a character that is not ASCII", "draw another")
    return token


def new_token() -> str:
    """256 random bits in 43 characters."""
    return secrets.token_urlsafe(32)


def read_token(path: Path) -> str:
    """The token in a file, which holds nothing else.

    Raises:
        InputError: the file cannot be read or holds no token.
    """
    try:
        return check_token(path.read_text(encoding="utf-8").strip(), f"token file {str(path)!r}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("token file", str(path), f"cannot be read ({error})") from None


def write_token(path: Path, token: str) -> None:
    """Keep a token in a new file that its owner alone can read.

    Raises:
        InputError: the file is there already, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InputError("token file", str(path), f"cannot be written ({error.strerror})") from None
    with os.fdopen(handle, "w") as stream:
        stream.write(f"{token}\n")
