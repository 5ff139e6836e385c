"""Judging in a terminal: what is asked, in which order, and that no answer is lost."""

from __future__ import annotations

import io
import math
import os
import pty
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.evaluation.judge import Sheet
from vecdb.evaluation.metrics import parse
from vecdb.evaluation.pooling import pool_of, pooled, ways_of
from vecdb.query import Near, Text

WORDS = "gpu kernel memory soup winter printer cable fast slow cold".split()


SEED = 3


def made(n: int = 60, **options: Any) -> vecdb.Collection:
    rng = np.random.default_rng(0)
    c = vecdb.open().create_collection("c", encoder="hashing", fulltext=True, **options)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]
    c.add([f"d{i}" for i in range(n)], texts=texts, metadata=[{"title": f"title {i}"} for i in range(n)])
    return c


def judged(c: vecdb.Collection, queries: Any, answers: str, **options: Any) -> tuple[Any, str]:
    out = io.StringIO()
    found = c.judge(queries, input=io.StringIO(answers), output=out, **options)
    return found, out.getvalue()


# --- which documents ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.permutations(list("abcdefgh")).map(lambda p: p[:5]), min_size=1, max_size=4))
def test_the_order_is_by_what_a_judgement_is_expected_to_change(rankings: list[list[str]]) -> None:
    """By the definition: how the vector of all figures and differences moves, by how likely it moves."""
    pool = pool_of({str(at): each for at, each in enumerate(rankings)})
    assert set(pool.order) == {id for each in rankings for id in each}

    def change(id: str) -> float:
        gains = [1 / math.log2(r.index(id) + 2) if id in r else 0.0 for r in rankings]
        moved = np.array(gains + [a - b for a, b in combinations(gains, 2)])
        return float(np.mean(gains) * np.linalg.norm(moved))

    told = [change(id) for id in pool.order]
    assert all(a >= b - 1e-9 for a, b in zip(told, told[1:], strict=False))


def test_one_way_alone_is_asked_in_its_order() -> None:
    assert pool_of({"vectors": list("cab")}).order == list("cab")


@data.needs_data()
@pytest.mark.parametrize("name, least", [("cranfield", 0.88), ("cisi", 0.70)])
def test_few_judgements_tell_which_way_is_better(name: str, least: float) -> None:
    """3 judgements for each of 25 queries, and who is right about two ways; pooling by rank beside it."""
    docs, queries, qrels = data.judged(name)
    c = vecdb.open().create_collection("c", encoder="hashing", fulltext=True)
    c.add(list(docs), texts=list(docs.values()))
    asked = {qid: text for qid, text in queries.items() if any(g > 0 for g in qrels.get(qid, {}).values())}
    pools = pooled(c, asked, ways_of(c, None, None), 20)
    metric = parse("ndcg@10")
    names = ("vectors", "words", "both")
    true, told = [], {"this": [], "depth": []}
    for qid, pool in pools.items():
        in_turn = list(dict.fromkeys(id for ids in zip(*pool.rankings.values(), strict=True) for id in ids))
        true.append([metric.of(pool.rankings[name], qrels[qid]) for name in names])
        for rule, order in (("this", pool.order), ("depth", in_turn)):
            known = {id: qrels[qid].get(id, 0) for id in order[:3]}
            told[rule].append([metric.of(pool.rankings[name], known) for name in names])
    rng, right = np.random.default_rng(SEED), dict.fromkeys(told, 0)
    for _ in range(400):
        some = rng.choice(len(true), 25, replace=False)
        for rule, values in told.items():
            for a, b in combinations(range(3), 2):
                seen, is_so = (np.array(v)[:, a] - np.array(v)[:, b] for v in (values, true))
                right[rule] += np.sign(seen[some].sum()) == np.sign(is_so.sum())
    print(f"{name}, seed {SEED}: of 1,200 decisions are right: {right}")
    assert right["this"] > least * 1_200


# --- answers --------------------------------------------------------------------------------------


