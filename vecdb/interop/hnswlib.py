"""How does an hnswlib index become a collection, and a collection an hnswlib index, without a rebuild?

Both keep rows of at most 2 M links on layer 0, so that layer is taken over as it is. The layers above
differ: hnswlib draws a height for each element, here every 32nd slot is a node of one entry layer.
They are small, and are made anew: here by insertion of n / 32 nodes, there as a small index of every
M-th element.

An index is read from its bytes (hnswlib's own save_index, or the state that pickling it gives), never
by hnswlib itself, which ends the process over a damaged file. hnswlib is needed to make an index only.

Invariants:
  I1  nothing is written before the whole of the index was looked at: sizes, counts, links, labels;
  I2  element i of an index is slot i; a deleted element is a dead slot, a way to others as before;
  I3  ids are the labels, or what `ids` has at their places; back, labels are places in a list of ids.

The layout is that of hnswlib 0.8 (hnswalg.h, saveIndex): a head of sizes, then for each element its
links on layer 0, its vector and its label, then the links of the layers above.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.arrays import check_rows
from vecdb.errors import InvalidArgument
from vecdb.ingest import given_ids, given_metadata, no_duplicates
from vecdb.storage import codec
from vecdb.storage.rows import NewRow
from vecdb.storage.schema import ONLY, Schema, VectorField, validate

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.collection import Collection
    from vecdb.database import Database

SPACES: Final = {"l2": "l2", "cosine": "cosine", "dot": "ip"}  # by metric
NONE: Final = 0xFFFFFFFF  # a place of a row of links without one
MOST: Final = 0x7FFFFFF0  # elements
_HEAD: Final = struct.Struct("<6QiI3QdQ")
_NO_LINK: Final = 0xFFFFFFFE  # from here on an entry of our rows is no link
_SLOT: Final = 0x7FFFFFFF  # of a link; the bit above says that it is pinned
_DELETED: Final = 1  # in the third byte of an element


@dataclass(slots=True)
class Foreign:
    """What an index holds: element i is row i of each array."""

    M: int
    ef_construction: int
    vectors: npt.NDArray[np.float32]  # (n, d)
    links: npt.NDArray[np.uint32]  # (n, 2 M), NONE where there is no link
    labels: list[int]
    deleted: npt.NDArray[np.bool_]

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])


# --- reading -----------------------------------------------------------------------------------


def read(index: Any, metric: str, dim: int | None) -> Foreign:
    """An hnswlib.Index, or the path of its file (then `dim`), looked at whole (I1)."""
    if metric not in SPACES:
        _refuse(f"metric={metric!r:.60}: choose one of {', '.join(SPACES)}")
    if isinstance(index, str | os.PathLike):
        return _of_file(os.fspath(index), metric, dim)
    state = _state_of(index)
    if state["space"] != SPACES[metric]:
        _refuse(f"metric={metric!r}: the index was made in hnswlib's space {state['space']!r}")
    if dim is not None and dim != state["dim"]:
        _refuse(f"dim={dim}: the index has {state['dim']}")
    head = _Head(
        state["max_elements"], state["cur_element_count"], state["size_data_per_element"],
        state["label_offset"], state["offset_data"], state["max_M"], state["max_M0"], state["M"],
        state["ef_construction"],
    )  # fmt: skip
    data = np.ascontiguousarray(state["data_level0"]).view(np.uint8)
    return _elements("the index", head, data[: head.count * head.size], state["dim"], metric)


def _state_of(index: Any) -> dict[str, Any]:
    get = getattr(index, "__getstate__", None)
    if not type(index).__module__.startswith("hnswlib") or get is None:
        _refuse(f"index is a {type(index).__name__}; give an hnswlib.Index or the path of its file")
    found = get()
    state = found[0] if isinstance(found, tuple) else found
    if isinstance(state, dict) and state.get("index_inited") is False:
        _refuse("the index was never initialised: call init_index and add_items first")
    if not isinstance(state, dict) or "data_level0" not in state:
        _refuse("this version of hnswlib describes its indexes otherwise; give the file of save_index")
    return state


@dataclass(frozen=True, slots=True)
class _Head:
    most: int
    count: int
    size: int
    label_at: int
    data_at: int
    M_above: int
    M0: int
    M: int
    ef_construction: int


def _of_file(path: str, metric: str, dim: int | None) -> Foreign:
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= 65_535:
        _refuse(f"dim={dim!r:.60}: an index's file does not tell it; give an int from 1 to 65,535")
    try:
        data = np.memmap(path, np.uint8, mode="r") if os.path.getsize(path) else np.empty(0, np.uint8)
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror or error}")
    if len(data) < _HEAD.size:
        _foreign(path, f"{len(data)} bytes are too few")
    offset, most, count, size, label_at, data_at, _, _, M_above, M0, M, _, ef = _HEAD.unpack(
        data[: _HEAD.size].tobytes()
    )
    if offset != 0:
        _foreign(path, "its first layer does not begin where hnswlib's does")
    head = _Head(most, count, size, label_at, data_at, M_above, M0, M, ef)
    _check_head(path, head, dim)
    end = _HEAD.size + count * size
    if end > len(data):
        _foreign(path, f"{len(data):,} bytes where {count:,} elements of {size:,} bytes are said to be")
    _check_above(path, data[end:], head)
    return _elements(path, head, data[_HEAD.size : end], dim, metric)


def _check_above(path: str, data: npt.NDArray[np.uint8], head: _Head) -> None:
    """The layers above are not used; that they end with the file tells that nothing is missing."""
    at, step = 0, head.M_above + 1  # in words of 4 bytes
    words = data[: len(data) // 4 * 4].tobytes()
    sizes = memoryview(words).cast("I")
    for element in range(head.count):
        if at >= len(sizes):
            _foreign(path, f"it ends before element {element:,}'s upper layers")
        size, rest = divmod(sizes[at], 4 * step)
        if rest:
            _foreign(path, f"element {element:,}: {sizes[at]:,} bytes are no layers of {4 * step}")
        at += 1 + size * step
    if 4 * at != len(data):
        _foreign(path, "its size is not what its elements say")


def _check_head(where: str, head: _Head, dim: int) -> None:
    if not 0 <= head.count <= min(head.most, MOST):
        _foreign(where, f"it says that {head.count:,} of {head.most:,} elements are there")
    if not 4 <= head.M <= 64:
        _refuse(f"{where}: M={head.M}; a collection's rows have room for M of 4 to 64")
    if head.M0 != 2 * head.M or head.M_above != head.M:
        _foreign(where, f"M0={head.M0} and M={head.M_above} above, where M={head.M}")
    if not 1 <= head.ef_construction <= 1 << 20:
        _foreign(where, f"ef_construction={head.ef_construction}")
    links = 4 * head.M0 + 4
    if (head.data_at, head.label_at, head.size) != (links, links + 4 * dim, links + 4 * dim + 8):
        _foreign(
            where,
            f"its elements of {head.size:,} bytes hold no {dim} float32 numbers; is dim right?",
        )


def _elements(where: str, head: _Head, data: npt.NDArray[np.uint8], dim: int, metric: str) -> Foreign:
    _check_head(where, head, dim)
    if len(data) != head.count * head.size:
        _foreign(where, f"{len(data):,} bytes where {head.count:,} elements belong")
    table = data.reshape(head.count, head.size)
    counts = table[:, :2].copy().view("<u2")[:, 0]
    deleted = (table[:, 2] & _DELETED).astype(np.bool_)
    links = table[:, 4 : head.data_at].copy().view("<u4")
    vectors = table[:, head.data_at : head.label_at].copy().view("<f4")
    labels = table[:, head.label_at :].copy().view("<u8")[:, 0]
    if head.count and int(counts.max()) > head.M0:
        _foreign(where, f"element {int(counts.argmax()):,} has {int(counts.max())} links of {head.M0}")
    links[np.arange(head.M0) >= counts[:, None]] = NONE
    wrong = (links >= head.count) & (links != NONE)
    if wrong.any():
        _foreign(where, f"element {int(np.argmax(wrong.any(axis=1))):,} has a link to no element")
    if len(np.unique(labels)) != head.count:
        _foreign(where, "two elements have one label")
    if head.count and int(labels.max()) >= 1 << 63:
        _refuse(f"{where}: label {int(labels.max())} is no id: it does not fit 64 bits with a sign")
    if head.count:
        check_rows(f"{where}: vectors", vectors, metric)
    width = min(max(head.ef_construction, 8), 2000)
    return Foreign(head.M, width, vectors, links, labels.tolist(), deleted)


def from_hnswlib(
    db: Database,
    name: str,
    index: Any,
    *,
    metric: str,
    dim: int | None = None,
    ids: Sequence[Any] | None = None,
    metadata: Sequence[Any] | None = None,
) -> Collection:
    """Make a collection of an hnswlib index, its graph taken over, and return it; durable on return.

    `index`: an `hnswlib.Index`, or the path of a file of its `save_index` (then `dim`). `metric`:
    "l2", "cosine" or "dot", as the index was made. `ids` and `metadata`: lists whose entry at a label
    is that element's; without `ids` the labels are the ids. Deleted elements become no rows. Costs
    little more than writing the vectors. Raises AlreadyExists, and InvalidArgument for a damaged or
    foreign index, with nothing written.
    Malkov and Yashunin, 2016; the layout is hnswlib 0.8's.

    >>> import vecdb, hnswlib, numpy as np
    >>> index = hnswlib.Index("l2", 2); index.init_index(10)
    >>> index.add_items(np.eye(2), [7, 8])
    >>> c = vecdb.from_hnswlib(vecdb.open(), "c", index, metric="l2")
    >>> c.search([1, 0.1], k=1).ids
    [7]
    """
    found = read(index, metric, dim)
    schema = validate(
        Schema(name, {ONLY: VectorField(0, found.dim, metric, "f32", found.M, found.ef_construction)})
    )
    chosen = ids_of(found, ids)
    alive = [at for at, dead in enumerate(found.deleted.tolist()) if not dead]
    plain = _metadata(found, metadata, alive)
    packed = [codec.pack_metadata(m, f"row {i}") if m else b"" for i, m in enumerate(plain)]
    with db._batch() as batch:
        made = db._create(schema, {})
        known, _ = given_ids([chosen[at] for at in alive], made._cid)
        no_duplicates(known)
        writing = batch.writing(made._cid)
        new: list[NewRow | None] = [None] * len(chosen)
        for at, (_, key), each, state in zip(alive, known, packed, plain, strict=True):
            new[at] = NewRow(key, None, each, writing.state_of(state))
        if new:
            try:
                writing.adopt(schema.only, new, found.vectors, found.links)
            except ValueError as error:
                _refuse(f"the index's links are no graph: {error}; nothing was written")
    return made


def _metadata(found: Foreign, metadata: Any, alive: list[int]) -> list[dict[str, Any]]:
    if metadata is None:
        return [{}] * len(alive)
    listed = at_labels("metadata", found, metadata)
    return given_metadata([listed[at] for at in alive], len(alive))


# --- rows of an index ----------------------------------------------------------------------------


def ids_of(found: Foreign, ids: Sequence[Any] | None) -> list[Any]:
    """The id of each element that is not deleted, None for a deleted one (I3)."""
    if ids is None:
        return [None if dead else label for label, dead in zip(found.labels, found.deleted, strict=True)]
    return at_labels("ids", found, ids)


def at_labels(name: str, found: Foreign, values: Sequence[Any]) -> list[Any]:
    """What a list has for each element that is not deleted: entry `label`."""
    if isinstance(values, str | bytes) or not hasattr(values, "__getitem__"):
        _refuse(f"{name} is a {type(values).__name__}; give a list with an entry for each label")
    elements = list(zip(found.labels, found.deleted.tolist(), strict=True))
    most = max((label for label, dead in elements if not dead), default=-1)
    if most >= len(values):
        _refuse(f"{name} has {len(values):,} entries, and the index a label {most:,}")
    return [None if dead else values[label] for label, dead in elements]


# --- links of a collection -------------------------------------------------------------------------


def links_among(graph: Any, M: int, members: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The links between some slots of a graph, as places in `members`: (n, 2 M), NONE for none.

    A link to another slot, of a deleted row, is replaced by where that one leads.
    """
    n = len(members)
    table = np.full((max(graph.n_slots, 1), 2 * M), NONE, np.uint32)
    for chunk in range(graph.n_chunks(0)):
        rows = np.frombuffer(graph.chunk(0, chunk), "<u4").reshape(-1, 2 * M)
        first = chunk * graph.chunk_rows
        table[first : first + len(rows)] = np.where(rows >= _NO_LINK, NONE, rows & _SLOT)
    place = np.full(len(table) + 1, NONE, np.uint32)
    place[members] = np.arange(n, dtype=np.uint32)
    mine = table[members]
    found = place[np.minimum(mine, len(table))]
    gone = (found == NONE) & (mine != NONE)
    for row in np.flatnonzero(gone.any(axis=1)).tolist():
        beyond = place[np.minimum(table[mine[row][gone[row]]].reshape(-1), len(table))]
        direct = found[row][found[row] != NONE]
        kept = dict.fromkeys([*direct.tolist(), *beyond[beyond != NONE].tolist()])
        kept.pop(row, None)
        listed = list(kept)[: 2 * M]
        found[row] = [*listed, *[NONE] * (2 * M - len(listed))]
    return found


