"""Intervals hold the truth as often as they say; tests raise as few false alarms as they say."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import InvalidArgument
from vecdb.evaluation import significance
from vecdb.evaluation.significance import compare, holm, interval, more_needed, student

SEED = 20_260
ROUNDS = int(os.environ.get("VECDB_ROUNDS", "400"))
RECIPROCAL = np.array([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 7, 1 / 10, 0])
SHARES = np.array([0.42, 0.14, 0.08, 0.05, 0.05, 0.04, 0.04, 0.18])

Draw = Callable[[Any, int], Any]
# What per-query figures look like: (draws n of them, their true mean)
POPULATIONS: dict[str, tuple[Draw, float]] = {
    "ndcg": (lambda rng, n: (rng.random(n) > 0.1) * rng.beta(1.5, 1.5, n), 0.45),
    "many zeros": (lambda rng, n: (rng.random(n) > 0.7) * rng.beta(1, 3, n), 0.075),
    "skewed": (lambda rng, n: rng.beta(0.4, 2, n), 0.4 / 2.4),
    "reciprocal ranks": (lambda rng, n: rng.choice(RECIPROCAL, n, p=SHARES), float(RECIPROCAL @ SHARES)),
    "hits": (lambda rng, n: (rng.random(n) < 0.8) * 1.0, 0.8),
}


@pytest.mark.parametrize("count", [25, 75, 225])
def test_intervals_cover_the_true_mean(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """At 95 %, over all kinds of figures; VECDB_ROUNDS sets how many of each are drawn."""
    if ROUNDS < 2_000:
        monkeypatch.setattr(significance, "RESAMPLES", 1_000)
    covered = {}
    for name, (draw, mean) in POPULATIONS.items():
        rng = np.random.default_rng([SEED, count])
        found = [interval(draw(rng, count), seed=at) for at in range(ROUNDS)]
        covered[name] = float(np.mean([each.low <= mean <= each.high for each in found]))
    overall = float(np.mean(list(covered.values())))
    shown = ", ".join(f"{name} {share:.1%}" for name, share in covered.items())
    print(f"{count} queries, {ROUNDS} rounds each, seed {SEED}: {overall:.1%} ({shown})")
    slack = 3 * (0.95 * 0.05 / ROUNDS) ** 0.5  # three standard errors of one population's share
    assert 0.93 <= overall <= 0.97
    assert all(0.93 - slack <= share <= 0.97 + slack for share in covered.values())


@pytest.mark.parametrize("count", [10, 25, 225])
def test_the_test_raises_few_false_alarms(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Two systems of equal quality, whose figures go together and are zero together often."""
    rounds = 5 * ROUNDS
    flips = 500 if ROUNDS < 2_000 else significance.FLIPS
    monkeypatch.setattr(significance, "RESAMPLES", 2)
    rng = np.random.default_rng([SEED, count])
    alarms = 0
    for at in range(rounds):
        easy = rng.beta(1, 1, count) * (rng.random(count) > 0.2)
        noise = rng.beta(0.5, 0.5, (2, count)) - 0.5
        a, b = np.clip(easy + 0.4 * noise, 0, 1)
        alarms += compare(a, b, seed=at, flips=flips).p_value <= 0.05
    print(f"{count} queries, {rounds} rounds, seed {SEED}: false alarms {alarms / rounds:.1%}")
    assert 0.03 <= alarms / rounds <= 0.07


def test_p_values_are_those_of_all_arrangements() -> None:
    rng = np.random.default_rng(3)
    for count in (1, 2, 5, 9, significance.EXACT):
        d = np.round(rng.normal(size=count), 1)
        sums = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=count)]
        truth = float(np.mean([each >= abs(d.sum()) - 1e-9 for each in sums]))
        assert compare(d, np.zeros(count)).p_value == pytest.approx(truth)
    d = rng.normal(0.3, 1, 14)  # sampled from here on
    signs = 1 - 2.0 * ((np.arange(1 << 14)[:, None] >> np.arange(14)) & 1)
    truth = float((np.abs(signs @ d) >= abs(d.sum()) - 1e-9).mean())
    assert compare(d, np.zeros(14)).p_value == pytest.approx(truth, abs=0.01)