def test_answers_become_qrels_that_metrics_take() -> None:
    c = made()
    queries = {"q1": "gpu kernel", 2: "cold soup", 3: "fast", 4: "slow printer", 5: "cable"}
    found, said = judged(c, queries, "3\n0\n1\n" * 5, per_query=3)
    assert set(found) == set(queries) and all(len(grades) == 3 for grades in found.values())
    assert all(grade in (0, 1, 3) for grades in found.values() for grade in grades.values())
    assert "15 judgements (15 new) of 5 queries; 10 relevant." in said and "ndcg@10 by these" in said
    assert "query 1 of 5, document 1 of 3" in said and "title " in said and "just what was wanted" in said


def test_what_was_judged_is_what_evaluate_and_advise_take() -> None:
    c = made()
    queries = {"q1": "gpu kernel", 2: "cold soup", 3: "fast", 4: "slow printer", 5: "cable"}
    qrels, _ = judged(c, queries, "3\n0\n1\n" * 5, per_query=3)
    measured = c.evaluate(queries, qrels, metrics=["ndcg@10"])["search"]["ndcg@10"]
    advice = vecdb.advise(c, queries, qrels)
    assert set(measured.per_query) == set(queries) and 0 < measured.mean < 1
    assert abs(advice.base.mean - measured.mean) < 1e-9, "one judgement, one figure"
    whole = vecdb.evaluate(["hashing"], {r.id: r.text for r in c}, queries, qrels, metrics=["ndcg@10"])
    assert abs(whole["hashing"]["ndcg@10"].mean - measured.mean) < 1e-9


def test_the_ways_are_vectors_words_and_both() -> None:
    c = made()
    out = io.StringIO()
    c.judge(["gpu kernel", "cold soup", "fast", "slow", "printer"], input=io.StringIO("1\n" * 60), output=out)
    for way in ("vectors", "words", "both"):
        assert way in out.getvalue()
    rank = {w: c.search(q, 20, exact=True).ids for w, q in (("n", Near("gpu kernel")), ("t", Text("gpu kernel")))}
    found, _ = judged(c, ["gpu kernel"], "0\n" * 100, per_query=1_000)
    assert set(rank["n"]) | set(rank["t"]) <= set(found["gpu kernel"])


def test_quit_and_the_end_of_the_input_keep_what_was_answered() -> None:
    c = made()
    for ending in ("q\n", "", "quit\n2\n2\n"):
        found, said = judged(c, {"q": "gpu"}, "2\n1\n" + ending)
        assert list(found["q"].values()) == [2, 1] and "2 judgements (2 new)" in said
    assert judged(c, {"q": "gpu"}, "")[0] == {}


def test_an_interrupt_and_a_terminal_that_is_gone_keep_it_too() -> None:
    class Breaking(io.StringIO):
        def __init__(self, error: type[BaseException]) -> None:
            super().__init__("2\n1\n")
            self.error = error

        def readline(self, *_: Any) -> str:
            line = super().readline()
            if not line:
                raise self.error
            return line

    c = made()
    for error in (KeyboardInterrupt, OSError, UnicodeDecodeError("utf-8", b"x", 0, 1, "no")):
        source: Any = Breaking(error if isinstance(error, type) else ValueError)
        assert list(c.judge({"q": "gpu"}, input=source, output=io.StringIO())["q"].values()) == [2, 1]

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert c.judge({"q": "gpu"}, input=io.StringIO("1\n"), output=Gone()) == {}


@pytest.mark.parametrize("last", [RuntimeError("a stream of somebody's own"), 5])
def test_a_stream_that_fails_keeps_it_too(last: Any) -> None:
    class Stream(io.StringIO):
        answers = ["3\n", "0\n"]

        def readline(self, *_: Any) -> Any:
            if self.answers:
                return self.answers.pop(0)
            if isinstance(last, Exception):
                raise last
            return last

    assert sum(map(len, made().judge(["gpu"], input=Stream(), output=io.StringIO()).values())) == 2


