"""How does one map of a field's vectors become another's: what is an adapter, and what are its bytes?

    x  ->  scale * (x - mean) @ A        A a matrix (dim_in, dim), or the identity plus one of low rank

Under cosine x is first scaled to length 1, and the result is given length `scale`: a cosine sees
directions alone, and a mean that is taken away would otherwise mean something else for every length.
An adapter is applied to documents and queries alike.

The bytes, little-endian: the header, the description (JSON), the mean (where there is one), the matrix or
its two factors as float32, the report (JSON), and a digest of all before. The fingerprint is that of the
part that decides what comes out: two adapters with one fingerprint map alike, whatever they report.

Invariants (checked by tests/unit/test_adapter.py):
  A1  a row's image does not depend on the rows beside it: each row is a product of its own, of one row by
      a panel of the matrix that fits the processor's cache;
  A2  from_bytes(to_bytes()) has the same bytes, fingerprint and images, and damaged bytes are Corrupt;
  A3  images are finite; under cosine an input that is not zero has an image that is not: where (x - mean) @ A
      vanishes, within rounding, the image is the first axis.

Rejected: one product of all rows, or of blocks of 16. BLAS takes other instructions for a row by its place
and by the number of rows, and a query's image would differ in the last bit from that of the same vector as
a document. Row by row costs up to twice the time (4,096 rows at 384 dimensions: 19 ms).
"""

from __future__ import annotations

import json
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.adapting.report import AdapterReport
from vecdb.errors import Corrupt, InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

VERSION: Final = 1
METRICS: Final = ("cosine", "l2", "dot")
DTYPES: Final = ("f32", "f16", "i8")
MAX_DIM: Final = 65_536

_MAGIC: Final = b"vecdbada"
_HEADER: Final = Struct("<8sHHIIIfII")  # magic version flags dim_in dim rank scale description report
_LOW_RANK, _MEAN = 1, 2  # flags
_DIGEST: Final = 16  # bytes
_CHUNK: Final = 4096  # rows that are normalised at once
_PANEL: Final = 1 << 17  # numbers of a matrix that are multiplied at once: half a MB
_VANISHES: Final = 1e-6  # of the size that an image has on average


