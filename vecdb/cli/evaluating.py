"""The command `eval`: encoders compared on files, or a collection measured as it runs.

It is `vecdb.evaluate` and `Collection.evaluate` in their words. Here is what files add: documents, queries
and judgements read from them, with errors that name file and line.

Invariants (checked by tests/cli/test_eval.py):
  1. A judgement that cannot be meant as it stands (an unknown id, a grade that is no number, two grades for
     one document) is refused by its line; nothing is left out in silence.
  2. An option that would be without effect is refused by name.

Judgements have ids as text. An id that is an int in the documents is found by its digits.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import vecdb
from vecdb import tables
from vecdb.cli import show
from vecdb.cli.opening import AsJson, CollectionName, Where, collection_of, filter_of, reading
from vecdb.query import Near, Text

METRICS = ("ndcg@10", "recall@100", "mrr@10")
WAYS: dict[str, Callable[[str, str | None], Any]] = {  # of a text, and the vector field
    "vector": Near,
    "words": lambda text, using: Text(_words(text)),
    "hybrid": lambda text, using: Near(text, using) + Text(_words(text)),
}
DOCUMENTS, QUERIES, QRELS = "docs.jsonl", "queries.jsonl", "qrels.tsv"  # of a folder

Ids = dict[str, Any]  # a text: the id that it spells


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            help="Documents (.jsonl, .csv, .parquet), a database, or a folder of docs.jsonl, queries.jsonl, "
            "qrels.tsv.",
            metavar="SOURCE",
        ),
    ],
    queries: Annotated[
        Path | None, typer.Option("--queries", "-q", help="A file with id and text.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", help="Judgements: query, document, grade, with tabs between.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", "-e", help="[LABEL=]ENCODER, bm25 or hybrid:ENCODER; may be repeated."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m",
            help="ndcg@k, recall@k, mrr@k, map, p@k, hit@k; the first decides; may be repeated.",
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Of the words: its stemmer and stop words.")
    ] = None,
    title: Annotated[
        bool, typer.Option("--title", help="Put each document's title before its text.")
    ] = False,
    collection: CollectionName = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="A collection as it runs, by vector, words or hybrid; may be repeated."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Rows with the same value of this field are relevant.")
    ] = None,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="What was chosen, by the search log, is relevant.")
    ] = False,
    where: Where = None,
    using: Annotated[
        str | None, typer.Option("--using", help="The vector field, where there are several.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", help="Rows that are asked for, with --labels.", show_default="500"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of intervals, tests and samples.")] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report as a page, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how good searches are, with intervals: encoders on files, or a collection as it runs.

    \b
    Example:
      vecdb eval cranfield --encoder hashing --encoder wordllama --encoder bm25 --encoder hybrid:wordllama
      vecdb eval library.vecdb --queries queries.jsonl --qrels qrels.tsv
    """
    names = tuple(metric or METRICS)
    is_file = _is_table(source)
    if source.is_dir():
        is_file = True
        queries, qrels = queries or source / QUERIES, qrels or source / QRELS
        source = source / DOCUMENTS
    if encoder or is_file:
        alone = {
            "--by": by, "--labels": labels, "--feedback": feedback, "--where": where, "--using": using,
            "--sample": sample,
        }  # fmt: skip
        _refuse_options(alone, "is of a collection as it runs: leave out --encoder and give a database")
        if not encoder:
            _refuse("--encoder is missing: give one or more, as --encoder wordllama --encoder bm25")
        report = _compared(
            source, is_file, queries, qrels, encoder, names, language, title, collection, seed
        )
    else:
        _refuse_options({"--language": language, "--title": title}, "is of --encoder, which is missing")
        report = _running(
            source, collection, queries, qrels, names, by, labels, feedback, where, using, sample, seed
        )
    if html is not None:
        report.to_html(html)
        print(f"report written to {html}", file=sys.stderr)
    if as_json:
        show.print_json(report.to_dict())
    else:
        out = show.console()
        for line in str(report).splitlines():
            out.print("".join(c if c.isprintable() else " " for c in line))


