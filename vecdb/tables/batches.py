"""How do a table's pieces become batches: ids, texts, vectors and metadata of one commit's rows?

Invariants:
  B1  a batch has `batch_size` rows, wherever the pieces end, and knows each row's number in the
      table: whatever is refused later is named by it;
  B2  what a row lacks is not there: each field's vectors come with which rows have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.tables.capsule import refuse
from vecdb.tables.sources import Matrix, Piece

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; `vectors` maps fields to columns, `fields` are the collection's."""

    id: str | None
    text: str | None
    vectors: dict[str, str]
    optional: bool  # whether a vector column may be missing: an encoder makes them, or they are several
    fields: Mapping[str, Any]  # the declarations of the collection's vector fields, by name

    @property
    def taken(self) -> set[str]:
        """The columns that are not metadata."""
        return {name for name in (self.id, self.text, *self.vectors.values()) if name is not None}


@dataclass(slots=True)
class Batch:
    """Rows of one commit: row `numbers[i]` of the table is entry i of everything.

    Of a field with many vectors a row, the array is one of objects, a list of vectors each.
    """

    numbers: list[int]
    ids: list[Any] | None
    texts: list[Any] | None
    vectors: dict[str, Matrix]
    metadata: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, chosen: Sequence[int]) -> Batch:
        """Some of the rows."""
        at = np.asarray(chosen, np.intp)
        return Batch(
            [self.numbers[i] for i in chosen],
            None if self.ids is None else [self.ids[i] for i in chosen],
            None if self.texts is None else [self.texts[i] for i in chosen],
            {
                field: (array[at], None if present is None else present[at])
                for field, (array, present) in self.vectors.items()
            },
            [self.metadata[i] for i in chosen],
        )


def kinds_of(batch: Batch) -> list[tuple[tuple[bool, ...], list[int]]]:
    """Rows by the fields that they have a vector in."""
    n = len(batch)
    columns = [
        [True] * n if present is None else present.tolist()
        for _, present in batch.vectors.values()
    ]
    if not columns:
        return [((), list(range(n)))]
    found: dict[tuple[bool, ...], list[int]] = {}
    for at, has in enumerate(zip(*columns, strict=True)):
        found.setdefault(has, []).append(at)
    return list(found.items())


def batches_of(table: Iterator[Piece], columns: Columns, size: int) -> Iterator[Batch]:
    """Batches of `size` rows, wherever the pieces end."""
    kept: list[Batch] = []
    room = size
    row = 0
    for piece in table:
        _check_names(piece, columns, row)
        first = 0
        while first < piece.rows:
            last = min(piece.rows, first + room)
            kept.append(_read(piece, columns, first, last, row + first))
            room -= last - first
            first = last
            if not room:
                yield _merged(kept)
                kept, room = [], size
        row += piece.rows
    if kept:
        yield _merged(kept)


def _check_names(piece: Piece, columns: Columns, row: int) -> None:
    """Every column that was asked for is there; later pieces may lack what is optional."""
    if not piece.rows:
        return
    asked: list[tuple[str, str | None]] = [("id", columns.id)]
    if not row:
        asked.append(("text", columns.text))
        if not columns.optional:
            asked += [("vector", name) for name in columns.vectors.values()]
    for argument, name in asked:
        if name is not None and name not in piece.names:
            remedy = {
                "id": "id=None makes ids up",
                "text": "text=None is for rows without",
                "vector": "vector=None is for rows without, or for texts that an encoder takes",
            }[argument]
            refuse(
                f"there is no {argument} column {name!r}; there are {listed(piece.names)}; {remedy}"
            )


def listed(names: Any) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more if listed else "none"


def _read(piece: Piece, columns: Columns, first: int, last: int, row: int) -> Batch:
    """Rows of a piece; `row` is the number in the table of its row `first`."""
    names = [name for name in piece.names if name not in columns.taken]
    ids = None if columns.id is None else piece.column(columns.id, first, last)
    for at, id in enumerate(ids or ()):
        if type(id) is not str and type(id) is not int:
            ids[at] = _id(id, row + at, columns.id)  # type: ignore[index]
    has_texts = columns.text is not None and columns.text in piece.names
    texts = piece.column(columns.text, first, last) if has_texts else None  # type: ignore[arg-type]
    vectors = {
        field: _vectors(piece, name, first, last, row, columns.fields[field])
        for field, name in columns.vectors.items()
        if name in piece.names
    }
    return Batch(
        list(range(row, row + last - first)), ids, texts, vectors,
        piece.metadata(names, first, last),
    )  # fmt: skip


