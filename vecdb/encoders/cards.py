"""What does a model's folder say about the model? The card of an encoder that was read from files.

A folder that was published has a README.md that begins with "front matter", a few lines of YAML between
two lines `---`: language, licence, the data sets it was trained on, the model it came from (Hugging Face,
"Model Cards"; the idea: Mitchell et al., "Model Cards for Model Reporting", 2019). What it does not say is
`NOT_STATED` here, and nothing is guessed from a name.

Invariants (checked by tests/unit/test_cards.py):
  1. A card only repeats: every word of it stands in the folder, or is counted from its weights.
  2. A README that is missing, broken or hostile costs the card its facts and never the encoder.

Rejected: a YAML package for the ten keys that are read (a dependency, and tags that make objects); the
README's prose (a sentence about another model is one about this model to a pattern).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vecdb.encoders.base import NOT_STATED, Card

__all__ = ["card_of_folder", "front_matter"]

README = "README.md"
LONGEST_README = 1 << 20  # characters that are looked at
LONGEST_VALUE = 300
NAMED = 8  # data sets that are named; of more, how many there are
_KEY = re.compile(r"^([A-Za-z_][\w-]*):(?:\s+(.*))?$")
_ITEM = re.compile(r"^\s*-\s+(.*)$")

Facts = dict[str, list[str]]


def card_of_folder(
    folders: Iterable[Path],
    *,
    longest_input: str,
    max_tokens: int | None,
    size_bytes: int | None = None,
    parameters: int | None = None,
    similarity: str = "",
    origin: str = "",
) -> Card:
    """The card of a model: what the first README.md of `folders` says, and what is known from its files.

    `similarity`: how its vectors are compared, which the README may say more about. `origin`: how the
    model came to be, where its kind alone tells.
    """
    facts: Facts = {}
    for folder in folders:
        facts = front_matter(folder / README)
        if facts:
            break
    return Card(
        trained_on=_trained_on(facts, origin),
        languages=", ".join(facts.get("language", [])) or NOT_STATED,
        longest_input=longest_input,
        licence=_licence(facts),
        similarity=_similarity(facts, similarity),
        max_tokens=max_tokens,
        size_bytes=size_bytes,
        parameters=parameters,
    )


def front_matter(path: Path) -> Facts:
    """The keys of a README's front matter, each with its values; {} where there is none.

    Of YAML: `key: value`, `key: [a, b]`, and lists of one `- value` a line. Anything deeper is left out.
    """
    if not path.is_file():  # a pipe of that name would be waited for
        return {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(LONGEST_README).splitlines()
    except OSError:
        return {}
    if not lines or lines[0].strip() != "---":
        return {}
    facts: Facts = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return facts
        found, item = _KEY.match(line), _ITEM.match(line)
        if found:
            key = found[1].lower()
            facts[key] = _values(found[2] or "")
        elif item and key and ": " not in item[1]:  # not an item that is itself a mapping
            facts[key] += _values(item[1])
        elif line.strip() and not line.startswith((" ", "#", "-")):
            key = ""
    return {}  # it never ends: no front matter


def _values(written: str) -> list[str]:
    """A scalar as one value, `[a, b]` as several."""
    written = written.strip()
    listed = written[1:-1].split(",") if written[:1] == "[" and written[-1:] == "]" else [written]
    plain = [each.strip().strip("\"'").strip()[:LONGEST_VALUE] for each in listed]
    return [each for each in plain if each not in ("", "|", ">", "~", "null")]


def _trained_on(facts: Facts, origin: str) -> str:
    parts = [origin] if origin else []
    if facts.get("base_model"):
        parts.append(f"from {', '.join(facts['base_model'])}")
    sets = facts.get("datasets", [])
    if sets:
        more = f" and {len(sets) - NAMED} more" if len(sets) > NAMED else ""
        parts.append(f"data sets {', '.join(sets[:NAMED])}{more}")
    pairs = _tagged(facts, "dataset_size")
    if pairs:
        parts.append(f"{pairs[0]} training examples")
    return "; ".join(parts) or NOT_STATED


def _similarity(facts: Facts, compared: str) -> str:
    task = facts.get("pipeline_tag", [])
    losses = _tagged(facts, "loss")
    said = [each.replace("-", " ") for each in task]
    if losses:
        said.append(f"trained with {', '.join(losses)}")
    return "; ".join([*([compared] if compared else []), *(said or [NOT_STATED])])


def _licence(facts: Facts) -> str:
    said = facts.get("license", [])
    named = facts.get("license_name", []) if said in ([], ["other"]) else []
    return ", ".join(named or said) or NOT_STATED


def _tagged(facts: Facts, kind: str) -> list[str]:
    """What tags of the form kind:value say, as sentence-transformers writes them."""
    tags = facts.get("tags", [])
    return [each.partition(":")[2] for each in tags if each.startswith(f"{kind}:")]
