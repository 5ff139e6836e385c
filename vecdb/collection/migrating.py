"""How do all vectors of a field become others while searches and writes go on? apply_adapter, reembed.

The new vectors are made beside the old, in a hidden field with a graph of its own (schema.Hidden), some
hundred rows at a commit (steps.py). When no row lacks one, that commit gives the hidden field the name, and
the old one stands behind it until it is dropped, or takes the name back.

Invariants (checked by tests/unit/test_migrating.py, tests/faults/test_migrating_kill.py):
  M1  every commit leaves a file that answers: until the last one with the old vectors, from it on with the
      new ones, and never with some of each (but over a bridge, which says so);
  M2  which rows are done is in the file (FieldState.held): a killed call is gone on with by calling again,
      and two processes that call it do not undo each other's work;
  M3  a row that is written meanwhile lacks the new vector, and is done as the others are; after the switch
      its vector goes through the adapters when it is written, and into the field behind it where it can;
  M4  nothing is dropped but by `drop_previous_vectors`, and by a rollback what the rollback undoes.

Rejected: mapping vectors when they are searched. Every search would pay, and the graph's links and codes
would be those of other vectors.
Rejected: giving each row its new vector by an update. It would leave the old graph as well, and every row
would get another number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.collection.handle import refuse
from vecdb.collection.steps import Steps, text_of
from vecdb.embedding import embed
from vecdb.errors import EncoderMismatch
from vecdb.index.seats import rows_of
from vecdb.progress import reporter, stopper
from vecdb.storage import rows, vectors
from vecdb.storage.schema import PREVIOUS, Hidden, VectorField

if TYPE_CHECKING:
    from vecdb.adapting.adapter import Adapter
    from vecdb.adapting.bridge import Loss
    from vecdb.encoders.base import Encoder

SAMPLE: Final = 1000  # rows on which the bridge between two encoders is learned, at most
LEAST_SAMPLE: Final = 150  # and at least: from fewer it may find less than the old encoder alone


class MigratingVerbs(Steps):
    """The verbs that give all rows of a field other vectors."""

    __slots__ = ()

    def apply_adapter(
        self,
        adapter: Adapter,
        *,
        using: str | None = None,
        force: bool = False,
        progress: Any = False,
        cancel: Any = None,
    ) -> None:
        """Let all vectors of a field go through an adapter: those of its rows, and all that come later.

        Made by `vecdb.fit_adapter`. New vectors are built beside the old, in steps of some 50 ms, while
        searches and writes go on, and change over in one commit; killed, or stopped by `cancel`, it goes on
        where it was when it is called again. Afterwards vectors and queries given to the field are mapped,
        `vectors()` returns mapped ones, and the old are kept until `drop_previous_vectors()`. Costs what
        inserting the rows costs. Raises InvalidArgument for an adapter that does not help (without
        `force=True`) or was made for other vectors, and while older ones are still kept.

        >>> import numpy as np, vecdb
        >>> from vecdb.adapting.adapter import Adapter
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0.6, 0.8]])
        >>> c.apply_adapter(Adapter([[0, 1], [1, 0]], metric="cosine"), force=True)
        >>> c.vectors("a").tolist(), c.search([1, 0], k=1).ids
        ([[0.0, 1.0]], ['a'])
        >>> c.rollback_vectors(); c.vectors("a").tolist()
        [[1.0, 0.0]]
        """
        self._db._outside_transaction("apply_adapter")
        from vecdb.adapting.adapter import Adapter as Kind

        if not isinstance(adapter, Kind):
            refuse(f"apply_adapter: a {type(adapter).__name__}; give what vecdb.fit_adapter returned")
        stopped = stopper(cancel)
        with reporter(progress, "apply_adapter") as report:
            name, number = self._adapted_by(adapter, using, force)
            self._go_on(name, number, stopped, report)

    def reembed(
        self,
        encoder: str | Encoder,
        *,
        using: str | None = None,
        bridge: bool = True,
        progress: Any = False,
        cancel: Any = None,
    ) -> Loss | None:
        """Encode all rows of a field anew, with another encoder; return what its bridge lost.

        Built and switched as by `apply_adapter`; `vecdb.encoders.get` names encoders. Rows are encoded from
        the text that the field's encoder reads (`source`). With `bridge` a map from the new encoder's
        vectors to the old ones is learned first, so that texts that are searched meanwhile are encoded by
        the new one and find rows of both kinds; what it loses is measured and returned (None without one),
        and is in `stats()` meanwhile. The new encoder's vectors are cached in the file as always. Raises
        InvalidArgument where a row has a vector but no text, naming the first.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing:64")
        >>> _ = c.add(["a"], texts=["an apple"])
        >>> c.reembed("hashing:128")
        >>> c.schema.dim, c.search("apple").ids
        (128, ['a'])
        """
        self._db._outside_transaction("reembed")
        from vecdb import encoders

        found, stopped = encoders.get(encoder), stopper(cancel)
        with reporter(progress, "reembed") as report:
            name, number = self._encoded_anew(found, using, bridge)
            hidden = self.schema.hidden.get(name)
            bridged = None if hidden is None or hidden.field.number != number else hidden.bridge
            loss: Loss | None = None if bridged is None else self._bridge(bridged).loss
            self._db._encoders[self._cid, number] = found
            self._go_on(name, number, stopped, report)
            return loss

    def rollback_vectors(self, using: str | None = None) -> None:
        """Give a field its previous vectors back, or abandon the new ones that are being made.

        Rows that were written since come along: through the previous adapters, or encoded by the previous
        encoder first. What it undoes is dropped. Costs one commit, and those rows. Raises InvalidArgument
        where nothing is kept, EncoderMismatch where the previous encoder is needed and not at hand.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing:64")
        >>> _ = c.add(["a"], texts=["an apple"])
        >>> c.reembed("hashing:128"); _ = c.add("b", texts="a pear")
        >>> c.rollback_vectors()
        >>> c.schema.dim, c.search("pear", k=1).ids
        (64, ['b'])
        """
        self._db._outside_transaction("rollback_vectors")
        name, _ = self._migrated(using)
        hidden = self.schema.hidden.get(name)
        if hidden is None:
            refuse(f"rollback_vectors: no previous vectors of field {name!r} are kept")
        number = hidden.field.number
        if hidden.role == PREVIOUS:
            self._go_on(name, number, stopper(None), lambda done, total: None)
        else:
            self._drop_hidden(name, number)

    def drop_previous_vectors(self, using: str | None = None) -> None:
        """Drop the vectors that a field had before `apply_adapter` or `reembed`; there is no rollback then.

        Raises InvalidArgument where none are kept.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing:64")
        >>> c.reembed("hashing:128"); c.drop_previous_vectors()
        """
        self._db._outside_transaction("drop_previous_vectors")
        name, _ = self._migrated(using)
        hidden = self.schema.hidden.get(name)
        if hidden is None or hidden.role != PREVIOUS:
            refuse(f"drop_previous_vectors: no previous vectors of field {name!r} are kept")
        self._drop_hidden(name, hidden.field.number)

    # --- what may begin --------------------------------------------------------------------

    def _adapted_by(self, adapter: Adapter, using: str | None, force: bool) -> tuple[str, int]:
        """The field that an adapter is for, and the number of the one for its vectors, made if need be."""
        name, declared = self._migrated(using)
        hidden = self.schema.hidden.get(name)
        fingerprint = adapter.fingerprint
        if hidden is None or hidden.role == PREVIOUS:
            if declared.adapters[-1:] == (fingerprint,) and hidden is not None:
                return name, declared.number  # a call before has done it
            self._check_adapter(adapter, name, declared, force)
            self._refuse_previous(name, hidden, "apply_adapter")
            made = replace(
                declared, dim=adapter.dim, given=declared.given_dim,
                adapters=(*declared.adapters, fingerprint),
            )  # fmt: skip
            return name, self._begin(name, declared, made, {fingerprint: adapter.to_bytes()})
        if hidden.field.adapters[-1:] != (fingerprint,) or hidden.field.encoder != declared.encoder:
            self._refuse_other(name, hidden)
        return name, hidden.field.number

    def _encoded_anew(self, encoder: Encoder, using: str | None, bridge: bool) -> tuple[str, int]:
        """As `_adapted_by`, for an encoder."""
        name, declared = self._migrated(using)
        hidden = self.schema.hidden.get(name)
        if hidden is None or hidden.role == PREVIOUS:
            if declared.fingerprint == encoder.fingerprint and not declared.adapters:
                if hidden is not None:
                    return name, declared.number  # a call before has done it
                refuse(f"reembed: field {name!r} has encoder {encoder.name!r} already; nothing was changed")
            self._refuse_previous(name, hidden, "reembed")
            made = replace(
                declared, dim=encoder.dim, encoder=encoder.name, fingerprint=encoder.fingerprint,
                dtype=declared.dtype if declared.dtype in ("f32", "f16") else "f32",
                metric=declared.metric if declared.metric != "hamming" else encoder.metric,
                adapters=(), given=None,
            )  # fmt: skip
            self._refuse_textless(name, declared, made)
            built = self._built_bridge(declared, made, encoder) if bridge else None
            kept = {} if built is None else {built.fingerprint: built.to_bytes()}
            return name, self._begin(name, declared, made, kept, None if built is None else built.fingerprint)
        if hidden.field.fingerprint != encoder.fingerprint or hidden.field.adapters:
            self._refuse_other(name, hidden, encoder.name)
        return name, hidden.field.number

    def _migrated(self, using: str | None) -> tuple[str, VectorField]:
        schema = self.schema
        declared = self._using(schema, using, graph=True)
        name = next(name for name, each in schema.vectors.items() if each is declared)
        if not declared.graphed:
            refuse(f"using={name!r}: only fields of one dense vector a row can get other vectors")
        return name, declared

    def _check_adapter(self, adapter: Adapter, name: str, declared: VectorField, force: bool) -> None:
        if adapter.dim_in != declared.dim:
            refuse(f"the adapter takes {adapter.dim_in} dimensions; field {name!r} has {declared.dim}")
        if adapter.metric != declared.metric:
            refuse(f"the adapter is for metric {adapter.metric!r}; field {name!r} has {declared.metric!r}")
        if declared.dtype not in ("f32", "f16"):
            refuse(
                f"field {name!r} stores {declared.dtype!r}, in which an adapter's vectors have no place: "
                "copy the rows into a collection with dtype 'f32' or 'f16'"
            )
        if adapter.encoder_fingerprint != declared.space:
            raise EncoderMismatch(
                f"the adapter learned on vectors of {_space(adapter.encoder_fingerprint)}; those of field "
                f"{name!r} are of {_space(declared.space)}: fit one on this field"
            )
        if not (adapter.helps or force):
            report = adapter.report
            refuse(
                "the adapter does not help" + (f" ({report.verdict})" if report is not None else "")
                + "; force=True applies it all the same"
            )

    def _refuse_previous(self, name: str, hidden: Hidden | None, verb: str) -> None:
        if hidden is not None:
            refuse(
                f"{verb}: field {name!r} still keeps its previous vectors, and it can keep one set: call "
                "drop_previous_vectors() or rollback_vectors() first"
            )

    def _refuse_other(self, name: str, hidden: Hidden, asked: str | None = None) -> None:
        what = hidden.field.encoder if not hidden.field.adapters else f"adapter {hidden.field.adapters[-1]}"
        if what == asked:
            what = f"another {what} (fingerprint {hidden.field.fingerprint})"
        refuse(
            f"field {name!r} is on its way to {what}: finish that by calling it again, or abandon it with "
            "rollback_vectors()"
        )

    def _refuse_textless(self, name: str, declared: VectorField, made: VectorField) -> None:
        """Refuse to begin where a row could never be encoded."""
        with self._reading() as (txn, view):
            for rid in rows_of(view, self._holders(txn, view, declared)):
                row = rows.get(txn, self._cid, rid)
                if text_of(made, row) is None:
                    self._refuse_row(name, made, row)

    def _built_bridge(self, declared: VectorField, made: VectorField, encoder: Encoder) -> Any:
        """A map from the new encoder's queries to the field's vectors, learned on a sample of its rows."""
        from vecdb.adapting.bridge import learn

        if declared.dtype not in ("f32", "f16"):
            return None
        with self._reading() as (txn, view):
            every = rows_of(view, self._holders(txn, view, declared))
            if len(every) < LEAST_SAMPLE:
                return None
            rng = np.random.default_rng(0)
            rids = np.sort(rng.permutation(np.array(every, np.uint32))[:SAMPLE])
            texts = [text_of(made, rows.get(txn, self._cid, rid)) or "" for rid in rids.tolist()]
            old = vectors.read(txn, self._cid, view.schema.layout(declared), rids).astype(np.float32)
        new = embed(self._db, encoder, texts, made.metric)  # each row has a text: it was looked at
        return learn(new, old, metric=declared.metric)


def _space(fingerprint: str | None) -> str:
    return "no encoder (given vectors)" if fingerprint is None else f"encoder {fingerprint}"
