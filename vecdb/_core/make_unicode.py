"""Writes `unicode_tables.h`: what each character is to the analyzer, folded, composed, without marks.

    python vecdb/_core/make_unicode.py > vecdb/_core/unicode_tables.h

The header is committed, so that every build has the same tables; its version is part of an
analysis' fingerprint. `classify`, `fold`, `bare` and `pairs` are the definition that tests use too.

Invariants:
  U1  a folded character folds to itself, and so does a composed one;
  U2  folding is simple: one character for one, whatever Python's `casefold` expands.

Rejected: the tables of the building machine's Python. Two builds would give two sets of terms.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence

SPLIT, LETTER, DIGIT, MARK, CJK, JOINER = range(6)
LAST = 0x110000
PAGE = 256

# Inside a word these do not show: soft hyphen, joiners, marks of direction, variation selectors.
JOINERS = {0x00AD, 0x061C, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF}
SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))

# Scripts that are written without spaces between words and become bigrams: Hangul, Kana, Bopomofo, Han.
BIGRAMS = (
    range(0x1100, 0x1200), range(0x3005, 0x3008), range(0x3021, 0x302A), range(0x3031, 0x3036),
    range(0x3038, 0x303C), range(0x3041, 0x3100), range(0x3105, 0x3130), range(0x3131, 0x318F),
    range(0x31A0, 0x31C0), range(0x31F0, 0x3200), range(0x3400, 0x4DC0), range(0x4E00, 0xA000),
    range(0xA960, 0xA980), range(0xAC00, 0xD800), range(0xF900, 0xFB00), range(0xFF66, 0xFFDD),
    range(0x1AFF0, 0x1B170), range(0x20000, 0x3FFFE),
)  # fmt: skip

# Marks that `diacritics=False` leaves out; vowel signs of Indic scripts are none of them.
DIACRITICS = (
    range(0x0300, 0x0370), range(0x1AB0, 0x1B00), range(0x1DC0, 0x1E00), range(0x20D0, 0x2100),
)  # fmt: skip


def classify(code: int) -> int:
    """What a character is: one of SPLIT to JOINER."""
    if code in JOINERS or any(code in run for run in SELECTORS):
        return JOINER
    category = unicodedata.category(chr(code))[0]
    if category in "LN" and any(code in run for run in BIGRAMS):
        return CJK
    return {"L": LETTER, "N": DIGIT, "M": MARK}.get(category, SPLIT)


def fold(code: int) -> int:
    """Simple case folding."""
    for folded in (chr(code).casefold(), chr(code).lower()):
        if len(folded) == 1:
            return ord(folded)
    return code


def bare(code: int) -> int:
    """A folded Latin or Greek letter without its diacritics; 0 for a mark that is one."""
    if any(code in run for run in DIACRITICS):
        return 0
    name = unicodedata.name(chr(code), "")
    parts = unicodedata.normalize("NFD", chr(code))
    marks = all(unicodedata.category(part) == "Mn" for part in parts[1:])
    if len(parts) > 1 and marks and name.startswith(("LATIN", "GREEK")):
        return ord(parts[0])
    return code


def pairs() -> dict[tuple[int, int], int]:
    """Folded characters that a letter and a mark make together."""
    found = {}
    for code in range(LAST):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) != 2 or parts[0].startswith("<"):
            continue
        first, mark = int(parts[0], 16), int(parts[1], 16)
        whole = unicodedata.normalize("NFC", chr(first) + chr(mark)) == chr(code)
        if whole and classify(mark) == MARK and fold(code) == code and fold(first) == first:
            found[first, mark] = code
    return found


def main() -> None:
    """Print the header."""
    lines = [
        "// Written by make_unicode.py; not by hand.",
        "#pragma once",
        "#include <cstdint>",
        "namespace vecdb::text {",
        f'constexpr const char* UNICODE_VERSION = "{unicodedata.unidata_version}";',
        *_paged("CLASS", "uint8_t", classify),
        *_paged("FOLD", "int32_t", lambda code: fold(code) - code),
        *_paged("BARE", "int32_t", lambda code: bare(code) - code),
        "struct Pair { uint32_t first, mark, whole; };",
        f"constexpr Pair PAIRS[{len(pairs())}] = {{",
        *_rows([f"{{{a},{b},{c}}}" for (a, b), c in sorted(pairs().items())]),
        "};",
        "}  // namespace vecdb::text",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _paged(name: str, kind: str, value: Callable[[int], int]) -> Iterator[str]:
    """A table of two steps: the page of a character's upper bits, the value in it."""
    places: dict[tuple[int, ...], int] = {}
    index = []
    for start in range(0, LAST, PAGE):
        page = tuple(
            0 if 0xD800 <= code < 0xE000 else value(code) for code in range(start, start + PAGE)
        )
        index.append(places.setdefault(page, len(places)))
    yield f"constexpr uint8_t {name}_PAGE[{len(index)}] = {{"
    yield from _rows([str(place) for place in index])
    yield "};"
    yield f"constexpr {kind} {name}_OF[{len(places)}][{PAGE}] = {{"
    for page in places:
        yield "{"
        yield from _rows([str(one) for one in page])
        yield "},"
    yield "};"


def _rows(values: Sequence[str]) -> Iterator[str]:
    line = ""
    for value in values:
        if len(line) + len(value) > 100:
            yield line
            line = ""
        line += value + ","
    yield line


if __name__ == "__main__":
    main()
