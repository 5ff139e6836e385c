"""How is a service asked until it answers, no oftener than it may be, and for no longer than it is worth?

One request is one POST of JSON. What passes (429, 5xx, a time-out, a connection that breaks, an answer that
is none) is tried again after a wait that doubles, shortened by chance so that many clients do not come back
at once ("full jitter", Brooker, "Exponential Backoff And Jitter", 2015), or after the time that the service
names (Retry-After, RFC 9110, section 10.2.3). What does not pass (401, 404) is raised at once.

Invariants (checked by tests/unit/test_http.py):
  1. A request is sent at most 1 + `max_retries` times; nothing is sent after it was answered.
  2. Requests keep their distance: of n texts, 1/requests_per_minute and n/texts_per_minute minutes; a wait
     that the service asks for holds for every thread.
  3. Secrets (the key, the values of headers) are in no error, and no redirect is followed: the key would be
     sent to whoever is named there.

Rejected: a package for requests (urllib has all that is needed, proxies too), and a kept connection (what
a shaking of hands costs is little beside a batch, and a stale one is one more way to fail).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from vecdb.encoders.answers import BadAnswer, told

__all__ = ["Limits", "Refused", "Service", "Spent"]

PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LONGEST_ASKED_S = 300.0  # what a service may ask us to wait
LARGEST_ANSWER = 1 << 28  # bytes
AT_ONCE = 1 << 16
LOOPBACK = ("localhost", "127.", "[::1]", "::1")

T = TypeVar("T")


class Refused(Exception):
    """The service answered that it will not: trying again is of no use."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"HTTP {status}: {said}" if status else said)
        self.status = status


class Spent(Exception):
    """Every try failed; `last` says how the last one did."""

    def __init__(self, tries: int, last: str) -> None:
        super().__init__(f"{tries} tries, the last one: {last}")
        self.tries = tries
        self.last = last


class Limits(NamedTuple):
    """How long, how often, how fast."""

    timeout_s: float
    max_retries: int
    requests_per_minute: float | None
    texts_per_minute: float | None


