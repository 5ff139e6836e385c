"""Damage anywhere: never a crash, never an answer that is wrong and that nobody speaks of.

A case takes a whole file, damages it by a seed, and lets a process of its own ask everything
(damage_reader.py). Each answer must be the sound file's, or an error of vecdb's that names the
place and the remedy, or `check` must report something. Three kinds of damage:

    records   one to three records: bits, length, content, key, or gone
    pages     raw bytes of the file, under a name that nobody knows: its structure is checked first
    sealed    content damaged beneath a right checksum: what no checksum can find. Wrong answers are
              possible here; crashes, hangs and foreign errors are not

The controls show that the harness notices: with checksums off, and with a record that was sealed
again with other content, it must report answers that are silently wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import child, damage
from vecdb import _core
from vecdb.storage import keys, rows

SEED = 20
PATIENCE_S = 60
REMEDY = ("optimize()", "backup", "newer vecdb", "repair", "path of a vecdb file")
READER = "from tests.faults.damage_reader import main; main()"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damaged") / "sound.vecdb"
    damage.build(path, damage.SMALL)
    return path


# --- damage --------------------------------------------------------------------------------------


def damage_records(path: Path, rng: random.Random) -> str:
    """One to three records of kinds drawn evenly; says what was done."""
    done = []
    with damage.write(path) as txn:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            key = some_key(txn, rng)
            how = rng.choice(RECORD_DAMAGE)
            how(txn, key, rng)
            done.append(f"{how.__name__} {keys.describe(key)}")
    return ", ".join(done)


def some_key(txn: Any, rng: random.Random) -> bytes:
    by_kind: dict[int, list[bytes]] = {}
    for key in txn.cursor().iternext(values=False):
        by_kind.setdefault(bytes(key)[0], []).append(bytes(key))
    return rng.choice(by_kind[rng.choice(sorted(by_kind))])


def flip(txn: Any, key: bytes, rng: random.Random) -> None:
    record = bytearray(txn.get(key) or b"\0")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(record), rng.choice((4, 40, 1 << 30))))
        record[at] ^= 1 << rng.randrange(8)
    txn.put(key, bytes(record))


def truncate(txn: Any, key: bytes, rng: random.Random) -> None:
    record = bytes(txn.get(key))
    txn.put(key, record[: rng.randrange(len(record) or 1)])


def extend(txn: Any, key: bytes, rng: random.Random) -> None:
    txn.put(key, bytes(txn.get(key)) + rng.randbytes(rng.choice((1, 4, 300))))


def delete(txn: Any, key: bytes, rng: random.Random) -> None:
    txn.delete(key)


def zero(txn: Any, key: bytes, rng: random.Random) -> None:
    record = bytearray(txn.get(key))
    at = rng.randrange(len(record) or 1)
    end = min(len(record), at + rng.choice((1, 16, 512)))
    record[at:end] = bytes(end - at)
    txn.put(key, bytes(record))


def exchange(txn: Any, key: bytes, rng: random.Random) -> None:
    """Two records of a kind, each under the other's key."""
    other = rng.choice(damage.keys_of(txn, key[:1]))
    mine, theirs = bytes(txn.get(key)), bytes(txn.get(other))
    txn.put(key, theirs)
    txn.put(other, mine)


def rename(txn: Any, key: bytes, rng: random.Random) -> None:
    """The record under a key that differs in a bit, or that is shorter or longer."""
    name = bytearray(key)
    if rng.random() < 0.8:
        name[rng.randrange(len(name))] ^= 1 << rng.randrange(8)
    elif rng.random() < 0.5 and len(name) > 1:
        name.pop()
    else:
        name.append(rng.randrange(256))
    record = bytes(txn.get(key))
    txn.delete(key)
    txn.put(bytes(name), record)


def copy(txn: Any, key: bytes, rng: random.Random) -> None:
    """The record under a second key."""
    txn.put(key[:-1] + bytes((rng.randrange(256),)), bytes(txn.get(key)))


RECORD_DAMAGE: list[Callable[[Any, bytes, random.Random], None]] = [
    flip, flip, truncate, extend, delete, zero, exchange, rename, copy,
]  # fmt: skip


