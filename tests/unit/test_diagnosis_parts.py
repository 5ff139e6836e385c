"""The measuring devices of a diagnosis against plain references: BM25, tongues, cards, noise, the probe."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.diagnosis import probe
from vecdb.diagnosis.judged import ndcg, top
from vecdb.diagnosis.labels import noise_of
from vecdb.diagnosis.languages import card_languages
from vecdb.diagnosis.limits import LIMITS
from vecdb.diagnosis.subject import nearest, squared_distances, unit
from vecdb.diagnosis.tongues import language_of
from vecdb.diagnosis.vocabulary import above
from vecdb.diagnosis.words import K1, B, Words, words_of

WORDS = st.lists(st.sampled_from("wing wing jet heat flow plate shock of the".split()), max_size=12).map(" ".join)


@given(texts=st.lists(WORDS, min_size=1, max_size=8), query=WORDS)
@settings(max_examples=150, deadline=None)
def test_scores_are_those_of_the_formula(texts: list[str], query: str) -> None:
    """W1: BM25 by hand."""
    found = Words(texts).scores(query)
    split = [words_of(text) for text in texts]
    mean = sum(map(len, split)) / len(split) or 1e-9
    for row, words in enumerate(split):
        score = 0.0
        for word in words_of(query):
            df = sum(word in each for each in split)
            tf = words.count(word)
            idf = math.log(1 + (len(split) - df + 0.5) / (df + 0.5))
            score += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * len(words) / mean)) if tf else 0.0
        assert found[row] == pytest.approx(score, rel=1e-5, abs=1e-6)


def test_words_that_stand_together_are_found() -> None:
    words = Words(["wing jet"] * 4 + ["heat plate"] * 4 + ["the of"] * 8)
    terms = [words.numbers[each] for each in ("wing", "jet", "heat")]
    together = words.together(terms)
    assert together[0, 1] == pytest.approx(math.log(4)) and together[0, 2] == 0
    assert {words.terms[at] for at in words.domain(9)} == {"wing", "jet", "heat", "plate"}


SENTENCES = {
    "english": "All people are born free and equal, and they should act towards one another with kindness.",
    "german": "Alle Menschen sind frei geboren und sollen einander mit Güte begegnen, auch wenn sie nicht einig sind.",
    "french": "Tous les gens naissent libres et ils doivent agir les uns envers les autres avec bonté dans leur vie.",
    "spanish": "Todos los hombres nacen libres y deben actuar con bondad los unos con los otros en su vida.",
    "italian": "Tutti gli uomini nascono liberi e devono agire con bontà gli uni verso gli altri nella loro vita.",
    "portuguese": "Todos os homens nascem livres e devem agir com bondade uns com os outros na sua vida, não só em casa.",
    "dutch": "Alle mensen worden vrij geboren en zij moeten elkaar met liefde behandelen in het dagelijks leven.",
    "swedish": "Alla människor är födda fria och de ska handla mot varandra med vänlighet i sitt liv.",
    "danish": "De er født frie, og de skal handle mod hinanden med venlighed, ikke kun hjemme, hvor de også bliver set.",
    "norwegian": "De er født frie, og de skal handle vennlig mot hverandre, ikke bare hjemme, etter hva noen av oss sa.",
    "finnish": "Kaikki ihmiset syntyvät vapaina ja heidän on oltava hyviä, mutta se ei ole aina helppoa.",
    "polish": "Wszyscy ludzie rodzą się wolni, ale to nie jest łatwe dla ludzi, którzy są sami w domu i na ulicy.",
    "czech": "Všichni lidé se rodí svobodní a mají jednat spolu, ale to není snadné pro ty, kteří jsou sami.",
    "romanian": "Toate ființele se nasc libere și trebuie să fie bune, dar nu este ușor pentru cei care sunt singuri.",
    "hungarian": "Minden ember szabadon születik és az a dolga, hogy a másikkal jól bánjon, de ez nem mindig van így.",
    "turkish": "Bütün insanlar hür doğarlar ama bu her zaman kolay değil çünkü bir çok insan için zor olan bu.",
    "indonesian": "Semua orang dilahirkan merdeka dan mereka harus baik dengan yang lain, tetapi ini tidak mudah untuk semua.",
    "russian": "Все люди рождаются свободными и должны поступать по совести, но это не так просто.",
    "ukrainian": "Всі люди народжуються вільними і повинні діяти один до одного в дусі братерства, але це не є легко.",
    "greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι", "arabic": "يولد جميع الناس أحرارا", "hebrew": "כל בני האדם נולדו בני חורין",
    "chinese": "人人生而自由，在尊严和权利上一律平等。", "japanese": "すべての人間は、生まれながらにして自由であり、",
    "korean": "모든 인간은 태어날 때부터 자유로우며", "hindi": "सभी मनुष्य स्वतंत्र पैदा होते हैं", "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระ",
    "persian": "تمام افراد بشر آزاد به دنیا می‌آیند و گناه نیست چه",
}  # fmt: skip


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_tells_its_language(language: str) -> None:
    assert language_of(SENTENCES[language]) == language


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_a_language_or_none(text: str) -> None:
    assert language_of(text) is None or isinstance(language_of(text), str)


def test_what_says_nothing_has_no_language() -> None:
    for text in ("", "42", "GPU", "foo bar baz", "INI parsing library for Go. INI files parsing library for Go.", "x" * 5000):
        assert language_of(text) is None, text


def test_cards_name_languages_in_words_and_codes() -> None:
    assert card_languages("English above all") == {"english"}
    assert card_languages("en") == {"english"} and card_languages("German, French") == {"german", "french"}
    for said in ("any", "multilingual: 50 languages", "those of the model", "not stated", "no idea it is"):
        assert card_languages(said) is None, said


@pytest.mark.parametrize("seed", range(4))
def test_the_share_of_wrong_labels_is_estimated_though_classes_overlap(seed: int) -> None:
    """Ten classes in pairs that overlap: about what was planted, nothing where nothing was, and where most labels
    are wrong, so that hardly any neighbours can be trusted, less than what was planted, and much."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(3 * rng.normal(size=(5, 16)), 2, axis=0) + 0.4 * rng.normal(size=(10, 16))
    truth = rng.integers(0, 10, 1500)
    near = nearest(squared_distances(centres[truth] + rng.normal(size=(1500, 16))), 10)
    told = []
    for share in (0.0, 0.1, 0.3, 0.6):
        labels = truth.copy()
        wrong = rng.random(1500) < share
        labels[wrong] = rng.permutation(labels[wrong])
        told.append(noise_of(labels, near, np.random.default_rng(0)))
        assert told[-1] == pytest.approx(share, abs=0.08) if share < 0.5 else 0.4 < told[-1] < 0.65
    print(f"seed {seed}: planted 0, 0.1, 0.3, 0.6; told {[round(each, 3) for each in told]}")


