"""What did a commit do to the indexed state of rows?

A row's state is the tuple of its (field id, value key) pairs. A commit's `Batch` is columnar:
per field, the value keys that rows came to have, kept, and are gone from, each with its rows.

    metadata --state_of--> state --RowChange--> encode_changes --log--> decode_changes --> Batch

Invariants:
  C1  a batch is self-contained: `came` and `kept` are the touched rows' whole new states,
      `gone` is what they lost; kinds (valuekey.py) are derived when a batch is made;
  C2  each rid occurs once in a batch: the first old and the last new state of a transaction;
  C3  bitmaps in a batch are never changed: tails and copies of tails share them;
  C4  a batch from the log decodes a field when somebody asks for it, once: following costs what the
      rows cost, and a filter the fields that it names. Damage in a field is found by whoever asks.

Rejected: logging rows' metadata and deriving states when following. Every process would decode
every row that any process writes.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple, cast

from pyroaring import BitMap

from vecdb.errors import Corrupt, SchemaError
from vecdb.fields import NOTHING, Declared
from vecdb.index import valuekey
from vecdb.storage.rows import damaged

Pair = tuple[int, bytes]
State = tuple[Pair, ...]
_Packed = tuple[list[bytes], int, int, bytes, bytes]

MAX_FIELDS: Final = 1 << 16
MAX_TRIGRAMS: Final = 1 << 16  # kept of a field, in memory
_WIDTHS: Final = {"B": 1 << 8, "H": 1 << 16, "I": 1 << 32}
_UNREADABLE: Final = (ValueError, TypeError, IndexError, KeyError, AttributeError)


class RowChange(NamedTuple):
    """One row's states before and after; None is the state of a row that is not there."""

    rid: int
    old_state: State | None
    new_state: State | None


@dataclass(slots=True)
class FieldBatch:
    """One field in one batch: value key -> rows."""

    came: dict[bytes, BitMap] = field(default_factory=dict)
    kept: dict[bytes, BitMap] = field(default_factory=dict)
    gone: dict[bytes, BitMap] = field(default_factory=dict)


class Batch:
    """What one commit did: the rows it `touched`, those of them that are `alive` now, by field."""

    __slots__ = ("_fields", "_key", "_packed", "_rids", "alive", "living", "touched")

    def __init__(
        self,
        rids: array[int],
        living: int,
        fields: dict[int, FieldBatch],
        packed: dict[int, _Packed] | None = None,
        key: bytes | None = None,
    ) -> None:
        self.touched = BitMap(rids)
        self.living = living  # so many rows, the first, are alive
        self.alive = self.touched if living == len(rids) else BitMap(rids[:living])
        self._rids = rids
        self._fields = fields  # those that are decoded
        self._packed = packed or {}  # all that the log has
        self._key = key  # of its log record

    @property
    def rows(self) -> dict[int, bool]:
        """Each touched row, and whether it is alive."""
        found = dict.fromkeys(self._rids[: self.living], True)
        found.update(dict.fromkeys(self._rids[self.living :], False))
        return found

    def fields(self) -> Collection[int]:
        """The fields that changed."""
        return self._packed or self._fields

    def field(self, fieldid: int) -> FieldBatch | None:
        """What changed in a field; Corrupt where its part of the log cannot be read."""
        found = self._fields.get(fieldid)
        if found is None and fieldid in self._packed:
            try:
                found = _decode_field(self._rids, *self._packed[fieldid])
            except _UNREADABLE as error:
                raise _unreadable(error, self._key) from None
            self._fields[fieldid] = found
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Batch) or set(self.fields()) != set(other.fields()):
            return False
        if (self.touched, self.alive) != (other.touched, other.alive):
            return False
        return all(self.field(fieldid) == other.field(fieldid) for fieldid in self.fields())

    __hash__ = None  # type: ignore[assignment]


# --- from metadata to states -------------------------------------------------------------


def state_of(
    metadata: Mapping[str, Any], field_ids: dict[str, int], declared: Declared = NOTHING
) -> State:
    """Return the indexed state of cleaned metadata; new names are added to `field_ids`.

    Fields declared Unindexed are left out; those with a substring index have a pair for each
    trigram besides their own.
    SchemaError when a row has a field both ways, as `a.b` and as `b` inside `a`, and for more
    than 65,536 different fields in a collection.
    """
    state: list[Pair] = []
    nested = False
    skips = declared.skips if declared.skips_some else None
    for name, value in flat(metadata):
        if skips is not None and skips(name):
            nested = nested or isinstance(value, dict)
            continue
        fieldid = field_ids.get(name)
        if fieldid is None:
            fieldid = _new_field(name, field_ids)
        if isinstance(value, list):
            state.append((fieldid, valuekey.LIST))
            state.extend(
                (fieldid, key) for key in dict.fromkeys(map(valuekey.element_key, value))
            )
        elif isinstance(value, dict):
            nested = True
            state.append((fieldid, valuekey.DICT))
        else:
            state.append((fieldid, valuekey.key_of(value)))
            if name in declared.substring and isinstance(value, str):
                known = _trigram_pairs(fieldid)
                state.extend([known[each] for each in valuekey.trigrams(value)])
    if nested:
        _refuse_doubles(metadata)
    return tuple(state)


