"""The arithmetic of a transformer's layer that is not a matrix product of numpy's BLAS.

    gelu(x), gelu_tanh(x), relu(x)       activations, in place
    add_norm(x, added, bias, norm)       layer norm of x + added + bias, in place
    attend(qkv, out, heads, ...)         softmax(Q Kᵀ) V of sequences of one length

Each works through its array in pieces that stay in a core's cache: numpy makes a pass over memory for
every operation, and from there a pass costs a fifth.

Invariants (checked by tests/unit/test_bert.py):
  1. `gelu` is within 4e-6 of x Φ(x) everywhere (0 where that underflows).
  2. Nothing here looks from one sequence at another: there is no padding and no mask.

Rejected: erf by a formula of its own (Abramowitz and Stegun 7.1.26 takes a third more passes for the
same error), a mask (padding costs the work that sorting by length saves), the maximum of every row of
scores (a fifth of the attention's time; it is only needed where scores are large), and products of
attention larger than `ALONE`: two threads have to meet at the end of each, and where other processes
keep the processors busy each waits for its turn (forty times the time, measured).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors

__all__ = ["ACTIVATIONS", "Norm", "Scratch", "add_norm", "attend", "gelu", "gelu_tanh", "relu"]

PIECE = 1 << 16  # float32 numbers that are worked on at once: 256 KB
ALONE = 1 << 18  # multiplications of a matrix product that OpenBLAS still does on one thread
SAFE = 60.0  # scores within ±60 need no shift: e^60 a thousand times is far below float32's end

# Φ(x) = 1 / (1 + exp(x Q(x²))). Q is the polynomial of degree 4 that makes the largest error of x Φ(x)
# least on |x| < 6 (weighted minimax, by Lawson's iteration); beyond, the exponential is 0 or infinite.
_Q = [np.float32(each) for each in (
    -1.5956551533510846, -0.07293986128666725, 2.5095224685597157e-4, 6.093442808675653e-05,
    -2.225265257828047e-06,
)]  # fmt: skip
_TANH = (np.float32(-2 * 0.7978845608028654), np.float32(-2 * 0.7978845608028654 * 0.044715))


class Norm(NamedTuple):
    """What a layer norm multiplies by and adds, (d,) each, and its epsilon."""

    scale: Vectors
    shift: Vectors
    epsilon: float


class Scratch:
    """Memory that the pieces of one call share, so that no pass has to ask for new pages."""

    def __init__(self) -> None:
        self._kept: dict[str, Vectors] = {}

    def take(self, name: str, *shape: int) -> Vectors:
        """An array of a shape with anything in it; valid until the name is taken again."""
        size = 1
        for each in shape:
            size *= each
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, dtype=np.float32)
        return kept[:size].reshape(shape)


@np.errstate(over="ignore")  # x / infinity is 0, as it should be
def gelu(x: Vectors, bias: Vectors, scratch: Scratch) -> None:
    """x becomes (x + bias) Φ(x + bias), Φ the normal distribution (Hendrycks and Gimpel, 2016)."""
    for piece in _pieces(x):
        u, q = (scratch.take(name, *piece.shape) for name in ("u", "q"))
        np.add(piece, bias, out=piece)
        np.multiply(piece, piece, out=u)
        np.multiply(u, _Q[4], out=q)
        np.add(q, _Q[3], out=q)
        for coefficient in (_Q[2], _Q[1], _Q[0]):
            np.multiply(q, u, out=q)
            np.add(q, coefficient, out=q)
        _gate(piece, q)


@np.errstate(over="ignore")
def gelu_tanh(x: Vectors, bias: Vectors, scratch: Scratch) -> None:
    """The same by the approximation 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    for piece in _pieces(x):
        q = scratch.take("q", *piece.shape)
        np.add(piece, bias, out=piece)
        np.multiply(piece, piece, out=q)
        np.multiply(q, _TANH[1], out=q)
        np.add(q, _TANH[0], out=q)
        _gate(piece, q)


def _gate(x: Vectors, q: Vectors) -> None:
    """x becomes x / (1 + exp(x q)); q is used up."""
    np.multiply(q, x, out=q)
    np.exp(q, out=q)
    np.add(q, np.float32(1), out=q)
    np.divide(x, q, out=x)


def relu(x: Vectors, bias: Vectors, scratch: Scratch) -> None:
    """x becomes the larger of x + bias and 0."""
    for piece in _pieces(x):
        np.add(piece, bias, out=piece)
        np.maximum(piece, np.float32(0), out=piece)


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
}


def add_norm(x: Vectors, added: Vectors | None, bias: Vectors | None, norm: Norm) -> None:
    """Each row of x becomes the layer norm of x + added + bias (Ba et al., 2016)."""
    width = np.float32(x.shape[1])
    rows = max(1, PIECE // x.shape[1])
    for first in range(0, len(x), rows):
        piece = x[first : first + rows]
        if added is not None:
            np.add(piece, added[first : first + rows], out=piece)
        if bias is not None:
            np.add(piece, bias, out=piece)
        mean = piece.sum(axis=1, keepdims=True)
        np.divide(mean, width, out=mean)
        np.subtract(piece, mean, out=piece)
        spread = np.einsum("ij,ij->i", piece, piece)[:, None]
        np.divide(spread, width, out=spread)
        np.add(spread, np.float32(norm.epsilon), out=spread)
        np.sqrt(spread, out=spread)
        np.divide(piece, spread, out=piece)
        np.multiply(piece, norm.scale, out=piece)
        np.add(piece, norm.shift, out=piece)


def attend(qkv: Vectors, out: Vectors, bias: Vectors | None, scratch: Scratch) -> None:
    """Write softmax(Q Kᵀ + bias) V of n sequences of length m.

    qkv (n, m, 3, heads, size), Q scaled already; out (n, m, heads, size); bias (heads, m, m).
    """
    n, m, _, heads, size = qkv.shape
    some = max(1, min(m, ALONE // (m * size)))  # queries of a sequence at once
    texts = max(1, PIECE // (heads * some * m))
    ones = np.ones((m, 1), dtype=np.float32)
    for first in range(0, n, texts):
        part = qkv[first : first + texts]
        queries, keys, values = (part[:, :, each].transpose(0, 2, 1, 3) for each in range(3))
        to = out[first : first + texts].transpose(0, 2, 1, 3)
        for begin in range(0, m, some):
            asked = queries[:, :, begin : begin + some]
            scores = scratch.take("u", *asked.shape[:3], m)
            np.matmul(asked, keys.transpose(0, 1, 3, 2), out=scores)
            if bias is not None:
                np.add(scores, bias[:, begin : begin + some], out=scores)
            _exponentials(scores)
            total = np.matmul(scores, ones)
            mixed = np.matmul(scores, values, out=scratch.take("q", *asked.shape))
            np.divide(mixed, total, out=to[:, :, begin : begin + some])


def _exponentials(scores: Vectors) -> None:
    """Scores become their exponentials, up to one factor a row."""
    if not (scores.max() < SAFE and scores.min() > -SAFE):
        np.subtract(scores, scores.max(axis=-1, keepdims=True), out=scores)
    np.exp(scores, out=scores)


def _pieces(x: Vectors) -> list[NDArray[np.float32]]:
    rows = max(1, PIECE // x.shape[1])
    return [x[first : first + rows] for first in range(0, len(x), rows)]
