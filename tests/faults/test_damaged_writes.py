"""Writing to a damaged file: never a crash, never half a deed, and no damage is sealed in.

A case takes a whole file, damages it by a seed (test_damaged_records.py), and lets a process of its
own do a dozen deeds, optimize among them (damage_writer.py). A deed is acknowledged, or it is an
error of vecdb's that names the place and the remedy and has changed nothing. Afterwards every exact
answer must be that of a sound file after the acknowledged deeds, or an error, or `check` must report
something: a writer that read a damaged record and wrote it again under a right checksum would be
wrong, and clean.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import damage
from tests.faults.damage_writer import DEEDS
from tests.faults.test_damaged_records import (
    SEED,
    Asker,
    Tally,
    damage_pages,
    damage_records,
    damage_sealed,
)
from vecdb import _core
from vecdb.storage import keys, rows

WRITER = "from tests.faults.damage_writer import main; main()"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "sound.vecdb"
    damage.build(path, damage.SMALL)
    return path


def fuzz(
    sound: Path,
    folder: Path,
    cases: int,
    how: Callable[[Path, random.Random], str],
    *,
    seed: int = SEED,
) -> Tally:
    """Damage a file that many times, write, ask, and judge."""
    asker = Asker(WRITER)
    order = {"sound": str(sound), "rows": damage.SMALL}
    whole = sound.read_bytes()
    tally, deeds, begun = Tally({}), 0, time.monotonic()
    try:
        first = asker.ask({**order, "path": str(copied(sound, folder)), "verify": "auto"})
        assert first and first["done"] == len(DEEDS), first
        for n in range(cases):
            rng = random.Random(f"written-{how.__name__}-{seed}-{n}")
            path = folder / f"{n}.vecdb"
            path.write_bytes(whole)
            what = how(path, rng)
            # whoever asks for no check of the structure trusts it, and LMDB ends processes over it
            verify = "auto" if how is damage_pages else rng.choice(("auto", "never"))
            found: dict[str, Any] | None = asker.ask({**order, "path": str(path), "verify": verify})
            if found is not None:
                tally.sound = found["expected"]
                deeds += found["done"]
            tally.note(f"seed {seed}, case {n} ({what})", found)
            for name in ("", "-lock", "-writer"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}{name}")
    finally:
        asker.end()
    tally.counts["deeds"] = deeds
    print(f"{how.__name__}, then written to: {cases} cases, seed {seed}, crashes and foreign errors "
          f"{len(tally.bad)}, silently wrong {len(tally.silent)}; {dict(tally.counts)}; "
          f"{time.monotonic() - begun:.0f} s", file=sys.stderr)  # fmt: skip
    return tally


def copied(path: Path, folder: Path) -> Path:
    return Path(shutil.copyfile(path, folder / "undamaged.vecdb"))


@pytest.mark.parametrize(("how", "cases"), [(damage_records, 60), (damage_pages, 30)])
def test_a_damaged_file_is_written_to_wholly_or_not_at_all(
    sound: Path, tmp_path: Path, how: Callable[[Path, random.Random], str], cases: int
) -> None:
    tally = fuzz(sound, tmp_path, cases, how)
    assert tally.bad == [] and tally.silent == []
    assert tally.counts["errors"] > 50 and tally.counts["deeds"] > 50


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", [damage_records, damage_pages, damage_sealed])
def test_thousands_of_damaged_files_are_written_to(
    tmp_path: Path, how: Callable[[Path, random.Random], str]
) -> None:
    sound = tmp_path / "sound.vecdb"
    cases = int(os.environ.get("VECDB_FUZZ_CASES", "2000"))
    seed = int(os.environ.get("VECDB_FUZZ_SEED", "1"))
    damage.build(sound, damage.SMALL)
    tally = fuzz(sound, tmp_path, cases, how, seed=seed)
    assert tally.bad == []
    assert how is damage_sealed or tally.silent == []


def test_a_writer_that_seals_damage_in_is_found_by_the_harness(sound: Path, tmp_path: Path) -> None:
    """The control: what such a writer would leave behind is silently wrong."""

    def sealed_in(path: Path, rng: random.Random) -> str:
        with damage.write(path) as txn:
            key = keys.row(1, rng.randrange(100, 200))
            row = rows.decode(_core.unseal(keys.ROWS, key, txn.get(key)))
            damage.put(txn, key, rows.encode(row._replace(text=b"never written")))
        return keys.describe(key)

    tally = fuzz(sound, tmp_path, 6, sealed_in)
    assert len(tally.silent) >= 2 and tally.bad == []  # some of these rows are deleted by the deeds
