"""`vecdb eval`: what it measures is what the API measures; what is wrong in files is said by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import data

for extra in ("typer", "rich"):
    pytest.importorskip(extra, reason="the extra `cli` is not installed")

from vecdb.cli import main  # noqa: E402

DOCS = [
    {"id": "moby", "title": "Whales", "text": "A whale hunt at sea", "year": 1851},
    {"id": "ahab", "text": "A captain hunts whales", "year": 1851},
    {"id": 7, "text": "Silk traders of the desert", "year": 2004},
]
QUERIES = [{"id": "q1", "text": "whales"}, {"id": 2, "text": "desert trade"}, {"id": "q3", "text": "nothing"}]
QRELS = "query\tdocument\tgrade\nq1\tmoby\t2\nq1\tahab\t1\n2\t7\t1\n"
GIVEN = ["--queries", "queries.jsonl", "--qrels", "qrels.tsv"]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("docs.jsonl", lines(DOCS)), ("queries.jsonl", lines(QUERIES)), ("qrels.tsv", QRELS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def library(capfd: Any) -> str:
    assert main(["ingest", "library.vecdb", "docs.jsonl", "--encoder", "hashing", "--fulltext", "text"]) == 0
    capfd.readouterr()
    return "library.vecdb"


def run(capfd: Any, *words: str, code: int = 0) -> tuple[str, str]:
    assert main(["eval", *words]) == code, capfd.readouterr()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return out, err


def test_encoders_are_compared_on_files(folder: Path, capfd: Any) -> None:
    systems = ["-e", "hashing", "-e", "bm25", "-e", "hybrid:hashing"]
    out, err = run(capfd, "docs.jsonl", *GIVEN, *systems, "-m", "mrr@2", "-m", "p@1", "--html", "page.html")
    assert "Evaluation of 3 systems: 2 judged queries over 3 documents" in out and "1 query without judgements" in out
    assert "mrr@2" in out and "precision@1" in out and err == "report written to page.html\n" and "<svg" in Path("page.html").read_text()
    again, _ = run(capfd, ".", *systems, "-m", "mrr@2", "--json")
    found = json.loads(again)
    corpus = {d["id"]: d["text"] for d in DOCS}
    report = vecdb.evaluate(
        ["hashing", "bm25", "hybrid:hashing"], corpus, {q["id"]: q["text"] for q in QUERIES},
        {"q1": {"moby": 2, "ahab": 1}, 2: {7: 1}}, metrics=["mrr@2"],
    )  # fmt: skip
    for each in found["systems"]:
        ours = report[each["name"]]["mrr@2"]
        assert each["metrics"]["mrr@2"]["mean"] == ours.mean and dict(map(tuple, each["metrics"]["mrr@2"]["per_query"])) == ours.per_query
    assert found["verdict"] == report.verdict


def test_other_files(folder: Path, capfd: Any) -> None:
    (folder / "d.csv").write_text("id,text\nmoby,a whale\nahab,whales\n7,silk desert\n")
    (folder / "q.jsonl").write_text(lines([{"_id": "q1", "text": "whales"}, {"_id": "2", "text": "desert"}]))
    (folder / "trec").write_text("q1 0 moby 2\nq1 0 ahab 1.5\n\n2 0 7 1\n")
    out, _ = run(capfd, "d.csv", "-q", "q.jsonl", "--qrels", "trec", "-e", "bm25", "--json", "--seed", "3")
    assert json.loads(out)["queries"] == 2
    labelled, _ = run(capfd, ".", "-e", "h=hashing", "-e", "both=hybrid:h", "--json")
    assert [(each["name"], each["kind"]) for each in json.loads(labelled)["systems"]] == [("h", "encoder"), ("both", "hybrid")]
    titled, _ = run(capfd, ".", "-e", "bm25", "--title", "-m", "mrr@1", "--json")
    plain, _ = run(capfd, ".", "-e", "bm25", "-m", "mrr@1", "--json")
    assert json.loads(titled)["systems"][0]["bytes_total"] > json.loads(plain)["systems"][0]["bytes_total"]


def test_a_collection_as_it_runs(library: str, capfd: Any) -> None:
    out, _ = run(capfd, library, *GIVEN)
    assert "Collection 'docs' as it runs" in out and "loses nothing" in out
    ways = ["--by", "vector", "--by", "words", "--by", "hybrid"]
    found = json.loads(run(capfd, library, *GIVEN, *ways, "-m", "mrr@3", "--json")[0])
    assert [each["name"] for each in found["systems"]] == ["vector", "words", "hybrid"]
    assert found["systems"][1]["metrics"]["mrr@3"]["mean"] == 1
    labels = json.loads(run(capfd, library, "--labels", "year", "-m", "hit@1", "--json", "--where", "year < 2000")[0])
    assert labels["queries"] == 2 and labels["systems"][0]["metrics"]["hit_rate@1"]["mean"] == 1
    with vecdb.open(library) as db:
        db.search_log.start(db["docs"])
        db["docs"].feedback(db["docs"].search("whales"), chosen="ahab")
    chosen = json.loads(run(capfd, library, "--feedback", "-m", "hit@3", "--json")[0])
    assert chosen["queries"] == 1 and chosen["systems"][0]["metrics"]["hit_rate@3"]["mean"] == 1
    texts = json.loads(run(capfd, library, *GIVEN, "-e", "bm25", "-e", "hashing", "-c", "docs", "-m", "mrr@3", "--json")[0])
    assert [each["name"] for each in texts["systems"]] == ["bm25", "hashing"]


def test_the_field_of_several_that_is_searched(folder: Path, capfd: Any) -> None:
    with vecdb.open("two.vecdb") as db:
        fields = {"a": vecdb.Vector(encoder="hashing:16"), "b": vecdb.Vector(encoder="hashing:512")}
        db.create_collection("c", vectors=fields, fulltext=True).add([row["id"] for row in DOCS], texts=[row["text"] for row in DOCS])
    for field in "ab":
        found = json.loads(run(capfd, "two.vecdb", *GIVEN, "--by", "vector", "--by", "hybrid", "--using", field, "-m", "mrr@3", "--json")[0])
        assert [each["name"] for each in found["systems"]] == ["vector", "hybrid"]


def test_an_id_may_hold_what_other_programs_end_a_line_with(folder: Path, capfd: Any) -> None:
    Path("docs.jsonl").write_text(lines([*DOCS, {"id": "a\u2028b\x0cc", "text": "sea whales"}]))
    Path("qrels.tsv").write_text("q1\ta\u2028b\x0cc\t1\r\n", encoding="utf-8", newline="")
    found = json.loads(run(capfd, "docs.jsonl", *GIVEN, "-e", "bm25", "-m", "recall@3", "--json")[0])
    assert found["systems"][0]["metrics"]["recall@3"]["mean"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jsonl", "-e", "bm25"], "no file 'nowhere.jsonl'"), (["docs.jsonl", *GIVEN], "--encoder is missing"), (["docs.jsonl", "-e", "bm25"], "--queries is missing"),
        (["docs.jsonl", "-q", "queries.jsonl", "-e", "bm25"], "--qrels is missing"), (["docs.jsonl", *GIVEN, "-e", "nonsense"], "no encoder 'nonsense'"),
        (["docs.jsonl", *GIVEN, "-e", "bm25", "-m", "ndgc"], "not known"), (["docs.jsonl", *GIVEN, "-e", "bm25", "--labels", "year"], "--labels is of a collection"),
        (["docs.jsonl", *GIVEN, "-e", "bm25", "-e", "bm25"], "'bm25' stands there twice"),
        (["docs.jsonl", *GIVEN, "-e", "hashing", "--language", "english"], "--language is of words"), (["docs.jsonl", *GIVEN, "-e", "bm25", "--sample", "5"], "--sample is of a collection"),
        (["docs.jsonl", *GIVEN, "-e", "bm25", "-c", "x"], "--collection is of a database"), (["docs.jsonl", "-q", "no.jsonl", "--qrels", "qrels.tsv", "-e", "bm25"], "no file 'no.jsonl'"),
        (["docs.jsonl", "-q", "queries.jsonl", "--qrels", "no.tsv", "-e", "bm25"], "no file 'no.tsv'"), (["docs.jsonl", *GIVEN, "-e", "bm25", "--html", "no/where.html"], "cannot be written"),
        (["docs.jsonl", "-q", "queries.jsonl", "--qrels", "docs.jsonl", "-e", "bm25"], "line 1 has"),
    ],
)  # fmt: skip
def test_misuse_is_code_2(words: list[str], message: str, capfd: Any) -> None:
    _, err = run(capfd, *words, code=2)
    assert message in " ".join(err.replace("│", " ").split()), err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qrels.tsv", "q1\tmoby\t2\nq1\tzzz\t1\n", "line 2: document 'zzz' is not among"), ("qrels.tsv", "q9\tmoby\t2\n", "line 1: query 'q9'"),
        ("qrels.tsv", "q1\tmoby\t2\nq1\tmoby\tx\n", "line 2: grade 'x'"), ("qrels.tsv", "q1\tmoby\tnan\nq1\tmoby\tinf\n", "line 1: grade 'nan'"),
        ("qrels.tsv", "q1\tmoby\tx\nq1\tahab\t1\n", "line 1: grade 'x'"), ("qrels.tsv", "q1\tmoby\t1_0\n", "line 1: grade '1_0'"), ("qrels.tsv", "q1\tmoby\t" + "9" * 5000, "line 1: grade '999"),
        ("qrels.tsv", "q1\tmoby\t2\nq1\tmoby\t1\n", "line 2: query 'q1' and document 'moby' have another grade"), ("qrels.tsv", "", "no judgements"),
        ("qrels.tsv", "q\td\tgrade\n", "no judgements"), ("qrels.tsv", "q1 moby\n", "line 1 has 2 columns"), ("queries.jsonl", "", "there are no rows"),
        ("queries.jsonl", '{"id": "q1"}\n', "has no `text`"), ("queries.jsonl", '{"text": "a"}\n', "row 1 has no id"), ("docs.jsonl", lines([*DOCS, DOCS[0]]), "'moby' stands there twice"),
        ("docs.jsonl", lines([*DOCS, {"id": "7", "text": "x"}]), "ids '7' and 7"), ("docs.jsonl", "{", "no JSON"), ("docs.jsonl", '{"id": true, "text": "x"}\n', "row 1 has no id"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_by_its_line(name: str, text: str, message: str, capfd: Any) -> None:
    Path(name).write_text(text)
    _, err = run(capfd, "docs.jsonl", *GIVEN, "-e", "bm25", code=2)
    assert message in " ".join(err.replace("│", " ").split()), err


def test_misuse_of_a_database(library: str, capfd: Any) -> None:
    for words, message in [
        ([library], "--queries is missing"), ([library, *GIVEN, "-c", "zz"], "not 'zz'"), ([library, *GIVEN, "--by", "magic"], "choose of vector, words, hybrid"),
        ([library, *GIVEN, "--labels", "year"], "--queries stands beside"), ([library, "--labels", "zz"], "no row of collection 'docs' has a value"),
        ([library, "--feedback"], "0 searches"), ([library, *GIVEN, "--language", "english"], "--language is of --encoder"), ([library, "--labels", "year", "--by", "words"], "--by"),
        ([library, *GIVEN, "--sample", "0"], "--sample is of --labels"), ([library, "--labels", "year", "--sample", "0"], "sample=0"),
        ([library, *GIVEN, "--by", "words", "--using", "vector"], "--using is of vectors"),
        ([library, *GIVEN, "--where", "year >"], "year"), ([library, *GIVEN, "-e", "bm25", "--title"], "--title is of a file"), (["qrels.tsv", *GIVEN], "qrels.tsv"),
    ]:  # fmt: skip
        _, err = run(capfd, *words, code=2 if "qrels.tsv" != words[0] else 1)
        assert message in " ".join(err.replace("│", " ").split()), err


@data.needs_data()
def test_cranfield_in_one_command(capfd: Any) -> None:
    out, _ = run(capfd, str(data.ROOT / "cranfield"), "-e", "hashing", "-e", "bm25", "-e", "hybrid:hashing", "--language", "english")
    print(out)
    assert "Evaluation of 3 systems: 225 judged queries over 1,400 documents" in out and "Best by ndcg@10" in out
