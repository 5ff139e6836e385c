"""How is a key of the tree spelled?

The data file holds ONE unnamed LMDB tree; the first byte of a key says what the record is.
All integers in keys are big-endian, so that byte order is numeric order.

    0x10 cid                        catalog: the schema of one collection
    0x20 cid idkey                  id -> rid
    0x30 cid rid                    row record
    0x40 cid field block            block of vectors; `field` is a vector field's number
    0x41 cid field rid              the vectors of one row in a field of many
    0x50 cid fieldid valuekey       attribute leaf
    0x51 cid fieldid valuekey 0x00 chunk    large posting outside its leaf (index/attributes.py)
    0x52 cid chunk                  bitmap of live rows, 65,536 a chunk
    0x53 cid                        names of the metadata fields
    0x54 cid segment part           head of a segment of full text, in parts (index/segments.py)
    0x55 cid segment chunk          chunk of a segment's postings
    0x60 cid field layer chunk      image chunk of graph links
    0x61 cid field                  measured effort table
    0x62 cid digest                 map of vectors: an adapter, or a bridge between encoders (storage/maps.py)
    0x70 digest                     cached embedding of a text (storage/embeddings.py)
    0x71 name                       saved search (storage/searches.py)
    0x72 number watcher             how far a watcher of a saved search has come
    0x73 cid part sequence          search log: part 0 searches, 1 choices (storage/searchlog.py)
    0x74                            which collections' searches are logged
    0xE0 cid commit part            redo log: part 1 rows; links of vector field n: part 0 for
                                    n = 0, n + 1 for the others
    0xE0 cid 0xFF*9                 state of a collection: in the leaf of its newest log
    0xEE                            when some commits were made: in the leaf of the newest log
    0xEF                            how many embeddings are cached: in the leaf of the newest log
    0xF0                            meta record: the last key, in the leaf of the newest log

Invariants:
  K1  the prefix is the record's kind, and stands in its frame as well;
  K2  every key is at most MAX_KEY bytes: an id is at most MAX_ID_BYTES of UTF-8;
  K3  ids order as the API promises: ints by value, then strings by their UTF-8 bytes.

Rejected: named LMDB databases. Each tree that a commit touches dirties pages of its own, and a
small commit is as dear as the number of pages that it dirties.
"""

from __future__ import annotations

from struct import Struct

from vecdb.errors import InvalidArgument

CATALOG = 0x10
IDS = 0x20
ROWS = 0x30
VECTORS = 0x40
MANY = 0x41
ATTRIBUTES = 0x50
POSTINGS = 0x51
LIVE = 0x52
FIELDS = 0x53
SEGMENTS = 0x54
TERMS = 0x55
LINKS = 0x60
EFFORT = 0x61
MAPS = 0x62
EMBEDDINGS = 0x70
SEARCHES = 0x71
WATCHERS = 0x72
SEARCH_LOG = 0x73
LOGGING = 0x74
LOG = 0xE0
TIMES = 0xEE
CACHED = 0xEF
META = 0xF0

OF_THE_DATABASE = frozenset(  # kinds whose keys name no collection
    (EMBEDDINGS, SEARCHES, WATCHERS, LOGGING, TIMES, CACHED, META)
)

# what a dropped collection leaves, its catalog record apart
COLLECTION_KINDS = (
    IDS, ROWS, VECTORS, MANY, ATTRIBUTES, POSTINGS, LIVE, FIELDS, SEGMENTS, TERMS, LINKS, EFFORT,
    MAPS, SEARCH_LOG, LOG,
)  # fmt: skip

KIND_NAMES = {
    CATALOG: "catalog",
    IDS: "ids",
    ROWS: "rows",
    VECTORS: "vectors",
    MANY: "many",
    ATTRIBUTES: "attributes",
    POSTINGS: "postings",
    LIVE: "live",
    FIELDS: "fields",
    SEGMENTS: "segments",
    TERMS: "terms",
    LINKS: "links",
    EFFORT: "effort",
    MAPS: "maps",
    EMBEDDINGS: "embeddings",
    SEARCHES: "searches",
    WATCHERS: "watchers",
    SEARCH_LOG: "search log",
    LOGGING: "logging",
    LOG: "log",
    TIMES: "times",
    CACHED: "cached",
    META: "meta",
}

MAX_KEY = 511  # LMDB's limit as it is compiled everywhere
MAX_ID_BYTES = 480  # leaves room for prefix, collection and tag
MAX_NAME = 255  # bytes of a saved search's or a watcher's name
DIGEST = 16  # bytes of BLAKE2b that stand for a text and its encoder
TIMES_KEY = b"\xee"
CACHED_KEY = b"\xef"
META_KEY = b"\xf0"
LOGGING_KEY = b"\x74"
LOG_ROWS = 1
CONDEMNED, RESTING = 0xFD, 0xFE  # in the place of a commit number's first byte, which is below 0x80
MAX_FIELD = 250  # numbers of vector fields

INT_ID = 0x01
STR_ID = 0x02
_SIGN = 1 << 63
INT_MIN, INT_MAX = -_SIGN, _SIGN - 1

