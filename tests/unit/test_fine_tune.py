"""fine_tune: what a model learns helps on queries that it never saw, is saved whole, and is told honestly."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import berts, models
from vecdb import encoders
from vecdb.adapting.examples import examples_in
from vecdb.adapting.training_table import Texts, _Tuner
from vecdb.encoders import registry
from vecdb.errors import InvalidArgument

pytestmark = pytest.mark.skipif(
    bool(registry.missing("model2vec")), reason="tokenizers and safetensors (extra `text`) are not installed"
)
needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "sentence_transformers")),
    reason="torch and sentence-transformers (extra `train`) are not installed",
)


def table(folder: Path, words: int = 60, dim: int = 8, seed: int = 0, **config: Any) -> Path:
    """A static model of words w0, w1, ... with random vectors: it knows nothing of what belongs together."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds

    folder.mkdir(parents=True)
    names = ["[UNK]", *(f"w{at}" for at in range(words))]
    tokenizer = Tokenizer(kinds.WordLevel({name: at for at, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = np.random.default_rng(seed).normal(size=(len(names), dim)).astype(np.float32)
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True, **config}))
    return folder


def pairs(n: int, seed: int = 1, topics: int = 6, shuffled: bool = False) -> list[tuple[str, str]]:
    """Queries of a topic's first words, texts of its other words: nothing but pairs tells that they belong together."""
    rng = np.random.default_rng(seed)
    found = []
    for at in range(n):
        topic = at % topics
        ask = [f"w{topic * 10 + each}" for each in rng.choice(5, 3, replace=False)]
        tell = [f"w{topic * 10 + 5 + each}" for each in rng.choice(5, 3, replace=False)]
        found.append((" ".join(ask) + f" q{at}", " ".join(tell) + f" t{at}"))
    if shuffled:
        texts = [text for _, text in found]
        rng.shuffle(texts)
        found = [(query, text) for (query, _), text in zip(found, texts, strict=True)]
    return found


