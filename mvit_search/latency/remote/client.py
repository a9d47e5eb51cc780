"""Talking to a measurement server: what is tried again, what is told at once, and in which words."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mvit_search._quantities import format_bytes
from mvit_search.errors import InputError, TargetUnavailable, WorkError
from mvit_search.latency.server.settings import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, check_token, read_token

if TYPE_CHECKING:
    import httpx

_PAUSES_S = (0.5, 1.0, 2.0)
"""Between the tries of one request; longer troubles are for whoever can show that it waits."""

_LONGEST_PAUSE_S = 10.0
_ASK_AGAIN = (429, 502, 503, 504)
_CONNECT_S, _WRITE_S, _READ_S = 5.0, 60.0, 30.0


def check_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        InputError: it is no plain address; one with a password in it would be printed and recorded.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError("target", url, "is no address", "write it like http://192.168.1.20:8765") from None
    if parts.scheme not in ("http", "https"):
        raise InputError("target", url, "must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        shown = f"{parts.scheme}://...@{parts.hostname or ''}"
        raise InputError("target", shown, "must not hold a name or password", f"put the token into {TOKEN_VARIABLE}")
    if not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise InputError("target", url, "is no address of a server", "write it like http://192.168.1.20:8765")
    return url.rstrip("/")


def token_from_environment() -> str:
    """The server's token, from MVIT_SEARCH_TOKEN or the file that MVIT_SEARCH_TOKEN_FILE names.

    Raises:
        InputError: neither is set, or what is there is no token.
    """
    if token := os.environ.get(TOKEN_VARIABLE):
        return check_token(token.strip(), TOKEN_VARIABLE)
    if path := os.environ.get(TOKEN_FILE_VARIABLE):
        return read_token(Path(path))
    raise InputError(
        TOKEN_VARIABLE, None, "is not set",
        f"a measurement server wants the token that `mvit-search device serve` printed, in {TOKEN_VARIABLE}"
        f" or in a file that {TOKEN_FILE_VARIABLE} names",
    )  # fmt: skip


class ServerClient:
    """Asks one server. Troubles that may pass are tried a few times and then are a `TargetUnavailable`."""

    def __init__(self, url: str, token: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url = check_url(url)
        self._token, self._sleep = token, sleep
        self._verify = _verification(self.url)

    @contextmanager
    def session(self) -> "Iterator[Session]":
        """One connection for several requests."""
        import httpx

        # A proxy of the environment is for the Internet; over plain http it would also be shown the token.
        encrypted = self.url.startswith("https")
        with httpx.Client(
            headers={"Authorization": f"Bearer {self._token}"}, verify=self._verify, trust_env=encrypted,
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S, write=_WRITE_S),
        ) as http:  # fmt: skip
            yield Session(self.url, http, self._sleep)


class Session:
    """Requests over one connection."""

    def __init__(self, url: str, http: "httpx.Client", sleep: Callable[[float], None]) -> None:
        self._url, self._http, self._sleep = url, http, sleep

    def version(self) -> dict[str, Any]:
        """What the server is."""
        return self._json(self._ask("GET", "/version"))

    def submit(self, artifact: Path, *, suffix: str, name: str, digest: str) -> dict[str, Any]:
        """Upload a file to be measured; the job's document."""
        query = {"suffix": suffix, "name": name}
        headers = {"X-Artifact-Digest": digest, "Content-Type": "application/octet-stream"}
        answer = self._ask("POST", "/measurements", params=query, headers=headers, content=artifact.read_bytes())
        if answer.status_code == 413:
            size = format_bytes(artifact.stat().st_size)
            raise InputError("network", name, f"is {size}, and {self._url} says: {_detail(answer)}", _LARGER)
        return self._json(answer)

    def result(self, job_id: str, wait_s: float) -> dict[str, Any] | None:
        """The job's document once it is over, or after `wait_s`; None if the server does not know it any more."""
        answer = self._ask("GET", f"/measurements/{job_id}", params={"wait": wait_s}, timeout=wait_s + _READ_S)
        return None if answer.status_code == 404 else self._json(answer)

    def _ask(self, method: str, path: str, **request: Any) -> "httpx.Response":
        """The answer to a request, tried again while that can help."""
        for pause in (*_PAUSES_S, None):
            trouble = self._try(method, path, request)
            if not isinstance(trouble, TargetUnavailable):
                return trouble
            wait = max(pause or 0.0, trouble.retry_after_s or 0.0)
            if pause is None or wait > _LONGEST_PAUSE_S:
                raise trouble
            self._sleep(wait)
        raise AssertionError("the last pause is None")

    def _try(self, method: str, path: str, request: dict[str, Any]) -> "httpx.Response | TargetUnavailable":
        import httpx

        try:
            answer = self._http.request(method, f"{self._url}{path}", **request)
        except httpx.TransportError as error:
            words = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
            return TargetUnavailable(f"{self._url}: {words}")
        if answer.status_code in _ASK_AGAIN:
            words = f"{self._url}: {answer.status_code} {_detail(answer)}"
            return TargetUnavailable(words, _seconds(answer.headers.get("Retry-After")))
        return answer

    def _json(self, answer: "httpx.Response") -> dict[str, Any]:
        """The document of a good answer.

        Raises:
            InputError: the server refuses, or is no measurement server.
            WorkError: the server has a defect.
        """
        status = answer.status_code
        if status == 401:
            rule = f"is not the one of {self._url} ({_detail(answer)})"
            raise InputError(TOKEN_VARIABLE, None, rule, "take the token that `mvit-search device serve` printed there")
        if answer.is_redirect:
            where = answer.headers.get("Location", "")[:200]
            raise InputError("target", self._url, f"points to {where!r}", "give that address")
        if status in (400, 408, 415, 422):
            raise InputError("target", self._url, f"refuses: {_detail(answer)}")
        if status >= 500:
            raise WorkError(f"{self._url}: {status} {_detail(answer)}")
        document = _document(answer) if answer.is_success else None
        if document is None:
            raise InputError(
                "target", self._url, f"is no measurement server (it answers {status})",
                "start one with `mvit-search device serve`; behind a proxy, give the whole path",
            )  # fmt: skip
        return document


_LARGER = "start the server with a larger --max-upload"


def too_large(url: str, name: str, size: int, most: int) -> InputError:
    """A network that the server would refuse, told before it travels."""
    rule = f"is {format_bytes(size)}, and {url} takes {format_bytes(most)}"
    return InputError("network", name, rule, _LARGER)


def _verification(url: str) -> Any:
    """What httpx checks certificates with; making it takes a while, and plain http needs none."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        advice = "pip install 'mvit-search[server]'"
        raise InputError("target", url, f"needs {error.name}", advice) from None
    return httpx.create_ssl_context() if url.startswith("https") else False


def _document(answer: "httpx.Response") -> dict[str, Any] | None:
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _detail(answer: "httpx.Response") -> str:
    """The server's own words, one short line."""
    detail = (_document(answer) or {}).get("detail", answer.reason_phrase)
    return " ".join(str(detail).split())[:300]


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdigit() and len(retry_after) < 7 else None
