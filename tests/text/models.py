"""Plain Python for what full text promises: postings in dicts, scores by the formulas."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vecdb._core import _text as core

PLAIN = 1 << 31
WORDS = [f"w{i}" for i in range(60)]
K1, B = 1.2, 0.75


class Corpus:
    """Rows over several segments, some replaced later; what is alive, as dicts."""

    def __init__(self, rng: random.Random, n_segments: int, n_rows: int, kinds: Sequence[str]) -> None:
        self.kinds = list(kinds)
        self.analyzer = core.Analyzer()
        self.columns = [self.analyzer if kind == "text" else None for kind in kinds]
        self.rows: dict[int, list[Any]] = {}
        self.segments: list[Any] = []
        self.dead: list[bytes] = []
        self.rng = rng
        for _ in range(n_segments):
            self.commit(n_rows)

    def value(self, kind: str) -> Any:
        rng = self.rng
        if rng.random() < 0.1:
            return None
        if kind == "text":
            return " ".join(rng.choices(WORDS, [1 / (i + 1) for i in range(60)], k=rng.randrange(40)))
        tokens: list[Any] = [rng.choice([i, f"t{i}"]) for i in range(30)]
        chosen = rng.sample(tokens, rng.randrange(12))
        return {t: float(np.float32(rng.choice([1.0, 0.5, rng.uniform(-2, 3)]))) for t in chosen}

    def commit(self, n_rows: int) -> None:
        rng = self.rng
        builder = core.SegmentBuilder(self.columns)
        known = list(self.rows)
        rids: set[int] = set(rng.sample(known, min(len(known), rng.randrange(n_rows // 3 + 1))))
        while len(rids) < n_rows:
            high = PLAIN if rng.random() < 0.3 else 0
            rids.add(high + rng.randrange(n_rows * 6))
        order = list(rids)
        rng.shuffle(order)
        values = [[self.value(kind) for _ in order] for kind in self.kinds]
        builder.add_many(np.array(order, np.uint32), values)
        gone = [rid for rid in known if rid not in rids and rng.random() < 0.05]
        builder.touch_many(np.array(gone, np.uint32))
        for rid in gone:
            del self.rows[rid]
        for i, rid in enumerate(order):
            self.rows[rid] = [column[i] for column in values]
        made = builder.finish()
        self.dead = [s.bury(made.touched(), d) for s, d in zip(self.segments, self.dead, strict=True)]
        self.segments.append(made)
        self.dead.append(b"")

    def counts(self, column: int) -> dict[int, dict[bytes, float]]:
        """Of each row with a term: tf, or weight."""
        found = {}
        for rid, values in self.rows.items():
            value = values[column]
            if not value:
                continue
            if self.kinds[column] == "text":
                found[rid] = {w.encode(): float(n) for w, n in Counter(value.split()).items()}
            else:
                found[rid] = {core.token(t): w for t, w in value.items() if w}
        return {rid: terms for rid, terms in found.items() if terms}

    def leg(self, leg: Any) -> dict[int, float]:
        """What a leg adds to each row that it matches."""
        column, weight, kind, payload = leg
        counts = self.counts(column)
        if self.kinds[column] == "sparse":
            return {rid: weight * terms[payload] for rid, terms in counts.items() if payload in terms}
        lengths = {rid: sum(terms.values()) for rid, terms in counts.items()}
        average = sum(lengths.values()) / len(lengths) if lengths else 1
        tfs: dict[int, float] = {}
        if kind == core.LIST:
            tfs = {int(r): float(t) for r, t in zip(*payload, strict=True) if int(r) in self.rows and t}
        else:
            prefix, also = payload if isinstance(payload, tuple) else (payload, b"")
            for rid, terms in counts.items():
                for term, n in terms.items():
                    hit = term == payload if kind == core.TERM else term.startswith(prefix) or term == also
                    if hit:
                        tfs[rid] = tfs.get(rid, 0) + n
        df, n_rows = len(tfs), max(len(counts), len(tfs))
        idf = math.log(1 + (n_rows - df + 0.5) / (df + 0.5))
        return {
            rid: weight * idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * lengths.get(rid, 0) / average))
            for rid, tf in tfs.items()
        }

    def search(self, clauses: Any, allowed: set[int] | None = None) -> dict[int, float]:
        """Scores of all rows that match."""
        scores: dict[int, float] = {}
        musts, nots = [], []
        for occur, legs in clauses:
            adds = [self.leg(leg) for leg in legs]
            matching = set().union(*adds)
            if occur == core.NOT:
                nots.append(matching)
                continue
            if occur == core.MUST:
                musts.append(matching)
            for add in adds:
                for rid, value in add.items():
                    scores[rid] = scores.get(rid, 0.0) + value
        return {
            rid: score
            for rid, score in scores.items()
            if all(rid in must for must in musts)
            and not any(rid in no for no in nots)
            and (allowed is None or rid in allowed)
        }

    def clauses(self, most: int = 5) -> list[Any]:
        """A random query over all columns."""
        rng = self.rng
        out = []
        for _ in range(rng.randrange(1, most + 1)):
            occur = rng.choices([core.SHOULD, core.MUST, core.NOT], [6, 2, 1])[0]
            out.append((occur, [self.random_leg() for _ in range(rng.randrange(1, 4))]))
        return out

    def random_leg(self) -> Any:
        rng = self.rng
        column = rng.randrange(len(self.kinds))
        if self.kinds[column] == "sparse":
            i = rng.randrange(30)
            return (column, rng.uniform(-1, 2), core.TERM, core.token(rng.choice([i, f"t{i}"])))
        weight = rng.choice([1.0, 2.0, 0.0, rng.random()])
        kind = rng.choices([core.TERM, core.PREFIX, core.LIST], [6, 1, 1])[0]
        word = rng.choices(WORDS, [1 / (i + 1) for i in range(60)])[0].encode()
        if kind == core.PREFIX:
            return (column, weight, kind, rng.choice([word, (word, rng.choice(WORDS).encode())]))
        if kind == core.LIST:
            rids = sorted(rng.sample(list(self.rows), min(len(self.rows), rng.randrange(30))))
            rids += [rids[-1] + 1] if rids else []
            tfs = [rng.randrange(1, 5) for _ in rids]
            return (column, weight, kind, (np.array(rids, np.uint32), np.array(tfs, np.uint32)))
        return (column, weight, kind, word)


def numbers(given: bytes) -> list[int]:
    """A list of the uint32 in bytes."""
    return [int(one) for one in np.frombuffer(given, np.uint32)]