def test_undo_skip_next_more_and_help() -> None:
    c = made()
    first, said = judged(c, {"q": "gpu", "r": "soup"}, "u\n2\nu\n3\ns\nu\n1\n?\nwhat\nm\n0\nn\nu\n2\nn\n1\nq\n")
    assert "nothing to undo" in said and said.count("0 not relevant") == 3
    values = [list(grades.values()) for grades in first.values()]
    assert sorted(map(len, values)) == [1, 4] and [3, 1, 0, 2] in values and [1] in values


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["0", "1", "2", "3", "s", "n", "u"]), max_size=30))
def test_undoing_everything_leaves_what_there_was(answers: list[str]) -> None:
    """Against a plain model: the state after an undo is the state before the answer."""
    pools = {q: pool_of({"v": [f"{q}{i}" for i in range(4)]}) for q in "ab"}
    known: Any = {"a": {"a1": 2}, "other": {"x": 1}}
    sheet = Sheet(dict.fromkeys("ab", "t"), pools, {q: dict(g) for q, g in known.items()}, 3)
    before = []
    for word in answers:
        if sheet.place is None and word != "u":
            break
        state = (sheet.place, {q: dict(g) for q, g in sheet.qrels.items()}, sheet.fresh)
        if word == "u":
            assert sheet.undo() is bool(before)
            if before:
                assert (sheet.place, sheet.qrels, sheet.fresh) == before.pop()
            continue
        before.append(state)
        if word == "n":
            sheet.next_query()
        else:
            sheet.answer(None if word == "s" else int(word))
    while sheet.undo():
        pass
    assert sheet.qrels == known and sheet.fresh == 0


def test_it_goes_on_from_earlier_judgements() -> None:
    c = made()
    queries = {"q": "gpu", "r": "soup"}
    first, _ = judged(c, queries, "2\n" * 5, per_query=4)
    kept = {q: dict(g) for q, g in first.items()}
    second, said = judged(c, queries, "1\n" * 50, per_query=4, known=first)
    assert first == kept, "what was given is not changed"
    assert sum(map(len, second.values())) == 8 and "8 judgements (3 new)" in said
    assert all(second[q][id] == grade for q, grades in first.items() for id, grade in grades.items())
    third, said = judged(c, queries, "1\n" * 50, per_query=4, known=second)
    assert third == second and "Nothing in 'c' is left to be judged." in said
    other, _ = judged(c, {"s": "cold"}, "1\n", known={"gone": {"x": 2.5}}, per_query=1)
    assert other["gone"] == {"x": 2.5} and len(other["s"]) == 1


def test_nothing_is_logged_and_the_collection_stays_as_it_was() -> None:
    c = made()
    log = c._db.search_log
    log.start(c)
    before = c._db._env.begin_read().id() if hasattr(c._db._env.begin_read(), "id") else None
    judged(c, {"q": "gpu"}, "1\n1\n")
    assert list(log) == [] and before is not False


# --- what is shown --------------------------------------------------------------------------------


def test_a_text_cannot_speak_to_the_terminal() -> None:
    c = vecdb.open().create_collection("c", encoder="hashing")
    c.add(["a\x1b[2J"], texts=["gpu \x1b]0;title\x07 \x9b31m \x00 text\r\nline\u202e"], metadata={"title": "\x1b[31mred"})
    _, said = judged(c, {"q": "gpu \x1b[5m"}, "1\n")
    assert not {chr(i) for i in range(32)} - {"\n"} & set(said) and "\x9b" not in said and "\u202e" not in said
    assert "text" in said and "line" in said and "red" in said


def test_long_texts_are_cut_and_more_shows_them() -> None:
    c = vecdb.open().create_collection("c", encoder="hashing")
    c.add(["a"], texts=["gpu " + "word " * 3_000 + "the end"])
    _, short = judged(c, {"q": "gpu"}, "1\n")
    _, long = judged(c, {"q": "gpu"}, "m\n1\n")
    assert len(short) < 2_500 and "the end" not in short and "the end" in long


