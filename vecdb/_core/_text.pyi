"""Full text and sparse vectors in memory: analysis, segments, merges, search. No storage, no files.

Words used below

- *rid*: uint32 number of a row's version; rids from 2**31 on (`rows.PLAIN`) are rows without a slot.
- *segment*: immutable postings of some rows. *doc*: a row's place in its segment, in rid order.
- *column*: number of a text or sparse column, in the order given to `SegmentBuilder`.
- *term*: UTF-8 bytes, 1 to 255 of them; for sparse columns what `token` makes of a str or int.
- *dead*: one mask a segment: byte string, bit `d & 7` of byte `d >> 3` says that doc d is dead, that
  is that the row was touched later; None or a short mask: the rest is alive. `Segment.bury` makes it.
- *load*: `load(segment, chunks) -> list of bytes-like`, called with the lock held, once a segment
  and call, with the segment's place in the list that View or Merge was given and chunk numbers in
  ascending order. Chunks need to stay readable only until the call that asked returns (a memoryview
  of a map is fine). Never called for segments that hold their chunks (`holds_chunks`); None will do
  where all do. The caller frames chunks and headers with checksums; decoding is bounds-checked
  all the same: garbage raises ValueError, never crashes.
- arrays come as bytes in native order (`numpy.frombuffer(x, "uint32")`) and go in as any C-contiguous
  buffer of that type (numpy array, bytes, array.array).

All classes may be used by several threads at once (SegmentBuilder and Merge: one at a time). Bulk
work leaves the interpreter's lock. MemoryError where memory runs out; nothing is changed then.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

UNICODE_VERSION: Final[str]  # of the tables
ANALYSIS_VERSION: Final[int]  # rises when the same text would give other terms
FORMAT_VERSION: Final[int]  # of header and chunks
MAX_CHUNK: Final[int]  # no chunk is longer: 32,512 bytes, so that framed it fits 8 pages of 4 KiB
MAX_TERM: Final[int]  # 255 bytes; analysis makes at most 64 of a word
MAX_PREFIX_TERMS: Final[int]  # 1,024

# occur: what a clause is for
SHOULD: Final[int]  # 0: counts if it is there
MUST: Final[int]  # 1: required, and counts
NOT: Final[int]  # 2: excludes

# kind of a leg
TERM: Final[int]  # 0: payload bytes, the term
PREFIX: Final[int]  # 1: payload bytes, or (prefix, also: bytes): one pseudo term, see View
LIST: Final[int]  # 2: payload (rids uint32 strictly ascending, tfs uint32): e.g. verified phrases

Value = Any  # text column: str, UTF-8 bytes-like or None; sparse: {str or int: weight} or None
Load = Callable[[int, list[int]], Sequence[Any]]
Leg = tuple[int, float, int, Any]  # (column, weight, kind, payload)
Clause = tuple[int, Sequence[Leg]]  # (occur, legs); matches where any leg does; scores the legs' sum

def token(value: str | int) -> bytes:
    """The term of a sparse token: str of at most 254 UTF-8 bytes or int of 64 bits; else ValueError."""

def untoken(term: bytes) -> str | int:
    """The sparse token that a term was made of."""

class Analyzer:
    """Text to terms: Unicode words, simple case folding, stop words, stems; CJK by bigrams.

    A word is a run of letters, digits and marks; an apostrophe (' or ’) between letters joins,
    everything else splits. Runs of Han, Hiragana, Katakana or Hangul become overlapping bigrams of
    characters (one character alone: itself). A word of more than 64 bytes becomes its first 40-odd
    bytes and a hash. Stop words give no term but take a position. `stem` gets lists of folded words
    and returns as many stems; it is called with the lock held, once for all words of a call that
    are not in the cache (65,536 words). Bytes that are no UTF-8 split words.
    """

    def __init__(
        self,
        stem: Callable[[list[str]], list[str]] | None = None,
        stopwords: Iterable[str] = (),
        diacritics: bool = True,
    ) -> None:
        """`diacritics=False` folds é to e. Stop words are folded as words are."""

    stem: Final[Callable[[list[str]], list[str]] | None]
    stopwords: Final[frozenset[str]]
    diacritics: Final[bool]
    def terms(self, text: Any) -> list[tuple[bytes, int]]:
        """The terms of a text (str or UTF-8) with their positions, in order."""

    def spans(self, text: str) -> list[tuple[bytes, int, int, int]]:
        """(term, start, end, position) of each term; start and end in characters of `text`."""

    def words(self, text: str) -> list[tuple[bytes, int, int, int]]:
        """As `spans`, but folded words that are not stemmed, stop words too: for prefixes."""

    def fold(self, word: str) -> bytes:
        """What words begin with that start like this: folded, not stemmed; b"" if it is no word."""

    def phrase_count(self, text: Any, terms: Sequence[bytes], gaps: Sequence[int]) -> int:
        """How often terms[0] is followed by terms[1] gaps[0] positions later, and so on."""

    def phrase_counts(self, texts: Sequence[Any], terms: Sequence[bytes], gaps: Sequence[int]) -> bytes:
        """The same of many texts (None: 0): uint32 each; without the interpreter's lock."""

class SegmentBuilder:
    """Rows in, a segment out. `columns`: an Analyzer for a text column, None for a sparse one.

    One megabyte of English costs about 15 ms, a segment of one row about 20 us. Holds about three times
    its texts until `finish`.
    """

    def __init__(self, columns: Sequence[Analyzer | None]) -> None: ...
    @property
    def n_docs(self) -> int: ...
    def add(self, rid: int, values: Sequence[Value]) -> None:
        """One row, a value for each column."""

    def add_many(self, rids: Any, columns: Sequence[Sequence[Value] | None]) -> None:
        """Rows by columns: columns[c][i] is row i's value in column c; None for a column: no values.

        All or nothing. Rids in any order; one that comes twice is a ValueError in `finish`.
        Weights of sparse columns are rounded to float32, must be finite, and 0 is left out.
        """

    def touch(self, rid: int) -> None:
        """This row was touched and is no more: its older versions in other segments are dead."""

    def touch_many(self, rids: Any) -> None: ...
    def finish(self) -> Segment:
        """The segment, holding its chunks; the builder is empty afterwards (words stay known)."""

class Segment:
    """Immutable postings: a header in memory, chunks here or fetched by `load`.

    Memory of an opened header: 4 bytes a row, 4 more a row and text column, about 40 a chunk.
    """

    @staticmethod
    def open(header: Any, chunks: Sequence[Any] | None = None) -> Segment:
        """From `header()`'s bytes; chunks are copied where given. ValueError on garbage."""

    @property
    def n_docs(self) -> int: ...
    @property
    def n_chunks(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes of memory that the segment takes, chunks included where it holds them."""

    @property
    def holds_chunks(self) -> bool: ...
    @property
    def postings_bytes(self) -> int:
        """Bytes of all chunks together: the size that tiers go by."""

    def kind(self, column: int) -> str:
        """ "text" or "sparse"."""

    def header(self) -> bytes: ...
    def chunks(self) -> list[bytes]:
        """All chunks, of a segment that holds them (else ValueError). Chunk i begins at first_key(i)."""

    def first_key(self, chunk: int) -> tuple[int, bytes, int]:
        """(column, term, doc) of a chunk's first posting."""

    def rids(self) -> bytes:
        """uint32, ascending: the rows in it."""

    def gone(self) -> bytes:
        """uint32, ascending: rows that were touched and are not in it."""

    def touched(self) -> bytes:
        """uint32, ascending: `rids` and `gone` together: what is dead in every older segment."""

    def lengths(self, column: int) -> bytes:
        """uint32 for each doc: terms in a text column (repetitions count); tokens in a sparse one."""

    def bury(self, rids: Any, dead: bytes | None = None) -> bytes:
        """`dead` with the docs of these rids (uint32, ascending) marked as well; b"" if none is."""

    def totals(self, column: int, dead: bytes | None = None) -> tuple[int, int]:
        """(live rows that have a term in the column, sum of their lengths)."""

    def n_live(self, dead: bytes | None = None) -> int: ...
    def postings(
        self, load: Load | None = None, dead: bytes | None = None
    ) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """All of it in key order, for audits: (column, term, rids uint32, values) of live docs.

        Values: tf uint32 in text columns, weight float32 in sparse ones. `load` gets segment 0. A
        term whose docs are all dead comes with empty arrays. One chunk at a time is loaded; everything
        is checked on the way: order, bounds, block maxima against `lengths` (ValueError).
        """

class View:
    """Segments with their dead masks, as one snapshot sees them, oldest first or in any order.

    A live row may be in one segment only (that is what the masks are for). Document frequencies are
    kept here once counted (at most 16,384), so keep the view as long as segments and masks stay.

    BM25: a leg in a text column scores weight * idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length /
    average)), idf = ln(1 + (N - df + .5) / (df + .5)); N rows with a term in that column, df, average:
    of live rows over all segments, exact, so that results do not depend on how rows are spread. A
    PREFIX leg is one pseudo term: its tf is the sum over the terms that begin with it (the 1,024 with
    the highest df, ties by term; `also` counts too), its df the number of rows with any of them. A LIST
    leg's df is the number of its rows that are live here. A leg in a sparse column scores weight *
    stored weight (TERM only). NOT clauses do not score. Contributions are added in the order of
    clauses, and of legs within them, in float64: the same sum whatever the plan.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        dead: Sequence[bytes | None],
        k1: float = 1.2,
        b: float = 0.75,
    ) -> None:
        """Costs a look at the masks (a bit a row). ValueError if segments differ in their columns."""

    @property
    def n_live(self) -> int: ...
    def totals(self, column: int) -> tuple[int, int]:
        """(live rows with a term in the column, sum of their lengths), over all segments."""

    def df(self, column: int, term: bytes, load: Load | None = None) -> int:
        """Live rows that have the term in the column."""

    def search(
        self,
        clauses: Sequence[Clause],
        k: int | None,
        load: Load | None = None,
        slots: Any = None,
        plain: Any = None,
        exact: bool = False,
    ) -> tuple[bytes, bytes]:
        """(rids uint32, scores float64), best first, equal scores by rid.

        All rows that score as high as the k-th are returned, so there may be more than k: the caller
        settles ties. k None: all that match. A row matches if every MUST clause does, no NOT clause
        does, and at least one clause that is not NOT does. `slots`: bitset (bytes-like, bit `rid & 7`
        of byte `rid >> 3`; beyond its end: 0) of the rows below 2**31 that may be found, None: all;
        `plain`: ascending uint32 rids of those from 2**31 on that may, None: all. `exact` scores
        every posting, without pruning: the same result to the bit.
        ValueError: unknown column, k < 1, weights that are not finite, more than 20,000 legs, a negative
        weight in a text column.
        """

    def match(
        self,
        clauses: Sequence[Clause],
        load: Load | None = None,
        slots: Any = None,
        plain: Any = None,
    ) -> bytes:
        """uint32 rids, ascending, of all rows that match, by the rules of `search`, unscored."""

    def count(
        self,
        clauses: Sequence[Clause],
        load: Load | None = None,
        slots: Any = None,
        plain: Any = None,
    ) -> int:
        """How many rows match."""

    def score(self, rids: Any, clauses: Sequence[Clause], load: Load | None = None) -> bytes:
        """float64 for each of the rids (any order): what `search` gives; NaN: not live or no match."""

    def prefix_terms(
        self, column: int, prefix: bytes, limit: int = 1024, load: Load | None = None
    ) -> list[tuple[bytes, int]]:
        """(term, df) of terms that begin with `prefix`: the `limit` most frequent, by df, then by term.

        df here counts postings per segment, dead ones too where a term's list was not counted: cheap.
        """

class Merge:
    """Several segments with dead masks to one, a few chunks at a time, resumable in another process.

    The rows of the output are those alive by the masks now: pass the same segments (same order) and
    masks on resuming. The output's bytes do not depend on how it is sliced. Starting or resuming
    costs about 5 ns a row. Rows that are alive in two inputs: ValueError.

        merge = Merge(segments, dead, keep_gone=True, progress=stored or None)
        while not merge.done:
            for chunk in merge.step(load): store(chunk)   # chunk numbers merge.n_chunks - len(result)...
            store(merge.progress)
        header = merge.header(lambda numbers: [the output's chunks with these numbers])
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        dead: Sequence[bytes | None],
        keep_gone: bool = True,
        progress: bytes | None = None,
    ) -> None:
        """`keep_gone=False` where no older segment is left that the gone rows could be alive in."""

    @property
    def done(self) -> bool: ...
    @property
    def n_chunks(self) -> int:
        """Output chunks so far, those before resuming too: the number of the next one."""

    @property
    def progress(self) -> bytes:
        """After a step: where to go on (about 300 bytes at most). `step` ends on chunk boundaries."""

    def step(self, load: Load | None = None, work: int = 200_000) -> list[bytes]:
        """The next output chunks: ends at the first chunk boundary after `work` postings or bytes read.

        200,000 take 2.5 ms, 4.5 at most. At least one chunk or the end, but where all is dead.
        """

    def header(self, written: Callable[[list[int]], Sequence[Any]] | None = None) -> bytes:
        """The output's header, once `done`. `written` gives output chunks by number: those that were
        written before this object was made (a few bytes of each are read)."""

def merge(
    segments: Sequence[Segment],
    dead: Sequence[bytes | None],
    load: Load | None = None,
    keep_gone: bool = True,
) -> Segment:
    """The merge in one go, in memory: for the tail's own tiers."""
