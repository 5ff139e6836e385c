"""Is it the data or the model? What `vecdb.diagnose` takes, and in which order things are looked at.

    subject   what is looked at: rows that were drawn    taking.py, given.py, subject.py
    checks    texts.py, languages.py, vocabulary.py, vectors.py, space.py, labels.py, judged.py, learning.py
    limits    from which value on, and who says so       limits.py
    verdict   what follows                               verdict.py
    report    how it is shown                            report.py

Nothing is written, and nothing is known of an encoder but what it makes of texts and what its card says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from vecdb.progress import reporter, stopper

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.diagnosis.report import Diagnosis
    from vecdb.diagnosis.subject import Subject
    from vecdb.encoders.base import Encoder
    from vecdb.snapshot import SnapshotCollection
    from vecdb.types import Id

__all__ = ["diagnose"]

Progress = bool | Callable[[int, int | None], object]
Cancel = Callable[[], bool] | threading.Event | None
Queries = Mapping[Any, Any]
Qrels = Mapping[Any, Any]


@overload
def diagnose(
    papers: Collection | SnapshotCollection, /, *, queries: Queries | None = None, qrels: Qrels | None = None,
    labels: str | Mapping[Id, Any] | None = None, using: str | None = None, sample: int | None = None,
    seed: int = 0, progress: Progress = False, cancel: Cancel = None,
) -> Diagnosis: ...  # fmt: skip
@overload
def diagnose(
    encoder: str | Encoder, /, corpus: Mapping[Id, str] | Collection, queries: Queries | None = None,
    qrels: Qrels | None = None, *, labels: Mapping[Id, Any] | str | None = None, sample: int | None = None,
    seed: int = 0, progress: Progress = False, cancel: Cancel = None,
) -> Diagnosis: ...  # fmt: skip
def diagnose(
    subject: Any,
    /,
    corpus: Any = None,
    queries: Any = None,
    qrels: Any = None,
    *,
    labels: Any = None,
    using: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    progress: Progress = False,
    cancel: Cancel = None,
) -> Diagnosis:
    """Return what is wrong with a collection, or with an encoder on a corpus: is it the data or the model?

    `diagnose(papers)` looks at a collection; `queries=` {name: text or vector} and `qrels=` {name: {id:
    grade}} say what should be found, `labels=` (a metadata field, or {id: label}) which rows are alike;
    `using=`: the vector field, where there are several. `diagnose(encoder, corpus, queries, qrels)` looks
    at an encoder (a name or an object) on texts {id: text}, or on a collection's. The more is given the
    more is said: without judgements or labels nobody knows whether the right rows are found.

    The report has findings with a code, a severity, the limit and its source, what it means and what to do,
    and a verdict: the data, the model's vocabulary (more data of the right kind), or its training (another
    training).

    Costs what `sample` costs: rows that are drawn with `seed`, by default 5,000 of a collection
    (near-duplicates are looked for among all), or 2,000 texts that must be encoded; rows that are judged
    relevant come on top. 62,666 rows of 384 dimensions take some ten seconds. Memory: some
    hundred MB. Reads as of one commit, writes nothing. `progress` and `cancel` as in `add_table`;
    cancelled, it tells what it has seen. InvalidArgument names what is wrong with the arguments.

    >>> import vecdb
    >>> pairs = [("wing", "plane"), ("leaf", "tree")] * 30
    >>> texts = {at: f"the {part} of the {whole}" for at, (part, whole) in enumerate(pairs)}
    >>> report = vecdb.diagnose("hashing", texts)
    >>> report["same-texts"].severity, report["near-duplicates"].severity, report.cause
    ('serious', 'serious', 'data')
    """
    from vecdb.diagnosis import taking
    from vecdb.diagnosis.given import asked, check_count, refuse

    seed = check_count("seed", seed, 0)
    sample = None if sample is None else check_count("sample", sample, 1)
    stopped = stopper(cancel)
    given = asked(queries, qrels, _rng(seed))
    is_collection = hasattr(subject, "_compared") and hasattr(subject, "schema")
    with reporter(progress, "diagnose") as told:
        if is_collection:
            if corpus is not None:
                refuse("corpus= beside a collection: a collection's rows are its corpus; give queries= by "
                "its name")
            found = taking.of_collection(subject, given, labels, using, sample, seed, told, stopped)
        else:
            if corpus is None:
                refuse(
                    f"the first argument is a {type(subject).__name__}; give a collection, or an encoder "
                    "with corpus="
                )
            if using is not None:
                refuse("using= names a vector field; an encoder beside a corpus has none")
            from vecdb import encoders

            encoder = encoders.get(subject)
            found = taking.of_encoder(encoder, corpus, given, labels, sample, seed, told, stopped)
        return _look(found, told, stopped)


def _rng(seed: int) -> Any:
    import numpy as np

    return np.random.default_rng([seed, 9])


def _look(
    subject: Subject, told: Callable[[int, int | None], object], stopped: Callable[[], bool]
) -> Diagnosis:
    """Everything that is looked at, in order; what a cancelled call has seen so far."""
    from vecdb.diagnosis import judged, labels, languages, learning, space, texts, vectors, vocabulary
    from vecdb.diagnosis import verdict as deciding
    from vecdb.diagnosis.report import Diagnosis

    seen = deciding.Evidence(subject, [], vocabulary.Known(), space.Shape())
    main: str | None = None
    for step in range(8):
        if stopped():
            subject.skip("what came after", "the call was cancelled")
            break
        if step == 0:
            seen.findings += texts.look(subject)
        elif step == 1:
            found, main = languages.look(subject)
            seen.findings += found
        elif step == 2:
            found, seen.known = vocabulary.look(subject, main)
            seen.findings += found
        elif step == 3:
            seen.findings += vectors.look(subject, stopped)
        elif step == 4:
            found, seen.shape = space.look(subject)
            seen.findings += found
        elif step == 5:
            found, seen.told = labels.look(subject)
            seen.findings += found
        elif step == 6:
            found, seen.judged = judged.look(subject)
            seen.findings += found
        else:
            found, seen.curve = learning.look(subject, stopped)
            seen.findings += found
        told(step + 1, 8)
    return Diagnosis(seen, deciding.decide(seen))