# --- making an index -------------------------------------------------------------------------------


def make(declared: VectorField, vectors: npt.NDArray[Any], links: npt.NDArray[np.uint32]) -> Any:
    """An hnswlib.Index of vectors (n, d), labels 0 to n - 1, with these links on layer 0."""
    try:
        import hnswlib
    except ImportError:
        _refuse("to_hnswlib needs hnswlib: pip install 'vecdb-engine[hnswlib]'")
    if declared.metric not in SPACES:
        _refuse(f"metric {declared.metric!r} is unknown to hnswlib, which knows {', '.join(SPACES)}")
    n, M = len(vectors), declared.M
    space = SPACES[declared.metric]
    index: Any = hnswlib.Index(space, declared.dim)
    index.init_index(max(1, n), M=M, ef_construction=declared.ef_construction, random_seed=100)
    if not n:
        return index
    given = np.ascontiguousarray(vectors, np.float32)
    if space == "cosine":
        given = given / np.linalg.norm(given, axis=1, keepdims=True)
    return _from_state(index, given, links, *_upper_layers(index, given, M), M)


def _upper_layers(
    index: Any, given: npt.NDArray[np.float32], M: int
) -> tuple[npt.NDArray[np.int32], int, list[list[npt.NDArray[np.uint32]]]]:
    """What lies above layer 0: a small index of every M-th element, built by hnswlib.

    Its layers become those from 1 on. Returns the highest layer of each element (n,), the element to
    enter by, and for each element that is above layer 0 its links on layer 1, 2 and so on.
    """
    import hnswlib

    members = np.arange(0, len(given), M)
    small: Any = hnswlib.Index(index.space, index.dim)
    small.init_index(len(members), M=max(4, M // 2), ef_construction=200, random_seed=100)
    small.add_items(given[members], np.arange(len(members)))
    state = small.__getstate__()[0]
    element = np.empty(len(members), np.int64)  # of ours, by the small index's own numbers
    element[state["label_lookup_internal"]] = members[state["label_lookup_external"]]
    inner = np.asarray(state["element_levels"])[: len(members)]
    first = _rows_of_links(state["data_level0"], state["size_data_per_element"], len(members))
    higher = _rows_of_links(state["link_lists"], state["size_links_per_element"], int(inner.sum()))
    levels = np.zeros(len(given), np.int32)
    levels[element] = inner + 1
    above: dict[int, list[npt.NDArray[np.uint32]]] = {}
    at = 0
    for number, height in enumerate(inner.tolist()):
        rows = [first[number], *higher[at : at + height]]
        above[int(element[number])] = [element[row[:M]].astype("<u4") for row in rows]
        at += height
    return levels, int(element[state["enterpoint_node"]]), [above[each] for each in sorted(above)]


def _rows_of_links(data: Any, size: int, n: int) -> list[npt.NDArray[np.uint32]]:
    """The links of n rows of `size` bytes that begin with a count of them."""
    table = np.ascontiguousarray(data).view(np.uint8)[: n * size].reshape(n, size)
    counts = table[:, :2].copy().view("<u2")[:, 0]
    places = table[:, 4 : 4 + (size - 4) // 4 * 4].copy().view("<u4")
    return [row[:count] for row, count in zip(places, counts.tolist(), strict=True)]


def _from_state(
    index: Any,
    given: npt.NDArray[np.float32],
    links: npt.NDArray[np.uint32],
    levels: npt.NDArray[np.int32],
    enter: int,
    above: list[list[npt.NDArray[np.uint32]]],
    M: int,
) -> Any:
    """The index with everything in place, by the way that unpickling takes."""
    state = dict(index.__getstate__()[0])
    n, M0, step = len(given), 2 * M, 4 * M + 4
    size = state["size_data_per_element"]
    table = np.zeros((n, size), np.uint8)
    present = links != NONE
    packed = np.argsort(~present, axis=1, kind="stable")
    ordered = np.take_along_axis(np.where(present, links, 0), packed, axis=1).astype("<u4")
    table[:, :2] = present.sum(axis=1).astype("<u2")[:, None].view(np.uint8)
    table[:, 4 : 4 + 4 * M0] = ordered.view(np.uint8)
    table[:, state["offset_data"] : state["label_offset"]] = given.astype("<f4").view(np.uint8)
    table[:, state["label_offset"] :] = np.arange(n, dtype="<u8")[:, None].view(np.uint8)
    lists = np.zeros((int(levels.sum()), step), np.uint8)
    for row, found in zip(lists, (each for element in above for each in element), strict=True):
        row[:2] = np.array([len(found)], "<u2").view(np.uint8)
        row[4 : 4 + 4 * len(found)] = found.view(np.uint8)
    every = np.arange(n)
    state.update(
        cur_element_count=n, has_deletions=False, max_level=int(levels.max()), enterpoint_node=enter,
        ep_added=True, label_lookup_external=every.astype(np.uint64),
        label_lookup_internal=every.astype(np.uint32), element_levels=levels,
        data_level0=table.reshape(-1).view(np.int8), link_lists=lists.reshape(-1).view(np.int8),
    )  # fmt: skip
    kind: Any = type(index)
    made = kind.__new__(kind)
    made.__setstate__((state,))
    return made


def _foreign(where: str, why: str) -> NoReturn:
    _refuse(f"{where} is no whole hnswlib index of this dim: {why}; nothing was written")


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
