"""How does a text become the token numbers that a transformer reads?

By the folder's own `tokenizer.json`, run by the tokenizers package; or by WordPiece over `vocab.txt`
(Schuster and Nakajima, 2012; BERT's own tokenizer), as old folders have it.

Invariants (checked by tests/unit/test_bert.py):
  1. The numbers are those that transformers' tokenizer gives: special tokens around, cut at `longest`
     tokens with them, of a pair the longer part first.
  2. What is cut off costs nothing: of a long text only a prefix is looked at, if that alone fills the
     tokens that count. It ends at a space, so that no word of it is cut. What lies behind `FARTHEST`
     characters a token is never looked at: no language has such words.

Rejected: the transformers package. It brings an HTTP client and takes seconds to import.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from vecdb.encoders.weights import read_object
from vecdb.errors import InvalidArgument

__all__ = ["REMEDY", "WordPieces", "lacks_tokenizers"]

MODULES = ("tokenizers",)  # of what the extra `text` brings
REMEDY = "pip install 'vecdb-engine[text]'"
CHARACTERS = 16  # of a text that are looked at first, for each token that counts
FARTHEST = 256
NO_LIMIT = 1_000_000  # tokenizer_config.json says 1e30 where it means that there is none


class WordPieces:
    """The tokenizer in a folder: texts and pairs of texts to token numbers, `longest` at most.

    Raises InvalidArgument, beginning with `who`, where the folder holds none, or one with more tokens
    than `vocabulary`.
    """

    def __init__(self, folder: Path, who: str, vocabulary: int) -> None:
        if lacks_tokenizers():
            raise InvalidArgument(
                f"{who} needs {' and '.join(MODULES)}, not all installed here: {REMEDY}"
            )
        settings = folder / "tokenizer_config.json"
        config = read_object(settings, who) if settings.is_file() else {}
        self.file, self._tokenizer = _read(folder, config, who)
        most = config.get("model_max_length")
        said = isinstance(most, int | float) and 0 < most < NO_LIMIT
        self.most = int(most) if said and most is not None else None
        last = max(self._tokenizer.get_vocab().values(), default=-1)
        if not 0 <= last < vocabulary:
            raise InvalidArgument(
                f"{who}: {self.file} has tokens up to number {last}, the weights {vocabulary} "
                "embeddings; both must be of one model"
            )
        self._tokenizer.no_padding()
        self.longest = 0

    def cut_at(self, longest: int) -> None:
        """Cut texts at so many tokens, special ones counted."""
        self._tokenizer.enable_truncation(longest, strategy="longest_first")
        self.longest = longest

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The token numbers of each text."""
        coded = self._encode([self._enough(text) for text in texts])
        return [one.ids or [0] for one in coded]  # no tokenizer of these families gives none

    def pieces(self, text: str) -> list[str]:
        """The pieces of a whole text, without special ones."""
        coded = self._tokenizer.encode(text, add_special_tokens=False)
        return [*coded.tokens, *(piece for more in coded.overflowing for piece in more.tokens)]

    @property
    def special(self) -> int:
        """How many special tokens stand around a text."""
        return int(self._tokenizer.num_special_tokens_to_add(False))

    def encode_pairs(self, pairs: list[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        """The token numbers of each pair, and to which of the two a token belongs."""
        coded = self._encode([(self._enough(a), self._enough(b)) for a, b in pairs])
        return [one.ids for one in coded], [one.type_ids for one in coded]

    def _enough(self, text: str) -> str:
        """A text, or its first words where these have more tokens than count."""
        most = self.longest * CHARACTERS
        if len(text) <= most:
            return text
        begin = _begin(text, most)
        if self._tokenizer.encode(begin).overflowing:
            return begin
        return text[: self.longest * FARTHEST]

    def _encode(self, inputs: list[Any]) -> list[Any]:
        if len(inputs) == 1:  # a lone query stays off the tokenizer's thread pool
            one = inputs[0]
            return [self._tokenizer.encode(*([one] if isinstance(one, str) else one))]
        return list(self._tokenizer.encode_batch(inputs))


def lacks_tokenizers() -> str | None:
    """Return the command that installs what this lacks here, None if nothing."""
    lacking = [name for name in MODULES if importlib.util.find_spec(name) is None]
    return REMEDY if lacking else None


def _begin(text: str, most: int) -> str:
    """The whole words of a text's first characters; just these where they are one word."""
    return (text[:most].rsplit(None, 1) or [""])[0]


def _read(folder: Path, config: dict[str, Any], who: str) -> tuple[Path, Any]:
    from tokenizers import Tokenizer

    whole, words = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if whole.is_file():
            return whole, Tokenizer.from_file(str(whole))
        if words.is_file():
            return words, _of_words(words, config)
    except Exception as error:  # the tokenizers package raises bare exceptions
        path = whole if whole.is_file() else words
        raise InvalidArgument(f"{who}: {path} cannot be read: {error!r:.300}") from None
    raise InvalidArgument(
        f"{who}: {folder} holds neither tokenizer.json nor vocab.txt; save the tokenizer there with "
        "tokenizer.save_pretrained(folder)"
    )


def _of_words(path: Path, config: dict[str, Any]) -> Any:
    """BERT's own tokenizer over a list of word pieces, one a line."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    unknown, begin, end = (str(config.get(name) or default) for name, default in names.items())
    lines = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {line.rstrip("\r"): at for at, line in enumerate(lines) if line.strip() or at == 0}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    tokenizer.add_special_tokens(
        [token for token in (unknown, begin, end, "[PAD]", "[MASK]") if token in vocabulary]
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(config.get("do_lower_case", True)),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        (end, vocabulary[end]), (begin, vocabulary[begin])
    )
    return tokenizer
