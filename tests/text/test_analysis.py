"""The analyzer against plain Python: words, folding, bigrams, places; languages and stop words."""

from __future__ import annotations

import importlib.util
import random
import sys
import unicodedata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb._core import _text as core
from vecdb.errors import InvalidArgument
from vecdb.text import analysis, stopwords

MAKER = Path(core.__file__).parent / "make_unicode.py"


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_unicode", MAKER)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules["make_unicode"] = made
    spec.loader.exec_module(made)
    return made


U = tables()
PAIRS = U.pairs()
same_unicode = pytest.mark.skipif(
    unicodedata.unidata_version != core.UNICODE_VERSION, reason="this Python has other tables"
)


def reference(text: str, diacritics: bool = True) -> list[tuple[bytes, int, int, int]]:
    """The rules of text_words.h, a character at a time."""
    kinds = [U.classify(ord(c)) for c in text]
    out: list[tuple[bytes, int, int, int]] = []

    def emit(word: str, start: int, end: int) -> None:
        raw = word.encode()
        if len(raw) > 64:
            hashed = 0xCBF29CE484222325
            for byte in raw:
                hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
            raw = raw[:48].decode(errors="ignore").encode() + f"{hashed:016x}".encode()
        out.append((raw, start, end, len(out)))

    at = 0
    while at < len(text):
        if kinds[at] in (U.LETTER, U.DIGIT):
            word, start, end, letter = "", at, at, False
            while at < len(text):
                code, kind = U.fold(ord(text[at])), kinds[at]
                if not diacritics:
                    code = U.bare(code)
                if kind in (U.LETTER, U.DIGIT):
                    word += chr(code)
                    letter = kind == U.LETTER
                elif kind == U.MARK:
                    whole = PAIRS.get((ord(word[-1]), code)) if code else None
                    word = word[:-1] + chr(whole) if whole else word + (chr(code) if code else "")
                elif text[at] in "'’" and letter and kinds[at + 1 : at + 2] == [U.LETTER]:
                    word += "'"
                    letter = False
                elif kind != U.JOINER:
                    break
                at += 1
                if kind != U.JOINER:
                    end = at
            emit(word, start, end)
        elif kinds[at] == U.CJK:
            run: list[tuple[str, int, int]] = []
            while at < len(text) and kinds[at] in (U.CJK, U.MARK, U.JOINER):
                code = U.fold(ord(text[at]))
                if kinds[at] == U.CJK:
                    run.append((chr(code), at, at + 1))
                elif kinds[at] == U.MARK:
                    whole = PAIRS.get((ord(run[-1][0]), code))
                    run[-1] = (chr(whole) if whole else run[-1][0], run[-1][1], at + 1)
                at += 1
            if len(run) == 1:
                emit(*run[0])
            for a, b in zip(run, run[1:], strict=False):
                emit(a[0] + b[0], a[1], b[2])
        else:
            at += 1
    return out


ALPHABET = (
    "abcXYZ019 .,-_'’\"\t\nßéÉñÅøœŁİıſΣςσάЯёйдשלאعا\u0301\u0308\u0323\u00ad\u200c\u200d\ufe0f"
    "東京都日本語かなカがガ\u3099ー々한글ᄒᆞ中𠀀ㄅｶﾞไทยกำนักเรียนह िन्दी①Ⅷ²½€😀🇩🇪 "
)
texts = st.one_of(
    st.text(st.sampled_from(ALPHABET), max_size=60),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.text(st.sampled_from("ab'1 -Z"), max_size=300),
)


@same_unicode
@settings(max_examples=400, deadline=None)
@given(texts, st.booleans())
def test_words_are_those_of_the_reference(text: str, diacritics: bool) -> None:
    analyzer = core.Analyzer(diacritics=diacritics)
    expected = reference(text, diacritics)
    assert analyzer.spans(text) == expected
    assert analyzer.terms(text) == [(term, place) for term, _, _, place in expected]
    assert analyzer.terms(text.encode()) == analyzer.terms(text)
    assert analyzer.words(text) == expected


@same_unicode
def test_every_character_is_classified_and_folded_as_the_tables_say() -> None:
    analyzer = core.Analyzer()
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    found = analyzer.spans("".join(f" {chr(c)}" for c in codes))
    starts = {start: term for term, start, _, _ in found}
    for i, code in enumerate(codes):
        is_word = U.classify(code) in (U.LETTER, U.DIGIT, U.CJK)
        assert starts.get(2 * i + 1) == (chr(U.fold(code)).encode() if is_word else None), hex(code)
    assert all(U.fold(U.fold(c)) == U.fold(c) for c in codes)


def test_bytes_that_are_no_utf8_split() -> None:
    analyzer = core.Analyzer()
    rng = random.Random(3)
    for _ in range(300):
        raw = bytes(rng.choice([rng.randrange(256), *b"abc ", 0xE6, 0x9D]) for _ in range(40))
        cleaned = raw.decode(errors="replace").replace("\ufffd", " ")
        assert analyzer.terms(raw) == analyzer.terms(cleaned)
    assert analyzer.terms("a\ud800b") == [(b"a", 0), (b"b", 1)]
    assert analyzer.spans("a\ud800b")[1][1:3] == (2, 3)
    with pytest.raises(TypeError):
        analyzer.terms(3)