def topics_of(given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with every text of the topic as an answer, so that a held-out query has something to find."""
    by_topic: dict[int, list[str]] = {}
    for query, text in given:
        by_topic.setdefault(int(query.split()[0][1:]) // 10, []).append(text)
    return [(query, text) for query, _ in given for text in by_topic[int(query.split()[0][1:]) // 10]]


def test_a_table_learns_what_belongs_together_and_says_so(tmp_path: Path) -> None:
    source = table(tmp_path / "m")
    before = (source / "model.safetensors").read_bytes()
    report = vecdb.fine_tune(source, topics_of(pairs(120)), tmp_path / "tuned", holdout=0.3)
    assert report is not None and report.helps and "it helps" in report.verdict
    assert report["ndcg@10"].before < 0.5 and report["ndcg@10"].after > 0.9
    assert (report.trained, report.validated, report.held_out, report.documents) == (67, 17, 36, 120)
    assert report.chosen.epoch > 0 and report.steps[0].epoch == 0
    tuned = encoders.model2vec(tmp_path / "tuned")
    ask, tell = ([" ".join(f"w{topic * 10 + first + each}" for each in range(5)) for topic in range(6)] for first in (0, 5))
    similar = tuned.encode_queries(ask) @ tuned.encode_documents(tell).T
    assert similar.argmax(axis=1).tolist() == list(range(6))
    assert "fine-tuned" in (tmp_path / "tuned" / "README.md").read_text() and "training examples" in tuned.card.trained_on
    assert (source / "model.safetensors").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m", "tuned"]
    said = json.loads(report.to_json())
    assert said["title"] == "Fine-tuning" and said["helps"] and said["changes"][0]["metric"] == "ndcg@10"
    assert said["chosen"]["epoch"] == report.chosen.epoch and "it helps" in repr(report) and "<svg" in report.to_html()
    with pytest.raises(InvalidArgument, match=r"it has 'ndcg@10'"):
        report["map"]


def test_figures_are_those_of_the_saved_folder_and_of_held_out_queries(tmp_path: Path) -> None:
    source = table(tmp_path / "m")
    given = topics_of(pairs(80))
    report = vecdb.fine_tune(source, given, tmp_path / "tuned", seed=3)
    assert report is not None
    examples = examples_in(given, None, 0.2, 3)
    parts = [set(examples.training), set(examples.choosing), set(examples.held_out)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(examples.queries) == 80
    for encoder, value in ((encoders.model2vec(source), report["recall@10"].before),
                           (encoders.model2vec(tmp_path / "tuned"), report["recall@10"].after)):  # fmt: skip
        queries = encoder.encode_queries([examples.queries[row] for row in examples.held_out])
        similar = queries @ encoder.encode_documents(examples.texts).T
        shares = [len(set(np.argsort(-scores, kind="stable")[:10].tolist()) & set(examples.answers[row])) / len(examples.answers[row])
                  for scores, row in zip(similar, examples.held_out, strict=True)]  # fmt: skip
        assert abs(np.mean(shares) - value) < 1e-9


def test_the_same_seed_gives_the_same_table_and_another_another(tmp_path: Path) -> None:
    source, given = table(tmp_path / "m"), topics_of(pairs(60))
    raw = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        vecdb.fine_tune(source, given, tmp_path / name, seed=seed)
        raw.append((tmp_path / name / "model.safetensors").read_bytes())
    assert raw[0] == raw[1] != raw[2]


def test_shuffled_pairs_do_not_help_and_the_report_says_so(tmp_path: Path) -> None:
    helped = 0
    for seed in range(6):
        report = vecdb.fine_tune(table(tmp_path / f"m{seed}", seed=seed), pairs(100, seed, shuffled=True), tmp_path / f"t{seed}", seed=seed)
        assert report is not None
        helped += report.helps
        assert report.helps or "does not surely help" in report.verdict or "no training beat" in report.verdict
    print(f"shuffled pairs: 6 trainings, seeds 0 to 5: said to help {helped}")
    assert helped <= 1


def test_triplets_are_held_to_their_order(tmp_path: Path) -> None:
    given = pairs(90)
    wrong = [text for _, text in given[1:] + given[:1]]  # of the next topic
    triplets = [(query, text, other) for (query, text), other in zip(given, wrong, strict=True)]
    report = vecdb.fine_tune(table(tmp_path / "m"), triplets, tmp_path / "tuned", holdout=0.4)
    assert report is not None and report.helps
    assert report.changes[0].metric == "triplets in order" and report.changes[0].after > 0.85 > 0.7 > report.changes[0].before


def test_the_slope_is_that_of_the_loss() -> None:
    """Against differences: the table moved a little in every direction."""
    rng = np.random.default_rng(0)
    given = [(f"{at} q", f"{at} {at + 1}") for at in range(12)] + [("3 q", "5 t"), ("4 4", "6")]
    examples = examples_in(given, ["7 8", "4 4"], 0.2, 0)
    lists = lambda texts: [[int(w) % 9 for w in text.split() if w.isdigit()] or [0] for text in texts]  # noqa: E731
    start = rng.normal(size=(9, 4)).astype(np.float32)

    def loss_at(values: Any) -> tuple[float, Any]:
        tuner = _Tuner(values.astype(np.float32).copy(), Texts(lists(examples.queries)), Texts(lists(examples.texts)), examples, 0.0)
        kept: list[Any] = []
        tuner._move = lambda used, slope: kept.append((used, slope))  # type: ignore[method-assign]
        loss = tuner.step(np.array(examples.training, np.int64), rng)
        return loss, kept[0]

    _, (used, slope) = loss_at(start)
    for row, token in enumerate(used.tolist()):
        for axis in range(4):
            up, down = start.copy(), start.copy()
            up[token, axis] += 5e-3
            down[token, axis] -= 5e-3
            numeric = (loss_at(up)[0] - loss_at(down)[0]) / 1e-2
            assert abs(numeric - slope[row, axis]) < 2e-2 * max(1.0, abs(numeric)), (token, axis)


def test_many_texts_are_sampled_a_step_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.adapting.training_table.MOST_TEXTS", 300)
    corpus = [f"w{at % 60} w{at % 7} filler{at}" for at in range(1500)]
    report = vecdb.fine_tune(table(tmp_path / "m"), topics_of(pairs(90)), tmp_path / "tuned", corpus=corpus, batch_size=16)
    assert report is not None and report.documents == 1590 and report["ndcg@10"].difference > 0.2


def test_shared_rows_and_weights_of_tokens_are_multiplied_out(tmp_path: Path) -> None:
    source = models.build(tmp_path / "m", mapped=True, normalize=True, max_length=5)
    words = [w for w in models.WORDS[2:] if not w.startswith("##")]
    given = [(f"{a} {b}", f"{b} {a} {c}") for a in words for b in words for c in words[:2]]
    report = vecdb.fine_tune(source, given, tmp_path / "t", epochs=1, learning_rate=1e-12)
    assert report is not None
    one, other = encoders.model2vec(source), encoders.model2vec(tmp_path / "t")
    known = [text for text in models.TEXTS if "unknown" not in text]  # without one: the mean of another table
    assert len(known) > 4 and np.allclose(one.encode_documents(known), other.encode_documents(known), atol=1e-5)
    assert other.max_tokens == 5 and other._mapping is None


def test_a_collection_goes_over_to_what_was_tuned(tmp_path: Path) -> None:
    given = topics_of(pairs(60))
    texts = list(dict.fromkeys(text for _, text in given))
    db = vecdb.open()
    c = db.create_collection("c", encoder=encoders.model2vec(table(tmp_path / "m")))
    c.add(range(len(texts)), texts=texts)
    vecdb.fine_tune(c._encoder(c.schema.only), given, tmp_path / "tuned")
    c.reembed(encoders.model2vec(tmp_path / "tuned"), bridge=False)
    topic = {int(texts[at].split()[0][1:]) // 10 for at in c.search("w30 w31 w32 w33 w34", k=5).ids}
    assert topic == {3}


def test_wordllamas_table_is_saved_as_a_model2vec_folder(tmp_path: Path) -> None:
    if registry.missing("wordllama"):
        pytest.skip("the extra `text` is not installed")
    given = [(f"question {at} about {word}", f"{word} is answered in number {at}") for at, word in enumerate(
        "ships silk whales ice deserts captains trade engines wings heat flow plates".split())]  # fmt: skip
    report = vecdb.fine_tune("wordllama:64", given, tmp_path / "t", epochs=1, learning_rate=1e-12)
    assert report is not None
    texts = [text for pair in given for text in pair]
    one, other = encoders.get("wordllama:64"), encoders.model2vec(tmp_path / "t")
    assert np.allclose(one.encode_documents(texts), other.encode_documents(texts), atol=1e-5)


# --- refused, stopped ------------------------------------------------------------------------------


def test_what_cannot_be_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    source, good = table(tmp_path / "m"), pairs(20)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("x")
    new = tmp_path / "new"
    for given, options, said in (
        ([*good, ("a", 3)], {}, r"pairs\[20\] holds a int"), ([*good, ("a",)], {}, r"pairs\[20\]"), ([*good, "ab"], {}, r"pairs\[20\]"),
        ([("a", "b", "c", "d")], {}, r"pairs\[0\]"), ([], {}, "0 queries"), (good[:9], {}, "9 queries; at least 10"), ("text", {}, "pairs is a str"),
        (np.array(3), {}, "pairs is a ndarray"), (good, {"folder": tmp_path / "a\0b"}, "without NUL"), (good, {"learning_rate": 1e30}, "below 1,000,000"),
        (None, {}, "pairs is a NoneType"), ({"a": "b"}, {}, "pairs is a dict"), ([("a", "b", "c"), ("a", "b")], {}, r"triplets\[1\]"),
        (good, {"folder": tmp_path / "there"}, "exists"), (good, {"folder": tmp_path / "file"}, "exists"), (good, {"folder": ""}, "folder"),
        (good, {"folder": tmp_path / "file" / "in"}, "cannot be written"), (good, {"folder": 3}, "folder"),
        (good, {"holdout": 0}, "holdout"), (good, {"holdout": 1.0}, "holdout"), (good, {"holdout": True}, "holdout"), (good, {"seed": -1}, "seed"),
        (good, {"seed": "a"}, "seed"), (good, {"epochs": 0}, "epochs"), (good, {"epochs": 1.5}, "epochs"), (good, {"learning_rate": float("nan")}, "learning_rate"),
        (good, {"batch_size": True}, "batch_size"), (good, {"corpus": "text"}, "corpus"), (good, {"corpus": ["a", None]}, r"corpus\[1\]"),
        (good, {"encoder": "hashing"}, "nothing to be trained"), (good, {"encoder": "no such"}, "no encoder"), (good, {"encoder": tmp_path / "there"}, "no model"),
        (good, {"encoder": 5}, "no encoder"), (good, {"cancel": 5}, "cancel"), (good, {"progress": 5}, "progress"),
    ):  # fmt: skip
        arguments: Any = {"encoder": source, "folder": new, **options}
        with pytest.raises(InvalidArgument, match=said):
            vecdb.fine_tune(arguments.pop("encoder"), given, arguments.pop("folder"), **arguments)
        assert not new.exists() and not list(tmp_path.glob(".*.part"))


def test_cancel_stops_and_leaves_nothing(tmp_path: Path) -> None:
    source, stop = table(tmp_path / "m"), threading.Event()
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))
        if done == 4:
            stop.set()

    assert vecdb.fine_tune(source, pairs(50), tmp_path / "t", progress=progress, cancel=stop) is None
    assert seen == [(at, 60) for at in range(1, 5)] and os.listdir(tmp_path) == ["m"]


def test_a_network_without_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    berts.build(tmp_path / "b")
    monkeypatch.setattr("vecdb.adapting.training_network.PACKAGES", ("no_such_module_here",))
    with pytest.raises(InvalidArgument, match=r"needs no_such_module_here: pip install 'vecdb-engine\[train\]'"):
        vecdb.fine_tune(encoders.bert(tmp_path / "b"), pairs(20), tmp_path / "t")
    assert os.listdir(tmp_path) == ["b"]


@needs_torch
def test_a_network_learns_and_is_loaded_without_torch(tmp_path: Path) -> None:
    berts.build(tmp_path / "b", files={
        "modules.json": [{"idx": 0, "name": "0", "type": "sentence_transformers.models.Transformer", "path": ""},
                         {"idx": 1, "name": "1", "type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}],
        "1_Pooling/config.json": {"word_embedding_dimension": berts.DIM, "pooling_mode_mean_tokens": True},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[PAD]",
                                  "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "sentence_bert_config.json": {"max_seq_length": 16}}, scale=0.2,
        config={"vocab_size": 4 + len(berts.WORDS), "max_position_embeddings": berts.POSITIONS, "type_vocab_size": 2})  # fmt: skip
    ask = [["red", "fox"], ["runs", "home"], ["sea", "to"], ["the", "a"]]
    tell = [["whale", "hunt"], ["captain", "silk"], ["trade", "desert"], ["ship", "water"]]
    given = [(" ".join(query), " ".join(text)) for one, other in zip(ask, tell, strict=True)
             for query in itertools.product(one, repeat=3) for text in itertools.product(other, repeat=2)]  # fmt: skip
    report = vecdb.fine_tune(encoders.bert(tmp_path / "b"), given, tmp_path / "t", epochs=6, learning_rate=1e-2)
    assert report is not None and (report.trained, report.validated, report.held_out) == (21, 5, 6)
    losses = [step.loss for step in report.steps[1:]]
    assert len(losses) == 6 and None not in losses and min(losses[2:]) < losses[0] - 0.1  # type: ignore[type-var, operator]
    tuned = encoders.bert(tmp_path / "t")
    assert (tuned.fingerprint != encoders.bert(tmp_path / "b").fingerprint) == (report.chosen.epoch > 0)
    assert encoders.sentence_transformers(tmp_path / "t").encode_documents(["red fox"]) == pytest.approx(
        tuned.encode_documents(["red fox"]), abs=1e-4
    )
    assert "training examples" in tuned.card.trained_on and not (tmp_path / ".t.part").exists()