def test_intervals_agree_with_published_code() -> None:
    """scipy's BCa, at the levels ours are widened to."""
    stats = pytest.importorskip("scipy.stats")
    x = np.random.default_rng(5).beta(0.4, 2, 60)
    wide = stats.norm.cdf(-np.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    theirs = stats.bootstrap((x,), np.mean, n_resamples=50_000, confidence_level=1 - 2 * wide, method="BCa", rng=1)
    ours = interval(x)
    assert [ours.low, ours.high] == pytest.approx(list(theirs.confidence_interval), abs=0.004)
    for degrees in (1, 2, 3, 5, 10, 24, 224):
        assert student(0.975, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.003)
    hits = stats.binomtest(7, 8).proportion_ci(method="wilson")
    assert interval([1] * 7 + [0]).low == pytest.approx(hits.low) and interval([1] * 7 + [0]).high == pytest.approx(hits.high)


def test_large_numbers_of_queries_and_small_ones_agree() -> None:
    x = np.random.default_rng(2).beta(0.4, 2, significance.LARGE + 1)
    large, small = interval(x), interval(x[:-1])
    assert (large.low, large.high) == pytest.approx((small.low, small.high), abs=2e-4)
    d = x - np.roll(x, 1) + 0.002
    assert compare(d, 0 * d).p_value == pytest.approx(compare(d[:-1], 0 * d[:-1]).p_value, abs=0.03)


def test_degenerate_values() -> None:
    one = interval([0.25])
    assert one.mean == 0.25 and np.isnan(one.low) and np.isnan(one.high)
    same = interval([0.5] * 9)
    assert (same.mean, same.low, same.high) == (0.5, 0.5, 0.5)
    zeros = interval([0.0] * 25)
    assert (zeros.mean, zeros.low) == (0, 0) and 0.1 < zeros.high < 0.15, "25 zeros do not say that all are"
    equal = compare([0.1, 0.9, 0.3], [0.1, 0.9, 0.3])
    assert (equal.difference, equal.low, equal.high, equal.p_value, equal.differing) == (0, 0, 0, 1, 0)
    assert more_needed([0.1, 0.9], [0.1, 0.9]) is None and more_needed([0.1], [0.3]) is None
    two = interval([0.2, 0.4])
    assert two.low <= 0.2 and two.high >= 0.4


def test_a_mapping_is_kept_and_the_seed_alone_decides() -> None:
    values = {1: 0.25, "1": 0.5, "c": 0.125}
    first, again = interval(values), interval(values)
    assert first.per_query == values and (first.low, first.high) == (again.low, again.high) and float(first) == first.mean
    x = np.random.default_rng(0).random(30)
    np.random.seed(0)
    assert interval(x) == interval(list(x)) and interval(x, seed=1) != interval(x)
    assert interval(x, level=0.8).half < interval(x).half
    assert compare(x, x[::-1]) == compare(x, x[::-1]) and compare(x, x[::-1]).p_value == compare(x[::-1], x).p_value


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_an_interval_holds_its_mean_and_stays_among_the_values(values: list[float]) -> None:
    found = interval(values)
    assert 0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True)) and all(a <= 1 for a in adjusted)
    by_definition = []
    for p in p_values:  # the step-down rule, asked of each level that could be the answer
        levels = sorted({min(1.0, (len(p_values) - j) * q) for j, q in enumerate(sorted(p_values))} | {1.0})
        by_definition.append(next(level for level in levels if p in _rejected(p_values, level)))
    assert adjusted == pytest.approx(by_definition)


def _rejected(p_values: list[float], level: float) -> list[float]:
    found = []
    for place, p in enumerate(sorted(p_values)):
        if min(1.0, (len(p_values) - place) * p) > level:
            break
        found.append(p)
    return found


def test_the_number_of_further_queries_settles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With so many more, drawn as these were, a difference like the one seen is found about four times of five."""
    rng = np.random.default_rng(SEED)
    base = rng.normal(0.03, 0.2, 40)
    base = (base - base.mean()) / base.std(ddof=1) * 0.2 + 0.03  # exactly this difference and spread
    more = more_needed(base, np.zeros(40))
    assert more is not None and 250 < more < 400
    monkeypatch.setattr(significance, "RESAMPLES", 2)
    found = [compare(rng.normal(0.03, 0.2, 40 + more), np.zeros(40 + more), seed=at, flips=500).p_value <= 0.05 for at in range(300)]
    print(f"{more} more of 40, 300 rounds, seed {SEED}: settled {np.mean(found):.1%}")
    assert 0.73 <= float(np.mean(found)) <= 0.87
    stricter = more_needed(base, np.zeros(40), level=0.99)
    assert stricter is not None and stricter > more
    assert more_needed([0.5, 0.7], [0.4, 0.6]) == 4, "six alike are the fewest that can be significant"
    assert more_needed(base, np.zeros(40), most=more - 1) is None
    assert more_needed(base + 0.2, np.zeros(40)) is None, "settled"
    assert more_needed(base - 0.0299, np.zeros(40)) is None, "too small to settle"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: interval([]), "at least one"), (lambda: interval([[1.0]]), "shape"), (lambda: interval(["a"]), "numbers"),
        (lambda: interval([0.1, float("nan")]), r"values\[1\] is nan"), (lambda: interval(3), "shape"),
        (lambda: compare([1.0], [1.0, 2.0]), "1 values and b 2"), (lambda: interval([0.1], level=1), "level"),
        (lambda: interval([0.1], level="a"), "level"), (lambda: more_needed([1.0], [0.0], power=1), "power"),
        (lambda: interval(None), "shape"), (lambda: interval([object()]), "numbers"),
    ],
)  # fmt: skip
def test_misuse_is_named(call: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        call()