def test_forms_of_one_word_are_one() -> None:
    analyzer = core.Analyzer()
    for a, b in [("CAFÉ", "cafe\u0301"), ("Don’t", "don't"), ("Straße", "STRAßE"), ("soft\u00adware", "software"),
                 ("が", "か\u3099"), ("Việt", unicodedata.normalize("NFD", "việt"))]:  # fmt: skip
        assert analyzer.terms(a) == analyzer.terms(b), (a, b)
    bare = core.Analyzer(diacritics=False)
    assert bare.terms("Café Ångström") == [(b"cafe", 0), (b"angstrom", 1)]
    assert [term.decode() for term, _ in analyzer.terms("東京都 and iPhone手機 字")] == [
        "東京", "京都", "and", "iphone", "手機", "字",
    ]  # fmt: skip


def test_long_words_and_large_texts_stay_small() -> None:
    analyzer = core.Analyzer()
    word = "é" * 1_000_000
    [(term, place)] = analyzer.terms(word)
    assert len(term) <= 64 and place == 0 and term.startswith("é".encode() * 20)
    assert analyzer.terms(word + "x") != analyzer.terms(word)
    assert len(analyzer.terms("x" * 64)[0][0]) == 64


def test_stop_words_keep_their_places_and_phrases_go_across() -> None:
    analyzer = core.Analyzer(stopwords=["The", "of"])
    assert analyzer.terms("The lord of the rings") == [(b"lord", 1), (b"rings", 4)]
    texts = ["lord of the rings, Lord of The Rings", "lord rings", None, "rings of the lord"]
    assert list(np.frombuffer(analyzer.phrase_counts(texts, [b"lord", b"rings"], [3]), np.uint32)) == [2, 0, 0, 0]
    assert analyzer.phrase_count("a a a", [b"a", b"a"], [1]) == 2
    assert analyzer.phrase_count("東京都", [b"x"], []) == 0
    assert analyzer.phrase_count("a" * 300, [b"a" * 300], []) == 0
    for gaps in ([], [0], [1, 1]):
        with pytest.raises(ValueError):
            analyzer.phrase_count("a b", [b"a", b"b"], gaps)


def test_a_stemmer_is_asked_once_for_a_word() -> None:
    asked: list[str] = []

    def stem(words: list[str]) -> list[str]:
        asked.extend(words)
        return [word.rstrip("s") for word in words]

    analyzer = core.Analyzer(stem, ["this"])
    for _ in range(3):
        assert analyzer.terms("cats this s CATS cat 東京") == [
            (b"cat", 0), (b"s", 2), (b"cat", 3), (b"cat", 4), ("東京".encode(), 5),
        ]  # fmt: skip
    assert asked == ["cats", "s", "cat"]
    assert analyzer.fold("Cats") == b"cats" and analyzer.fold("two cats") == b"" == analyzer.fold("!")
    many = " ".join(f"word{i}" for i in range(200_000))
    assert len(analyzer.terms(many)) == 200_000
    for bad in (lambda words: [], lambda words: [1 for _ in words]):
        with pytest.raises((ValueError, AttributeError)):
            core.Analyzer(bad).terms("a")


def test_languages() -> None:
    pytest.importorskip("Stemmer")
    english = analysis.of("English", True)
    assert [t for t, _ in english.analyzer.terms("The libraries of running dogs")] == [b"librari", b"run", b"dog"]
    assert english is analysis.of("english", True) is not analysis.of("english")
    prints = {analysis.of(one).fingerprint for one in (None, *analysis.LANGUAGES)}
    assert len(prints) == len(analysis.LANGUAGES) + 1
    assert analysis.of(None, ("x", "y")).fingerprint == analysis.of(None, ("y", "x", "x")).fingerprint
    for language in stopwords.LANGUAGES:
        made = analysis.analyzer(language, True)
        assert language in analysis.LANGUAGES and len(stopwords.words(language)) > 90
        assert all(made.terms(word) == [] for word in stopwords.words(language))
    for bad in ("klingon", "", 3):
        with pytest.raises(InvalidArgument, match="language="):
            analysis.of(bad)  # type: ignore[arg-type]
    for language in (None, "finnish"):
        with pytest.raises(InvalidArgument, match="stopwords=True"):
            analysis.of(language, True)
    with pytest.raises(InvalidArgument, match="give True"):
        analysis.of(None, "the")  # type: ignore[arg-type]


def test_without_a_stemmer_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(language: str) -> Any:
        return None

    monkeypatch.setattr(analysis, "_pystemmer", none)
    monkeypatch.setattr(analysis, "_snowballstemmer", none)
    analysis._stemmer.cache_clear()
    try:
        with pytest.raises(InvalidArgument, match=r"vecdb-engine\[text\]"):
            analysis._of("basque", ("unlikely",), True)
    finally:
        analysis._stemmer.cache_clear()