def test_rows_without_texts_show_their_metadata() -> None:
    c = vecdb.open().create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"colour": "red"}, {}])
    found, said = judged(c, {"q": [1, 0.1]}, "3\n0\n", using="vector")
    assert found == {"q": {"a": 3, "b": 0}} and "colour: 'red'" in said


def test_a_terminal_that_knows_ascii_alone() -> None:
    c = vecdb.open().create_collection("c", encoder="hashing")
    c.add(["ä"], texts=["grün – 日本"])
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    assert c.judge({"q": "grün"}, input=io.StringIO("2\n"), output=out) == {"q": {"ä": 2}}
    assert b"gr?n" in raw.getvalue()


# --- queries of every kind, misuse ----------------------------------------------------------------


def test_query_objects_and_ways_of_ones_own() -> None:
    c = made()
    found, _ = judged(c, {"q": Text("gpu") + Near("kernel")}, "2\n", per_query=1)
    assert found["q"] == {c.search(Text("gpu") + Near("kernel"), 1, exact=True).ids[0]: 2}
    found, said = judged(c, WORDS[:5], "2\n" * 9, per_query=1, searches={"mine": Text, "near": Near})
    assert "mine" in said and "near" in said and "both" not in said
    empty = vecdb.open().create_collection("c", encoder="hashing")
    assert judged(empty, {"q": "gpu"}, "1\n")[0] == {}


def test_vectors_are_searched_for_without_an_encoder() -> None:
    """In the one field that there is; beside texts, or where there are several, the field is asked for."""
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2, metric="l2", fulltext=True)
        c.add(["a", "b", "c"], [[0, 0], [1, 0], [5, 5]], texts=["gpu", "soup", "sea"])
        assert list(judged(c, {1: [0.9, 0]}, "3\n0\n1\n")[0][1]) == ["b", "a", "c"]
        assert judged(c, {1: "soup"}, "3\n")[0] == {1: {"b": 3}}
        with pytest.raises(InvalidArgument, match=r"queries\[1\] is a vector, and none of the ways \(words\)"):
            judged(c, {2: "soup", 1: [0.9, 0]}, "3\n")
        ways = {"words": Near, "both": lambda vector: Near([-x for x in vector])}
        assert len(judged(c, {1: [0.9, 0]}, "3\n" * 3, searches=ways)[0][1]) == 3, "names that are ours, too"
        several = db.create_collection("s", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(2)}, fulltext=True)
        with pytest.raises(InvalidArgument, match="give using="):
            judged(several, {1: [0.9, 0]}, "3\n")


def test_several_vector_fields_are_several_ways() -> None:
    db = vecdb.open()
    c = db.create_collection(
        "c", vectors={"a": vecdb.Vector(encoder="hashing"), "b": vecdb.Vector(encoder="hashing", source="s")}
    )
    c.add([1, 2, 3], texts=["gpu", "soup", "both"], metadata=[{"s": "soup"}, {"s": "gpu"}, {"s": "x"}])
    _, said = judged(c, dict(zip("qrstu", ["gpu", "soup", "both", "gpu x", "x"], strict=True)), "1\n0\n1\n" * 9)
    assert "vectors a" in said and "vectors b" in said
    _, said = judged(c, {"q": "gpu", "r": "soup"}, "1\n" * 9, using="b")
    assert "vectors a" not in said


def in_a_transaction(c: vecdb.Collection) -> Any:
    with c._db.transaction():
        return c.judge(["a"], input=io.StringIO(), output=io.StringIO())


