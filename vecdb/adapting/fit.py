"""What map of a field's vectors do these judgements ask for, and does it help? The answer to `fit_adapter`.

    sources.py      what is to be learned, from what the user gave
    learning.py     the best map, by a part of the training judgements that is kept aside
    measuring.py    what it does on the held-out ones

Held out is a share of the queries (of the rows, for labels), which no map that is judged by them has seen. Of
few judgements a fifth is too little to tell a gain from luck, so that below FEW every query is held out once,
in as many rounds as the share asks for, each judged by a map that was learned from the others; the adapter is
then learned from all of them, by the same rules. Of many, the adapter is the very map that was measured.

Invariants (checked by tests/unit/test_fit_adapter.py):
  H1  no map is judged by a query that it was learned from, or chosen by;
  H2  the same collection, judgements and seed give the same adapter, bit by bit on one machine;
  H3  nothing is written: neither to the collection nor to the search log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.adapting import measuring, sources
from vecdb.adapting.adapter import Adapter
from vecdb.adapting.learning import Learned, learn
from vecdb.adapting.report import AdapterReport, Change
from vecdb.errors import InvalidArgument
from vecdb.evaluation.significance import compare

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.adapting.sources import Task
    from vecdb.collection import Collection

    Ints = npt.NDArray[np.intp]

FEW: Final = 100  # held-out queries below which all are held out in turn
MOST_ROUNDS: Final = 10
MOST_SEED: Final = 2**63


def fit_adapter(
    papers: Collection,
    *,
    pairs: Iterable[Any] | None = None,
    triplets: Iterable[Any] | None = None,
    labels: str | None = None,
    feedback: bool | None = None,
    using: str | None = None,
    holdout: float = 0.2,
    seed: int = 0,
) -> Adapter:
    """Return a linear map of a field's vectors that brings together what belongs together.

    Exactly one source: `pairs` [(query, id)], `triplets` [(query, id, id)] whose second id must stay behind
    the first, `labels` the metadata field whose equal values belong together, `feedback=True` the choices in
    the search log. A query is a text, a vector (d,) or `vecdb.query.ById(id)`. `using`: the vector field,
    where there are several. `holdout`: the share of the queries (of the rows, for labels) that is kept for
    the report.

    The map is chosen among whitening, discriminants and contrastive maps near the identity by a part of what
    is not held out. `adapter.report` says what it gains on the held-out part, `adapter.helps` whether that is
    surely a gain. Nothing is written. Costs seconds to a minute, reads the collection once, and takes memory
    for its vectors (at most 256 MB, beyond that an even sample of them).

    InvalidArgument names the first bad item, a field of bits, sparse or many vectors, and too little to learn
    from (10 queries, 20 labelled rows); NotFound an unknown id. Sources: InfoNCE (van den Oord et al., 2018),
    NCA (Goldberger et al., 2004), KISSME (Köstinger et al., 2012), whitening (Su et al., 2021).

    >>> import numpy as np, vecdb
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(0, 2, 120)
    >>> noisy = np.column_stack([kind + rng.normal(0, 0.3, 120), rng.normal(0, 3, 120)])
    >>> c = vecdb.open().create_collection("c", dim=2, metric="l2")
    >>> _ = c.add(list(range(120)), noisy, metadata=[{"kind": int(each)} for each in kind])
    >>> adapter = vecdb.fit_adapter(c, labels="kind")
    >>> adapter.helps, adapter([[0, 0], [0, 9]]).shape
    (True, (2, 2))
    """
    began = time.perf_counter()
    share, seed = _share(holdout), _seed(seed)
    task = _task(papers, pairs, triplets, labels, feedback, using, seed)
    rounds = _rounds(len(task), share, seed)
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    learned: Learned | None = None
    for number, (units, held_out) in enumerate(rounds):
        learned = learn(papers, task, units, seed + number)
        for figures, map in ((before, _as_they_are), (after, _mapped(learned, task))):
            for name, values in measuring.figures(task, held_out, map).items():
                figures.setdefault(name, []).extend(values)
    if len(rounds) > 1 or learned is None:
        learned = learn(papers, task, np.arange(len(task)), seed)
    changes = tuple(_change(name, before[name], after[name], seed) for name in before)
    report = AdapterReport(
        changes, learned.name, task.source, task.unit, learned.learned - learned.aside, learned.aside,
        len(next(iter(before.values()))), len(task.documents), time.perf_counter() - began,
        learned.scores[:10], notes=_notes(task, rounds),
        deciding=measuring.DECIDING if changes[0].metric in measuring.RANKED else 1,
    )  # fmt: skip
    return _adapter(papers, task, learned, report)


def _task(
    papers: Collection, pairs: Any, triplets: Any, labels: Any, feedback: Any, using: Any, seed: int
) -> Task:
    """The one source that was given."""
    from vecdb.collection import Collection

    if not isinstance(papers, Collection):
        _refuse(f"papers is a {type(papers).__name__}; give a collection, such as db['papers']")
    if feedback not in (None, False, True) or isinstance(feedback, int) != isinstance(feedback, bool):
        _refuse(f"feedback={feedback!r:.40}: give True, for the choices in the search log")
    given = {"pairs": pairs, "triplets": triplets, "labels": labels, "feedback": feedback or None}
    sources_given = [name for name, value in given.items() if value is not None]
    if len(sources_given) != 1:
        found = " and ".join(sources_given) or "none"
        _refuse(f"fit_adapter takes one of pairs=, triplets=, labels= and feedback=True; {found} is given")
    if labels is not None:
        return sources.of_labels(papers, labels, using, seed)
    if pairs is not None:
        return sources.of_pairs(papers, pairs, using, seed, name="pairs", seats=2)
    if triplets is not None:
        return sources.of_pairs(papers, triplets, using, seed, name="triplets", seats=3)
    return sources.of_feedback(papers, using, seed)


def _rounds(n: int, share: float, seed: int) -> list[tuple[Ints, Ints]]:
    """(what is learned from, what is held out) of each round."""
    order = np.random.default_rng([seed, 0]).permutation(n)
    count = min(n - 1, max(1, round(n * share)))
    if count >= FEW:
        return [(np.sort(order[count:]), order[:count])]
    rounds = max(2, min(MOST_ROUNDS, round(1 / share)))
    parts = np.array_split(order, rounds)
    return [
        (np.sort(np.concatenate([each for each in parts if each is not part])), part) for part in parts
    ]


def _notes(task: Task, rounds: list[tuple[Ints, Ints]]) -> tuple[str, ...]:
    if len(rounds) == 1:
        return task.notes
    each = f"every one of the {task.unit} was held out once, in {len(rounds)} rounds"
    return (f"{each}; the adapter is learned from all of them", *task.notes)


def _as_they_are(rows: measuring.Floats) -> measuring.Floats:
    return rows


def _mapped(learned: Learned, task: Task) -> measuring.Map:
    metric = task.field.metric
    return lambda rows: learned(rows, metric)


def _change(name: str, before: list[float], after: list[float], seed: int) -> Change:
    found = compare(after, before, seed=seed)
    means = float(np.mean(before)), float(np.mean(after))
    return Change(name, *means, found.difference, found.low, found.high, found.p_value)


def _adapter(papers: Collection, task: Task, learned: Learned, report: AdapterReport) -> Adapter:
    """The map as a value."""
    return Adapter(
        None if learned.low_rank else learned.matrix, low_rank=learned.low_rank, mean=learned.mean,
        metric=task.field.metric, dtype=task.field.dtype, encoder_fingerprint=task.field.space,
        collection=papers.name, using=task.name, report=report,
    )  # fmt: skip


def _share(holdout: Any) -> float:
    if isinstance(holdout, bool) or not isinstance(holdout, int | float | np.integer | np.floating):
        _refuse(f"holdout={holdout!r:.40}: give a share above 0 and below 1, such as 0.2")
    if not 0 < holdout < 1:
        _refuse(f"holdout={holdout!r:.40}: give a share above 0 and below 1: a gain is to be measured")
    return float(holdout)


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < MOST_SEED:
        _refuse(f"seed={seed!r:.40}: give an int from 0 to 2 ** 63 - 1")
    return int(seed)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
