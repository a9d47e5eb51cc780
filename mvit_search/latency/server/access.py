"""Who may ask, and how often: a bearer token, and a bucket of requests for each who asks."""

import hmac
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_ADDRESSES = 10_000


class Refused(Exception):
    """A request that is answered with `status` and `words`; come again after `retry_after` seconds, if that helps."""

    def __init__(self, status: int, words: str, retry_after: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after


@dataclass
class Bucket:
    """Holds as many requests as a minute allows, and fills again evenly."""

    per_minute: int
    level: float
    filled_at: float

    def take(self, now: float) -> int:
        """Take one request; seconds until there is one again, 0 if it could be had now."""
        rate = self.per_minute / 60
        self.level = min(self.per_minute, self.level + rate * (now - self.filled_at))
        self.filled_at = now
        if self.level < 1:
            return max(1, math.ceil((1 - self.level) / rate))
        self.level -= 1
        return 0


class Access:
    """Checks a request's token and counts it.

    The holder of the token has one bucket, wherever they ask from; everybody else one for each address. So nobody
    without the token can use up the holder's requests.
    """

    def __init__(
        self, token: str, requests_per_minute: int, attempts_per_minute: int, clock: Callable[[], float]
    ) -> None:
        self._expected = f"Bearer {token}".encode()
        self._attempts_per_minute, self._clock = attempts_per_minute, clock
        self._holder = Bucket(requests_per_minute, requests_per_minute, clock())
        self._strangers: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, authorization: str | None, address: str) -> None:
        """Let a request pass.

        Raises:
            Refused: 401 without the token, 429 too often.
        """
        given = (authorization or "").encode("utf-8", "surrogateescape")
        # Takes as long for a token that is nearly right as for any other.
        if hmac.compare_digest(given, self._expected):
            self._count(self._holder, "too many requests")
            return
        self._count(self._stranger(address), "too many attempts without the token")
        raise Refused(401, "no bearer token" if authorization is None else "the token is wrong")

    def _count(self, bucket: Bucket, words: str) -> None:
        if wait := bucket.take(self._clock()):
            raise Refused(429, words, wait)

    def _stranger(self, address: str) -> Bucket:
        bucket = self._strangers.pop(address, None)
        if bucket is None:
            bucket = Bucket(self._attempts_per_minute, self._attempts_per_minute, self._clock())
        self._strangers[address] = bucket
        if len(self._strangers) > _MOST_ADDRESSES:
            self._strangers.popitem(last=False)
        return bucket
