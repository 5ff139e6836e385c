"""How does a model itself learn from judgements, and is it better for it? The answer to `fine_tune`.

`fit_adapter` learns a map of vectors that are there; here the weights of the model change, so that texts have
to be encoded anew afterwards (`papers.reembed(encoder)`). A static table of token embeddings (model2vec,
wordllama) is trained by numpy (training_table.py), a transformer by torch (training_network.py, extra
`train`).

    examples.py          what is learned from: queries, texts, which answer which, what is held out
    tuning_report.py     what came of it

Invariants (checked by tests/unit/test_fine_tune.py):
  T1  a held-out query is in no batch and chooses no epoch; the figures are those of the saved folder, loaded
      as a user loads it, against those of the encoder as it was given;
  T2  the folder is whole or not there: it is written under another name and renamed, and one that exists is
      never touched;
  T3  the same examples and seed give the same table, bit by bit on one machine; a network within rounding.

Rejected: the trainer of sentence-transformers (it wants the packages datasets and accelerate for a loop of
thirty lines); training on all examples once the epoch was chosen (the figures would be another model's).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from vecdb.adapting.examples import Examples, examples_in
from vecdb.adapting.tuning_report import FineTuning, Step, change
from vecdb.encoders.base import NOT_STATED, Encoder, card_of
from vecdb.encoders.bert import BertEncoder, bert
from vecdb.encoders.model2vec import Model2VecEncoder, model2vec
from vecdb.encoders.registry import get
from vecdb.encoders.sentence_transformers import SentenceTransformersEncoder, sentence_transformers
from vecdb.encoders.wordllama import WordLlamaEncoder
from vecdb.errors import InvalidArgument
from vecdb.progress import reporter, stopper

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES: Final = (Model2VecEncoder, WordLlamaEncoder)
NETWORKS: Final = (BertEncoder, SentenceTransformersEncoder)
MOST_SEED: Final = 2**63
LARGEST: Final = 1_000_000  # below which epochs, rates and batches are


def fine_tune(
    encoder: str | os.PathLike[str] | Encoder,
    pairs: Iterable[Any],
    folder: str | os.PathLike[str],
    *,
    holdout: float = 0.2,
    seed: int = 0,
    corpus: Iterable[str] | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    progress: Any = False,
    cancel: Any = None,
) -> FineTuning | None:
    """Train a copy of an encoder's model on `pairs`, save it into `folder`, and report what it gained.

    `encoder`: one of `model2vec`, `wordllama`, `bert` or `sentence_transformers`, its name, or a model's
    folder. `pairs`: [(query, text)], or triplets [(query, text, text)] whose second text must stay behind
    the first; all are str. `corpus`: more texts, among which answers are to be found: they make training and
    figures those of the whole collection. `holdout`: the share of the queries that the report is of. Texts
    of other queries are the wrong answers (InfoNCE); of the training queries a fifth chooses after which
    epoch to stop, none at all included. `folder` must not exist; what is saved there is loaded by
    `vecdb.encoders.model2vec(folder)`, or `bert` and `sentence_transformers`. None where `cancel` stopped
    it; then nothing is written.

    Costs on two cores: for a table about half a minute (90 queries, 1,400 texts); for MiniLM some 0.3 s a
    text and epoch, with the extra `train`. InvalidArgument names the first bad pair, an encoder that cannot
    be trained, a folder that exists, fewer than 10 queries. Sources: InfoNCE (van den Oord et al., 2018),
    its use with a batch's other answers (Henderson et al., 2017), Adam (Kingma and Ba, 2015).

    >>> fine_tune("hashing", [("a", "b")], "tuned")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: encoder 'hashing' has nothing to be trained...
    """
    began = time.perf_counter()
    given = _encoder(encoder)
    target = _target(folder)
    share, seed = _share(holdout), _seed(seed)
    _positive("epochs", epochs, int)
    _positive("batch_size", batch_size, int)
    _positive("learning_rate", learning_rate, float)
    stop = stopper(cancel)
    examples = examples_in(pairs, corpus, share, seed)
    train = _by_table if isinstance(given, TABLES) else _by_network
    options = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with reporter(progress, f"fine-tuning {given.name}") as report:
        try:
            part.mkdir(parents=True)
            steps = train(given, examples, part, options, report, stop)
            if steps is None:
                return None
            tuned = _loaded(given, part)
            before, after = examples.figures(given), examples.figures(tuned)
            made = FineTuning(
                tuple(change(name, before[name], after[name], seed) for name in before),
                given.name, str(target), examples.source, len(examples.training), len(examples.choosing),
                len(examples.held_out), len(examples.texts), time.perf_counter() - began, tuple(steps),
                card_of(given),
            )  # fmt: skip
            (part / "README.md").write_text(_readme(given, examples, made), encoding="utf-8")
            os.rename(part, target)
            return made
        except OSError as error:
            _refuse(f"folder={os.fspath(folder)!r:.200} cannot be written: {error.strerror or error}")
        finally:
            shutil.rmtree(part, ignore_errors=True)


Steps = list[Step]


def _by_table(
    given: Any, examples: Examples, part: Path, options: dict[str, Any], report: Any, stop: Callable[[], bool]
) -> Steps | None:
    from vecdb.adapting.training_table import train

    return train(given, examples, part, options, report, stop)


def _by_network(
    given: Any, examples: Examples, part: Path, options: dict[str, Any], report: Any, stop: Callable[[], bool]
) -> Steps | None:
    from vecdb.adapting.training_network import train

    return train(given, examples, part, options, report, stop)


def _loaded(given: Any, folder: Path) -> Encoder:
    """The model in a folder, as the family of the one that was given loads it."""
    if isinstance(given, TABLES):
        return model2vec(folder)
    return bert(folder) if isinstance(given, BertEncoder) else sentence_transformers(folder)


# --- what was given --------------------------------------------------------------------------------


def _encoder(given: Any) -> Encoder:
    """The encoder in hand, of a name, or of the model in a folder."""
    if isinstance(given, str | os.PathLike) and Path(given).is_dir():
        found = _of_folder(Path(given))
    else:
        found = get(given)
    if not isinstance(found, (*TABLES, *NETWORKS)):
        _refuse(
            f"encoder {found.name!r} has nothing to be trained here: give a model2vec, wordllama, bert or "
            "sentence_transformers encoder; vecdb.fit_adapter learns a map for the vectors of any"
        )
    return found


def _of_folder(folder: Path) -> Encoder:
    """A model's folder by the first family that takes it."""
    reasons = []
    for make in (model2vec, bert, sentence_transformers):
        try:
            return make(folder)
        except InvalidArgument as error:
            reasons.append(str(error))
    _refuse(f"folder {str(folder)!r:.200} holds no model that can be trained: {'; '.join(reasons)}")