def test_ndcg_and_areas_by_hand() -> None:
    scores = np.array([0.1, 0.9, 0.9, 0.3], np.float32)
    assert top(scores, 3).tolist() == [1, 2, 3] and top(scores, 9).tolist() == [1, 2, 3, 0]
    assert ndcg(scores, {2: 1.0}) == pytest.approx(1 / math.log2(3)) and ndcg(scores, {1: 2.0, 2: 1.0}) == 1
    assert above(np.array([0.5, 0.1]), np.array([0.1, 0.3])) == pytest.approx((1 + 0.25) / 2)


def _space(seed: int, buried: bool) -> probe.Space:
    """Topics in a few dimensions, much louder noise in others; or noise alone."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 20, 700)
    centres = rng.normal(size=(20, 8)) * (1.0 if buried else 0.0)
    some = np.concatenate([centres[topics] + 0.3 * rng.normal(size=(700, 8)), 4 * rng.normal(size=(700, 24))], axis=1)
    rows = some[100:].astype(np.float32)
    grades = [{int(row): 1.0 for row in np.flatnonzero(topics[100:] == topic)} for topic in topics[:100]]
    return probe.Space(some[:100].astype(np.float32), rows, grades)


@pytest.mark.slow
def test_the_probe_brings_back_what_is_there_and_nothing_else() -> None:
    for buried in (True, False):
        space = _space(1, buried)
        spaces = {power: probe.stretched(space, power) for power in probe.POWERS}
        train, test = list(range(50)), list(range(50, 100))
        found = []
        for _ in range(2):
            rng = np.random.default_rng(0)
            choice = probe.choose(spaces, train, rng)
            found.append(probe.fitted(spaces, choice, train, test, rng).mean())
        frozen = probe.quality(spaces[0.0], None, test).mean()
        print(f"buried {buried}: {frozen:.3f} as it is, {found[0]:.3f} with a map, {choice}")
        assert found[0] == found[1]  # P2
        assert (found[0] > frozen + 0.2) if buried else (found[0] < frozen + 0.05)


@pytest.mark.slow
def test_the_probe_never_looks_at_what_it_is_measured_on() -> None:
    """P1: other judgements of the queries that are measured change nothing of the map."""
    space = _space(2, True)
    spaces = {0.5: probe.stretched(space, 0.5)}
    other = space._replace(grades=[*space.grades[:50], *([{0: 1.0}] * 50)])
    changed = {0.5: probe.stretched(other, 0.5)}
    choices = [probe.choose(each, list(range(50)), np.random.default_rng(0)) for each in (spaces, changed)]
    assert choices[0] == choices[1]
    maps = [probe.learned(each[0.5], list(range(50)), 2, np.random.default_rng(0))[-1] for each in (spaces, changed)]
    assert np.array_equal(*maps)


def test_unit_keeps_what_would_overflow_or_vanish() -> None:
    made = unit(np.array([[1e38, 1e38], [1e-40, 0], [0, 0]], np.float32))
    assert np.allclose(made, [[0.5**0.5] * 2, [1, 0], [0, 0]])


def test_limits_are_in_order_and_have_sources() -> None:
    for code, limit in LIMITS.items():
        steps = [limit.note, limit.warning, limit.serious]
        ordered = sorted(steps, reverse=limit.below)
        assert steps == ordered and limit.source, code
        assert limit.severity(math.nan) is None
    assert Counter(limit.below for limit in LIMITS.values())[True] > 3
