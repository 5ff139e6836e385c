"""What does a call cost that may be refused? Processor time and memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from vecdb.errors import VecdbError


def outcome(make: Callable[[], Any], refusal: type[VecdbError] = VecdbError) -> Any:
    """What comes of it; a refusal is an outcome, another error is not."""
    try:
        return make()
    except refusal as error:
        assert str(error)
        return error


def cost(make: Callable[[], Any], refusal: type[VecdbError] = VecdbError) -> tuple[float, int]:
    """Seconds of the processor, and the most bytes held at a time."""
    started = time.process_time()
    outcome(make, refusal)
    seconds = time.process_time() - started
    tracemalloc.start()
    outcome(make, refusal)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, held