def _target(folder: Any) -> Path:
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        _refuse(f"folder={folder!r:.80}: give the path of a new folder")
    if not isinstance(os.fspath(folder), str) or "\0" in os.fspath(folder):
        _refuse(f"folder={folder!r:.80}: a path is a str without NUL")
    path = Path(os.path.abspath(os.fspath(folder)))
    if os.path.lexists(path):
        _refuse(f"folder={os.fspath(folder)!r:.200} exists: give a new one, as nothing is written over")
    return path


def _share(holdout: Any) -> float:
    if isinstance(holdout, bool) or not isinstance(holdout, int | float) or not 0 < holdout < 1:
        _refuse(f"holdout={holdout!r:.40}: give the share of the queries to hold out, between 0 and 1")
    return float(holdout)


def _seed(seed: Any) -> int:
    if type(seed) is not int or not 0 <= seed < MOST_SEED:
        _refuse(f"seed={seed!r:.40}: give an int from 0 to 2**63 - 1")
    return seed


def _positive(name: str, value: Any, kind: type) -> None:
    fits = value is None or (type(value) in (int, kind) and 0 < value < LARGEST)
    if not fits:
        what = "an int" if kind is int else "a number"
        _refuse(f"{name}={value!r:.40}: give {what} above 0 and below {LARGEST:,}, or None")


def _readme(given: Encoder, examples: Examples, made: FineTuning) -> str:
    """The folder's card: what it was trained on, for those who find it later."""
    card = card_of(given)
    lines = ["---", f"base_model: {_plain(given.name)}"]
    if card.languages != NOT_STATED:
        lines.append(f"language: {_plain(card.languages)}")
    if card.licence != NOT_STATED:
        lines += ["license: other", f"license_name: {_plain(card.licence)}"]
    lines += ["tags:", "- loss:MultipleNegativesRankingLoss", f"- dataset_size:{examples.count}"]
    lines += ["pipeline_tag: sentence-similarity", "---", "", f"# {_plain(given.name)}, fine-tuned", ""]
    return "\n".join([*lines, "```", repr(made), "```", ""])


def _plain(text: str) -> str:
    """On one line, so that it cannot end the front matter."""
    return " ".join(text.split())[:300].replace("---", "-")


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
