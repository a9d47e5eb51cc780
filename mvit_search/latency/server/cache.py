"""Results that are known already: one file each on disk, the latest in memory too."""

import hashlib
import json
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from mvit_search._files import write_atomically
from mvit_search.latency.runtime import Measurement


class ResultCache:
    """Measurements by artifact and protocol.

    A result is found only under the protocol that this process last measured with: after another phone was
    plugged in, or its system was updated, what was known before belongs to something else. So the first
    measurement of a process is always made, and tells which results on disk still hold.
    """

    def __init__(self, identity: str, folder: Path | None, most: int) -> None:
        self._identity, self._folder, self._most = identity, folder, most
        self._protocol: str | None = None
        self._memory: OrderedDict[str, Measurement] = OrderedDict()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, digest: str) -> Measurement | None:
        """The result for an artifact, or None."""
        if self._protocol is None:
            return None
        key = self._key(digest)
        found = self._memory.get(key) or self._read(key)
        if found is None or found.protocol.digest != self._protocol:
            return None
        self._remember(key, found)
        return found

    def keep(self, digest: str, measurement: Measurement) -> None:
        """Remember a result; the oldest go where there are too many."""
        self._protocol = measurement.protocol.digest
        key = self._key(digest)
        self._remember(key, measurement)
        if self._folder is not None:
            # A full disk costs the result's second life, not the result.
            with suppress(OSError):
                write_atomically(self._folder / f"{key}.json", json.dumps(measurement.document(), indent=2))
                self._prune(self._folder)

    def _key(self, digest: str) -> str:
        return hashlib.sha256(f"{digest} {self._identity} {self._protocol}".encode()).hexdigest()[:32]

    def _remember(self, key: str, measurement: Measurement) -> None:
        self._memory[key] = measurement
        self._memory.move_to_end(key)
        if len(self._memory) > self._most:
            self._memory.popitem(last=False)

    def _read(self, key: str) -> Measurement | None:
        if self._folder is None:
            return None
        try:
            return Measurement.of(json.loads((self._folder / f"{key}.json").read_bytes()))
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def _prune(self, folder: Path) -> None:
        files = list(folder.glob("*.json"))
        if len(files) > self._most:
            oldest = sorted(files, key=lambda path: path.stat().st_mtime)[: len(files) - self._most]
            for path in oldest:
                path.unlink(missing_ok=True)
