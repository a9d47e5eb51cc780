"""From a request's body to an artifact on disk: never larger than allowed, never longer than allowed, checked."""

import asyncio
import re
import tempfile
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from mvit_search._quantities import format_bytes
from mvit_search.errors import InputError
from mvit_search.latency.remote.packing import UnpackLimits, digest_of, unpack
from mvit_search.latency.server.access import Refused
from mvit_search.latency.server.queue import Artifact

PACKAGE = ".mlpackage"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


async def receive(request: Request, path: Path, *, most_bytes: int, seconds: float) -> None:
    """Write the request's body to `path`.

    Raises:
        Refused: 413 as soon as it is clear that the body is too large, 408 if it takes too long, 400 if it breaks off.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        raise _too_large(most_bytes)
    size = 0
    try:
        async with asyncio.timeout(seconds):
            with path.open("xb") as out:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > most_bytes:
                        raise _too_large(most_bytes)
                    out.write(chunk)
    except TimeoutError:
        raise Refused(408, f"the upload took longer than {seconds:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the upload broke off") from None


def accept(upload: Path, *, suffix: str, name: str, digest: str | None, limits: UnpackLimits) -> Artifact:
    """The artifact in an upload, unpacked where it is a package, in the upload's own folder.

    Raises:
        Refused: 400, the digest is none or another; 422, the package is refused, with the reason.
    """
    folder = upload.parent
    path = folder / f"network{suffix}"
    if suffix == PACKAGE:
        try:
            unpack(upload, path, limits)
        except InputError as error:
            raise Refused(422, str(error)) from None
        upload.unlink()
    else:
        upload.rename(path)
    found = digest_of(path)
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise Refused(400, "X-Artifact-Digest must be sha256: and 64 hexadecimal digits")
    if digest is not None and digest != found:
        raise Refused(400, f"the upload arrived as {found}, not as {digest}")
    return Artifact(path, folder, found, name)


def upload_folder(root: Path) -> Path:
    """A new folder for one upload."""
    return Path(tempfile.mkdtemp(prefix="upload-", dir=root))


def plain_name(name: str) -> str:
    """A name fit for a log line: nothing that could forge another line."""
    return re.sub(r"[^\x21-\x7e]+", "_", name)[:80] or "unnamed"


def _too_large(most_bytes: int) -> Refused:
    return Refused(413, f"the upload is larger than {format_bytes(most_bytes)} ({most_bytes} bytes)")
