"""Are the texts in one language, in one that the encoder was trained on, and the queries in the same?

language-mix, wrong-language, query-language. A text whose words do not say is left out of the shares.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.subject import shares
from vecdb.diagnosis.tongues import KNOWN, language_of

if TYPE_CHECKING:
    from vecdb.diagnosis.subject import Subject

ABOUT: Final = "texts"
LOOKED_AT: Final = 2000
FEWEST: Final = 10  # texts whose language is told
REMEDY: Final = (
    "Take a multilingual encoder, or a collection for each language; a filter on a field with the language "
    "helps too."
)
CODES: Final = {
    "ar": "arabic", "bg": "bulgarian", "bn": "bengali", "ca": "catalan", "cs": "czech", "da": "danish",
    "de": "german", "el": "greek", "en": "english", "es": "spanish", "fa": "persian", "fi": "finnish",
    "fr": "french", "gu": "gujarati", "he": "hebrew", "hi": "hindi", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "it": "italian", "ja": "japanese", "ka": "georgian", "kn": "kannada", "ko": "korean",
    "ml": "malayalam", "nb": "norwegian", "nl": "dutch", "no": "norwegian", "pa": "punjabi", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sk": "slovak", "sv": "swedish", "ta": "tamil",
    "te": "telugu", "th": "thai", "tr": "turkish", "uk": "ukrainian", "ur": "urdu", "vi": "vietnamese",
    "zh": "chinese",
}  # fmt: skip
_ANY: Final = re.compile(r"\bany\b|\ball languages\b|multilingual|\bmulti\b|\b\d{2,}\b", re.I)


def look(subject: Subject) -> tuple[list[Finding], str | None]:
    """What there is to say of the languages, and the main one."""
    if not subject.has_texts:
        return [], None
    some = subject.plain_texts[: subject.drawn][:LOOKED_AT]
    told = [(row, language_of(text)) for row, text in enumerate(some)]
    known = [(row, language) for row, language in told if language]
    if len(known) < FEWEST:
        subject.skip("languages", f"the words of {len(known)} texts say in which language they are")
        return [], None
    of = shares([language for _, language in known])
    main = next(iter(of))
    findings = [_mix(subject, known, of, main), *_wrong(subject, known, of), *_queries(subject, of, main)]
    return findings, main


def _mix(subject: Subject, known: list[tuple[int, str]], of: dict[str, float], main: str) -> Finding:
    rest = 1 - of[main]
    others = ", ".join(f"{language} {per_cent(share)}" for language, share in list(of.items())[1:4])
    return found(
        ABOUT, "language-mix", rest,
        f"The texts are in {len(of)} languages: {main} {per_cent(of[main])}, {others}. An encoder of one "
        "language puts texts of another together by their language, not by what they say" if len(of) > 1 else
        f"All texts whose words say so are {main}",
        REMEDY, [subject.ids[row] for row, language in known if language != main],
    )  # fmt: skip


def card_languages(said: str) -> set[str] | None:
    """The languages that a card names; None where it says "any", or nothing that is known here.

    >>> sorted(card_languages("en, de") or ()), card_languages("any that separates words"), card_languages("")
    (['english', 'german'], None, None)
    """
    if _ANY.search(said):
        return None
    words = re.findall(r"[a-z]+", said.lower())
    named = {word for word in words if word in KNOWN}
    if named:
        return named
    short = {CODES[word] for word in words if word in CODES}
    return short if short and all(len(word) <= 3 for word in words) else None


def _wrong(subject: Subject, known: list[tuple[int, str]], of: dict[str, float]) -> list[Finding]:
    if subject.card is None:
        return []
    trained = card_languages(str(getattr(subject.card, "languages", "")))
    if trained is None:
        return []
    outside = {language: share for language, share in of.items() if language not in trained}
    share = sum(outside.values())
    names = ", ".join(sorted(trained))
    return [
        found(
            ABOUT, "wrong-language", share,
            f"{per_cent(share)} of the texts are in {', '.join(list(outside)[:3])}; the encoder's card "
            f"names {names}"
            if outside else f"The texts are in what the encoder's card names: {names}",
            "Take an encoder that was trained on these languages.",
            [subject.ids[row] for row, language in known if language in outside],
        )
    ]  # fmt: skip


def _queries(subject: Subject, of: dict[str, float], main: str) -> list[Finding]:
    queries = subject.queries
    if queries is None or queries.texts is None:
        return []
    pairs = zip(queries.names, queries.texts, strict=True)
    told: list[tuple[Any, str]] = [(name, said) for name, text in pairs if (said := language_of(text))]
    if not told:
        return []
    foreign = [(name, language) for name, language in told if of.get(language, 0.0) < 0.02]
    share = len(foreign) / len(told)
    return [
        found(
            ABOUT, "query-language", share,
            f"{per_cent(share)} of the queries are in a language that the texts are not in ({foreign[0][1]}; "
            f"texts: {main})" if foreign else "The queries are in the texts' language",
            "Take a multilingual encoder, or translate the queries.", [name for name, _ in foreign],
        )
    ]  # fmt: skip
