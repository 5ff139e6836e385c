"""Text queries and snippets: what is typed is never an error, and what is shown is in the text."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument
from vecdb.text import analysis, grammar, highlight

A = analysis.analyzer()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('gpu +"a b" kern* -cuda', [("gpu", 0, False), ("a b", 1, False), ("kern", 0, True), ("cuda", 2, False)]),
        ('-"x y" -pre* +pre*', [("x y", 2, False), ("pre", 2, True), ("pre", 1, True)]),
        ("e-mail c++ + - *", [("e", 0, False), ("mail", 0, False), ("c", 0, False)]),
        ('+e-mail -e-mail "e-mail" a.b*', [
            ("e", 1, False), ("mail", 1, False), ("e-mail", 2, False), ("e-mail", 0, False), ("a.b", 0, True),
        ]),
        ('"open quote', [("open", 0, False), ("quote", 0, False)]),
        ('"a" "b', [("a", 0, False), ("b", 0, False)]),
        ('"" "  " \t\n', []),
        ("a AND b", [("a", 0, False), ("AND", 0, False), ("b", 0, False)]),
        ('a+"b"', [("a", 0, False), ("b", 0, False)]),
        ("x**", [("x", 0, True)]),
    ],
)
def test_the_grammar(text: str, parts: list[tuple[str, int, bool]]) -> None:
    assert [(one.text, one.occur, one.prefix) for one in grammar.parse(text)] == parts


def test_parts_become_terms() -> None:
    a = analysis.analyzer(None, ("the",))
    asked = grammar.parse('the "e-mail" "read the book" Libr* 東京都 -x !').asked(a)
    assert [(one.kind, one.terms, one.gaps, one.occur) for one in asked] == [
        ("phrase", (b"e", b"mail"), (1,), 0),
        ("phrase", (b"read", b"book"), (2,), 0),
        ("prefix", (b"libr", b"libr"), (), 0),
        ("phrase", ("東京".encode(), "京都".encode()), (1,), 0),
        ("term", (b"x",), (), 2),
    ]
    assert grammar.parse("the The").asked(a) == ()
    assert [one.occur for one in grammar.parse("a -b +c").matching_all()] == [1, 2, 1]
    assert grammar.parse("a  b") == grammar.parse("a b") and hash(grammar.parse("a")) is not None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text(st.sampled_from('ab "+-*\'東é'), max_size=80)))
def test_nothing_that_is_typed_is_an_error(text: str) -> None:
    query = grammar.parse(text)
    asked = query.asked(A)
    said = f"Before. {text} After."
    for one in highlight.snippets(said, A, asked, most=3, chars=40):
        assert said[one.start : one.start + len(one.text)] == one.text and len(one.text) <= 40
        ends = [0] + [place for span in one.spans for place in span]
        assert ends == sorted(ends) and ends[-1] <= len(one.text)


@pytest.mark.parametrize("text", ["x " * 524_288, '"' * (1 << 20), 'a"' * 524_288, "字" * (1 << 20), "a-" * 524_288,
                                  "x" * (1 << 20), "é" * (1 << 20), "x" * (1 << 21), "+" * (1 << 20)])  # fmt: skip
def test_hostile_queries_are_settled_quickly(text: str) -> None:
    start = time.perf_counter()
    try:
        assert len(grammar.parse(text).asked(A)) <= grammar.LIMIT_PARTS
    except InvalidArgument as error:
        assert "ask with fewer" in str(error)
    assert time.perf_counter() - start < 1.5  # 0.05 s; the machine may be busy
    with pytest.raises(InvalidArgument, match="give a str"):
        grammar.parse(b"x")  # type: ignore[arg-type]


def test_snippets_show_the_best_window() -> None:
    text = "alpha " * 60 + "beta gamma delta. " + "filler " * 80 + "beta alone " + "filler " * 60
    asked = grammar.parse('beta "gamma delta" -alpha').asked(A)
    [one] = highlight.snippets(text, A, asked)
    assert [one.text[a:b] for a, b in one.spans] == ["beta", "gamma delta"] and len(one.text) <= 200
    assert one.text.startswith("alpha") and not text[one.start - 1].isalnum()
    first, second = highlight.snippets(text, A, asked, most=5)
    assert first.text == one.text and [second.text[a:b] for a, b in second.spans] == ["beta"]
    [nothing] = highlight.snippets(text, A, grammar.parse("zeta").asked(A))
    assert nothing.spans == () and nothing.start == 0 and nothing.text.startswith("alpha")
    [cjk] = highlight.snippets("我去東京都看書", A, grammar.parse("東京都").asked(A))
    assert cjk.marked("<", ">") == "我去<東京都>看書"
    assert highlight.snippets("", A, asked)[0].text == ""
    with pytest.raises(InvalidArgument):
        highlight.snippets("a", A, asked, most=0)


def test_places_are_those_of_a_plain_search() -> None:
    rng = random.Random(4)
    for _ in range(200):
        words = [rng.choice(["ab", "abc", "b", "c"]) for _ in range(rng.randrange(30))]
        text = " ".join(words)
        asked = grammar.parse('b ab* "b c"').asked(A)
        starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
        expected = [(starts[i], starts[i] + 1, 0) for i, w in enumerate(words) if w == "b"]
        expected += [(starts[i], starts[i] + len(w), 1) for i, w in enumerate(words) if w.startswith("ab")]
        expected += [(starts[i], starts[i] + 3, 2) for i in range(len(words) - 1) if words[i : i + 2] == ["b", "c"]]
        assert sorted(expected) == highlight.places(text, A, asked)
