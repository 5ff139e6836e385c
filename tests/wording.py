"""Full text written a second time, in plain Python: what every search and every `matches` must say.

`Reference` keeps each row's terms by field, made by the analyzer that the collection uses, and scores BM25
from its definition. `ask` runs the ranker of a `Text` as every verb does. Nothing here knows of segments.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from importlib.util import find_spec
from typing import Any

import numpy as np

from vecdb.collection.searching import Options
from vecdb.index.columns import columns_of
from vecdb.query import Text
from vecdb.storage import keys

LANGUAGE = "english" if any(map(find_spec, ("Stemmer", "snowballstemmer"))) else None
VOCABULARY = [
    "kernel", "kernels", "gpu", "fast", "slow", "printer", "printing", "run", "running", "common",
    "rare", "Größe", "naïve", "x", "driver", "drivers", "linux", "daemon", "web", "server",
]  # fmt: skip
WEIGHTS = [1 / (at + 1) for at in range(len(VOCABULARY))]


def sentence(rng: random.Random, most: int = 12) -> str:
    return " ".join(rng.choices(VOCABULARY, WEIGHTS, k=rng.randrange(most + 1)))


def title(rng: random.Random) -> Any:
    """What a row may have where a text is looked for: a str, a list, or something else."""
    return rng.choice([
        lambda: sentence(rng, 4), lambda: [sentence(rng, 2) for _ in range(rng.randrange(4))],
        lambda: [sentence(rng, 2), 5, None], lambda: None, lambda: 7, lambda: "",
    ])()  # fmt: skip


Part = tuple[str, str, str]  # what it is for: "", "+" or "-"; "word", "prefix" or "phrase"; the words


def parts(rng: random.Random, signs: str = " +-") -> list[Part]:
    """A query's parts."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        kind = rng.choice(("word", "word", "word", "prefix", "phrase"))
        word = rng.choice(VOCABULARY)
        if kind == "prefix":
            word = word[: rng.randrange(1, len(word) + 1)]
        if kind == "phrase":
            word = f"{word} {rng.choice(VOCABULARY)}"
        found.append((rng.choice(signs).strip(), kind, word))
    return found


def written(listed: list[Part]) -> str:
    """The parts as a query's text."""
    shown = {"word": "{}", "prefix": "{}*", "phrase": '"{}"'}
    return " ".join(sign + shown[kind].format(word) for sign, kind, word in listed)


