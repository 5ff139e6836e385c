"""How does a table of token embeddings learn? By gradient steps on the rows of the tokens that occur.

A text is the mean of its tokens' rows, at length 1. Each step looks at some queries and at some texts, all
where there are few: the loss of a query is InfoNCE over its answers, each against all texts that are none
(van den Oord et al., 2018), at the temperature 1/20; Adam (Kingma and Ba, 2015) moves the rows. On Cranfield
the nDCG@10 of wordllama's table rises from .42 to .48 in forty steps, where maps of its vectors reach .46.

What is saved is a model2vec folder: the whole table as float32, one row a token.

Rejected: a weight for each token besides its row (it overfits faster than it helps), and the texts of a batch
alone as wrong answers (a step costs the same looks at a collection of this size, and sees a tenth of them).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecdb.adapting.examples import Examples, unit
from vecdb.adapting.tuning_report import Step
from vecdb.encoders.base import Vectors
from vecdb.encoders.model2vec import Model2VecEncoder
from vecdb.encoders.wordllama import files as wordllama_files

SCALE: Final = np.float32(20)
RATE: Final = 0.01
BATCH: Final = 256  # queries of a step
STEPS: Final = 60  # at least
PATIENCE: Final = 6  # looks without a better score
LOOK: Final = 5  # steps between two looks, where epochs are short
CELLS: Final = 1 << 25  # of the matrix of texts by tokens: 128 MB
MOST_TEXTS: Final = 4096  # of a step

Ints = NDArray[np.int64]


class Texts:
    """Token numbers of many texts, end to end."""

    def __init__(self, tokens: list[list[int]]) -> None:
        self.lengths: Ints = np.array([len(each) for each in tokens], dtype=np.int64)
        self.starts: Ints = np.concatenate([[0], np.cumsum(self.lengths)])[:-1].astype(np.int64)
        every = (token for each in tokens for token in each)
        self.tokens: Ints = np.fromiter(every, np.int64, int(self.lengths.sum()))

    def weights(self, rows: Ints, used: Ints) -> Vectors:
        """(rows, used tokens): what each token has in the mean of each text."""
        made = np.zeros((len(rows), len(used)), np.float32)
        for at, row in enumerate(rows):
            first, length = self.starts[row], self.lengths[row]
            places = np.searchsorted(used, self.tokens[first : first + length])
            np.add.at(made[at], places, np.float32(1 / max(1, length)))
        return made

    def used(self, rows: Ints) -> Ints:
        """The tokens of some texts, each once, ascending."""
        parts = [self.tokens[self.starts[row] : self.starts[row] + self.lengths[row]] for row in rows]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def means(self, table: Vectors, nothing: Vectors) -> Vectors:
        """Every text's vector under a table; `nothing` for those without a token."""
        made = np.empty((len(self.lengths), table.shape[1]), np.float32)
        for row, (first, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            made[row] = table[self.tokens[first : first + length]].mean(axis=0) if length else nothing
        return made


def train(
    encoder: Any,
    examples: Examples,
    folder: Path,
    options: dict[str, Any],
    report: Callable[[int, int | None], object],
    stop: Callable[[], bool],
) -> list[Step] | None:
    """Train, save the best table into `folder`, and return the course; None where it was stopped."""
    table = _table(encoder)
    nothing = table.mean(axis=0, dtype=np.float64).astype(np.float32)
    queries, texts = Texts(_tokens(encoder, examples.queries)), Texts(_tokens(encoder, examples.texts))
    rng = np.random.default_rng([options["seed"], 1])
    batch = options["batch_size"] or BATCH
    each = max(1, -(-len(examples.training) // batch))  # steps of an epoch
    total = each * options["epochs"] if options["epochs"] else max(STEPS, 3 * each)
    look = max(LOOK, each)
    tuner = _Tuner(table, queries, texts, examples, options["learning_rate"] or RATE)
    steps = [Step(0.0, None, _score(examples, queries, texts, table, nothing))]
    best, since, losses = (steps[0].score or 0.0, table.copy()), 0, list[float]()
    for number, chosen in enumerate(_batches(examples.training, batch, total, rng), start=1):
        if stop():
            return None
        losses.append(tuner.step(chosen, rng))
        report(number, total)
        if number % look and number < total:
            continue
        score = _score(examples, queries, texts, table, nothing)
        steps.append(Step(number / each, float(np.mean(losses)), score))
        losses.clear()
        since += 1
        if score is None or score > best[0]:
            best, since = (score or 0.0, table.copy()), 0
        if since == PATIENCE:
            break
    _save(encoder, best[1], folder)
    return steps


class _Tuner:
    """A table that is moved in place, and what Adam remembers of each row."""

    def __init__(self, table: Vectors, queries: Texts, texts: Texts, examples: Examples, rate: float) -> None:
        self._table, self._queries, self._texts, self._examples = table, queries, texts, examples
        self._rate = np.float32(rate)
        self._mean = np.zeros_like(table)
        self._square = np.zeros_like(table)
        self._count = 0
        training = queries.used(np.array(examples.training, np.int64))
        self._used = np.union1d(texts.used(np.arange(len(texts.lengths))), training)
        self._whole: tuple[Ints, Vectors] | None = None  # the matrix of all texts, where it is small

    def step(self, chosen: Ints, rng: np.random.Generator) -> float:
        """One step by some queries; return their mean loss."""
        rows = self._rows(chosen, rng)
        used, weights = self._seen(rows, chosen)
        asked = self._queries.weights(chosen, used)
        part = self._table[used]
        documents, lengths = _unit(weights @ part)
        queries, asked_lengths = _unit(asked @ part)
        loss, pull = self._softmax(queries @ documents.T * SCALE, chosen, rows)
        to_queries = _through(pull @ documents, queries, asked_lengths)
        to_documents = _through(pull.T @ queries, documents, lengths)
        self._move(used, asked.T @ to_queries + weights.T @ to_documents)
        return loss

    def _rows(self, chosen: Ints, rng: np.random.Generator) -> Ints:
        """Which texts a step looks at: all, or the answers of its queries and some others."""
        count = len(self._texts.lengths)
        most = min(MOST_TEXTS, max(256, CELLS // max(1, len(self._used))))
        if count <= most:
            return np.arange(count)
        named = set[int]()
        for query in chosen.tolist():
            named.update(self._examples.answers[query], self._examples.wrong[query])
        others = rng.choice(count, size=max(0, most - len(named)), replace=False)
        return np.unique(np.concatenate([np.array(sorted(named), np.int64), others]))

    def _seen(self, rows: Ints, chosen: Ints) -> tuple[Ints, Vectors]:
        if len(rows) < len(self._texts.lengths):
            used = np.union1d(self._texts.used(rows), self._queries.used(chosen))
            return used, self._texts.weights(rows, used)
        if self._whole is None:
            self._whole = self._used, self._texts.weights(rows, self._used)
        return self._whole

    def _softmax(self, logits: Vectors, chosen: Ints, rows: Ints) -> tuple[float, Vectors]:
        """The mean loss, and its slope by each similarity.

        Of answer p among the texts n that are none: -log(e_p / (e_p + sum of e_n)).
        """
        answers = np.zeros(logits.shape, np.bool_)
        for at, query in enumerate(chosen.tolist()):
            answers[at, np.searchsorted(rows, self._examples.answers[query])] = True
            itself = self._examples.itself[query]
            place = int(np.searchsorted(rows, itself)) if itself >= 0 else len(rows)
            if place < len(rows) and rows[place] == itself and not answers[at, place]:
                logits[at, place] = -np.inf  # the query's own text is neither
        logits = logits - logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        others = np.where(answers, 0, powers).sum(axis=1, keepdims=True)
        whole = np.where(answers, powers + others, 1)
        count = answers.sum(axis=1, keepdims=True)
        loss = np.where(answers, np.log(whole) - np.where(answers, logits, 0), 0).sum(axis=1) / count[:, 0]
        shares = np.where(answers, 1 / whole, 0).sum(axis=1, keepdims=True)
        slope = np.where(answers, -others / whole, powers * shares)
        return float(loss.mean()), (slope / count * (SCALE / len(chosen))).astype(np.float32)

    def _move(self, used: Ints, slope: Vectors) -> None:
        self._count += 1
        mean, square = self._mean[used], self._square[used]
        mean += np.float32(0.1) * (slope - mean)
        square += np.float32(0.001) * (slope * slope - square)
        self._mean[used], self._square[used] = mean, square
        mean = mean / np.float32(1 - 0.9**self._count)
        square = square / np.float32(1 - 0.999**self._count)
        self._table[used] -= self._rate * mean / (np.sqrt(square) + np.float32(1e-8))


def _unit(vectors: Vectors) -> tuple[Vectors, Vectors]:
    lengths = np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), np.float32(1e-12))[:, None]
    return vectors / lengths, lengths


def _through(slope: Vectors, directions: Vectors, lengths: Vectors) -> Vectors:
    """A slope by unit vectors as one by the vectors before they were given length 1."""
    along = np.einsum("ij,ij->i", slope, directions)[:, None]
    return np.asarray((slope - along * directions) / lengths, np.float32)


def _batches(training: list[int], size: int, total: int, rng: np.random.Generator) -> Iterator[Ints]:
    """`total` batches of queries, each query once an epoch."""
    made = 0
    while True:
        order = rng.permutation(np.array(training, np.int64))
        for first in range(0, len(order), size):
            if made == total:
                return
            made += 1
            yield np.sort(order[first : first + size])


def _score(
    examples: Examples, queries: Texts, texts: Texts, table: Vectors, nothing: Vectors
) -> float | None:
    """How the queries that choose do under a table; None where there are none."""
    if not examples.choosing:
        return None
    asked = queries.means(table, nothing)[examples.choosing]
    found = examples.judged(unit(asked), unit(texts.means(table, nothing)), examples.choosing)
    return float(np.mean(next(iter(found.values()))))


# --- the model's own form --------------------------------------------------------------------------


def _table(encoder: Any) -> Vectors:
    """One row a token, as float32: weights and shared rows are multiplied out."""
    table: Vectors = encoder._table
    if isinstance(encoder, Model2VecEncoder):
        if encoder._mapping is not None:
            table = table[encoder._mapping]
        if encoder._weights is not None:
            table = table[: len(encoder._weights)] * encoder._weights[:, None]
    return np.array(table, dtype=np.float32)


def _tokens(encoder: Any, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = []
    for first in range(0, len(texts), 1024):
        found += encoder._tokens(texts[first : first + 1024])
    return found


def _save(encoder: Any, table: Vectors, folder: Path) -> None:
    from safetensors.numpy import save_file

    if isinstance(encoder, Model2VecEncoder):
        tokenizer, normalize, longest = encoder.files[1], encoder.normalize, encoder.max_tokens
    else:
        tokenizer, normalize, longest = wordllama_files()[1], True, None
    save_file({"embeddings": table}, folder / "model.safetensors")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    config = {"model_type": "model2vec", "hidden_dim": table.shape[1], "normalize": normalize,
              "max_length": longest}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