_CID = Struct(">BI")
_CID_U32 = Struct(">BII")
_CID_INT_ID = Struct(">BIBQ")
_CID_U8 = Struct(">BIB")
_CID_U8_U32 = Struct(">BIBI")
_CID_U8_U8_U32 = Struct(">BIBBI")
_CID_U16 = Struct(">BIH")
_CID_U64_U8 = Struct(">BIQB")
_CID_U8_U64 = Struct(">BIBQ")
_CID_U64_U16 = Struct(">BIQH")
_CID_U64_U32 = Struct(">BIQI")
_U16 = Struct(">H")
_U64 = Struct(">Q")


def catalog(cid: int) -> bytes:
    """Return the key of a collection's schema."""
    return _CID.pack(CATALOG, cid)


def row_id(cid: int, id: str | int) -> bytes:
    """Return the key of the id map's entry for `id`; InvalidArgument when it cannot be one."""
    if type(id) is str:
        return _CID_U8.pack(IDS, cid, STR_ID) + _utf8(id)
    if type(id) is int:
        if INT_MIN <= id <= INT_MAX:
            return _CID_INT_ID.pack(IDS, cid, INT_ID, id + _SIGN)
        raise InvalidArgument(f"id {id} does not fit 64 bits; use a string id instead")
    raise InvalidArgument(f"an id is a str or an int, not {type(id).__name__}: {id!r:.80}")


def id_order(id: str | int) -> tuple[bool, int | bytes]:
    """Return what orders ids as the API promises (K3)."""
    return (True, id.encode()) if isinstance(id, str) else (False, id)


def decode_id(key: bytes | memoryview) -> str | int:
    """Return the id inside a key made by `row_id`; ValueError when there is none."""
    tag, tail = key[5], bytes(key[6:])
    if tag == INT_ID and len(tail) == 8:
        return int(_U64.unpack(tail)[0]) - _SIGN
    if tag == STR_ID:
        return tail.decode("utf-8")
    raise ValueError(f"no id in key {bytes(key).hex()}")


def row(cid: int, rid: int) -> bytes:
    """Return the key of a row record."""
    return _CID_U32.pack(ROWS, cid, rid)


def vector_block(cid: int, field: int, block: int) -> bytes:
    """Return the key of a block of stored vectors."""
    return _CID_U8_U32.pack(VECTORS, cid, field, block)


def many_vectors(cid: int, field: int, rid: int) -> bytes:
    """Return the key of a row's vectors in a field of many."""
    return _CID_U8_U32.pack(MANY, cid, field, rid)


def attribute(cid: int, fieldid: int, valuekey: bytes = b"") -> bytes:
    """Return the key of an attribute leaf; without `valuekey`, the start of its field."""
    return _CID_U16.pack(ATTRIBUTES, cid, fieldid) + valuekey


def posting(cid: int, fieldid: int, valuekey: bytes, chunk: int) -> bytes:
    """Return the key of one chunk of a posting that lives outside its leaf."""
    return b"%b%b\x00%b" % (
        _CID_U16.pack(POSTINGS, cid, fieldid),
        valuekey,
        _U16.pack(chunk),
    )


def live(cid: int, chunk: int) -> bytes:
    """Return the key of one chunk of the bitmap of live rows."""
    return _CID_U16.pack(LIVE, cid, chunk)


def fields(cid: int) -> bytes:
    """Return the key of the list of metadata field names."""
    return _CID.pack(FIELDS, cid)


def segment(cid: int, number: int, part: int) -> bytes:
    """Return the key of one part of the head of a segment of full text."""
    return _CID_U64_U16.pack(SEGMENTS, cid, number, part)


def terms(cid: int, number: int, chunk: int) -> bytes:
    """Return the key of one chunk of a segment's postings."""
    return _CID_U64_U32.pack(TERMS, cid, number, chunk)


def segment_of(key: bytes | memoryview) -> tuple[int, int]:
    """Return (segment, part or chunk) of a key of either kind."""
    raw = bytes(key)
    return int.from_bytes(raw[5:13], "big"), int.from_bytes(raw[13:], "big")


def links(cid: int, field: int, layer: int, chunk: int) -> bytes:
    """Return the key of an image chunk of graph links."""
    return _CID_U8_U8_U32.pack(LINKS, cid, field, layer, chunk)


def effort(cid: int, field: int) -> bytes:
    """Return the key of a vector field's measured effort table."""
    return _CID_U8.pack(EFFORT, cid, field)


def map_of(cid: int, digest: bytes) -> bytes:
    """Return the key of a map of vectors."""
    return _CID.pack(MAPS, cid) + digest


def log(cid: int, commit: int, part: int) -> bytes:
    """Return the key of one part of the redo log of commit number `commit`."""
    return _CID_U64_U8.pack(LOG, cid, commit, part)


def log_links(field: int) -> int:
    """Return the part of the log that holds the links of a vector field."""
    return field + 1 if field else 0


def log_position(key: bytes | memoryview) -> tuple[int, int]:
    """Return (commit, part) of a log key."""
    _, _, commit, part = _CID_U64_U8.unpack(key)
    return int(commit), int(part)


