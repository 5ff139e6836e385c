"""What every test leaves behind: no open file.

Each open file reserves a terabyte of addresses, of which a process has 128; a test that forgets to close
its handles takes them from those that follow in the same process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vecdb import database
from vecdb.storage.env import Env


@pytest.fixture(autouse=True)
def forgotten_handles_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those that the test itself opened: fixtures of a module are older."""
    before, opened = set(database._OPEN), []
    plain = Env.open.__func__  # type: ignore[attr-defined]

    def remembered(cls: type[Env], *args: Any, **options: Any) -> Env:
        env: Env = plain(cls, *args, **options)
        opened.append(env)
        return env

    with monkeypatch.context() as patched:
        patched.setattr(Env, "open", classmethod(remembered))
        yield
    for db in [each for each in database._OPEN if each not in before]:
        db.close()
    for env in opened:
        env.close()