def _compared(
    source: Path, is_file: bool, queries: Path | None, qrels: Path | None, encoders: list[str],
    metrics: tuple[str, ...], language: str | None, title: bool, collection: str | None, seed: int,
) -> Any:  # fmt: skip
    """Encoders on documents of a file, or of a collection."""
    given = _needed(queries, qrels)
    if language and not any(each == "bm25" or "hybrid:" in each for each in _systems(encoders).values()):
        _refuse("--language is of words: leave it out, or add --encoder bm25 or hybrid:ENCODER")
    options: dict[str, Any] = {"metrics": metrics, "language": language, "seed": seed}
    if is_file:
        _refuse_options({"--collection": collection}, "is of a database; SOURCE is a file of documents")
        corpus: Any = _texts(source, title=title)
        with _bar("texts encoded") as progress:
            return _evaluated(encoders, corpus, _ids(corpus, source), given, progress, options)
    _refuse_options({"--title": title}, "is of a file of documents; a collection's texts stand as they are")
    with reading(source) as db, db.snapshot() as snapshot, _bar("texts encoded") as progress:
        corpus = collection_of(snapshot, source, collection)
        return _evaluated(encoders, corpus, _ids(corpus, source), given, progress, options)


def _systems(given: list[str]) -> dict[str, str]:
    """{label: system} of what `--encoder` spelled."""
    found: dict[str, str] = {}
    for each in given:
        label, equals, system = each.partition("=")
        if not equals or not re.fullmatch(r"\w[\w .-]*", label):
            label, system = each, each
        if label in found:
            _refuse(f"--encoder {label!r:.60} stands there twice: write LABEL={system[:60]}")
        found[label] = system
    return found