def _id(id: Any, row: int, column: str | None) -> str | int:
    if isinstance(id, np.integer):
        return int(id)
    if isinstance(id, str):
        return str(id)
    if isinstance(id, int) and not isinstance(id, bool):
        return int(id)
    what = "no id" if id is None else f"{id!r:.60}, a {type(id).__name__}"
    refuse(f"row {row} has {what} in column {column!r}; an id is a str or an int")


def _vectors(
    piece: Piece, name: str, first: int, last: int, row: int, declared: Any
) -> Matrix:
    """A field's vectors, as many a row as it declares; ints as int8 where that is stored and fits."""
    if not declared.graphed:
        cells = piece.column(name, first, last)
        if declared.sparse:
            cells = [_sparse(cell) for cell in cells]
        array = np.empty(len(cells), object)
        for at, cell in enumerate(cells):  # a slice would take lists of one length for rows of a matrix
            array[at] = cell
        return array, np.array([cell is not None for cell in cells], np.bool_)
    array, present = piece.matrix(name, first, last, row)
    if declared.dtype == "i8" and array.dtype.kind in "iu" and array.size:
        if array.min() >= -128 and array.max() <= 127:
            return array.astype(np.int8), present
    return array, present


def _sparse(cell: Any) -> Any:
    """A sparse vector's cell as a dict: a struct, a list of pairs, or one of {token, weight}.

    What is none of these stays what it is, and is refused by its row.
    """
    if isinstance(cell, Mapping):
        return {token: weight for token, weight in cell.items() if weight is not None}
    if not isinstance(cell, list | tuple):
        return cell
    pairs = []
    for each in cell:
        if isinstance(each, Mapping) and each.keys() == {"token", "weight"}:
            pairs.append((each["token"], each["weight"]))
        elif isinstance(each, list | tuple) and len(each) == 2:
            pairs.append((each[0], each[1]))
        else:
            return cell
    try:
        found = dict(pairs)
    except TypeError:  # a token that can be no key
        return cell
    return found if len(found) == len(pairs) else cell


def _merged(parts: list[Batch]) -> Batch:
    """Several as one."""
    if len(parts) == 1:
        return parts[0]
    fields = {field for part in parts for field in part.vectors}
    whole = Batch([], None if parts[0].ids is None else [], None, {}, [])
    if any(part.texts is not None for part in parts):
        whole.texts = []
    for part in parts:
        whole.numbers += part.numbers
        whole.metadata += part.metadata
        if whole.ids is not None:
            whole.ids += part.ids or []
        if whole.texts is not None:
            whole.texts += part.texts or [None] * len(part)
    for field in sorted(fields):
        whole.vectors[field] = _stacked(field, parts)
    return whole


def _stacked(field: str, parts: list[Batch]) -> Matrix:
    """One field's vectors of several batches; of some it may have none, in any shape."""
    arrays: list[npt.NDArray[Any]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    size: tuple[int, ...] | None = None
    first = 0
    for part in parts:
        array, present = part.vectors.get(field, (None, np.zeros(len(part), np.bool_)))
        there = np.ones(len(part), np.bool_) if present is None else present
        masks.append(there)
        if array is None or not there.any():
            continue
        row = part.numbers[int(np.argmax(there))]
        if size is None:
            size, first = array.shape[1:], row
        elif array.shape[1:] != size:
            refuse(
                f"vectors of field {field!r}: row {row} has {array.shape[1]} numbers, "
                f"row {first} has {size[0]}"
            )
        arrays.append(array[there])
    mask = np.concatenate(masks)
    if not arrays:
        return np.zeros((len(mask), 0), np.float32), mask
    found = np.concatenate(arrays)
    if mask.all():
        return found, None
    spread = np.zeros((len(mask), *found.shape[1:]), found.dtype)
    spread[mask] = found
    return spread, mask