def condemned(cid: int) -> bytes:
    """Return the key of the slots that a round of upkeep takes out of the graphs: behind the log."""
    return _CID.pack(LOG, cid) + b"\xfd" * 9


def resting(cid: int, commit: int) -> bytes:
    """Return the key of the slots that died or were vacated in a commit."""
    return _CID_U8.pack(LOG, cid, RESTING) + commit.to_bytes(8, "big")


def state(cid: int) -> bytes:
    """Return the key of a collection's state: the last of its log keys."""
    return _CID.pack(LOG, cid) + b"\xff" * 9


def search(name: str) -> bytes:
    """Return the key of a saved search, whose name has been checked."""
    return bytes((SEARCHES,)) + name.encode()


def watcher(number: int, name: str = "") -> bytes:
    """Return the key of a watcher of the saved search with a number; the start of its watchers' keys."""
    return bytes((WATCHERS,)) + _U64.pack(number) + name.encode()


def search_log(cid: int, part: int, sequence: int) -> bytes:
    """Return the key of one stretch of the search log."""
    return _CID_U8_U64.pack(SEARCH_LOG, cid, part, sequence)


def search_log_position(key: bytes | memoryview) -> tuple[int, int]:
    """Return (part, sequence) of a key of the search log."""
    _, _, part, sequence = _CID_U8_U64.unpack(key)
    return int(part), int(sequence)


def prefix(kind: int, cid: int) -> bytes:
    """Return what the keys of one kind and collection begin with."""
    return _CID.pack(kind, cid)


def after(prefix: bytes) -> bytes:
    """Return the least key above all that begin with `prefix`; b"" when there is none."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes((bare[-1] + 1,)) if bare else b""


def well_formed(key: bytes) -> bool:
    """Whether a key of a known kind is spelled as its kind spells it."""
    least, most = _SIZES[key[0]]
    if not least <= len(key) <= most:
        return False
    if key[0] == IDS:
        try:
            id = decode_id(key)
        except ValueError:
            return False
        return row_id(int.from_bytes(key[1:5], "big"), id) == key
    if key[0] in (VECTORS, MANY, LINKS, EFFORT) and key[5] > MAX_FIELD:
        return False
    if key[0] == LINKS:
        return key[6] in (0, 1)
    if key[0] == SEARCH_LOG:
        return key[5] in (0, 1)
    if key[0] in (SEARCHES, WATCHERS):
        return _is_text(key[1 if key[0] == SEARCHES else 9 :])
    if key[0] == LOG:
        if key[5] < CONDEMNED:
            return key[13] <= MAX_FIELD + 1
        return key[5] == RESTING or key[5:] in (b"\xfd" * 9, b"\xff" * 9)
    return True


def _is_text(raw: bytes) -> bool:
    try:
        return raw.decode() != ""
    except UnicodeDecodeError:
        return False


_SIZES = {
    CATALOG: (5, 5),
    IDS: (7, 6 + MAX_ID_BYTES),
    ROWS: (9, 9),
    VECTORS: (10, 10),
    MANY: (10, 10),
    ATTRIBUTES: (8, MAX_KEY),
    POSTINGS: (11, MAX_KEY),
    LIVE: (7, 7),
    FIELDS: (5, 5),
    SEGMENTS: (15, 15),
    TERMS: (17, 17),
    LINKS: (11, 11),
    EFFORT: (6, 6),
    MAPS: (5 + DIGEST, 5 + DIGEST),
    EMBEDDINGS: (1 + DIGEST, 1 + DIGEST),
    SEARCHES: (2, 1 + MAX_NAME),
    WATCHERS: (10, 9 + MAX_NAME),
    SEARCH_LOG: (14, 14),
    LOGGING: (1, 1),
    LOG: (14, 14),
    TIMES: (1, 1),
    CACHED: (1, 1),
    META: (1, 1),
}


def describe(key: bytes | memoryview) -> str:
    """Return a key as people read it in messages: kind, collection and the rest in hex."""
    raw = bytes(key)
    name = KIND_NAMES.get(raw[0], "unknown") if raw else "empty"
    if len(raw) < 5 or raw[0] in OF_THE_DATABASE:
        return name if raw[1:] == b"" else f"{name}/{raw[1:].hex()}"
    tail = raw[5:].hex()
    return f"{name}/{int.from_bytes(raw[1:5], 'big')}" + (f"/0x{tail}" if tail else "")


def _utf8(id: str) -> bytes:
    try:
        raw = id.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"id {id!r:.80} has a lone surrogate at position {error.start}; "
            "ids are Unicode text"
        ) from None
    if 1 <= len(raw) <= MAX_ID_BYTES:
        return raw
    if not raw:
        raise InvalidArgument("an id is not empty: give 1 to 480 UTF-8 bytes")
    raise InvalidArgument(
        f"id {id[:40]!r}... has {len(raw)} UTF-8 bytes; the limit is {MAX_ID_BYTES}: "
        "use a digest of it and keep the whole in the metadata"
    )