def damage_pages(path: Path, rng: random.Random) -> str:
    """Raw bytes: bits, whole pages, an earlier page in place of a later one."""
    raw = bytearray(path.read_bytes())
    pages = len(raw) // 4096
    what = rng.choice(("bits", "bits", "page header", "noise", "zeros", "exchanged", "cut"))
    at = rng.randrange(pages) * 4096
    if what == "bits":
        for _ in range(rng.choice((1, 1, 4, 30))):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif what == "page header":
        raw[at + rng.randrange(40)] ^= 1 << rng.randrange(8)
    elif what == "noise":
        start = at + rng.randrange(4096)
        raw[start : start + 64] = rng.randbytes(min(64, len(raw) - start))
    elif what == "zeros":
        raw[at : at + 4096] = bytes(4096)
    elif what == "exchanged":
        other = rng.randrange(pages) * 4096
        raw[at : at + 4096], raw[other : other + 4096] = (
            raw[other : other + 4096],
            raw[at : at + 4096],
        )
    else:
        del raw[rng.randrange(1, len(raw)) :]
    path.write_bytes(raw)
    return f"{what} at page {at // 4096}"


def damage_sealed(path: Path, rng: random.Random) -> str:
    """The content of a record, its checksum made right again."""
    with damage.write(path) as txn:
        while True:
            key = some_key(txn, rng)
            if key != keys.META_KEY:
                break
        content = bytearray(damage.payload(txn, key))
        what = rng.choice(("bits", "bits", "bytes", "cut", "more", "another's"))
        if what == "bits":
            for _ in range(rng.randint(1, 4)):
                if content:
                    at = rng.randrange(min(len(content), rng.choice((4, 40, 1 << 30))))
                    content[at] ^= 1 << rng.randrange(8)
        elif what == "bytes":
            for _ in range(rng.randint(1, 8)):
                if content:
                    content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF))
        elif what == "cut":
            del content[rng.randrange(len(content) or 1) :]
        elif what == "more":
            content += rng.randbytes(rng.choice((1, 4, 64)))
        else:
            content[:] = damage.payload(txn, some_key(txn, rng))
        damage.put(txn, key, bytes(content))
    return f"{what} {keys.describe(key)}"


# --- the process that asks ---------------------------------------------------------------------------


