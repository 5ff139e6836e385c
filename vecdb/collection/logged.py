"""How does a user say what was chosen of a search, and run logged searches again? feedback, replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vecdb.collection.handle import Handle, Where, refuse
from vecdb.types import Hits, Id

if TYPE_CHECKING:
    import threading

    from vecdb.adapting.adapter import Adapter
    from vecdb.encoders.base import Encoder
    from vecdb.standing.log import LogEntry
    from vecdb.standing.replay import ReplayReport

Progress = bool | Callable[[int, int | None], object]


class LoggedVerbs(Handle):
    """The verbs that go by the search log."""

    __slots__ = ()

    def feedback(self, hits: Hits, chosen: Id | Iterable[Id]) -> None:
        """Note in the search log which of a search's hits were chosen; durable on return.

        `hits`: of a search of this collection that was logged. Chosen in several calls, they add up.
        InvalidArgument where the search was not logged, or an id is not among its hits.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> db.search_log.start(c)
        >>> c.feedback(c.search([1, 0]), chosen="b")
        >>> [entry.chosen for entry in db.search_log]
        [['b']]
        """
        self._db.search_log._choose(self, hits, chosen)

    def replay(
        self,
        entries: Iterable[LogEntry] | None = None,
        *,
        encoder: str | Encoder | None = None,
        adapter: Adapter | None = None,
        using: str | None = None,
        where: Where | None = None,
        recall: float | None = None,
        progress: Progress = False,
        cancel: Callable[[], bool] | threading.Event | None = None,
    ) -> ReplayReport:
        """Run logged searches again, and report what moved and, where a choice is known, how good it is.

        `entries`: of `db.search_log`, those of this collection by default. `where` and `recall` take the
        place of those that were logged. Searches that cannot be run any more are told, and left out. Costs
        the searches; they are not logged again.

        `encoder`, `adapter`: another model for a vector field (`using`, where that is needed). The rows'
        texts are encoded by `encoder`, or their stored vectors mapped by `adapter` (given both, one after
        the other), logged queries likewise, and ranked exactly. Costs a private copy of the collection with
        the new vectors, and the encoding, which is cached in the file. Plain vectors cannot be encoded anew,
        and a radius is one model's: such searches are among the report's `.failed`, with the reason.
        `progress` and `cancel` as in `add_table`, of the rows. InvalidArgument, also inside a transaction;
        EncoderMismatch for an adapter that learned on other vectors.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing")
        >>> _ = c.add(["a", "b"], texts=["a fast kernel", "a hot soup"])
        >>> db.search_log.start(c)
        >>> _ = c.search("kernel", k=2); _ = c.search("soup", k=2)
        >>> c.replay().same
        True
        >>> c.replay(encoder="hashing:64").overlap
        1.0
        """
        log = self._db.search_log
        if encoder is None and adapter is None:
            if using is not None:
                refuse(f"using={using!r:.60}: goes with encoder= or adapter=")
            return log._replay(self, entries, where, recall)
        if recall is not None:
            refuse(f"recall={recall!r:.40}: another model's answers are exact; leave it out")
        self._db._outside_transaction("replay with encoder= or adapter=")
        from vecdb.evaluation import othermodel

        return othermodel.replayed(
            self, log._replayed(self, entries), where, encoder=encoder, adapter=adapter, using=using,
            progress=progress, cancel=cancel,
        )  # fmt: skip