class Service:
    """An address that JSON is posted to. Shared by threads."""

    def __init__(self, url: str, limits: Limits, headers: Mapping[str, str]) -> None:
        self.url = url
        self._limits = limits
        self._headers = dict(headers)
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.sleep: Callable[[float], object] = time.sleep
        self.clock: Callable[[], float] = time.monotonic
        self._chance = random.Random()

    def ask(self, body: bytes, texts: int, read: Callable[[bytes, str], T]) -> T:
        """What `read` makes of the answer to `body`; Refused, or Spent when every try failed."""
        tries = 1 + self._limits.max_retries
        last = ""
        for attempt in range(tries):
            self._keep_distance(texts)
            asked = None
            try:
                status, headers, answer = self._post(body)
                if 200 <= status < 300:
                    return self._made(read, answer, str(headers.get("content-type", "")))
                answer = self._without_secrets(answer)  # before it is cut: half a secret is one
                last = self._clean(f"HTTP {status}: {told(answer)}")
                if status not in PASSING:
                    raise Refused(status, self._clean(told(answer)))
                asked = _seconds_asked(headers)
                if asked is not None and asked > LONGEST_ASKED_S:
                    raise Spent(attempt + 1, f"{last}; it asks to wait {asked:.0f} s")
            except BadAnswer as error:
                last = self._clean(f"a bad answer, {error}")
            except OSError as error:  # time-outs, resets, names that are not found, TLS
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise Refused(0, self._clean(str(error))) from None
                last = self._clean(f"{type(error).__name__}: {getattr(error, 'reason', None) or error}")
            except Broken as error:
                last = self._clean(f"a broken answer, {error}")
            if attempt + 1 < tries:
                self._wait(attempt, asked)
        raise Spent(tries, last)

    def _made(self, read: Callable[[bytes, str], T], answer: bytes, kind: str) -> T:
        """What `read` makes of an answer; what it says of a bad one shows no secret."""
        try:
            return read(answer, kind)
        except BadAnswer:
            read(self._without_secrets(answer), kind)
            raise BadAnswer("it repeats what was sent") from None

    def _post(self, body: bytes) -> tuple[int, Any, bytes]:
        """(status, headers, body) of the answer."""
        import http.client
        import urllib.error
        import urllib.request

        request = urllib.request.Request(self.url, data=body, headers=self._headers, method="POST")
        try:
            answer = self._opener().open(request, timeout=self._limits.timeout_s)
        except urllib.error.HTTPError as error:
            answer = error
        except http.client.HTTPException as error:
            raise Broken(f"{type(error).__name__}: {error}") from None
        with answer:
            try:
                return int(answer.status), answer.headers, self._read(answer)
            except http.client.HTTPException as error:
                raise Broken(f"{type(error).__name__}: {error}") from None

    def _read(self, answer: Any) -> bytes:
        """The whole body, within the time and the size that an answer may take."""
        until = time.monotonic() + self._limits.timeout_s
        parts, size = [], 0
        read = getattr(answer, "read1", answer.read)  # what is there, so that a drip is seen to be one
        while part := read(AT_ONCE):
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                raise Broken(f"more than {LARGEST_ANSWER >> 20} MB")
            if time.monotonic() > until:
                raise TimeoutError(f"not done after {self._limits.timeout_s:g} s")
        expected = answer.headers.get("content-length")
        if expected is not None and expected.isdigit() and size < int(expected):
            raise Broken(f"{size} of {expected} bytes")
        return b"".join(parts)

    def _opener(self) -> Any:
        import urllib.parse
        import urllib.request

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *given: Any, **named: Any) -> None:
                return None

        host = urllib.parse.urlsplit(self.url).hostname or ""
        proxies = [urllib.request.ProxyHandler({})] if host.startswith(LOOPBACK) else []
        return urllib.request.build_opener(NoRedirect, *proxies)

    # --- waiting -------------------------------------------------------------------------------

    def _keep_distance(self, texts: int) -> None:
        limits = self._limits
        apart = [60 * n / limit for n, limit in ((1, limits.requests_per_minute),
                                                 (texts, limits.texts_per_minute)) if limit]  # fmt: skip
        with self._lock:
            now = self.clock()
            begin = max(now, self._free_at)
            self._free_at = begin + max(apart, default=0.0)
        if begin > now:
            self.sleep(begin - now)

    def _wait(self, attempt: int, asked: float | None) -> None:
        if asked:
            with self._lock:  # the next request, whichever thread's, waits for it
                self._free_at = max(self._free_at, self.clock() + asked)
            return
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
        self.sleep(longest * (0.5 + 0.5 * self._chance.random()))

    def _clean(self, said: str) -> str:
        """Without any secret that the service may have repeated."""
        for secret in self._secrets():
            said = said.replace(secret, "***")
        return said

    def _without_secrets(self, answer: bytes) -> bytes:
        for secret in self._secrets():
            answer = answer.replace(secret.encode(), b"***")
        return answer

    def _secrets(self) -> list[str]:
        found = [part for each in self._headers.values() for part in (each, each.removeprefix("Bearer "))]
        return [each for each in found if len(each) >= 4 and each not in PUBLIC]


PUBLIC = ("application/json",)


class Broken(Exception):
    """An answer that ended too early, or is no HTTP."""


def _seconds_asked(headers: Any) -> float | None:
    """How long the service asks us to wait: in seconds, or until a date; None where it says nothing."""
    said = str(headers.get("retry-after-ms") or "")
    try:
        seconds = float(said) / 1000 if said else float(headers.get("retry-after") or "nan")
    except ValueError:
        seconds = _until(str(headers.get("retry-after")))
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None


def _until(date: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return float("nan")
