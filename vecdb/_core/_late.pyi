"""MaxSim over 8-bit codes and over stored vectors; arrays are C-contiguous, rows int64, scores float64."""

from typing import Any, Final

METRICS: Final[tuple[str, ...]]
MAX_DIM: Final[int]

def stride(dim: int) -> int:
    """Bytes of a code."""

def isa() -> str:
    """What codes are compared with: "vnni", "avx2" or "plain"."""

def use(name: str) -> None:
    """Choose that, for tests; "": the best there is. ValueError for what this processor has not."""

def encode(x: Any, metric: str, codes: Any, scales: Any, squares: Any) -> None:
    """Codes of vectors float32 (n, dim) into `codes` uint8 (n, stride), `scales` float32 (n,) and, under
    l2, `squares` float32 (n,), which is empty elsewhere."""

class Query:
    """A query's vectors, packed once: float32 (m, dim), or packed bits uint8 (m, bytes) under hamming."""

    m: int
    dim: int
    def __init__(self, vectors: Any, metric: str) -> None: ...
    def by_codes(
        self, codes: Any, scales: Any, squares: Any, starts: Any, rows: Any, out: Any
    ) -> None:
        """Scores by codes of rows into `out`: sums of similarities; under l2 minus the sum of distances.

        Row i has the vectors starts[i] to starts[i + 1]; `rows`: which rows. A row without vectors has
        none to be the best: its score is not finite."""

    def exact(self, vectors: Any, starts: Any, rows: Any, out: Any) -> None:
        """The same by vectors float32 (t, dim); under hamming by packed bits, and sums of differing bits."""