def _evaluated(
    encoders: list[str], corpus: Any, ids: Ids, given: tuple[Path, Path], progress: Any,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    asked = _texts(given[0])
    judged = _judgements(given[1], _ids(asked, given[0]), ids)
    return vecdb.evaluate(_systems(encoders), corpus, asked, judged, progress=progress, **options)


def _running(
    source: Path, collection: str | None, queries: Path | None, qrels: Path | None, metrics: tuple[str, ...],
    by: list[str] | None, labels: str | None, feedback: bool, where: str | None, using: str | None,
    sample: int | None, seed: int,
) -> Any:  # fmt: skip
    """A collection as it runs."""
    if labels is None:
        _refuse_options({"--sample": sample}, "is of --labels, which is missing")
    ways = None
    if using is not None and set(by or ()) == {"words"}:
        _refuse("--using is of vectors: leave it out, or add --by vector or --by hybrid")
    for way in by or ():
        if way not in WAYS:
            _refuse(f"--by {way!r}: choose of {', '.join(WAYS)}")
        ways = {**(ways or {}), way: _way(way, using)}
    options: dict[str, Any] = {
        "metrics": metrics, "searches": ways, "where": filter_of(where), "using": using, "seed": seed,
    }  # fmt: skip
    with reading(source) as db:
        chosen = collection_of(db, source, collection)
        if labels is not None or feedback:
            _refuse_options({"--queries": queries, "--qrels": qrels}, "stands beside --labels or --feedback")
            if labels is not None and ways:
                _refuse("--by: with --labels rows are asked for by their vectors")
            if sample is not None:
                options["sample"] = sample
            return chosen.evaluate(labels=labels, feedback=feedback, **options)
        given = _needed(queries, qrels)
        asked = _texts(given[0])
        judged = _judgements(given[1], _ids(asked, given[0]), _ids(chosen, source))
        return chosen.evaluate(asked, judged, **options)


def _way(way: str, using: str | None) -> Callable[[str], Any]:
    return lambda text: WAYS[way](text, using)


# -- files ---------------------------------------------------------------------------------------


def _is_table(source: Path) -> bool:
    """Whether a file holds documents, by its suffix; what has another one is taken for a database."""
    if not source.exists():
        raise typer.BadParameter(f"there is no file {str(source)!r}")
    return source.suffix.lower() in (".jsonl", ".ndjson", ".csv", ".parquet", ".pq")


def _needed(queries: Path | None, qrels: Path | None) -> tuple[Path, Path]:
    if queries is None or qrels is None:
        missing = "--queries" if queries is None else "--qrels"
        _refuse(f"{missing} is missing: give the queries' file and that of the judgements")
    return queries, qrels


def _texts(path: Path, *, title: bool = False) -> dict[Any, str]:
    """{id: text} of a file's rows; BEIR's `_id` is an id too."""
    found: dict[Any, str] = {}
    for at, row in enumerate(_rows(path), 1):
        id = row.get("id", row.get("_id"))
        if isinstance(id, bool) or not isinstance(id, str | int):
            _refuse(f"{path}: row {at} has no id: each needs `id`, a text or an int, and `text`")
        text = row.get("text")
        if not isinstance(text, str):
            _refuse(f"{path}: row {at}, id {id!r:.60}, has no `text`")
        if id in found:
            _refuse(f"{path}: row {at}: id {id!r:.60} stands there twice")
        heading = row.get("title") if title else None
        found[id] = f"{heading} {text}" if isinstance(heading, str) and heading else text
    if not found:
        _refuse(f"{path}: there are no rows")
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for item in tables.read(path):
        yield from [item] if isinstance(item, dict) else item.to_pylist()


def _ids(rows: Any, path: Path) -> Ids:
    """What each text spells of the ids of documents or queries."""
    known = list(rows) if isinstance(rows, dict) else [record.id for record in rows.scan()]
    found: Ids = {}
    for id in known:
        if str(id) in found:
            _refuse(f"{path}: ids {str(id)!r} and {int(id)} are both there: judgements tell them not apart")
        found[str(id)] = id
    return found


def _judgements(path: Path, queries: Ids, documents: Ids) -> dict[Any, dict[Any, float]]:
    """Lines of query, document, grade; or TREC's query, 0, document, grade. A heading is passed over."""
    found: dict[Any, dict[Any, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # an id may hold another line's end
    except FileNotFoundError:
        raise typer.BadParameter(f"there is no file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"{path}: cannot be read: {error}")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split())]
        if len(cells) == 4:
            cells = [cells[0], *cells[2:]]
        if len(cells) != 3:
            _refuse(f"{path}: line {number} has {len(cells)} columns: give query, document and grade")
        grade = _grade(cells[2])
        if grade is None and number == 1 and cells[0] not in queries:
            continue  # a heading
        if grade is None:
            _refuse(f"{path}: line {number}: grade {cells[2]!r:.60} is no finite number")
        for cell, known, what in ((cells[0], queries, "query"), (cells[1], documents, "document")):
            if cell not in known:
                _refuse(f"{path}: line {number}: {what} {cell!r:.60} is not among those given")
        judged = found.setdefault(queries[cells[0]], {})
        document = documents[cells[1]]
        if judged.setdefault(document, grade) != grade:
            one, other = f"query {cells[0]!r:.60}", f"document {cells[1]!r:.60}"
            _refuse(f"{path}: line {number}: {one} and {other} have another grade above")
    if not found:
        _refuse(f"{path}: there are no judgements")
    return found


def _grade(cell: str) -> int | float | None:
    if not re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", cell, re.IGNORECASE):  # "1_0" is a number to Python
        return None
    for kind in (int, float):
        try:
            number = kind(cell)
        except ValueError:  # no number, or one of more digits than an int is read from
            continue
        return number if abs(number) <= sys.float_info.max else None
    return None


def _words(text: str) -> str:
    """The words of a text that might hold operators."""
    return " ".join("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int | None], object]]:
    with show.progress(show.console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _refuse_options(given: dict[str, Any], why: str) -> None:
    for option, value in given.items():
        if value is not None and value is not False and value != []:
            _refuse(f"{option} {why}")


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(show.clean(message))
