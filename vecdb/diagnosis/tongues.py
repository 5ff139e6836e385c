"""In which language is a text? By its script, and in scripts of many languages by its function words.

A word that several languages have counts for each of them by a share. Below a few function words nothing is
said: a title may have none. The lists are the project's own, short ones of words that stand in nearly every
text; those of `vecdb.text.stopwords` are used too.

Rejected: character n-grams learned from a corpus. They tell short texts better, and would have to be
shipped; here it is asked what a collection's texts are in, and texts that say nothing are left out.

>>> language_of("der Hund und die Katze sind im Haus"), language_of("42"), language_of("это дом, а там река")
('german', None, 'russian')
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from vecdb.text import stopwords

LEAST_HITS: Final = 2  # different function words
LEAST_SHARE: Final = 0.10  # of the words of a text
CLEARLY: Final = 1.3  # times what the next language has
LETTERS: Final = 8  # that a script must have
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")

# scripts of one language each, as far as is said here; and those that function words tell apart
SCRIPTS: Final = (
    ("greek", "\u0370-\u03ff\u1f00-\u1fff"), ("hebrew", "\u0590-\u05ff"), ("hindi", "\u0900-\u097f"),
    ("bengali", "\u0980-\u09ff"), ("punjabi", "\u0a00-\u0a7f"), ("gujarati", "\u0a80-\u0aff"),
    ("tamil", "\u0b80-\u0bff"), ("telugu", "\u0c00-\u0c7f"), ("kannada", "\u0c80-\u0cff"),
    ("malayalam", "\u0d00-\u0d7f"), ("thai", "\u0e00-\u0e7f"), ("georgian", "\u10a0-\u10ff"),
    ("armenian", "\u0530-\u058f"), ("korean", "\uac00-\ud7af\u1100-\u11ff"),
    ("kana", "\u3040-\u30ff"), ("han", "\u4e00-\u9fff\u3400-\u4dbf"), ("arabic", "\u0600-\u06ff"),
    ("cyrillic", "\u0400-\u04ff"), ("latin", "A-Za-z\u00c0-\u024f\u1e00-\u1eff"),
)  # fmt: skip
_SCRIPT: Final = [(name, re.compile(f"[{letters}]")) for name, letters in SCRIPTS]

_MORE: Final = {
    "danish": "af at blev da de den der det dig ej eller en er et for fra ham han har havde hende hun hvad "
    "hvis hvor i ikke jeg kan kunne med meget mig mod mange nogle og også om op os på sig sin som til ud var "
    "vi vil ville være blive bliver efter under mellem dette disse",
    "norwegian": "av at ble bli de den der det du eller en er et etter for fra han har hadde hun hva hvis "
    "hvor i ikke jeg kan kunne med meg mot mange noen og også om opp oss på seg sin som til ut var vi vil "
    "ville være blir under mellom dette disse",
    "finnish": "ja on ei että se hän oli joka mutta kun niin tai myös ovat ole olla kuin jos sen hänen vain "
    "mukaan mitä tämä tässä sitä nyt jo voi ovat sekä jotka kanssa ennen vielä hyvin",
    "polish": "i w na z do nie to się że jest jak po co tak za od ale przez dla czy być był była było są "
    "oraz lub tylko już może gdy przy ten ta te tym tego który która które jego jej ich",
    "czech": "a v na se je že s z do to o i ve po za pro jako by ale od k jsou byl byla bylo jeho nebo při "
    "který která které co tak už jen může ten ta toto tato také mezi",
    "slovak": "a v na sa je že s z do to o aj vo po za pre ako by ale od k sú bol bola bolo jeho alebo pri "
    "ktorý ktorá ktoré čo tak už len môže ten tá toto táto tiež medzi",
    "romanian": "și în de la cu pe un o este nu că din mai care pentru sunt fi sau a al ale lui ei dar după "
    "prin între fost acest această cum când avea poate către despre",
    "hungarian": "a az és hogy nem is egy van meg volt de ez csak már mint vagy ha még el ki be fel után "
    "között szerint amely ami aki lehet kell nagyon minden ezt azt",
    "turkish": "ve bir bu için ile da de çok ne daha olarak olan gibi var ama kadar sonra en her ya ki mi "
    "değil olduğu göre ise veya şey onun bunu tarafından üzerinde",
    "indonesian": "yang dan di dengan untuk dari pada ini itu tidak dalam akan ke adalah juga oleh atau ada "
    "sebagai karena bisa telah dapat lebih saya mereka kami sudah seperti",
    "vietnamese": "và của là có không được cho trong một với các những này đã để người khi từ về như đến "
    "cũng ra tại vào nhưng bị thì hay",
    "catalan": "el la els les de del que i en un una per amb no és al als són va més com o però també seva "
    "seu aquest aquesta entre sobre hi ha fins sense quan perquè",
    "ukrainian": "і в у на що не є з до як та це за від або але для його її він вона вони було був була "
    "також які який яка при про після може між цей ця",
    "bulgarian": "и в на да не е се за от с че по като ще са си но или до как при след може беше това този "
    "тази които който която между само още",
    "english": "of that from their which would there these into than then been other such between through",
}

_ARABIC: Final = re.compile("[\u067e\u0686\u0698\u06af\u06cc\u06a9]")  # Persian's, not Arabic's
_URDU: Final = re.compile("[\u0679\u0688\u0691\u06ba\u06d2\u06be]")
_UKRAINIAN: Final = re.compile("[\u0404\u0454\u0406\u0456\u0407\u0457\u0490\u0491]")


def language_of(text: str) -> str | None:
    """The language of a text, None where its words do not say.

    Of long texts the first 2,000 characters. Costs some 20 µs a hundred words.
    """
    text = text[:2000]
    script = script_of(text)
    if script in ("latin", "cyrillic"):
        return _by_words(text, script)
    if script == "han":
        return "japanese" if _SCRIPT_OF["kana"].search(text) else "chinese"
    if script == "kana":
        return "japanese"
    if script == "arabic":
        return "urdu" if _URDU.search(text) else "persian" if _ARABIC.search(text) else "arabic"
    return script


def script_of(text: str) -> str | None:
    """The script that most letters are of; None for fewer than a few letters."""
    if text.isascii():
        letters = sum(map(str.isalpha, text))
        return "latin" if letters >= LETTERS else None
    counts = [(len(pattern.findall(text)), name) for name, pattern in _SCRIPT]
    most, name = max(counts, key=lambda each: each[0])
    least = LETTERS if name in ("latin", "cyrillic") else 2
    return name if most >= least else None


def _by_words(text: str, script: str) -> str | None:
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    points: dict[str, float] = {}
    hits: dict[str, int] = {}
    different: dict[str, set[str]] = {}
    for word in words:
        owners = _owners().get(word, ())
        for language in owners:
            points[language] = points.get(language, 0.0) + 1 / len(owners)
            hits[language] = hits.get(language, 0) + 1
            different.setdefault(language, set()).add(word)
    if script == "cyrillic" and _UKRAINIAN.search(text):
        points["ukrainian"] = points.get("ukrainian", 0.0) * 2 + 1
    if not points:
        return None
    ranked = sorted(points.items(), key=lambda each: (-each[1], each[0]))
    best, worth = ranked[0]
    next_ = ranked[1][1] if len(ranked) > 1 else 0.0
    enough = len(different.get(best, ())) >= LEAST_HITS and hits[best] >= LEAST_SHARE * len(words)
    return best if enough and worth >= CLEARLY * next_ else None


@cache
def lists() -> dict[str, frozenset[str]]:
    """The function words of each language that is told by them."""
    found = {name: set(stopwords.words(name)) for name in stopwords.LANGUAGES}
    for name, words in _MORE.items():
        found.setdefault(name, set()).update(words.split())
    return {name: frozenset(words) for name, words in found.items()}


@cache
def _owners() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, words in lists().items():
        for word in words:
            found.setdefault(word, []).append(name)
    return {word: tuple(names) for word, names in found.items()}


_SCRIPT_OF: Final = dict(_SCRIPT)
KNOWN: Final = tuple(
    sorted({*lists(), "japanese", "chinese", "persian", "urdu"}
           | {name for name, _ in SCRIPTS if name not in ("kana", "han", "cyrillic", "latin")})
)  # fmt: skip
