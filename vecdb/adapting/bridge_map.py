"""A query of the new model in the old model's space: what is a bridge, and what are its bytes?

    q  ->  q @ M + offset          under cosine and dot without the offset, and scaled to length 1, or to |q|

`bridge.py` says how one is learned and why. Beside the map lie two lines: what a score by the old graph would
be in the new space, for images of the new model's queries alone, and for those with the old model's beside.

The bytes, little-endian: the header, the description (JSON), the matrix and the offset as float32, a digest.

Invariants (checked by tests/unit/test_bridge.py):
  B1  images are finite and under cosine of length 1; `expected` grows with the score;
  B2  from_bytes(to_bytes()) has the same bytes and images, and damaged bytes are a ValueError.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]
    Line = tuple[float, float]  # slope and offset

__all__ = ["KINDS", "METRICS", "Bridge", "Loss", "directed", "images", "refuse", "rows_of"]

VERSION: Final = 1
METRICS: Final = ("cosine", "l2", "dot")
KINDS: Final = ("procrustes", "ridge", "low-rank")

OLD_WEIGHT: Final = 1.5  # of the old model's query against the bridged one; bridge.py says why

_MAGIC: Final = b"vecdbbri"
_HEADER: Final = Struct("<8sHIII")  # magic version dim_in dim description
_DIGEST: Final = 16  # bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """What a bridge loses, on texts that it did not learn from: agreement of models, not judged quality.

    Among few texts a bridge alone looks better than in a large collection, where finer differences count: a
    map from 1,000 texts found 44 % among 332, where the old model found 38 %, and 32 % among 62,666, where
    the old model found 46 % and both together 48 %.

    `recall`: which share of the new model's `k` nearest among `among` rows the bridge finds; `recall_mixed`:
    with the old model's query beside; `recall_old`: the old model alone (both None where queries were given
    without the old model's). `finds_itself`: mean reciprocal rank of a text's own old vector for its image.
    `correlation`, `correlation_mixed`: of scores in the old space with those in the new. `rows` were learned
    from, `queries` asked (0: the rows themselves).
    """

    rows: int
    queries: int
    k: int
    among: int
    recall: float
    recall_mixed: float | None
    recall_old: float | None
    finds_itself: float
    correlation: float
    correlation_mixed: float

    def __str__(self) -> str:
        alone = f"of the new model's nearest {self.k} among {self.among:,} texts it finds {self.recall:.0%}"
        if self.recall_mixed is None or self.recall_old is None:
            return alone
        beside = f"with the old model's query beside {self.recall_mixed:.0%}"
        return f"{alone}, {beside}; the old model alone {self.recall_old:.0%}"


class Bridge:
    """A map of the new model's queries into the old model's space: `bridge(queries)` is float32 (n, dim).

    `.dim_in` of the new model, `.dim` of the old, `.kind`, `.metric`, `.loss`, `.fingerprint` (hex digest of
    what the map and its calibration are). Made by `learn`; costs 2 * dim_in * dim operations a query.

    >>> import numpy as np
    >>> from vecdb.adapting.bridge import learn
    >>> texts = np.random.default_rng(0).normal(size=(100, 6))
    >>> bridge = learn(texts, texts[:, ::-1])
    >>> bridge([[1, 0, 0, 0, 0, 0]]).round(1).tolist()[0][-1]
    1.0
    """

    __slots__ = (
        "_line", "_matrix", "_mixed", "_offset", "dim", "dim_in", "fingerprint", "kind", "loss", "metric",
    )  # fmt: skip

    def __init__(
        self, matrix: Any, offset: Any, *, metric: str, kind: str, line: Line, mixed: Line, loss: Loss
    ) -> None:
        """`matrix` (dim_in, dim) and `offset` (dim,); `line`, `mixed`: slope and offset of `expected`."""
        self._matrix, self._offset = np.array(matrix, "<f4", order="C"), np.array(offset, "<f4")
        numbers = np.array([*line, *mixed], np.float64)
        fits = self._matrix.ndim == 2 and self._offset.shape == self._matrix.shape[1:] and len(numbers) == 4
        finite = all(bool(np.isfinite(each).all()) for each in (self._matrix, self._offset, numbers))
        if not (fits and finite and self._matrix.size and numbers[0] > 0 and numbers[2] > 0):
            refuse("a bridge is a finite matrix (dim_in, dim), an offset (dim,), and lines that rise")
        if metric not in METRICS or kind not in KINDS:
            refuse(f"metric={metric!r:.40}, kind={kind!r:.40}: give one of {METRICS} and one of {KINDS}")
        self.dim_in, self.dim = self._matrix.shape
        self.metric, self.kind, self.loss = metric, kind, loss
        self._line, self._mixed = (float(line[0]), float(line[1])), (float(mixed[0]), float(mixed[1]))
        told = json.dumps([metric, kind, self._line, self._mixed, self._matrix.shape]).encode()
        self.fingerprint = blake2b(told + self._numbers(), digest_size=_DIGEST).hexdigest()

    def __call__(self, queries: Any, old: Any = None) -> Floats:
        """Images (n, dim) of queries (n, dim_in) of the new model, or (dim,) of one (dim_in,).

        `old` (n, dim): the same queries by the old model, where it can still be asked; the image is then the
        mean of both directions (under l2 of both places), the old one with OLD_WEIGHT. Raises InvalidArgument
        for a wrong shape and for what is not finite or, under cosine, zero, naming the row.
        """
        one = np.ndim(queries) == 1
        given = rows_of("queries", [queries] if one else queries, self.metric, self.dim_in)
        beside = None
        if old is not None:
            beside = rows_of("old", [old] if one else old, self.metric, self.dim)
            if len(beside) != len(given):
                refuse(f"old has {len(beside):,} rows, queries {len(given):,}; give the same texts by both")
        found = images(given, self._matrix.astype(np.float64), self._offset, self.metric, beside)
        with np.errstate(over="ignore"):
            mapped = found.astype(np.float32)
        if not np.isfinite(mapped).all():
            row = int(np.argmin(np.isfinite(mapped).all(axis=1)))
            refuse(f"queries: row {row}: its image overflows float32; scale the vectors down")
        return mapped[0] if one else mapped

    def expected(self, scores: Any, *, mixed: bool = False) -> Floats:
        """Scores that rows would have in the new space, given those by the old graph: float32, same shape.

        `mixed`: of images that had `old` beside. Scores are as in `hits.scores`: under l2 1 / (1 + distance).
        An estimate may lie beyond what a metric allows (a cosine of 1.02): the order is kept.
        """
        slope, offset = self._mixed if mixed else self._line
        values = np.asarray(scores, np.float64)
        if self.metric != "l2":
            return np.asarray(offset + slope * values, np.float32)
        distances = offset + slope * (1 / np.maximum(values, np.finfo(np.float32).tiny) - 1)
        below = distances < 0  # 1 - d goes on there as 1 / (1 + d) ends, so the order is kept
        return np.asarray(np.where(below, 1 - distances, 1 / (1 + np.where(below, 0, distances))), np.float32)

    def to_bytes(self) -> bytes:
        """The bridge with its loss: 4 * dim_in * dim bytes and some."""
        told = {"metric": self.metric, "kind": self.kind, "line": self._line, "mixed": self._mixed}
        description = json.dumps(told | {"loss": asdict(self.loss)}, sort_keys=True).encode()
        head = _HEADER.pack(_MAGIC, VERSION, self.dim_in, self.dim, len(description))
        whole = head + description + self._numbers()
        return whole + blake2b(whole, digest_size=_DIGEST).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Bridge:
        """The bridge in bytes that `to_bytes` made; InvalidArgument (a ValueError) for any others."""
        if not isinstance(data, bytes | bytearray | memoryview):
            refuse(f"from_bytes takes bytes, not {type(data).__name__}")
        whole, digest = bytes(data)[:-_DIGEST], bytes(data)[-_DIGEST:]
        if len(whole) < _HEADER.size or blake2b(whole, digest_size=_DIGEST).digest() != digest:
            refuse("the bytes of a bridge are damaged: their digest does not fit; learn it again")
        magic, version, dim_in, dim, size = _HEADER.unpack_from(whole)
        if magic != _MAGIC or version != VERSION:
            refuse(f"these bytes are no bridge of version {VERSION}; learn it again")
        at = _HEADER.size + size
        if len(whole) != at + 4 * dim * (dim_in + 1):
            refuse("the bytes of a bridge are damaged: their length does not fit; learn it again")
        try:
            told = json.loads(whole[_HEADER.size : at])
            numbers = np.frombuffer(whole, "<f4", offset=at).reshape(dim_in + 1, dim)
            loss = Loss(**told.pop("loss"))
            return cls(numbers[:-1], numbers[-1], loss=loss, **told)
        except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
            refuse(f"the bytes of a bridge are damaged: {error!s:.200}; learn it again")

    def _numbers(self) -> bytes:
        return self._matrix.tobytes() + self._offset.tobytes()

    def __repr__(self) -> str:
        shape = f"{self.dim_in} -> {self.dim}, {self.kind}, {self.metric}"
        return f"Bridge({shape}, {self.fingerprint[:8]}): {self.loss}"


def images(q: Doubles, matrix: Doubles, offset: Any, metric: str, old: Doubles | None = None) -> Doubles:
    """Where queries lie in the old space."""
    found: Doubles = q @ matrix + offset
    if metric == "l2":
        return found if old is None else (found + OLD_WEIGHT * old) / (1 + OLD_WEIGHT)
    found = directed(found)
    if old is not None:
        found = directed(found + OLD_WEIGHT * directed(old))
    return found if metric == "cosine" else found * np.linalg.norm(q, axis=1, keepdims=True)


def directed(rows: Any) -> Any:
    """Rows (n, dim) of length 1, of the same dtype; what has no direction gets the first axis's."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    lost = ~(lengths[:, 0] > 0)
    found = rows / np.where(lost[:, None], 1, lengths)
    found[lost] = np.eye(1, rows.shape[1])
    return found


def rows_of(name: str, given: Any, metric: str, dim: int | None = None) -> Doubles:
    """Finite rows (n, dim) as float64, under cosine of length 1; InvalidArgument names the first bad row."""
    try:
        found = np.asarray(given)
        if found.dtype.kind not in "fiu":
            refuse(f"{name} has dtype {found.dtype}; give real numbers (float, int)")
        found = found.astype(np.float64)
    except (TypeError, ValueError) as error:
        refuse(f"{name} is not an array of real numbers: {error!s:.200}")
    if found.ndim != 2 or found.shape[1] != (dim or found.shape[1]) or not found.shape[1]:
        refuse(f"{name} has shape {found.shape}; give (n, {dim or 'dim'})")
    sound = np.isfinite(found) & (np.abs(found) <= np.finfo(np.float32).max)
    if not sound.all():
        row = int(np.argmin(sound.all(axis=1)))
        refuse(f"{name}: row {row}: NaN, infinity, or too large for float32; every number must be finite")
    if metric == "cosine" and not found.any(axis=1).all():
        row = int(np.argmin(found.any(axis=1)))
        refuse(f"{name}: row {row}: a zero vector has no direction under metric='cosine'; leave it out")
    return directed(found) if metric == "cosine" else found


def refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
