"""How does a segment of full text lie in the file?

    0x54 cid segment part       its head, cut into parts of PART bytes: rows, lengths, where chunks begin
    0x55 cid segment chunk      a chunk of postings

Segments never change. A segment's number is made of the commit that wrote it and its place there, so that
no two ever have the same: what a process keeps under a number is true for as long as it lives.

Invariants:
  G1  every record is framed and sealed like all others, and opened where it is read;
  G2  what cannot be read is the damage of an index (code T1): the rows have all of it.

Rejected: a head as one record. That of a million rows has megabytes, for which the engine would look for as
many pages in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from vecdb._core import _text
from vecdb.storage import keys, records
from vecdb.storage.rows import damaged, open_record
from vecdb.storage.state import Segment

PART: Final = 32_512  # bytes of a head in one record: with its frame it fits eight pages
PLACES: Final = 1 << 16  # segments that one commit may write
CODE: Final = "T1"

Load = Callable[[int, list[int]], list[Any]]


def number_of(commit: int, place: int) -> int:
    """The number of a segment that a commit writes."""
    return commit * PLACES + place


def write(txn: Any, cid: int, number: int, made: Any, dead: int) -> Segment:
    """Write a segment that holds its chunks; `dead`: rows that it makes dead in older ones, about."""
    chunks = made.chunks()
    put_chunks(txn, cid, number, 0, chunks)
    parts = put_head(txn, cid, number, made.header())
    return Segment(number, parts, len(chunks), made.postings_bytes, made.n_docs, dead)


def put_chunks(txn: Any, cid: int, number: int, first: int, chunks: Iterable[Any]) -> None:
    """Write chunks of a segment, from number `first` on."""
    for at, chunk in enumerate(chunks, first):
        records.put(txn, keys.terms(cid, number, at), chunk)


def put_head(txn: Any, cid: int, number: int, head: bytes) -> int:
    """Write the head of a segment; how many parts it took."""
    parts = range(0, len(head), PART)
    for at, start in enumerate(parts):
        records.put(txn, keys.segment(cid, number, at), head[start : start + PART])
    return len(parts)


def open_head(txn: Any, cid: int, said: Segment) -> Any:
    """A `_text.Segment` without its chunks; Corrupt where it is not what the state says."""
    parts = [_read(txn, keys.segment(cid, said.number, at)) for at in range(said.parts)]
    key = keys.segment(cid, said.number, 0)
    try:
        found = _text.Segment.open(b"".join(parts))
    except ValueError as error:
        raise damaged(CODE, key, f"the head of a segment cannot be read: {error}") from None
    if (found.n_chunks, found.n_docs) != (said.chunks, said.rows):
        detail = f"it has {found.n_chunks} chunks and {found.n_docs} rows, not {said.chunks} and {said.rows}"
        raise damaged(CODE, key, detail)
    return found


def loader(txn: Any, cid: int, numbers: Sequence[int]) -> Load:
    """What fetches chunks of these segments, by their places, through a transaction."""

    def load(place: int, chunks: list[int]) -> list[Any]:
        number = numbers[place]
        return [_read(txn, keys.terms(cid, number, chunk)) for chunk in chunks]

    return load


def delete(txn: Any, cid: int, said: Segment) -> None:
    """Take a segment's records away."""
    for at in range(said.parts):
        txn.delete(keys.segment(cid, said.number, at))
    delete_chunks(txn, cid, said.number, said.chunks)


def delete_chunks(txn: Any, cid: int, number: int, chunks: int) -> None:
    """Take a segment's chunks away."""
    for at in range(chunks):
        txn.delete(keys.terms(cid, number, at))


def _read(txn: Any, key: bytes) -> memoryview:
    record = txn.get(key)
    if record is None:
        raise damaged(CODE, key, "a record of a segment is missing")
    return open_record(key[0], key, record, code=CODE)
