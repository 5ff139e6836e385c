"""The protocol holds in every order of its steps, and each rule that is broken on purpose is found.

`protocol.py` says what is explored and what is asked. In each exploration all actors are there: two
writers, a searcher in the first one's process, two searchers that share a follower's arena, upkeep. The
controls break one rule at a time; the shortest way to where it shows is printed with `-s`, as are the
numbers of states. There is no chance in it, and so no seed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.model.protocol import Config, Explored, explore
from tests.model.protocol_store import CHUNKS, ENTRY, SLOTS, Version, live_rows


def version(rows: tuple[int, ...], to: dict[int, list[int]], id: int = 3, **more: Any) -> Version:
    """A commit whose images are folded and whose log is cut; `to`: where each row of links leads."""
    rows += (0,) * (SLOTS - len(rows))
    links = tuple(sum(1 << s for s in to.get(u, ())) for u in range(SLOTS + 1))
    image = (id, live_rows(rows))
    chunks = tuple((id, tuple(links[u] for u in chunk)) for chunk in CHUNKS)
    slots = more.pop("slots", sum(1 for row in rows if row))
    return Version(
        id=id, slots=slots, rows=rows, links=links, links_cut=id, live=image, field=image, chunks=chunks, **more
    )  # fmt: skip


PAIR = {ENTRY: [0], 0: [1], 1: [0]}
CHAIN = {ENTRY: [0], 0: [3], 3: [0, 1], 1: [2, 3], 2: [1]}  # 2 hangs on 1, which dies
LATER = (0, 2, 0, 0, 0, 0)  # slot 1 died, or was vacated, in commit 2

PUBLICATION = Config(
    "publication", version((1, 2), PAIR), (("insert", 1),), (("delete", 1),), folds=("live",)
)
INSERTS = Config(
    "two inserts", version((1, 2), PAIR), (("insert", 1),), (("insert", 0), ("delete", 1)), folds=()
)
REPAIR = Config(
    "repair", version((1, 2, 3, 4), CHAIN), (("insert", 2),), (("delete", 1),), repairs=True,
    kills=False, aborts=False,
)  # fmt: skip
DEAD = Config(
    "repair of a dead slot", version((1, -2, 3, 4), CHAIN, since=LATER), (("insert", 1),),
    (("insert", 3),), repairs=True,
)  # fmt: skip
REUSE = Config(
    "reuse",
    version((1, -2), PAIR, since=LATER, condemned=0b10, stage="attached", stage_id=3),
    (("insert", 0),), (("touch", 0),), repairs=True, kills=False, aborts=False,
)  # fmt: skip
ENTERED = Config(
    "the entry dies", version((-1, 2), PAIR, since=(3, 0, 0, 0, 0, 0)), (("insert", 0),),
    (("touch", 0),), repairs=True, kills=False, aborts=False,
)  # fmt: skip
IMAGES = Config(
    "images", version((1, 2), PAIR), (("insert", 1),), (("fold", 0),), folds=("live", "chunk 0")
)
ALL_IMAGES = Config(
    "all images", version((1, 2), PAIR), (("insert", 1),), (("fold", 0), ("delete", 0)),
    folds=("live", "field", "chunk 0", "chunk 1"),
)  # fmt: skip
VECTORS = Config(
    "vectors",
    version((1, 0, 3), {ENTRY: [0], 0: [2], 2: [0]}, since=LATER, slots=3),
    (("insert", 2),), (("delete", 2),), rewrites=True, kills=False, aborts=False,
)  # fmt: skip
SMALL = replace(PUBLICATION, name="small", folds=())

QUICK = [SMALL, VECTORS]
FULL = [PUBLICATION, INSERTS, REPAIR, replace(VECTORS, kills=True, aborts=True), IMAGES]
LONG = [REUSE, ENTERED]  # .9 and 1.9 million states

# What is broken, where it is looked for, and the rules by which it may show first.
BREAKS = [
    ("rows are seen by the newest view", SMALL, "R1"),
    ("the snapshot ends before the ranking", REPAIR, "R1 R5"),
    ("the old address of a rewritten block", VECTORS, "R1"),
    ("vectors before the rewritten block", VECTORS, "R1"),
    ("a search does not wait for the arena", SMALL, "R2"),
    ("position before links", SMALL, "R2"),
    ("the log is read in another transaction", ALL_IMAGES, "R2"),
    ("links are published before the commit", SMALL, "R3"),
    ("a writer does not follow first", SMALL, "R2 R3"),
    ("an abort leaves what was prepared", SMALL, "R3"),
    ("links before codes", VECTORS, "R4"),
    ("reuse does not wait", REPAIR, "R3 R4"),
    ("unlink waits for nobody", REPAIR, "R5"),
    ("the queue holds commit numbers", REPAIR, "R5"),
    ("the floor is that of one process", REPAIR, "R5"),
    ("the queue lies outside the transaction", REPAIR, "R5"),
    ("new links to condemned slots", DEAD, "R5"),
    ("attach after unlink", REPAIR, "R5"),
    ("attach and unlink in one commit", REPAIR, "R5"),
    ("unlink does not wait for attach", REPAIR, "R5"),
    ("upkeep installs an image without looking again", ALL_IMAGES, "R6"),
    ("upkeep moves a watermark by what it reads later", ALL_IMAGES, "R6"),
    ("cut above the lowest watermark", ALL_IMAGES, "R6"),
    ("upkeep installs rows that it read before", DEAD, "R5 R6"),
    ("acknowledged before the commit", SMALL, "R7"),
    ("rows and log in two commits", SMALL, "R7"),
]
LONG_BREAKS = [("reuse of a slot that is only unlinked, without waiting", DEAD, "R3 R4")]


def of(name: Any) -> str:
    return name.name if isinstance(name, Config) else str(name)


def assert_sound(report: Explored) -> None:
    print(report)
    assert report.found is None, "\n".join([str(report.found), *report.trace])
    assert report.complete, report


@pytest.mark.parametrize("config", QUICK, ids=of)
def test_no_reachable_state_breaks_a_rule(config: Config) -> None:
    assert_sound(explore(config))


def test_neither_does_any_state_without_the_short_cut_of_ample_sets() -> None:
    tiny = replace(
        SMALL, name="small, every interleaving", kills=False, aborts=False, second=(("touch", 0),)
    )
    every = explore(tiny, reduced=False)
    fewer = explore(tiny)
    assert_sound(every)
    assert_sound(fewer)
    assert fewer.states < every.states and fewer.commits == every.commits


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("greatest_first", [False, True])
@pytest.mark.parametrize("config", FULL, ids=of)
def test_no_reachable_state_of_the_larger_worlds_breaks_a_rule(
    config: Config, greatest_first: bool
) -> None:
    assert_sound(explore(replace(config, greatest_first=greatest_first)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("config", LONG, ids=of)
def test_no_reachable_state_breaks_a_rule_while_a_slot_is_vacated_and_reused(config: Config) -> None:
    assert_sound(explore(config))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_vacating_with_the_unlinking_is_as_good() -> None:
    """What the model says beyond the design: between these two nobody need be waited for."""
    assert_sound(explore(REPAIR, "unlink and vacate in one commit"))


def assert_found(broken: str, config: Config, rules: str) -> None:
    report = explore(config, broken, most=400_000)
    print(f"control, {report}", *report.trace, sep="\n    ")
    assert report.found is not None, f"the exploration does not notice: {broken}"
    assert report.found.rule in rules.split(), report


@pytest.mark.parametrize(("broken", "config", "rules"), BREAKS, ids=of)
def test_control_a_broken_rule_is_found(broken: str, config: Config, rules: str) -> None:
    assert_found(broken, config, rules)


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "config", "rules"), LONG_BREAKS, ids=of)
def test_control_a_broken_rule_that_takes_longer_is_found(
    broken: str, config: Config, rules: str
) -> None:
    assert_found(broken, config, rules)


def test_control_every_rule_is_broken_by_some_control() -> None:
    shown = {rule for _, _, rules in BREAKS for rule in rules.split()}
    assert shown == {f"R{number}" for number in range(1, 8)}


def test_control_an_exploration_that_was_cut_short_does_not_pass_for_all() -> None:
    with pytest.raises(AssertionError):
        assert_sound(explore(SMALL, most=1000))