MISUSES: list[tuple[Any, str]] = [
    (lambda c: c.judge({}, input=io.StringIO()), "queries is empty"),
    (lambda c: c.judge(5, input=io.StringIO()), "queries is a int; give"),
    (lambda c: c.judge({(1, 2): "x"}, input=io.StringIO()), "an id is a str or an int"),
    (lambda c: c.judge({"q": " "}, input=io.StringIO()), "queries\\['q'\\] is an empty text"),
    (lambda c: c.judge({"q": 5}, input=io.StringIO()), "queries\\['q'\\] is a int"),
    (lambda c: c.judge({"q": [1, 2]}, input=io.StringIO()), "queries\\['q'\\], searched by vectors: query"),
    (lambda c: c.judge(["a"], per_query=0, input=io.StringIO()), "per_query=0: give an int from 1"),
    (lambda c: c.judge(["a"], per_query=True, input=io.StringIO()), "per_query"),
    (lambda c: c.judge(["a"], known=[1], input=io.StringIO()), "known is a list"),
    (lambda c: c.judge(["a"], known={"a": [1]}, input=io.StringIO()), "known\\['a'\\] is a list"),
    (lambda c: c.judge(["a"], known={"a": {"d": "2"}}, input=io.StringIO()), "known\\['a'\\]\\['d'\\] is '2'"),
    (lambda c: c.judge(["a"], known={"a": {"d": math.nan}}, input=io.StringIO()), "a grade is a finite number"),
    (lambda c: c.judge(["a"], known={"a": {"d": 2**2000}}, input=io.StringIO()), "a grade is a finite number"),
    (lambda c: c.judge(["a"], using="x", input=io.StringIO()), "using='x'"),
    (lambda c: c.judge(["a"], searches={}, input=io.StringIO()), "searches"),
    (lambda c: c.judge(["a"], searches={"x": 1}, input=io.StringIO()), "searches\\['x'\\]"),
    (lambda c: c.judge(["a"], input=5), "input is a int; give a text stream"),
    (lambda c: c.judge(["a"], input=io.StringIO(), output=5), "output is a int"),
    (lambda c: c.judge(["a"], input=io.BytesIO(b"3\n")), "input is a BytesIO; give a text stream"),
    (lambda c: c.judge(["a"], input=io.StringIO(), output=io.BytesIO()), "output is a BytesIO; give a text stream"),
    (lambda c: c.judge(["a"], searches={"x": lambda q: 1 / 0}, input=io.StringIO()), "queries\\['a'\\], searched by x, failed: ZeroDivisionError"),
    (lambda c: c.judge(["a"], searches={"x": lambda q: np.ones((2, 512))}, input=io.StringIO()), "searched by x: that is several queries"),
    (in_a_transaction, "judge inside a transaction"),
    (lambda c: c.judge(["a"], output=io.StringIO()), "judge asks in a terminal, and there is none here"),
    (lambda c: c._db.create_collection("v", dim=2).judge(["a"], input=io.StringIO()), "no encoder and no full text"),
]


@pytest.mark.parametrize("call, words", MISUSES, ids=[words[:40] for _, words in MISUSES])
def test_misuse(call: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    with pytest.raises(InvalidArgument, match=words):
        call(made(3))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidArgument):
        call(made(3))


SCRIPT = """
import vecdb
db = vecdb.open()
c = db.create_collection("c", encoder="hashing")
c.add(["a", "b"], texts=["gpu kernels", "soup"])
print("GOT", c.judge({"q": "gpu"}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
def test_on_a_terminal(tmp_path: Path) -> None:
    """A real one, from the kernel: answers are typed, questions seen."""
    outer, inner = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=inner, stdout=inner, stderr=inner, env=environment)
    os.close(inner)
    seen = b""
    for answer in (b"3\n", b"0\n", b""):
        while b"? help: " not in seen.rpartition(b"\r\n")[2] and b"GOT" not in seen:
            seen += os.read(outer, 4096)
        if answer:
            os.write(outer, answer)
            seen += b"\r\n"
    while b"}}" not in seen:
        seen += os.read(outer, 4096)
    assert process.wait(30) == 0 and b"GOT {'q': {'a': 3, 'b': 0}}" in seen, seen
    os.close(outer)


def test_without_a_terminal_it_is_an_error_and_does_not_hang() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 1 and "judge asks in a terminal, and there is none here" in done.stderr
