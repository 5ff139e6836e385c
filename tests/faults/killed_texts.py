"""The writer of full text that gets killed: commits, acknowledges each on a pipe, optimizes now and then."""

from __future__ import annotations

import os
import sys

import vecdb
from tests.wording import Reference, apply, deed, hurried, perform


def main() -> None:
    """Write until killed."""
    path, seed, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hurried()
    db = vecdb.open(path, durability="relaxed")
    c, log = db["words"], db["log"]
    model = Reference(c.schema)
    model.rows = {r.id: (r.text, r.metadata) for r in c}
    os.write(1, b"ready\n")
    while True:
        number += 1
        deeds = deed(seed, number, sorted(model.rows))
        with db.transaction():
            perform(c, deeds)
            log.add(number)
        os.write(1, b"%d\n" % number)
        apply(model, deeds)
        if number % 40 == 0:
            c.optimize()
