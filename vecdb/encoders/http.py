"""Encoders behind an OpenAI-compatible service: POST <base_url>/embeddings, whoever serves it.

    vecdb.encoders.http("http://localhost:8080/v1", "bge-small", dim=384)
    vecdb.encoders.http("https://api.example.com/v1", "embed-3", api_key=os.environ["KEY"])

service.py asks until there is an answer, answers.py looks whether it is one.

Invariants (checked by tests/unit/test_http.py):
  1. Whatever the service does, a text gets its own vector or the call raises EncoderFailed, which names the
     texts and carries what was made of those before: a database keeps it, so that it is not paid twice.
  2. The key is in no repr, error, fingerprint, file or pickle.
  3. The fingerprint is made of the model's name, `dimensions`, the prefixes and `revision`, not of the
     address: a service may move from one machine to another. That the same model answers is looked at
     by PROBES: their vectors are kept in the file's cache, and a model that gives them otherwise is refused
     (embedding.py).
  4. No file decides where texts are sent: a collection does not record the address, and the encoder is given
     again when the file is opened again.

Rejected: the address in the encoder's name, by which a collection could find it again: whoever sends
somebody a file would read what is searched in it. Requests side by side (services limit them, and one
thread for each caller is there already).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from vecdb.encoders.answers import vectors_in
from vecdb.encoders.base import NOT_STATED, Card, Vectors, check_texts
from vecdb.encoders.function import LARGEST_DIM, METRICS
from vecdb.encoders.service import Limits, Refused, Service, Spent
from vecdb.errors import EncoderFailed, InvalidArgument

__all__ = ["PROBES", "HttpEncoder", "http"]

WHO = "encoder 'http'"
PROBES: Final = ("The quick brown fox jumps over the lazy dog.", "Inflation rose in the third quarter.")
SPLIT = (400, 413, 422)  # a batch that is refused so may hold one text that is
BLANK = " "  # what is sent for an empty text, which services refuse
FORMATS = ("float", "base64")
LEAST_RATE, MOST_RATE = 0.001, 1_000_000  # of time-outs in seconds, and of what is sent a minute
_UNKNOWN = Card(NOT_STATED, NOT_STATED, NOT_STATED, NOT_STATED)


class HttpEncoder:
    """What `http` returns: texts by a service."""

    probes = PROBES

    def __init__(
        self,
        address: str,
        model: str,
        service: Service,
        request: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        self.name = f"http:{model}"
        self.address = address
        self.model = model
        self.metric: str = facts["metric"]
        self.card: Card = facts["card"]
        self.max_batch: tuple[int, int] = facts["batch"]  # texts, characters
        self._prefixes: tuple[str, str] = facts["prefixes"]  # documents, queries
        self._request = dict(request)
        self._service = service
        self._dim: int | None = facts["dim"]
        said = json.dumps([model, request.get("dimensions"), *self._prefixes, facts["revision"]])
        self.fingerprint = hashlib.sha256(f"http 1, {said}".encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"HttpEncoder({self.address!r}, {self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Without the key and the headers: a pickle is no place for secrets."""
        service = self._service
        return {**self.__dict__, "_service": (service.url, service._limits)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        url, limits = state["_service"]
        self.__dict__.update(state)
        self._service = Service(url, limits, _headers(None, None))

    @property
    def dim(self) -> int:
        """The number of dimensions; asks the service once where `dim=` was not given."""
        if self._dim is None:
            self._dim = int(self._embed([PROBES[0]], first=0).shape[1])
        return self._dim

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`; EncoderFailed where the service gives none."""
        return self._encode(texts, self._prefixes[0])

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts` looked for; EncoderFailed as well."""
        return self._encode(texts, self._prefixes[1])

    def _encode(self, texts: Sequence[str], prefix: str) -> Vectors:
        listed = [prefix + text or BLANK for text in check_texts(texts, f"encoder {self.name!r}")]
        if not listed:
            return np.empty((0, self.dim), dtype=np.float32)
        parts: list[Vectors] = []
        try:
            for first, end in _batches(listed, *self.max_batch):
                parts.append(self._embed(listed[first:end], first))
        except EncoderFailed as error:
            done = [*parts, *([] if error.made is None else [error.made])]
            error.made = np.concatenate(done) if done else None
            raise
        return np.concatenate(parts)

    def _embed(self, texts: list[str], first: int) -> Vectors:
        """The vectors of one batch, which begins with text `first` of the call."""
        body = json.dumps({**self._request, "input": texts}).encode()
        try:
            made = self._service.ask(
                body, len(texts), lambda answer, kind: vectors_in(answer, kind, len(texts), self._dim)
            )
        except Refused as error:
            if error.status in SPLIT and len(texts) > 1:
                return self._halves(texts, first)
            raise self._failed(texts, first, f"refused: {error}{_hint(error.status)}") from None
        except Spent as error:
            raise self._failed(texts, first, f"gave no vectors in {error}") from None
        self._dim = int(made.shape[1])
        return made

    def _halves(self, texts: list[str], first: int) -> Vectors:
        """A batch that was refused, in two, down to the text that is why."""
        middle = len(texts) // 2
        made = self._embed(texts[:middle], first)
        try:
            return np.concatenate([made, self._embed(texts[middle:], first + middle)])
        except EncoderFailed as error:
            error.made = made if error.made is None else np.concatenate([made, error.made])
            raise

    def _failed(self, texts: list[str], first: int, how: str) -> EncoderFailed:
        last = first + len(texts) - 1
        which = f"texts[{first}]" if last == first else f"texts[{first}] to texts[{last}]"
        return EncoderFailed(
            f"encoder {self.name!r}: {self.address} {how}; asked for {which}. Vectors of the texts before "
            "are kept: the same call goes on there",
            first=first, last=last,
        )  # fmt: skip


def http(
    base_url: str,
    model: str,
    *,
    api_key: str | None = None,
    dim: int | None = None,
    metric: str = "cosine",
    dimensions: int | None = None,
    document_prefix: str = "",
    query_prefix: str = "",
    revision: str = "",
    batch_size: int = 64,
    batch_characters: int = 200_000,
    timeout_s: float = 60.0,
    max_retries: int = 6,
    requests_per_minute: float | None = None,
    texts_per_minute: float | None = None,
    encoding_format: str = "float",
    headers: Mapping[str, str] | None = None,
    card: Card = _UNKNOWN,
) -> HttpEncoder:
    """Make an encoder of an OpenAI-compatible service: POST `base_url`/embeddings for `model`.

    `dim`: of its vectors; left out, the service is asked once when it is needed. `dimensions` is sent, for
    models that can give fewer. Prefixes are put before texts. `revision`: change it when the model behind
    the name has changed; name, `dimensions`, prefixes and `revision` are the fingerprint. A request has at
    most `batch_size` texts of `batch_characters` in all, takes `timeout_s`, and is tried again `max_retries`
    times after 429, 5xx, time-outs, broken connections and bad answers, with waits of 0.5 to 30 s or what
    the service asks (at most 300 s). `requests_per_minute`, `texts_per_minute`: no faster than that.
    `headers` are sent besides. Making one asks nothing. InvalidArgument names an argument that cannot be;
    encoding raises EncoderFailed, which names the texts.

    >>> encoder = http("http://localhost:8080/v1", "bge-small", dim=384, api_key="a secret")
    >>> encoder, encoder.dim
    (HttpEncoder('http://localhost:8080/v1/embeddings', 'bge-small'), 384)
    """
    url, address = _address(base_url)
    for name, value, low, high in (
        ("dim", dim, 1, LARGEST_DIM), ("dimensions", dimensions, 1, LARGEST_DIM),
        ("batch_size", batch_size, 1, 100_000), ("batch_characters", batch_characters, 1, 1 << 30),
        ("max_retries", max_retries, 0, 100),
    ):  # fmt: skip
        open_ended = value is None and name in ("dim", "dimensions")
        fits = open_ended or (type(value) is int and low <= value <= high)
        _check(fits, f"{name}={value!r:.40}: give an int from {low} to {high}")
    for name, rate in (
        ("timeout_s", timeout_s), ("requests_per_minute", requests_per_minute),
        ("texts_per_minute", texts_per_minute),
    ):  # fmt: skip
        open_ended = rate is None and name != "timeout_s"
        fits = open_ended or (type(rate) in (int, float) and LEAST_RATE <= rate <= MOST_RATE)  # type: ignore[operator]
        _check(fits, f"{name}={rate!r:.40}: give a number from {LEAST_RATE} to {MOST_RATE:,}")
    for name, text in (
        ("document_prefix", document_prefix), ("query_prefix", query_prefix), ("revision", revision),
    ):  # fmt: skip
        _check(isinstance(text, str), f"{name} must be a str, not {type(text).__name__}")
    named = isinstance(model, str) and 1 <= len(model) <= 200
    _check(named, f"model={model!r:.60}: give a str of 1 to 200 characters")
    _check(dim is None or dimensions in (None, dim), f"dim={dim} and dimensions={dimensions} differ")
    _check(metric in METRICS, f"metric={metric!r:.40}: choose one of {', '.join(METRICS)}")
    known = encoding_format in FORMATS
    _check(known, f"encoding_format={encoding_format!r:.40}: choose one of {', '.join(FORMATS)}")
    _check(isinstance(card, Card), f"card must be a vecdb.encoders.Card, not {type(card).__name__}")
    limits = Limits(float(timeout_s), max_retries, requests_per_minute, texts_per_minute)
    request: dict[str, Any] = {"model": model, "encoding_format": encoding_format}
    if dimensions is not None:
        request["dimensions"] = dimensions
    facts = {
        "metric": metric, "card": card, "batch": (batch_size, batch_characters), "revision": revision,
        "prefixes": (document_prefix, query_prefix), "dim": dim if dimensions is None else dimensions,
    }  # fmt: skip
    return HttpEncoder(address, model, Service(url, limits, _headers(api_key, headers)), request, facts)


# --- behind it -------------------------------------------------------------------------------------


def _batches(texts: list[str], count: int, characters: int) -> Iterator[tuple[int, int]]:
    """(first, end) of batches within both limits; a text that is longer goes alone."""
    first, size = 0, 0
    for at, text in enumerate(texts):
        if at > first and (at - first == count or size + len(text) > characters):
            yield first, at
            first, size = at, 0
        size += len(text)
    yield first, len(texts)


def _address(base_url: Any) -> tuple[str, str]:
    """Where to post, and the same for people: without what may be secret in it."""
    _check(isinstance(base_url, str), f"base_url must be a str, not {type(base_url).__name__}")
    plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    _check(plain, "base_url holds a blank or a sign that no address has")
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    good = bool(host) and parts.scheme in ("http", "https")
    _check(good, "base_url must be like http://localhost:8080/v1 or https://host/v1")
    _check("@" not in parts.netloc, "base_url holds a user or password: give api_key= or headers=")
    path = parts.path.rstrip("/")
    path = path if path.endswith("/embeddings") else f"{path}/embeddings"
    url = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    return url, urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _headers(api_key: Any, more: Any) -> dict[str, str]:
    made = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key is not None:
        _check(_is_header(api_key), "api_key must be a str of printable ASCII, without line ends")
        made["Authorization"] = f"Bearer {api_key}"
    _check(more is None or isinstance(more, Mapping), f"headers must be a dict, not {type(more).__name__}")
    for name, value in (more or {}).items():
        named = _is_header(name) and name.replace("-", "").replace("_", "").isalnum()
        _check(named, f"headers: {name!r:.60} is no name of a header")
        _check(_is_header(value), f"headers: the value of {name!r} must be a str of printable ASCII")
        made[name] = value
    return made


def _is_header(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def _hint(status: int) -> str:
    if status in (401, 403):
        return " (give api_key=; it is neither pickled nor stored)"
    if status == 404:
        return " (base_url ends before /embeddings; does it serve this model?)"
    return ""


def _check(fits: bool, otherwise: str) -> None:
    if not fits:
        raise InvalidArgument(f"{WHO}: {otherwise}")