class Reference:
    """Rows by id, each with its texts by field: a list of elements."""

    def __init__(self, schema: Any) -> None:
        self.columns = columns_of(schema)
        self.fields = [each.name for each in self.columns.listed]
        self.rows: dict[Any, tuple[str | None, dict[str, Any]]] = {}

    def copy(self) -> Reference:
        other = Reference.__new__(Reference)
        other.columns, other.fields, other.rows = self.columns, self.fields, dict(self.rows)
        return other

    def elements(self, id: Any, field: str) -> list[str]:
        text, metadata = self.rows[id]
        value = text if field == "text" else metadata.get(field)
        if isinstance(value, list):
            return [each for each in value if isinstance(each, str)]
        return [value] if isinstance(value, str) else []

    def tf(self, id: Any, field: str, kind: str, word: str) -> int:
        """How often a row has it."""
        return self.count(self.elements(id, field), field, kind, word)

    def count(self, texts: list[str], field: str, kind: str, word: str) -> int:
        """How often a field's texts have it."""
        analyzer = self.columns.listed[self.fields.index(field)].analysis.analyzer
        if kind == "phrase":
            terms = analyzer.terms(word)
            if len(terms) > 1:
                gaps = [b[1] - a[1] for a, b in zip(terms, terms[1:], strict=False)]
                return sum(_run(analyzer.terms(text), [t for t, _ in terms], gaps) for text in texts)
            kind = "word"
        counted = Counter(term for text in texts for term, _ in analyzer.terms(text))
        if kind == "word":
            return counted[analyzer.terms(word)[0][0]]
        begins, whole = analyzer.fold(word), analyzer.terms(word)
        also = whole[0][0] if len(whole) == 1 else None
        return sum(n for term, n in counted.items() if term.startswith(begins) or term == also)

    def scores(self, listed: list[Part], fields: list[str], weights: dict[str, float]) -> dict[Any, float]:
        """Every row that matches, with its score."""
        lengths = {
            field: {id: n for id in self.rows if (n := self.length(id, field))} for field in fields
        }
        found: dict[Any, float] = dict.fromkeys(self.rows, 0.0)
        hit, out = dict.fromkeys(self.rows, False), dict.fromkeys(self.rows, False)
        for sign, kind, word in listed:
            has = set()
            for field in fields:
                tfs = {id: n for id in self.rows if (n := self.tf(id, field, kind, word))}
                has |= tfs.keys()
                n, df = len(lengths[field]), len(tfs)
                idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
                average = sum(lengths[field].values()) / n if n else 1.0
                for id, tf in tfs.items():
                    if sign != "-":
                        norm = 1.2 * (1 - 0.75 + 0.75 * lengths[field][id] / average)
                        found[id] += weights.get(field, 1.0) * idf * tf * 2.2 / (tf + norm)
            for id in self.rows:
                out[id] |= (sign == "+" and id not in has) or (sign == "-" and id in has)
                hit[id] |= sign != "-" and id in has
        return {id: score for id, score in found.items() if hit[id] and not out[id]}

    def length(self, id: Any, field: str) -> int:
        return self.size(self.elements(id, field), field)

    def size(self, texts: list[str], field: str) -> int:
        """How many terms a field's texts have."""
        analyzer = self.columns.listed[self.fields.index(field)].analysis.analyzer
        return sum(len(analyzer.terms(text)) for text in texts)

    def matches(self, listed: list[Part], field: str) -> set[Any]:
        """The rows of a `matches` filter."""
        every = [(sign or "+", kind, word) for sign, kind, word in listed]
        return set(self.scores(every, [field], {}))

    def best(self, scores: dict[Any, float], k: int | None) -> list[tuple[Any, float]]:
        """By falling score, ties by id."""
        order = sorted(scores.items(), key=lambda each: (-round(each[1], 9), keys.id_order(each[0])))
        return order[:k]


def _run(have: list[tuple[bytes, int]], terms: list[bytes], gaps: list[int]) -> int:
    places = set(have)
    count = 0
    for term, at in have:
        if term != terms[0]:
            continue
        for wanted, gap in zip(terms[1:], gaps, strict=True):
            at += gap
            if (wanted, at) not in places:
                break
        else:
            count += 1
    return count


def ranked(c: Any, query: Text, k: int | None, where: Any, exact: bool) -> Any:
    """What a query's ranker says, and what `search` does."""
    with c._reading() as (txn, view):
        place = c._place(txn, view, c._request(Options(k, c._chosen(where), exact=exact)), None)
        made = c._ranker(place, query)
        matching = made.matching()
        best = made.best(matching if k is None else k)
        every = np.array(view.live, np.uint32)
        ids = place.ids(every) if len(every) else []
        scored = dict(zip(ids, made.scores(every).tolist(), strict=True))
        lacks = {id: made.lacks(int(rid)) for id, rid in zip(ids[:5], every[:5], strict=True)}
        rows = np.array(made.rows(), np.uint32)
        matched = set(place.ids(rows)) if len(rows) else set()
        found = list(zip(place.ids(best.rids) if len(best.rids) else [], best.scores.tolist(), strict=True))
    hits = c.search(query, k, where=where, exact=exact)
    assert hits.ids == [id for id, _ in found]
    return found, matching, scored, matched, lacks


