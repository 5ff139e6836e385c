"""How does a user say what was chosen of a search, and run logged searches again? feedback, replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vecdb.collection.handle import Handle, Where
from vecdb.types import Hits, Id

if TYPE_CHECKING:
    from vecdb.standing.log import LogEntry
    from vecdb.standing.replay import ReplayReport


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
        where: Where | None = None,
        recall: float | None = None,
    ) -> ReplayReport:
        """Run logged searches again, and report what moved and, where a choice is known, how good it is.

        `entries`: of `db.search_log`, those of this collection by default. `where` and `recall` take the
        place of those that were logged. Searches that cannot be run any more are told, and left out. Costs
        the searches; they are not logged again. InvalidArgument.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> db.search_log.start(c)
        >>> _ = c.search([1, 0]); _ = c.search([0, 1])
        >>> c.replay().same
        True
        """
        return self._db.search_log._replay(self, entries, where, recall)