class Adapter:
    """A linear map of a field's vectors: `adapter(vectors)` gives float32 (n, dim).

    `.dim_in`, `.dim`; `.metric` of the field, `.dtype` of its vectors; `.fingerprint`, a hex digest of what
    the map is; `.encoder_fingerprint` of the encoder whose vectors it learned on, None for plain vectors;
    `.collection`, `.using`: the names of what it learned on; `.report`: what it gained on held-out data;
    `.helps`: whether that is surely a gain. Costs 2 * dim_in * dim operations a row: some 10 µs at 384.

    >>> import numpy as np
    >>> swap = Adapter([[0, 1], [1, 0]], metric="cosine")
    >>> swap([[3, 4]]).round(1)
    array([[0.8, 0.6]], dtype=float32)
    >>> Adapter.from_bytes(swap.to_bytes()) == swap
    True
    """

    __slots__ = (
        "_description", "_factors", "_mean", "_panels", "_scale", "_size", "collection", "dim", "dim_in",
        "dtype", "encoder_fingerprint", "fingerprint", "metric", "report", "using",
    )  # fmt: skip

    def __init__(
        self,
        matrix: Any,
        *,
        metric: str,
        low_rank: Any = None,
        mean: Any = None,
        scale: float = 1.0,
        dtype: str = "f32",
        encoder_fingerprint: str | None = None,
        collection: str | None = None,
        using: str | None = None,
        report: AdapterReport | None = None,
    ) -> None:
        """`matrix` (dim_in, dim); or `matrix=None` and `low_rank=(U, V)`, U (d, r), V (r, d): I + U @ V.

        `mean` (dim_in,) is taken away first. Raises InvalidArgument for shapes that do not fit, numbers
        that are not finite, and an unknown metric or dtype.
        """
        if metric not in METRICS:
            _refuse(f"metric={metric!r:.40}: an adapter is of one of {', '.join(map(repr, METRICS))}")
        if dtype not in DTYPES:
            _refuse(f"dtype={dtype!r:.40}: an adapter's field is of one of {', '.join(map(repr, DTYPES))}")
        if (matrix is None) == (low_rank is None):
            _refuse("give matrix= or low_rank=(U, V), one of the two")
        self._factors: tuple[Floats, ...]
        if matrix is not None:
            self._factors = (_array("matrix", matrix, 2),)
        elif isinstance(low_rank, tuple | list) and len(low_rank) == 2:
            self._factors = (_array("U", low_rank[0], 2), _array("V", low_rank[1], 2))
        else:
            _refuse(f"low_rank is a {type(low_rank).__name__}; give (U, V)")
        self.dim_in, self.dim = self._factors[0].shape[0], self._factors[-1].shape[1]
        if not (0 < self.dim_in <= MAX_DIM and 0 < self.dim <= MAX_DIM):
            _refuse(f"an adapter from {self.dim_in} to {self.dim} dimensions: 1 to {MAX_DIM:,} it can have")
        ranks = {self._factors[0].shape[1], self._factors[-1].shape[0]}
        if matrix is None and (len(ranks) > 1 or ranks == {0} or self.dim != self.dim_in):
            shapes = " and ".join(str(each.shape) for each in self._factors)
            _refuse(f"low_rank has shapes {shapes}; give (d, r) and (r, d)")
        self._mean = None if mean is None else _array("mean", mean, 1)
        if self._mean is not None and len(self._mean) != self.dim_in:
            _refuse(f"mean has {len(self._mean)} numbers; the matrix takes {self.dim_in}")
        self._scale = _scale_of(scale)
        self._panels = [_panels(each) for each in self._factors]
        self._size = _size_of(self._factors)
        for name, said in (
            ("encoder_fingerprint", encoder_fingerprint), ("collection", collection), ("using", using),
        ):  # fmt: skip
            if said is not None and not isinstance(said, str):
                _refuse(f"{name} is a {type(said).__name__}; give a str, or None")
        self.metric, self.dtype = metric, dtype
        self.encoder_fingerprint, self.collection, self.using = encoder_fingerprint, collection, using
        self.report = report
        self._description = _json(
            {
                "metric": metric, "dtype": dtype, "encoder_fingerprint": encoder_fingerprint,
                "collection": collection, "using": using,
            }
        )  # fmt: skip
        self.fingerprint = self._digest_of_map()

    @property
    def helps(self) -> bool:
        """Whether the gain on held-out data is surely one: its interval lies above 0."""
        return self.report is not None and self.report.helps

    def __call__(self, vectors: Any) -> Floats:
        """Map vectors (n, dim_in), or one (dim_in,): float32 (n, dim), or (dim,).

        Raises InvalidArgument naming the first row that is not finite or, under cosine, zero, and one whose
        image overflows float32.

        >>> Adapter([[2.0]], metric="l2")([1.5]).tolist()
        [3.0]
        """
        given = _given(vectors, self.dim_in)
        rows = np.ascontiguousarray(given.reshape(-1, self.dim_in), np.float32)
        found = np.empty((len(rows), self.dim), np.float32)
        for at in range(0, len(rows), _CHUNK):
            found[at : at + _CHUNK] = self._images(rows[at : at + _CHUNK], at)
        return found if given.ndim == 2 else found[0]

    def _images(self, rows: Floats, first: int) -> Floats:
        """Images of rows that begin with number `first`."""
        if not np.isfinite(rows).all():
            at = first + int(np.argmin(np.isfinite(rows).all(axis=1)))
            _refuse(f"vectors: row {at}: NaN, infinity, or too large for float32; make every number finite")
        if self.metric == "cosine":
            lengths = _lengths(rows)
            if not lengths.all():
                at = first + int(np.argmin(lengths > 0))
                _refuse(f"vectors: row {at}: a zero vector has no direction under cosine; leave it out")
            rows = np.asarray(rows / lengths[:, None], np.float32)
        if self._mean is not None:
            rows = rows - self._mean
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._product(rows)
            if self.metric == "cosine":
                return self._directed(found)
            found *= self._scale
        if not np.isfinite(found).all():
            at = first + int(np.argmin(np.isfinite(found).all(axis=1)))
            _refuse(f"vectors: row {at}: its image overflows float32; scale the vectors down")
        return found

    def _product(self, rows: Floats) -> Floats:
        """rows @ A, row by row (A1)."""
        if len(self._panels) == 1:
            return _product(rows, self._panels[0])
        inner = _product(rows, self._panels[0])
        return _product(inner, self._panels[1]) + rows

    def _directed(self, found: Floats) -> Floats:
        """Images under cosine, each of length `scale` (A3)."""
        lengths = _lengths(found)
        lost = ~(lengths > _VANISHES * self._size) | ~np.isfinite(lengths)
        lengths[lost] = 1
        directed = np.asarray(found / (lengths / self._scale)[:, None], np.float32)
        directed[lost] = 0
        directed[lost, 0] = self._scale
        return directed

    # --- bytes ---------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The adapter with its report as bytes: 4 * dim_in * dim and some; of low rank less.

        >>> len(Adapter([[1.0]], metric="dot").to_bytes()) < 300
        True
        """
        report = b"" if self.report is None else _json(self.report.to_stored())
        whole = self._head(len(report)) + self._description + self._numbers() + report
        return whole + blake2b(whole, digest_size=_DIGEST).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Adapter:
        """The adapter in bytes that `to_bytes` made.

        Raises Corrupt for damaged bytes, InvalidArgument for what is no adapter or of a later version.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            _refuse(f"from_bytes takes bytes, not {type(data).__name__}")
        data = bytes(data)
        if data[: len(_MAGIC)] != _MAGIC:
            _refuse("from_bytes: these bytes are no adapter; give what to_bytes() returned")
        if len(data) < _HEADER.size + _DIGEST:
            _damaged(f"{len(data)} bytes are too few")
        whole, digest = data[:-_DIGEST], data[-_DIGEST:]
        if blake2b(whole, digest_size=_DIGEST).digest() != digest:
            _damaged("their digest does not fit")
        version = _HEADER.unpack_from(whole)[1]
        if version != VERSION:
            _refuse(f"the adapter has version {version}; this vecdb reads version {VERSION}")
        return cls._read(whole)

    @classmethod
    def _read(cls, whole: bytes) -> Adapter:
        """What lies in bytes whose digest fits."""
        _, _, flags, dim_in, dim, rank, scale, description, report = _HEADER.unpack_from(whole)
        shapes: list[tuple[int, ...]] = [(dim_in,)] if flags & _MEAN else []
        shapes += [(dim_in, rank), (rank, dim)] if flags & _LOW_RANK else [(dim_in, dim)]
        at = _HEADER.size + description
        size = sum(4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes)
        if len(whole) != at + size + report:
            _damaged("their length does not fit their header")
        arrays = []
        for shape in shapes:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(whole, "<f4", count, at).reshape(shape).astype(np.float32))
            at += 4 * count
        mean = arrays.pop(0) if flags & _MEAN else None
        try:
            said = json.loads(whole[_HEADER.size : _HEADER.size + description])
            told = AdapterReport.from_stored(json.loads(whole[at:])) if report else None
            return cls(
                None if flags & _LOW_RANK else arrays[0], low_rank=arrays if flags & _LOW_RANK else None,
                mean=mean, scale=scale, report=told, **said,
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _damaged(str(error))

    def _head(self, report: int) -> bytes:
        flags = (_LOW_RANK if len(self._factors) == 2 else 0) | (0 if self._mean is None else _MEAN)
        rank = self._factors[0].shape[1] if len(self._factors) == 2 else 0
        return _HEADER.pack(
            _MAGIC, VERSION, flags, self.dim_in, self.dim, rank, self._scale, len(self._description), report
        )

    def _numbers(self) -> bytes:
        mean = [] if self._mean is None else [self._mean]
        return b"".join(each.astype("<f4").tobytes() for each in (*mean, *self._factors))

    def _digest_of_map(self) -> str:
        """The fingerprint: of the metric, the dtype and the numbers, and of nothing that is only said."""
        digest = blake2b(_json({"metric": self.metric, "dtype": self.dtype}), digest_size=_DIGEST)
        digest.update(self._head(0)[: _HEADER.size - 8])  # up to the two lengths
        digest.update(self._numbers())
        return digest.hexdigest()

    # --- a value -------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        rank = f", rank {self._factors[0].shape[1]}" if len(self._factors) == 2 else ""
        learned = "" if self.collection is None else f" for {self.collection!r}"
        told = "" if self.report is None else f": {self.report.verdict}"
        shape = f"{self.dim_in} -> {self.dim}{rank}, {self.metric}"
        return f"Adapter{learned} ({shape}, {self.fingerprint[:8]}){told}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and other.to_bytes() == self.to_bytes()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return Adapter.from_bytes, (self.to_bytes(),)


def _array(name: str, values: Any, axes: int) -> Floats:
    """A finite float32 copy."""
    try:
        with np.errstate(over="ignore"):
            found = np.array(values, np.float32, order="C")
    except Exception as error:  # an object may raise what it likes when asked to be an array
        _refuse(f"{name} is not an array of real numbers: {error!s:.200}")
    if found.ndim != axes:
        _refuse(f"{name} has shape {found.shape}; it has {axes} axes")
    if not np.isfinite(found).all():
        _refuse(f"{name}: NaN, infinity, or too large for float32; every number must be finite")
    return found


def _scale_of(scale: Any) -> np.float32:
    try:
        with np.errstate(over="ignore"):
            found = np.float32(scale)
    except (TypeError, ValueError, OverflowError):
        found = np.float32("nan")
    if not (np.ndim(found) == 0 and np.isfinite(found) and found > 0):
        _refuse(f"scale={scale!r:.40}: give a finite number above 0")
    return found


def _given(vectors: Any, dim: int) -> npt.NDArray[Any]:
    """Vectors (n, dim) or one (dim,), of real numbers."""
    try:
        found = np.asarray(vectors)
    except Exception as error:  # an object may raise what it likes when asked to be an array
        _refuse(f"vectors is not an array of real numbers: {error!s:.200}")
    if found.size and found.dtype.kind not in "fiu":
        _refuse(f"vectors has dtype {found.dtype}; give real numbers (float, int)")
    if not found.size:
        found = np.empty((0, dim), np.float32)
    if found.ndim not in (1, 2) or found.shape[-1] != dim:
        _refuse(f"vectors has shape {found.shape}; this adapter takes (n, {dim}) or ({dim},)")
    with np.errstate(over="ignore"):
        return np.asarray(found, np.float32)


def _lengths(rows: Floats) -> npt.NDArray[np.float64]:
    """|x| of every row, summed alike wherever the row stands."""
    squares: npt.NDArray[np.float64] = np.square(rows, dtype=np.float64).sum(axis=1)
    return np.sqrt(squares)


def _panels(matrix: Floats) -> list[Floats]:
    """A matrix in groups of columns, each contiguous."""
    width = max(16, _PANEL // len(matrix) // 16 * 16)
    return [np.ascontiguousarray(matrix[:, at : at + width]) for at in range(0, matrix.shape[1], width)]


def _product(rows: Floats, panels: list[Floats]) -> Floats:
    """rows @ matrix, one row at a time."""
    apart = rows[:, None, :]
    return np.concatenate([(apart @ panel)[:, 0] for panel in panels], axis=1)


def _size_of(factors: tuple[Floats, ...]) -> float:
    """How long the image of a random direction is, on average."""
    if len(factors) == 2:
        return 1.0
    matrix = factors[0]
    squares = float(np.square(matrix, dtype=np.float64).sum())
    return float(np.sqrt(squares / matrix.shape[0]))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _damaged(detail: str) -> NoReturn:
    raise Corrupt(
        f"the bytes of an adapter are damaged: {detail:.200}; fit it again", code="A2",
        where="adapter", detail=detail,
    )  # fmt: skip


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