class Asker:
    """A process that answers for many files, and another one when it has died."""

    def __init__(self, code: str = READER) -> None:
        self._code = code
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Its answer; None when it died or hangs."""
        if self._process is None:
            self._process = child.start(self._code, stderr=subprocess.DEVNULL)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else b""
        if not line.endswith(b"\n"):
            self.end()
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@dataclass
class Tally:
    """What became of the cases."""

    sound: dict[str, str]
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)  # what must not be
    silent: list[str] = field(default_factory=list)

    def note(self, case: str, found: dict[str, Any] | None) -> None:
        """Judge one case."""
        self.cases += 1
        if found is None:
            self.bad.append(f"{case}: the process died or hangs")
            return
        answers, problems = found["answers"], found["check"]
        errors = [a for a in [*answers.values(), problems] if isinstance(a, dict)]
        wrong = [q for q, a in answers.items() if isinstance(a, str) and a != self.sound[q]]
        reported = bool(problems)
        for error in errors:
            self._error(case, error)
        self.counts["refused at once"] += "open" in answers
        self.counts["answers right"] += sum(a == self.sound.get(q) for q, a in answers.items())
        self.counts["errors"] += len(errors)
        self.counts["wrong, reported by check"] += len(wrong) if reported else 0
        self.counts["harmless"] += not (errors or wrong or reported)
        if isinstance(problems, dict):
            self.counts["check refused"] += 1
        if wrong and not reported:
            self.silent.append(f"{case}: wrong: {wrong[:3]}")

    def _error(self, case: str, error: dict[str, Any]) -> None:
        said = f"{case}: {error['class']}: {error['message'][:300]}"
        if not error["ours"]:
            self.bad.append(f"not an error of ours: {said}")
        elif error["class"] in ("Corrupt", "WrongFormat"):
            if not any(word in error["message"] for word in REMEDY):
                self.bad.append(f"no remedy: {said}")
            elif error["class"] == "Corrupt" and error["where"] not in error["message"]:
                self.bad.append(f"no place: {said}")
        elif error["class"] != "NotFound":  # a collection whose declaration is gone
            self.bad.append(f"the wrong error: {said}")


def fuzz(
    sound: Path,
    folder: Path,
    cases: int,
    how: Callable[[Path, random.Random], str],
    *,
    seed: int = SEED,
    checksums: bool = True,
    rows: int = damage.SMALL,
) -> Tally:
    """Damage a file that many times, ask, and judge."""
    asker = Asker()
    order = {"rows": rows, "verify": "auto", "checksums": checksums}
    whole = sound.read_bytes()
    try:
        first = asker.ask({**order, "path": str(sound), "mode": "r"})
        assert first and first["check"] == []
        assert all(isinstance(a, str) for a in first["answers"].values()), first
        tally = Tally(first["answers"])
        begun = time.monotonic()
        for n in range(cases):
            rng = random.Random(f"{how.__name__}-{seed}-{n}")
            path = folder / f"{n}.vecdb"
            path.write_bytes(whole)
            what = how(path, rng)
            found = asker.ask({**order, "path": str(path), "mode": rng.choice(("r", "rw"))})
            tally.note(f"seed {seed}, case {n} ({what})", found)
            for name in ("", "-lock", "-writer"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{path}{name}")
    finally:
        asker.end()
    print(f"{how.__name__}: {cases} cases, seed {seed}, crashes and foreign errors {len(tally.bad)}, "
          f"silently wrong {len(tally.silent)}; {dict(tally.counts)}; "
          f"{time.monotonic() - begun:.0f} s", file=sys.stderr)  # fmt: skip
    return tally


# --- the promises ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [damage_records, damage_pages])
def test_damage_is_never_a_crash_and_never_silently_wrong(
    sound: Path, tmp_path: Path, how: Callable[[Path, random.Random], str]
) -> None:
    tally = fuzz(sound, tmp_path, 100, how)
    assert tally.bad == [] and tally.silent == []
    assert tally.counts["errors"] > 100 and tally.counts["answers right"] > 100


def test_damage_beneath_a_right_checksum_is_never_a_crash(sound: Path, tmp_path: Path) -> None:
    tally = fuzz(sound, tmp_path, 60, damage_sealed)
    assert tally.bad == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", [damage_records, damage_pages, damage_sealed])
def test_thousands_of_damaged_files(
    tmp_path: Path, how: Callable[[Path, random.Random], str]
) -> None:
    sound = tmp_path / "sound.vecdb"
    cases = int(os.environ.get("VECDB_FUZZ_CASES", "5000"))
    seed = int(os.environ.get("VECDB_FUZZ_SEED", "1"))
    damage.build(sound, damage.SMALL)
    tally = fuzz(sound, tmp_path, cases, how, seed=seed)
    assert tally.bad == []
    assert how is damage_sealed or tally.silent == []


# --- the controls: what the harness must notice --------------------------------------------------------


def test_without_checksums_the_harness_finds_wrong_answers(sound: Path, tmp_path: Path) -> None:
    def flipped(path: Path, rng: random.Random) -> str:
        with damage.write(path) as txn:
            key = keys.row(1, rng.randrange(520, 530))
            record = bytearray(txn.get(key))
            record[-1 - rng.randrange(200)] ^= 1 << rng.randrange(8)  # of its inline vector
            txn.put(key, bytes(record))
        return keys.describe(key)

    tally = fuzz(sound, tmp_path, 10, flipped, checksums=False)
    assert len(tally.silent) >= 3, "flipped vectors without checksums are silently wrong"
    assert fuzz(sound, tmp_path, 10, flipped).silent == []


def test_other_content_with_a_right_checksum_is_found_by_the_harness(
    sound: Path, tmp_path: Path
) -> None:
    def other_text(path: Path, rng: random.Random) -> str:
        with damage.write(path) as txn:
            key = keys.row(1, rng.randrange(10, 200))
            row = rows.decode(_core.unseal(keys.ROWS, key, txn.get(key)))
            damage.put(txn, key, rows.encode(row._replace(text=b"never written")))
        return keys.describe(key)

    tally = fuzz(sound, tmp_path, 5, other_text)
    assert len(tally.silent) == 5 and tally.bad == []