def compare(c: Any, reference: Reference, rng: random.Random, times: int = 6) -> None:
    """Random queries and filters, each against the reference."""
    assert {r.id for r in c} == reference.rows.keys()
    for _ in range(times):
        listed = parts(rng)
        fields = rng.choice([None, *([each] for each in reference.fields), reference.fields])
        weights = {each: rng.choice((0.5, 1.0, 2.0)) for each in reference.fields if rng.random() < 0.4}
        where, allowed = None, set(reference.rows)
        if rng.random() < 0.5:
            field = rng.choice(reference.fields)
            wanted = parts(rng, "  -")
            where = {field: {"$matches": written(wanted)}}
            allowed = reference.matches(wanted, field)
            assert c.count(where) == len(allowed), (wanted, field)
            if rng.random() < 0.3:
                where, allowed = {"$not": where}, set(reference.rows) - allowed
        scores = reference.scores(listed, fields or reference.fields, weights)
        scores = {id: score for id, score in scores.items() if id in allowed}
        k = rng.choice((1, 3, 10, None))
        expected = reference.best(scores, k)
        query = Text(written(listed), fields, weights)
        pruned = None
        for exact in (False, True):
            found, matching, scored, matched, lacks = ranked(c, query, k, where, exact)
            assert pruned in (None, found), "pruning changed something"
            pruned = found
            assert matching == len(scores) and matched == scores.keys(), (query, where)
            assert found == sorted(found, key=lambda each: (-each[1], keys.id_order(each[0]))), found
            assert len({id for id, _ in found}) == len(found) == len(expected), (query, where)
            assert np.allclose([s for _, s in found], [s for _, s in expected], rtol=1e-12), (query, where)
            assert all(abs(score - scores[id]) < 1e-9 for id, score in found), (query, where)
            for id, score in scored.items():
                assert (score != score) == (id not in scores) and (score != score or abs(score - scores[id]) < 1e-9)
            for id, reason in lacks.items():
                assert (reason is None) == (id in scores)


# --- writers that are killed ------------------------------------------------------------------


def deed(seed: int, number: int, known: list[int]) -> list[tuple[str, list[int], list[str]]]:
    """What commit `number` of a writer does to rows 0 to 79, given those that there are."""
    rng, found = random.Random(f"{seed}-{number}"), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        ids = rng.sample(range(80), rng.choice((1, 3, 9, 40)))
        verb = rng.choice(("upsert", "upsert", "text", "delete"))
        if verb == "text":
            ids = [id for id in ids if id in known]
        found.append((verb, ids, [sentence(rng) for _ in ids]))
        known = sorted({*known, *ids} - ({*ids} if verb == "delete" else set()))
    return found


def perform(c: Any, deeds: list[tuple[str, list[int], list[str]]]) -> None:
    """Do it to a collection."""
    for verb, ids, texts in deeds:
        if verb == "upsert":
            c.upsert(ids, texts=texts, metadata=[{"title": text[:9]} for text in texts])
        elif verb == "delete":
            c.delete(ids)
        elif ids:
            c.update(ids, texts=texts)


def apply(reference: Reference, deeds: list[tuple[str, list[int], list[str]]]) -> None:
    """Do it to a reference."""
    for verb, ids, texts in deeds:
        for id, text in zip(ids, texts, strict=True):
            if verb == "delete":
                reference.rows.pop(id, None)
            elif verb == "upsert":
                reference.rows[id] = text, {"title": text[:9]}
            else:
                reference.rows[id] = text, reference.rows[id][1]


def hurried(put: Any = setattr) -> None:
    """Fold and merge all the time, in the smallest of slices; `put`: a test's way to set them for a while."""
    from vecdb.index import textfolding, writing

    least = {"FOLD_ROWS": 6, "PIECE_ROWS": 16, "LEAST": 256, "FAN": 3, "WORTH": 0, "SLICE": 1}
    for name, value in least.items():
        put(textfolding, name, value)
    put(writing, "DIRECT_ROWS", 60)
