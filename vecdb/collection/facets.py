"""How does a user ask what values a field has? facets."""

from __future__ import annotations

from typing import Any

from vecdb.collection.composing import Composing
from vecdb.collection.handle import Where, refuse
from vecdb.facets import Facets
from vecdb.index.counts import Counting
from vecdb.storage import codec, rows


class FacetVerbs(Composing):
    """The verbs that count values."""

    __slots__ = ()

    def facets(
        self, field: str, where: Where | None = None, limit: int | None = 100, *, query: Any = None,
        using: str | None = None, radius: float | None = None,
    ) -> Facets:  # fmt: skip
        """Return the `limit` most frequent values of a metadata field with their numbers of rows.

        Falling counts, ties in the order of values (as `scan(order_by=...)` has it, None last).
        A list counts for each value in it, once. `where` filters the rows; `limit=None`: all. `query`, as
        in `search`: only the rows that it matches count, within `radius` if one is given.
        Costs a look at each value's posting, and reads at most one row for each value shown.
        Raises InvalidArgument, FilterError.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add([1, 2], metadata=[{"tags": ["x", "y"], "n": 1}, {"tags": ["y"], "n": True}])
        >>> c.facets("tags").items()
        ItemsView(Facets of 'tags': 2 values in 2 rows, 0 without
          2  'y'
          1  'x')
        >>> c.facets("n")[1], c.facets("n")[True], c.facets("tags", F.n == 1)["y"]
        (1, 1, 1)
        """
        if not isinstance(field, str) or not field:
            refuse(f"field={field!r:.60}: give the name of a metadata field")
        if limit is not None and (
            isinstance(limit, bool) or not hasattr(limit, "__index__") or limit.__index__() < 1
        ):
            refuse(f"limit={limit!r:.40}: give a number of values from 1, or None for all")
        if query is None and (using is not None or radius is not None):
            refuse("facets: using= and radius= go with query=")
        self._need_values(field, "facets", "go through the rows with scan() and count")
        chosen = None if where is None else self._filter(where)
        with self._reading() as (txn, view):
            found = view.live if chosen is None else self._matches(txn, view)(chosen)
            if query is not None:
                found = self._matched(txn, view, query, chosen, using, radius)
            fieldid = view.names.get(field)
            if fieldid is None:
                return Facets(field, (), matches=len(found), missing=len(found), distinct=0)

            def metadata(rid: int) -> dict[str, Any]:
                packed = rows.get(txn, self._cid, rid).metadata
                return codec.unpack_metadata(packed) if packed else {}

            image = self._follower().attributes
            counting = Counting(field, fieldid, image.reader(txn), view.tail, found, metadata)
            return Facets(
                field,
                counting.top(None if limit is None else limit.__index__()),
                matches=len(found),
                missing=len(found) - counting.valued(),
                distinct=len(counting.counts),
            )
