"""A made world whose texts, vectors and judgements are sound, and ways to spoil it.

Topics have words of their own, texts are made of a topic's words among function words, and the model is a table:
a word's vector is its topic's, with something of its own; a text's is the mean of its words'. Relevant to a query
are the texts of its topic that share its theme. Everything follows from the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vecdb.encoders import Card
from vecdb.text import stopwords

TOPICS, THEMES, DIM = 12, 3, 48
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve xi yo zu bra cli dro fle gri".split()
ENGLISH = "the of and in to is was for that with are this from which have".split()
OTHERS = {
    "german": "der die und das ist nicht ein eine mit auf für von auch wird sich".split(),
    "spanish": "el la de que los las por con una para del como pero sus más".split(),
}
CARD = Card("texts of the made world", "en", "64 tokens", "Apache-2.0")


class World:
    """Texts (n), their topics, queries, judgements, and the table of words."""

    def __init__(self, seed: int, rows: int = 480, queries: int = 48, language: str = "english") -> None:
        self.rng = rng = np.random.default_rng(seed)
        words = _words(rng, TOPICS * THEMES * 12)
        self.vocabulary = np.array(words).reshape(TOPICS, THEMES, 12)
        centre = rng.normal(size=DIM) * 0.5
        topics = rng.normal(size=(TOPICS, DIM))
        themes = topics[:, None] + 0.9 * rng.normal(size=(TOPICS, THEMES, DIM))
        table = themes[:, :, None] + 2.2 * rng.normal(size=(TOPICS, THEMES, 12, DIM)) + centre
        self.table = dict(zip(words, table.reshape(-1, DIM).astype(np.float32), strict=True))
        self.topics = rng.integers(0, TOPICS, rows)
        self.themes = rng.integers(0, THEMES, rows)
        self.function = ENGLISH if language == "english" else OTHERS[language]
        self.ids = [f"d{at}" for at in range(rows)]
        self.texts = [self._text(t, s, self.function, int(rng.integers(14, 30))) for t, s in self._kinds()]
        self.queries: dict[str, str] = {}
        self.qrels: dict[str, dict[str, int]] = {}
        for at in range(queries):
            topic, theme = int(rng.integers(TOPICS)), int(rng.integers(THEMES))
            self.queries[f"q{at}"] = self._text(topic, theme, self.function, 6)
            alike = (self.topics == topic) & (self.themes == theme)
            self.qrels[f"q{at}"] = {self.ids[row]: 1 for row in np.flatnonzero(alike)}
        self.qrels = {name: judged for name, judged in self.qrels.items() if judged}

    def _kinds(self) -> list[tuple[int, int]]:
        return list(zip(self.topics.tolist(), self.themes.tolist(), strict=True))

    def _text(self, topic: int, theme: int, function: Sequence[str], length: int) -> str:
        rng = self.rng
        words = []
        for _ in range(length):
            if rng.random() < 0.45:
                words.append(str(rng.choice(list(function))))
            else:
                where = theme if rng.random() < 0.7 else int(rng.integers(THEMES))
                of = topic if rng.random() < 0.75 else int(rng.integers(TOPICS))
                words.append(str(rng.choice(self.vocabulary[of, where])))
        return " ".join(words)

    def speak(self, rows: Sequence[int], language: str) -> list[str]:
        """The texts, some of them in another language: its function words for ours."""
        texts = list(self.texts)
        for row in rows:
            texts[row] = " ".join(
                OTHERS[language][self.function.index(word)] if word in self.function else word
                for word in texts[row].split()
            )
        return texts

    def corpus(self, texts: Sequence[str] | None = None) -> dict[str, str]:
        """The texts by id."""
        return dict(zip(self.ids, self.texts if texts is None else texts, strict=True))

    def labels(self, share: float = 0.0) -> dict[str, int]:
        """Each row's topic; a share of them given anew, at random."""
        labels = self.topics.copy()
        some = self.rng.random(len(labels)) < share
        labels[some] = self.rng.permutation(labels[some])
        return dict(zip(self.ids, labels.tolist(), strict=True))


def _words(rng: np.random.Generator, count: int) -> list[str]:
    found: dict[str, None] = {}
    taken = frozenset().union(*(stopwords.words(each) for each in stopwords.LANGUAGES))
    while len(found) < count:
        word = "".join(rng.choice(SYLLABLES, int(rng.integers(3, 5))))
        if word not in taken:
            found[word] = None
    return list(found)


class Table:
    """An encoder: the mean of its words' vectors; what it does not know is broken into pieces."""

    metric = "cosine"

    def __init__(
        self,
        world: World,
        *,
        longest: int | None = 64,
        pieces: int | None = None,  # characters of one: all words are broken up
        lacks: Sequence[str] = (),  # words it has never seen, and no pieces for
        after: Callable[[Any, list[str]], Any] | None = None,  # spoils the vectors
        asked: Callable[[Any], Any] | None = None,  # what makes a query's vector another
        card: Card = CARD,
        name: str = "table",
    ) -> None:
        self.name, self.dim, self.card, self.max_tokens = name, DIM, card, longest
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()[:16]
        self._world, self._pieces, self._lacks = world, pieces, frozenset(lacks)
        self._after, self._asked = after, asked
        self._little = frozenset(world.function) | frozenset(ENGLISH)
        if after is not None:
            self.dim = len(np.asarray(after(np.ones((1, DIM), np.float32), ["one"]))[0])

    def tokens(self, text: str, /) -> list[str]:
        """The pieces of a text."""
        found: list[str] = []
        for word in text.split():
            if word in self._lacks:
                found.append("[UNK]")
            elif self._pieces is None:
                found.append(word)
            else:
                found += [word[at : at + self._pieces] for at in range(0, len(word), self._pieces)]
        return found

    def encode_documents(self, texts: Sequence[str], /) -> Any:
        """Vectors (n, dim)."""
        found = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            words = text.lower().split()
            if self.max_tokens is not None and self._pieces is None:
                words = words[: self.max_tokens]
            for word in words:
                if word not in self._lacks:
                    found[row] += self._vector(word)
            if not found[row].any():
                found[row] = _hashed("nothing")
        if self._after is not None:
            found = np.asarray(self._after(found, list(texts)), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def encode_queries(self, texts: Sequence[str], /) -> Any:
        """Vectors (n, dim) of what is looked for."""
        found = self.encode_documents(texts)
        return found if self._asked is None else self._asked(found)

    def _vector(self, word: str) -> Any:
        known = self._world.table.get(word)
        if known is not None and self._pieces is None:
            return known
        return _hashed(word) * (0.2 if word in self._little else 1.0)


def _hashed(word: str) -> Any:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
