"""Are the texts there, whole, and what the encoder can read?

empty-texts, same-texts, texts-cut (what lies beyond the encoder's longest input), lengths-differ (queries and
documents).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.words import words_of

if TYPE_CHECKING:
    from vecdb.diagnosis.subject import Subject

TOKENIZED = 1000  # texts whose pieces are counted
ABOUT = "texts"


def look(subject: Subject) -> list[Finding]:
    """What there is to say of the texts."""
    if not subject.has_texts:
        subject.skip("texts, words, languages", "the rows have no texts")
        return []
    some = subject.plain_texts[: subject.drawn]
    findings = [_empty(subject, some), _same(subject, some)]
    findings += _cut(subject, some)
    return findings + _lengths(subject, some)


def _empty(subject: Subject, some: list[str]) -> Finding:
    at = [row for row, text in enumerate(some) if not text.strip()]
    share = len(at) / len(some)
    return found(
        ABOUT, "empty-texts", share,
        f"{len(at):,} of {len(some):,} texts are empty ({per_cent(share)}): their vectors stand for "
        "nothing, all in one place" if at else "No text is empty",
        "Delete these rows, or give them texts.", [subject.ids[row] for row in at],
    )  # fmt: skip


def _same(subject: Subject, some: list[str]) -> Finding:
    seen = [_digest(text) for text in some if text.strip()]
    rows = [row for row, text in enumerate(some) if text.strip()]
    first: dict[bytes, int] = {}
    again = [row for row, digest in zip(rows, seen, strict=True) if first.setdefault(digest, row) != row]
    share = len(again) / max(1, len(seen))
    return found(
        ABOUT, "same-texts", share,
        f"{per_cent(share)} of the texts repeat another word for word: searches show them side by side"
        if again else "No text repeats another word for word",
        "Keep one of each, or search with diversity= or group_by=.", [subject.ids[row] for row in again],
    )  # fmt: skip


def _digest(text: str) -> bytes:
    return hashlib.blake2b(" ".join(text.split()).lower().encode("utf-8", "replace"), digest_size=12).digest()


def _cut(subject: Subject, some: list[str]) -> list[Finding]:
    """How much of the texts lies beyond what the encoder reads."""
    encoder: Any = subject.encoder
    longest = getattr(encoder, "max_tokens", None)
    tokens = getattr(encoder, "tokens", None)
    if encoder is None:
        return []
    if not callable(tokens):
        subject.skip("texts-cut, pieces of words", f"encoder {encoder.name!r} does not tell its tokens")
        return []
    if longest is None:
        return []
    taken = [row for row in range(len(some)) if some[row].strip()][:TOKENIZED]
    if not taken:
        return []
    lengths = np.array([len(tokens(some[row])) for row in taken])
    beyond = np.maximum(lengths - longest, 0)
    share = float(beyond.sum() / max(1, lengths.sum()))
    over = float((beyond > 0).mean())
    worst = [subject.ids[taken[at]] for at in np.argsort(-beyond, kind="stable") if beyond[at] > 0]
    return [
        found(
            ABOUT, "texts-cut", share,
            f"The encoder reads {longest:,} tokens of a text; {per_cent(over)} of the texts are longer, and "
            f"{per_cent(share)} of all tokens are never seen" if worst else
            f"All texts are within the {longest:,} tokens that the encoder reads",
            "Store long texts as chunks, a row each with the document's id (docs/chunks.md), or take an "
            "encoder with a longer input.", worst,
        )
    ]  # fmt: skip


def _lengths(subject: Subject, some: list[str]) -> list[Finding]:
    queries = subject.queries
    if queries is None or queries.texts is None:
        return []
    asked = np.median([len(words_of(text)) for text in queries.texts])
    stored = np.median([len(words_of(text)) for text in some if text.strip()] or [0])
    ratio = float(max(stored, asked) / max(1.0, min(stored, asked)))
    return [
        found(
            ABOUT, "lengths-differ", ratio,
            f"A query has {asked:.0f} words and a text {stored:.0f} (medians): what is compared is of "
            f"{'much the same' if ratio < 3 else 'different'} length",
            "Take an encoder that was trained on questions and passages, or store chunks of about a "
            "paragraph.",
        )
    ]  # fmt: skip


def common_words(texts: list[str], most: int) -> list[tuple[str, int]]:
    """The words of texts that are written in letters, the commonest first, with their counts."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in words_of(text) if word.isalpha())
    return counts.most_common(most)
