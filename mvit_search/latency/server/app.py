"""The endpoints: health, version, and measurements as jobs that are asked for until they are over."""

import asyncio
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse

from mvit_search import __version__
from mvit_search.latency import machine
from mvit_search.latency.remote.packing import UnpackLimits
from mvit_search.latency.runtime import Runtime
from mvit_search.latency.server.access import Access, Refused
from mvit_search.latency.server.cache import ResultCache
from mvit_search.latency.server.queue import Job, MeasuringQueue, job_document
from mvit_search.latency.server.settings import API, ServerSettings
from mvit_search.latency.server.uploads import accept, plain_name, receive, upload_folder

_UPLOADS_AT_ONCE = 4
"""So many uploads take up disk beside the queue's."""


class Desk:
    """What the endpoints share: the queue, the folder of uploads, the settings."""

    def __init__(self, runtime: Runtime, settings: ServerSettings) -> None:
        self.runtime, self.settings = runtime, settings
        # Results of two machines, systems or runtimes do not belong in one run.
        self.calibration = f"server-{machine.system()}-{platform.machine()}-{runtime.identity}".replace(" ", "-")
        cache = ResultCache(self.calibration, settings.cache, settings.cached_results)
        self.queue = MeasuringQueue(runtime, cache, capacity=settings.capacity, kept=settings.kept_jobs)
        self.access = Access(settings.token, settings.requests_per_minute, settings.attempts_per_minute, time.monotonic)
        # What packs well is no network of a search: random weights stay as large as they are.
        self.limits = UnpackLimits(total_bytes=2 * settings.max_upload_bytes)
        self.uploads = Path()
        self._slots = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        self._worker: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Measure for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix="mvit-search-server-") as folder:
            self.uploads = Path(folder)
            self._worker = asyncio.create_task(self.queue.work())
            yield
            self.queue.close()
            await self._worker

    def health(self) -> str:
        """`ok`, or `closing`.

        Raises:
            Refused: 503, nothing is measured any more.
        """
        if self.queue.closing.is_set():
            return "closing"
        if self._worker is None or self._worker.done():
            raise Refused(503, "nothing is measured any more; start the server anew")
        return "ok"

    async def take(self, request: Request, suffix: str, name: str, digest: str | None) -> Job:
        """The job for an upload.

        Raises:
            Refused: with the reason.
        """
        if suffix != self.runtime.suffix:
            raise Refused(415, f"{self.runtime.name} measures {self.runtime.suffix}, not {suffix[:20]!r}")
        self.queue.check_room()
        if self._slots.locked():
            raise Refused(503, f"{_UPLOADS_AT_ONCE} uploads arrive at the moment", 2)
        async with self._slots:
            folder = upload_folder(self.uploads)
            try:
                return await self._take_into(folder, request, suffix, name, digest)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    async def _take_into(self, folder: Path, request: Request, suffix: str, name: str, digest: str | None) -> Job:
        upload, settings = folder / "upload", self.settings
        await receive(request, upload, most_bytes=settings.max_upload_bytes, seconds=settings.upload_seconds)
        artifact = await asyncio.to_thread(
            accept, upload, suffix=suffix, name=plain_name(name), digest=digest, limits=self.limits
        )
        return self.queue.submit(artifact)

    def document(self, job: Job) -> dict[str, Any]:
        return job_document(job, self.queue.ahead_of(job), self.calibration)

    def version(self) -> dict[str, Any]:
        """What this server is, for a client to pin itself to."""
        latest = self.queue.latest
        return {
            "api": API,
            "version": __version__,
            "runtime": self.runtime.name,
            "suffix": self.runtime.suffix,
            "identity": self.runtime.identity,
            "calibration": self.calibration,
            "protocol": None if latest is None else latest.protocol.words,
            "limits": {
                "max_upload_bytes": self.settings.max_upload_bytes,
                "capacity": self.settings.capacity,
                "requests_per_minute": self.settings.requests_per_minute,
                "longest_wait_seconds": self.settings.longest_wait_seconds,
            },
        }


def create_app(runtime: Runtime, settings: ServerSettings) -> FastAPI:
    """The server for one runtime; everything but `GET /health` needs the token."""
    desk = Desk(runtime, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with desk.open():
            yield

    # No pages of documentation: they would be there for those without the token too.
    app = FastAPI(
        title="mvit-search measurement server", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url=None,
    )  # fmt: skip
    app.state.desk = desk
    app.add_exception_handler(Refused, _refusal)
    router = _endpoints(desk)
    # Below the proxy's path too, for not every proxy cuts it off.
    for prefix in {"", settings.root_path}:
        app.include_router(router, prefix=prefix)
    return app


def _endpoints(desk: Desk) -> APIRouter:
    def allowed(request: Request, authorization: Annotated[str | None, Header()] = None) -> None:
        desk.access.check(authorization, request.client.host if request.client else "unknown")

    router = APIRouter()
    guarded = [Depends(allowed)]

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": desk.health()}

    @router.get("/version", dependencies=guarded)
    async def version() -> dict[str, Any]:
        return desk.version()

    @router.post("/measurements", dependencies=guarded)
    async def submit(
        request: Request,
        suffix: Annotated[str, Query(max_length=20)],
        name: Annotated[str, Query(max_length=200)] = "",
        x_artifact_digest: Annotated[str | None, Header()] = None,
    ) -> JSONResponse:
        job = await desk.take(request, suffix, name, x_artifact_digest)
        return JSONResponse(desk.document(job), status_code=200 if job.over.is_set() else 202)

    @router.get("/measurements/{job_id}", dependencies=guarded)
    async def result(job_id: str, wait: Annotated[float, Query(ge=0, le=3600)] = 0) -> dict[str, Any]:
        job = desk.queue.find(job_id)
        if job is None:
            raise Refused(404, "no such measurement: it is too old, or the server was started anew")
        await desk.queue.wait(job, min(wait, desk.settings.longest_wait_seconds))
        return desk.document(job)

    return router


async def _refusal(request: Request, refused: Exception) -> JSONResponse:
    assert isinstance(refused, Refused)
    # Closed, so that what is left of an upload that is not wanted does not travel.
    headers = {"Connection": "close"}
    if refused.retry_after is not None:
        headers["Retry-After"] = str(refused.retry_after)
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": refused.words}, status_code=refused.status, headers=headers)
