"""Does the encoder know the words that these texts are made of?

Two ways to see it. By its tokenizer, where it tells its pieces: into how many a word is broken
(Rust et al., 2021), and whether there are pieces for it at all. And by its vectors alone: it is given the
domain's words one by one. Words that it does not know have one and the same vector ("blind"); and of words
that it knows, those that stand in the same texts here lie nearer to each other than others do.

Everyday words are given to it as well. A model that lacks a domain's words knows "house" and "water"; one
that is blind for those too does not look at what texts are about, whatever words they have.

Invariants:
  V1  nothing is concluded from an encoder's name or card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.subject import unit
from vecdb.diagnosis.texts import common_words
from vecdb.text import stopwords

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.diagnosis.subject import Subject

ABOUT: Final = "words"
DOMAIN: Final = 256  # words that are looked at
COMMON: Final = 4000
BROKEN: Final = 3  # pieces from which on a word is called broken up
ALIKE: Final = 1e-5  # of a cosine: the same vector
CROWD: Final = 4  # different words with one vector: inflections of one word are fewer
NEAREST: Final = 5
FUNCTION: Final = 40  # function words that are looked at beside everyday ones
FEWEST: Final = 24  # domain words without which nothing is said
UNKNOWN: Final = frozenset({"[UNK]", "<unk>", "[unk]", "<UNK>", "UNK", "\ufffd"})
EVERYDAY: Final = {  # in the texts' main language; words that every model of it has seen
    "english": "house water mother money school night friend summer bread music doctor village horse winter "
    "letter church garden kitchen morning river brother hospital market animal window dinner street teacher "
    "mountain king",
    "german": "haus wasser mutter geld schule nacht freund sommer brot musik arzt dorf pferd winter brief "
    "kirche garten küche morgen fluss bruder markt tier fenster straße lehrer berg könig",
    "french": "maison eau mère argent école nuit ami été pain musique médecin village cheval hiver lettre "
    "église jardin cuisine matin fleuve frère marché animal fenêtre rue montagne roi",
    "spanish": "casa agua madre dinero escuela noche amigo verano pan música médico pueblo caballo invierno "
    "carta iglesia jardín cocina mañana río hermano mercado animal ventana calle montaña rey",
}


@dataclass(slots=True)
class Known:
    """What was seen of the words, for the verdict."""

    terms: list[str] = field(default_factory=list)  # the domain's
    weak: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # blind or broken up
    blind: float | None = None
    everyday: float | None = None
    function: float | None = None
    broken: float | None = None
    unknown: float | None = None
    pieces: float | None = None
    related: float | None = None


def look(subject: Subject, language: str | None) -> tuple[list[Finding], Known]:
    """What there is to say of the words, in the texts' main language, and what was seen."""
    known = Known()
    if not subject.has_texts:
        return [], known
    words = subject.words
    domain = words.domain(DOMAIN, function_words())
    known.terms = [words.terms[at] for at in domain]
    known.weak = np.zeros(len(domain), np.bool_)
    if subject.encoder is None:
        subject.skip("words that the encoder knows", "no encoder is at hand, vectors were given")
        return [], known
    if len(domain) < FEWEST:
        subject.skip("the domain's words", f"only {len(domain)} words stand in several texts")
    worth = words.worth(domain)
    findings = _pieces(subject, known, worth) if callable(getattr(subject.encoder, "tokens", None)) else []
    if len(domain) >= FEWEST:
        findings += _vectors(subject, known, worth, words.together(domain), language)
    return findings, known


def function_words() -> frozenset[str]:
    """The function words of all languages that have a list."""
    return frozenset().union(*(stopwords.words(each) for each in stopwords.LANGUAGES))


# --- by pieces -------------------------------------------------------------------------------------


def pieces_of(encoder: Any, word: str) -> list[str]:
    """The pieces of a word, alone or behind a space: whichever are fewer. Blanks are none."""
    ways = [[piece for piece in encoder.tokens(each) if piece.strip(" ▁Ġ")] for each in (word, " " + word)]
    return min(ways, key=len)


