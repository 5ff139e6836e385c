"""Which analysis does a full-text field have? Analyzers by language, and what tells them apart.

Words, case and CJK are the same everywhere (`_core._text.Analyzer`); a language adds a stemmer, and its
stop words where they are wanted. Stemmers are Snowball's: PyStemmer, in C, or snowballstemmer, in
Python; both come from one description, and the fingerprint says if a version gives other stems.

Invariants:
  1. An analysis is made once a process for each language and choice of stop words, so that what is
     known of stems is shared; it may be used by threads.
  2. Two analyses with the same fingerprint make the same terms of the words that were probed: the
     tables' Unicode version, our version, stop words and the stems of probe words are in it.

Rejected: a stemmer of our own. Snowball's are what everybody compares with.
Rejected: guessing the language. One field, one analysis: queries have too few words to tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from vecdb._core import _text
from vecdb.errors import InvalidArgument
from vecdb.text import stopwords as lists

__all__ = ["LANGUAGES", "VERSION", "Analysis", "analyzer", "of"]

VERSION: Final = 1  # rises when this module makes other terms of the same words

LANGUAGES: Final = (
    "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "estonian", "finnish",
    "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian",
    "nepali", "norwegian", "portuguese", "romanian", "russian", "serbian", "spanish", "swedish", "tamil",
    "turkish", "yiddish",
)  # fmt: skip
PROBES: Final = (
    "running", "libraries", "generously", "nationality", "connections", "aufgaben", "häuser",
    "freundlich", "continuellement", "chevaux", "corriendo", "canciones", "abbandonata", "nação",
    "lichamelijke", "лошадей", "важная", "flickorna", "kirjoissa", "kitaplardan", "l'été", "don't",
    "ponies", "skies",
)  # fmt: skip

Stem = Callable[[list[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Analysis:
    """An analyzer with what the schema keeps of it; stop words are sorted."""

    language: str | None
    stopwords: tuple[str, ...]
    diacritics: bool
    analyzer: _text.Analyzer
    fingerprint: str


def of(
    language: str | None = None,
    stopwords: bool | tuple[str, ...] = False,
    diacritics: bool = True,
) -> Analysis:
    """The analysis of a language; None: words as they are written, in any case.

    `stopwords=True` leaves out the language's, a tuple of words those; their positions count.
    `diacritics=False` makes é and e the same. InvalidArgument: an unknown language, no stemmer
    installed, a language of which we have no stop words.

    >>> of(None).analyzer.terms("Lists of Files")
    [(b'lists', 0), (b'of', 1), (b'files', 2)]
    >>> of(None, ("of",)).analyzer.terms("Lists of Files")
    [(b'lists', 0), (b'files', 2)]
    """
    if language is not None:
        if not isinstance(language, str) or language.lower() not in LANGUAGES:
            raise InvalidArgument(
                f"language={language!r:.60} is not known; it is None or one of {', '.join(LANGUAGES)}"
            )
        language = language.lower()
    if isinstance(stopwords, bool):
        return _of(language, _stopwords(language) if stopwords else (), diacritics)
    if isinstance(stopwords, str) or not all(isinstance(word, str) for word in stopwords):
        raise InvalidArgument(f"stopwords={stopwords!r:.60}: give True, False or a tuple of words")
    return _of(language, tuple(sorted(set(stopwords))), diacritics)


def analyzer(
    language: str | None = None,
    stopwords: bool | tuple[str, ...] = False,
    diacritics: bool = True,
) -> _text.Analyzer:
    """The analyzer of `of`.

    >>> analyzer().spans("Hello, World")
    [(b'hello', 0, 5, 0), (b'world', 7, 12, 1)]
    """
    return of(language, stopwords, diacritics).analyzer


def _stopwords(language: str | None) -> tuple[str, ...]:
    if language not in lists.LANGUAGES:
        raise InvalidArgument(
            f"stopwords=True with language={language!r}: there are lists for "
            f"{', '.join(lists.LANGUAGES)}; for another language give a tuple of words, or False"
        )
    return tuple(sorted(lists.words(language)))


@lru_cache(maxsize=64)
def _of(language: str | None, stopwords: tuple[str, ...], diacritics: bool) -> Analysis:
    stem = None if language is None else _stemmer(language)
    made = _text.Analyzer(stem, stopwords, diacritics)
    return Analysis(language, stopwords, diacritics, made, _fingerprint(language, stopwords, made))


def _fingerprint(language: str | None, stopwords: tuple[str, ...], made: _text.Analyzer) -> str:
    probed = [made.terms(word) for word in PROBES]
    seen = hashlib.sha256(repr((stopwords, made.diacritics, probed)).encode()).hexdigest()[:16]
    versions = f"{VERSION}.{_text.ANALYSIS_VERSION}-unicode{_text.UNICODE_VERSION}"
    return f"{versions}-{language or 'none'}-{seen}"


@cache
def _stemmer(language: str) -> Stem:
    found = _pystemmer(language) or _snowballstemmer(language)
    if found is None:
        raise InvalidArgument(
            f"language={language!r} needs a stemmer, and none is installed that knows it: "
            'pip install "vecdb-engine[text]", or leave language out'
        )
    return found


def _pystemmer(language: str) -> Stem | None:
    try:
        import Stemmer
    except ImportError:
        return None

    def make(name: str) -> Any:
        return Stemmer.Stemmer(name, 0)  # without its cache: the analyzer has one, and that one is slow

    return _made(make, language)


def _snowballstemmer(language: str) -> Stem | None:
    try:
        import snowballstemmer
    except ImportError:
        return None
    return _made(snowballstemmer.stemmer, language)


def _made(make: Callable[[str], Any], language: str) -> Stem | None:
    try:
        stem: Stem = make(language).stemWords
    except KeyError:
        return None
    return stem
