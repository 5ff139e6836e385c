"""Who reads a file that is opened without locks?

LMDB's reader table lies in the lock file, and `immutable=True` opens none. So this process keeps
its own account: closing waits for what is in it, as elsewhere it waits for the table.

Invariants:
  N1  a transaction is in the account before it begins, and until it has ended;
  N2  one that is dropped without being ended leaves the account with its last reference.

Only immutable files pay for it (half a microsecond a transaction).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecdb.storage.engine import Engine


class Account:
    """The open transactions of one environment in this process."""

    def __init__(self, engine: Engine) -> None:
        self._begin: Any = engine.begin
        self._open: set[object] = set()  # adding to a set and taking from it are single steps

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, *options: Any) -> CountedTxn:
        """Begin a transaction, as the engine's own `begin` does."""
        entry = object()
        self._open.add(entry)
        try:
            return CountedTxn(self._begin(*options), self._open, entry)
        except BaseException:
            self._open.discard(entry)
            raise


class CountedTxn:
    """A read transaction that leaves the account when it ends."""

    __slots__ = ("_entry", "_open", "_txn", "cursor", "get", "id", "stat")

    def __init__(self, txn: Any, accounted: set[object], entry: object) -> None:
        self._txn = txn
        self._open = accounted
        self._entry = entry
        self.get = txn.get
        self.cursor = txn.cursor
        self.stat = txn.stat
        self.id = txn.id

    def abort(self) -> None:
        """End it."""
        self._txn.abort()
        self._open.discard(self._entry)

    def __del__(self) -> None:
        self._open.discard(self._entry)


def plain(txn: Any) -> Any:
    """The engine's own transaction: for calls that want no other."""
    return txn._txn if isinstance(txn, CountedTxn) else txn
