"""Where does a scan go on? A place in one order of one collection, and its text.

A place is what the order compares: the row's id, and under `order_by` the value key that the row
had when it was read. Its text is for whoever keeps it between requests: opaque, URL-safe.

Invariants:
  C1  a place says where, not what: it stays good when its row is changed or deleted;
  C2  text that was not made here, was cut or changed, is a ValueError and nothing else.

Rejected: the number of rows passed. Every insert before it would shift the pages behind it.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Behind which row: the collection, the row's id, and the order with the row's place in it."""

    cid: int
    id: str | int
    order: str | None = None  # the field of order_by; None: the order of ids
    descending: bool = False
    key: bytes | None = None  # value key (index/valuekey.py); None: the row has no such value
    text: str | None = None  # the whole string where the key does not hold it

    def to_text(self) -> str:
        """The place as text."""
        import json
        from base64 import urlsafe_b64encode
        from zlib import crc32

        key = None if self.key is None else self.key.hex()
        body = json.dumps(
            [self.cid, self.id, self.order, self.descending, key, self.text], separators=(",", ":")
        ).encode()
        return urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def from_text(text: str) -> Place:
    """The place of a text that `to_text` made; ValueError for any other."""
    import json
    from base64 import b64decode
    from zlib import crc32

    try:
        raw = b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        if crc32(raw[4:]).to_bytes(4, "big") != raw[:4]:
            raise ValueError("its checksum is wrong")
        cid, id, order, descending, key, long = json.loads(raw[4:])
        found = Place(cid, id, order, descending, None if key is None else bytes.fromhex(key), long)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"no cursor: {error}") from None
    if not _sound(found) or found.to_text() != text:
        raise ValueError("no cursor: its parts are not as they were written")
    return found


def _sound(place: Place) -> bool:
    cid, id, order, descending, key, text = place
    return (
        type(cid) is int
        and type(id) in (str, int)
        and (order is None or type(order) is str)
        and type(descending) is bool
        and (key is None or (order is not None and len(key) > 0))
        and (text is None or (type(text) is str and key is not None))
    )
