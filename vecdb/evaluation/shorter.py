"""How do vectors become fewer numbers, and the numbers fewer bytes?

A `Shorter` is one way: it maps vectors as they are to fewer dimensions and to a dtype that a field can
store, and queries to what such a field is searched by. Dimensions: the first ones (which some models are
trained for: Matryoshka representation learning, Kusupati et al., NeurIPS 2022), or those along which the
collection's own vectors vary most (principal components; Pearson, 1901).

Invariants:
  S1  what `documents` gives can be added to a field of `.dim`, `.dtype` and `.metric`, and a search there by
      `queries` ranks as `scores` does;
  S2  under cosine and dot components are taken about 0, so that products are kept; under l2 about the mean,
      which distances do not see;
  S3  int8 numbers are as large as they can be: each vector by itself under cosine, which sees no length, else
      all by one factor, which a query under l2 is multiplied by too.

Rejected: product quantisation. No field stores it, and this answers what can be had today.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

BITS: Final = {"f32": 32, "f16": 16, "i8": 8, "b1": 1}
DTYPES: Final = {"f32": np.float32, "f16": np.float16, "i8": np.int8, "b1": np.bool_}
WAYS: Final = ("as they are", "first dimensions", "principal components")


@dataclass(frozen=True, eq=False)
class Shorter:
    """A way to fewer bytes: `documents(vectors)` for `add`, `queries(vectors)` for `search`.

    `.dim` of `.dim_in` dimensions by `.way`, stored as `.dtype`, in a field of `.metric`; `.bytes` a vector.

    >>> import numpy as np
    >>> half = Shorter(4, 2, "first dimensions", "i8", "cosine")
    >>> half.documents(np.float32([[3, 4, 9, 9]])).tolist(), half.bytes
    ([[95, 127]], 2)
    """

    dim_in: int
    dim: int
    way: str
    dtype: str
    given_metric: str
    matrix: Any = None  # (dim_in, dim)
    mean: Any = None  # (dim_in,)
    factor: float = 1.0  # of int8 numbers
    middle: Any = None  # (dim,), what a bit says more or less than

    @property
    def metric(self) -> str:
        """The metric of a field that stores them."""
        return "hamming" if self.dtype == "b1" else self.given_metric

    @property
    def bytes(self) -> int:
        """Bytes of a stored vector."""
        return -(-self.dim * BITS[self.dtype] // 8)

    @property
    def name(self) -> str:
        """How it is called in a report."""
        way = dict(zip(WAYS, ("", "first ", "components "), strict=True))[self.way]
        return f"{way}{self.dim} {self.dtype}"

    def __repr__(self) -> str:
        return f"Shorter({self.name}, {self.bytes:,} bytes a vector, {self.metric})"

    def fewer(self, vectors: Any) -> Floats:
        """Vectors (n, dim_in) in fewer dimensions, float32 (n, dim); of length 1 under cosine."""
        rows = _finite(vectors)
        if rows.ndim != 2 or rows.shape[1] != self.dim_in:
            raise InvalidArgument(
                f"vectors has shape {rows.shape}; this takes (n, {self.dim_in}) or ({self.dim_in},)"
            )
        if self.given_metric == "cosine":
            rows = unit(rows)
        if self.mean is not None:
            rows = rows - self.mean
        found = rows[:, : self.dim] if self.matrix is None else rows @ self.matrix
        return np.ascontiguousarray(unit(found) if self.given_metric == "cosine" else found, np.float32)

    def documents(self, vectors: Any) -> npt.NDArray[Any]:
        """Vectors (n, dim_in), or one, as a field of `.dtype` takes them: (n, dim).

        InvalidArgument for another shape, NaN or infinity. Costs 2 · dim_in · dim operations a row.

        >>> import numpy as np
        >>> Shorter(2, 2, "as they are", "b1", "cosine").documents(np.float32([1, -1])).tolist()
        [True, False]
        """
        return self._one_or_many(vectors, self.coded)

    def queries(self, vectors: Any) -> npt.NDArray[Any]:
        """Vectors (n, dim_in), or one, as a search of that field takes them: float32, or bits.

        >>> import numpy as np
        >>> Shorter(2, 1, "first dimensions", "i8", "dot").queries(np.float32([0.5, 2])).tolist()
        [0.5]
        """
        return self._one_or_many(vectors, self.asked)

    def encoder(self, encoder: Any) -> Any:
        """Return an encoder that makes such vectors of what another makes, for `create_collection(encoder=)`.

        `encoder`: an object or a name. For "f32" and "f16": a field of ints or bits takes vectors, not texts.
        InvalidArgument.

        >>> import vecdb
        >>> base = vecdb.encoders.get("hashing")
        >>> Shorter(512, 64, "first dimensions", "f16", "cosine").encoder(base).name
        'hashing, first 64'
        """
        from vecdb import encoders

        if self.dtype not in ("f32", "f16"):
            raise InvalidArgument(
                f"an encoder makes floats, and this field stores {self.dtype!r}: give documents(...) and "
                "queries(...) to add and search"
            )
        encoder = encoders.get(encoder)
        if encoder.dim != self.dim_in:
            raise InvalidArgument(f"encoder {encoder.name!r} makes {encoder.dim} numbers, not {self.dim_in}")
        return encoders.function(
            lambda texts: self.fewer(encoder.encode_documents(texts)),
            queries=lambda texts: self.fewer(encoder.encode_queries(texts)),
            name=f"{encoder.name:.150}, {self.name.removesuffix(self.dtype).strip()}", dim=self.dim,
            metric=self.metric, fingerprint=self._fingerprint(encoder.fingerprint), card=encoder.card,
        )  # fmt: skip

    def coded(self, fewer: Floats) -> npt.NDArray[Any]:
        """Vectors in fewer dimensions as they are stored."""
        if self.dtype == "b1":
            return np.asarray(fewer > (0 if self.middle is None else self.middle))
        if self.dtype == "i8":
            factor: Any = self.factor
            if self.given_metric == "cosine":
                largest = np.abs(fewer).max(axis=1, keepdims=True)
                factor = 127 / np.where(largest > 0, largest, 1)
            scaled = np.rint(np.asarray(fewer, np.float64) * factor)
            whole: npt.NDArray[Any] = np.clip(scaled, -127, 127).astype(np.int8)
            return whole
        with np.errstate(over="ignore"):
            return np.asarray(fewer, DTYPES[self.dtype])

    def asked(self, fewer: Floats) -> npt.NDArray[Any]:
        """Query vectors in fewer dimensions as such a field is asked."""
        if self.dtype == "b1":
            return self.coded(fewer)
        if self.dtype == "i8" and self.given_metric == "l2":
            with np.errstate(over="ignore"):
                return np.asarray(np.asarray(fewer, np.float64) * self.factor, np.float32)
        return np.asarray(fewer, np.float32)

    def _one_or_many(self, vectors: Any, then: Any) -> npt.NDArray[Any]:
        rows = _finite(vectors)
        found: npt.NDArray[Any] = then(self.fewer(np.atleast_2d(rows)))
        return found[0] if rows.ndim == 1 else found

    def _fingerprint(self, base: str) -> str:
        import hashlib

        digest = hashlib.sha256(f"shorter 1, {base}, {self.way}, {self.dim}, {self.given_metric}".encode())
        for part in (self.matrix, self.mean):
            digest.update(b"" if part is None else np.ascontiguousarray(part, "<f4").tobytes())
        return digest.hexdigest()[:32]


def components(vectors: Floats, metric: str) -> tuple[Floats, Any]:
    """The directions (d, d) along which vectors vary, most first, and what is taken away before (S2)."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32) if metric == "l2" else None
    rows = vectors if mean is None else vectors - mean
    moments = np.zeros((rows.shape[1], rows.shape[1]))
    for at in range(0, len(rows), 8192):
        part = rows[at : at + 8192].astype(np.float64)
        moments += part.T @ part
    _, directions = np.linalg.eigh(moments)
    turned = directions[:, ::-1]
    signs = np.sign(turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])])
    return np.ascontiguousarray(turned * signs, np.float32), mean


def scores(shorter: Shorter, documents: npt.NDArray[Any], queries: npt.NDArray[Any]) -> Floats:
    """How near stored documents are to queries (b, n): more is nearer, as the field's search ranks them."""
    metric = shorter.metric
    some, asked = (np.asarray(each, np.float32) for each in (documents, queries))
    if metric == "hamming":
        return np.asarray((asked * 2 - 1) @ (some * 2 - 1).T, np.float32)
    if metric == "cosine":
        return np.asarray(unit(asked) @ unit(some).T, np.float32)
    products = asked @ some.T
    if metric == "dot":
        return np.asarray(products, np.float32)
    return np.asarray(2 * products - np.einsum("ij,ij->i", some, some), np.float32)


def _finite(vectors: Any) -> Floats:
    """Vectors as float32; InvalidArgument for what is none."""
    try:
        with np.errstate(over="ignore"):
            rows = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"vectors is no array of numbers: {error}") from None
    if not np.isfinite(rows).all():
        raise InvalidArgument("vectors holds NaN or infinity; every number must be finite")
    return rows


def unit(rows: Floats) -> Floats:
    """Rows of length 1; zero ones stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