def _pieces(subject: Subject, known: Known, worth: npt.NDArray[np.float64]) -> list[Finding]:
    encoder = subject.encoder
    common = common_words(subject.plain_texts[: subject.drawn], COMMON)
    if not common:
        return []
    split = [(word, count, pieces_of(encoder, word)) for word, count in common]
    total = sum(count for _, count, _ in split)
    known.pieces = sum(count * len(pieces) for _, count, pieces in split) / total
    lost = [(word, count) for word, count, pieces in split if not pieces or UNKNOWN & set(pieces)]
    known.unknown = sum(count for _, count in lost) / total
    most = sorted((each for each in split if len(each[2]) >= BROKEN), key=lambda each: -each[1])
    findings = [
        found(
            ABOUT, "pieces-per-word", known.pieces,
            f"The tokenizer makes {known.pieces:.2f} pieces of a word",
            "Take an encoder whose tokenizer was made for this language and domain.",
            [f"{word} → {' '.join(pieces)}" for word, _, pieces in most],
        ),
        found(
            ABOUT, "unknown-words", known.unknown,
            f"{per_cent(known.unknown)} of the words have no piece at all: the encoder sees a blank there"
            if lost else "Every word has its pieces",
            "Take an encoder with a vocabulary for these texts; check the texts' encoding and script.",
            [word for word, _ in lost],
        ),
    ]  # fmt: skip
    if len(known.terms) < FEWEST:
        return findings
    parts = [pieces_of(encoder, term) for term in known.terms]
    broken = np.array([len(each) >= BROKEN or not each or bool(UNKNOWN & set(each)) for each in parts])
    known.weak |= broken
    known.broken = float(worth[broken].sum() / worth.sum())
    examples = [" ".join(each) for each, is_broken in zip(parts, broken, strict=True) if is_broken]
    findings.append(
        found(
            ABOUT, "broken-terms", known.broken,
            f"{per_cent(known.broken)} of the weight of the {len(parts)} words that make this domain is in "
            f"words that the tokenizer breaks into {BROKEN} pieces or more",
            "Train on texts of the domain (vecdb.fine_tune), or take an encoder that was.", examples,
        )
    )  # fmt: skip
    return findings


# --- by vectors ------------------------------------------------------------------------------------


def _vectors(
    subject: Subject, known: Known, worth: npt.NDArray[np.float64], together: npt.NDArray[np.float64],
    language: str | None,
) -> list[Finding]:  # fmt: skip
    encoder: Any = subject.encoder
    common = EVERYDAY.get(language or "", "").split()
    little = sorted(stopwords.words(language or ""))[:FUNCTION] if common else []
    made = np.asarray(encoder.encode_documents([*known.terms, *common, *little]), np.float32)
    made = np.nan_to_num(made)
    blind = _blind(made)
    mine, rest = blind[: len(known.terms)], blind[len(known.terms) :]
    everyday = rest[: len(common)]
    known.weak |= mine
    known.blind = float(worth[mine].sum() / worth.sum())
    known.related = _related(made[: len(known.terms)], together)
    findings = [
        found(
            ABOUT, "blind-terms", known.blind,
            f"{per_cent(known.blind)} of the weight of the domain's words is in words that have one and "
            "the same vector: the encoder does not tell them apart" if mine.any() else
            "The encoder tells the domain's words apart",
            "Train on texts of the domain, or take an encoder whose vocabulary has these words.",
            [term for term, is_blind in zip(known.terms, mine, strict=True) if is_blind],
        ),
    ]  # fmt: skip
    if common:
        known.everyday, known.function = float(everyday.mean()), float(rest[len(common) :].mean())
        findings.append(
            found(
                ABOUT, "blind-everyday", known.everyday,
                f"Of everyday words, {per_cent(known.everyday)} have one and the same vector"
                if everyday.any() else "The encoder tells everyday words apart",
                "An encoder that does not tell house from water was trained for something else than what "
                "texts are about: take another.",
                [word for word, is_blind in zip(common, everyday, strict=True) if is_blind],
            )
        )  # fmt: skip
    if known.related is not None:
        findings.append(
            found(
                ABOUT, "terms-unrelated", known.related,
                f"Words that stand in the same texts here are nearer to each other than "
                f"{per_cent(known.related)} of the others are, by the encoder's vectors of the words alone "
                "(half by chance)",
                "The encoder has little notion of what belongs together in this domain: train on its "
                "texts, or take one that was.",
            )
        )  # fmt: skip
    return findings


def _blind(made: Any) -> npt.NDArray[np.bool_]:
    """Which words share their vector with several others, or have none."""
    units = unit(made)
    alike = (units @ units.T > 1 - ALIKE).sum(axis=1)
    return np.asarray((alike >= CROWD) | ~made.any(axis=1))


def _related(made: Any, together: npt.NDArray[np.float64]) -> float | None:
    """How often a word is nearer to one of its texts' words than to another: an area under the curve."""
    units = unit(made)
    near = (units @ units.T).astype(np.float64)
    with_self = together.copy()
    np.fill_diagonal(with_self, -1)
    found_ = []
    for row in range(len(made)):
        far = np.flatnonzero(with_self[row] == 0)
        friends = np.argsort(-with_self[row], kind="stable")[:NEAREST]
        friends = friends[with_self[row][friends] > 0]
        if len(far) >= NEAREST and len(friends):
            found_.append(above(near[row][friends], near[row][far]))
    return float(np.mean(found_)) if len(found_) >= FEWEST else None


def above(some: Any, others: Any) -> float:
    """How often one of `some` is above one of `others`, ties half: the area under the ROC curve."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, some, "left"), np.searchsorted(ordered, some, "right")
    return float(((low + high) / 2 / max(1, len(ordered))).mean())