class _TrigramPairs(dict[str, Pair]):
    """A field's pairs by trigram, kept: a text has hundreds, and rows share most of theirs."""

    def __init__(self, fieldid: int) -> None:
        self._fieldid = fieldid

    def __missing__(self, trigram: str) -> Pair:
        if len(self) >= MAX_TRIGRAMS:
            self.clear()
        pair = self[trigram] = (self._fieldid, valuekey.trigram_key(trigram))
        return pair


@lru_cache(maxsize=16)
def _trigram_pairs(fieldid: int) -> _TrigramPairs:
    return _TrigramPairs(fieldid)


def flat(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (flat name, value) of metadata; a dict is yielded itself, then what is inside."""
    pending = [("", metadata)]
    while pending:
        prefix, mapping = pending.pop()
        for key, value in mapping.items():
            name = prefix + key
            yield name, value
            if isinstance(value, dict):
                pending.append((name + ".", value))


def _refuse_doubles(metadata: Mapping[str, Any]) -> None:
    seen: set[str] = set()
    for name, _ in flat(metadata):
        if name in seen:
            outer, _, inner = name.rpartition(".")
            raise SchemaError(
                f"metadata field {name!r} is there twice: as a key of that name and as "
                f"{inner!r} inside {outer!r}; both are addressed as F[{name!r}]: rename one"
            )
        seen.add(name)


def _new_field(name: str, field_ids: dict[str, int]) -> int:
    if len(field_ids) >= MAX_FIELDS:
        raise SchemaError(
            f"metadata field {name!r:.80} would be number {MAX_FIELDS + 1:,} of the "
            "collection; keep varying names as values, say a list of 'name=value' strings"
        )
    return field_ids.setdefault(name, len(field_ids))


# --- from states to batches --------------------------------------------------------------


class _Gathered(NamedTuple):
    """Rows, the living ones first, and for each pair the positions of its rows among them."""

    rids: list[int]
    alive: int
    came: Mapping[Pair, list[int]]
    kept: Mapping[Pair, list[int]]
    gone: Mapping[Pair, list[int]]


def batch_of(changes: Iterable[RowChange]) -> Batch:
    """Return the batch of a transaction's changes."""
    rids, alive, came, kept, gone = _gather(changes)
    fields: defaultdict[int, FieldBatch] = defaultdict(FieldBatch)
    for pairs, section in ((came, "came"), (kept, "kept"), (gone, "gone")):
        for (fieldid, key), positions in pairs.items():
            rows = BitMap([rids[at] for at in positions])
            getattr(fields[fieldid], section)[key] = rows
    for one in fields.values():
        _derive_kinds(one)
    return Batch(array("I", rids), alive, dict(fields))


def encode_changes(changes: Iterable[RowChange]) -> list[Any] | None:
    """Return the changes as the log holds them: lists, bytes and ints; None for no change.

    [rids, how many are alive, fields], fields being six entries each: field id, value keys
    (those that came, then kept, then gone), how many came, how many kept, rows per key, rows as
    positions in rids. The last two are empty when there is one row.
    """
    rids, alive, came, kept, gone = _gather(changes)
    if not rids:
        return None
    sections: defaultdict[int, tuple[list[bytes], list[bytes], list[bytes]]]
    sections = defaultdict(lambda: ([], [], []))
    for at, pairs in enumerate((came, kept, gone)):
        for fieldid, key in sorted(pairs):
            sections[fieldid][at].append(key)
    fields: list[Any] = []
    for fieldid, (new, same, lost) in sections.items():
        rows = [came[fieldid, key] for key in new]
        rows += [kept[fieldid, key] for key in same]
        rows += [gone[fieldid, key] for key in lost]
        single = len(rids) == 1
        counts = b"" if single else _pack([len(each) for each in rows])
        positions = b"" if single else _pack(list(chain.from_iterable(rows)))
        fields += (fieldid, new + same + lost, len(new), len(same), counts, positions)
    return [_pack(rids), alive, fields]


def decode_changes(encoded: list[Any], key: bytes | None = None) -> Batch:
    """Return the batch that `encode_changes` wrote; Corrupt when it did not.

    `key`: of the log record that errors name, also those that are found when a field is asked for.
    """
    try:
        return _decode(encoded, key)
    except _UNREADABLE as error:
        raise _unreadable(error, key) from None


def _unreadable(error: Exception, key: bytes | None) -> Corrupt:
    if key is not None:
        return damaged("A3", key, str(error))
    return Corrupt(
        f"a commit's attribute changes cannot be read ({error}); run db.check()",
        code="A3",
        where="log",
        detail=str(error),
    )


def _gather(changes: Iterable[RowChange]) -> _Gathered:
    merged: dict[int, RowChange] = {}
    for change in changes:
        seen = merged.get(change.rid)
        merged[change.rid] = (
            change if seen is None else seen._replace(new_state=change.new_state)
        )
    found = [c for c in merged.values() if c.new_state is not None]
    alive = len(found)
    found += [c for c in merged.values() if c.new_state is None and c.old_state is not None]
    came: defaultdict[Pair, list[int]] = defaultdict(list)
    kept: defaultdict[Pair, list[int]] = defaultdict(list)
    gone: defaultdict[Pair, list[int]] = defaultdict(list)
    for at, (_, old, new) in enumerate(found):
        if not old:
            for pair in new or ():
                came[pair].append(at)
        elif not new:
            for pair in old:
                gone[pair].append(at)
        else:
            before = set(old)
            for pair in new:
                (kept if pair in before else came)[pair].append(at)
            for pair in before.difference(new):
                gone[pair].append(at)
    return _Gathered([c.rid for c in found], alive, came, kept, gone)


def _decode(encoded: list[Any], key: bytes | None) -> Batch:
    packed, alive, flat_fields = encoded
    rids = _unpack(packed)
    if type(alive) is not int or not 0 <= alive <= len(rids):
        raise ValueError(f"{alive!r:.20} of {len(rids)} rows cannot be alive")
    pieces = iter(flat_fields)
    fields = {fieldid: tuple(rest) for fieldid, *rest in zip(*[pieces] * 6, strict=True)}
    if not all(type(fieldid) is int for fieldid in fields):
        raise TypeError("a field's number is no number")
    return Batch(rids, alive, {}, cast("dict[int, _Packed]", fields), key)


def _decode_field(
    rids: array[int], keys: list[bytes], came: int, kept: int, counts: bytes, positions: bytes
) -> FieldBatch:
    rows = _rows(rids, len(keys), counts, positions)
    pairs = list(zip(keys, rows, strict=True))
    one = FieldBatch(
        dict(pairs[:came]), dict(pairs[came : came + kept]), dict(pairs[came + kept :])
    )
    _derive_kinds(one)
    return one


def _rows(rids: array[int], keys: int, counts: bytes, positions: bytes) -> list[BitMap]:
    if not counts:
        if keys and len(rids) != 1:
            raise ValueError("positions are missing")
        return [BitMap(rids)] * keys
    ends = list(accumulate(_unpack(counts)))
    found = array("I", map(rids.__getitem__, _unpack(positions)))
    return [
        BitMap(found[start:end]) for start, end in zip(chain((0,), ends), ends, strict=False)
    ]


def _derive_kinds(one: FieldBatch) -> None:
    """Add the rows of every kind: the union over the values of its tag (C1)."""
    for section in (one.came, one.kept, one.gone):
        kinds: dict[bytes, list[BitMap]] = {}
        for key, rows in section.items():
            kind = valuekey.KIND_OF_TAG.get(key[0])
            if kind is not None:
                kinds.setdefault(kind, []).append(rows)
        for kind, parts in kinds.items():
            section[kind] = parts[0] if len(parts) == 1 else BitMap.union(*parts)


def _pack(numbers: list[int]) -> bytes:
    """The numbers in the narrowest of 1, 2 or 4 bytes, after a byte that says which."""
    try:
        return b"B" + bytes(numbers)  # the most common case, and the quickest
    except ValueError:
        pass
    most = max(numbers, default=0)
    for code, end in _WIDTHS.items():
        if most < end:
            return code.encode() + array(code, numbers).tobytes()
    raise SchemaError(f"{most} does not fit 32 bits")


def _unpack(packed: bytes) -> array[int]:
    code = chr(packed[0])
    if code not in _WIDTHS:
        raise ValueError(f"unknown width {code!r}")
    numbers = array(code)
    numbers.frombytes(packed[1:])
    return numbers if code == "I" else array("I", numbers)
