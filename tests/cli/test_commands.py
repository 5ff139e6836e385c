"""The commands as a user types them: results, exit codes, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import vecdb

for extra in ("typer", "rich"):
    pytest.importorskip(extra, reason="the extra `cli` is not installed")

from vecdb.cli import main  # noqa: E402

PAPERS = [
    {"id": "moby", "text": "A whale hunt at sea", "year": 1851},
    {"id": "ahab", "text": "A captain hunts whales", "year": 1999, "tags": ["sea"]},
    {"id": 7, "text": "Silk traders of the desert", "year": 2004, "read": {"$datetime": "2020-01-01T00:00:00+00:00"}},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAPERS))
    return tmp_path


@pytest.fixture
def library(capfd: Any) -> str:
    assert main(["ingest", "library.vecdb", "papers.jsonl", "--encoder", "hashing"]) == 0
    capfd.readouterr()
    return "library.vecdb"


def run(capfd: Any, *words: str, code: int = 0) -> tuple[str, str]:
    assert main(list(words)) == code, capfd.readouterr()
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return out, err


def test_ingest_makes_file_and_collection(capfd: Any) -> None:
    out, err = run(capfd, "ingest", "a.vecdb", "papers.jsonl", "--encoder", "hashing")
    assert out == "3 rows written to collection 'papers', which has 3 now\n" and err == ""
    with vecdb.open("a.vecdb", mode="r") as db:
        assert db["papers"][7].text == "Silk traders of the desert"
        assert db["papers"][7].metadata == {"year": 2004, "read": datetime(2020, 1, 1, tzinfo=UTC)}
        assert db["papers"]["moby"].vector is not None
        assert db["papers"].search("silk", 1).ids == [7]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_export_and_ingest_are_each_others_inverse(library: str, suffix: str, capfd: Any) -> None:
    where = [] if suffix != "parquet" else ["--where", "year < 2000"]
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    run(capfd, "export", library, f"out.{suffix}", *where)
    out, _ = run(capfd, "ingest", "back.vecdb", f"out.{suffix}", "-c", "papers", "--json")
    assert json.loads(out)["collection"] == "papers"
    with vecdb.open(library, mode="r") as a, vecdb.open("back.vecdb", mode="r") as b:
        kept = [row for row in a["papers"] if not where or row.metadata["year"] < 2000]
        assert kept == list(b["papers"]) and len(kept) == json.loads(out)["written"]
        assert b["papers"].schema.dim == a["papers"].schema.dim


def test_conflicts(library: str, capfd: Any) -> None:
    _, err = run(capfd, "ingest", library, "papers.jsonl", code=2)
    assert err.startswith("vecdb: papers.jsonl: table: row 0: id 'moby' exists") and err.count("\n") == 1
    for choice, written in (("skip", 0), ("replace", 3)):
        out, _ = run(capfd, "ingest", library, "papers.jsonl", "--on-conflict", choice, "--json")
        assert json.loads(out) == {"collection": "papers", "written": written, "rows": 3}


def test_what_was_committed_is_said_and_stays(capfd: Any) -> None:
    Path("bad.jsonl").write_text('{"id": 1, "vector": [1, 2]}\n{"id": 2, "vector": [1, 2]}\n{"id": 3, "vector": [1]}\n')
    _, err = run(capfd, "ingest", "a.vecdb", "bad.jsonl", "--batch-size", "1", code=2)
    assert "2 rows of the table were committed before and stay" in err
    with vecdb.open("a.vecdb", mode="r") as db:
        assert len(db["bad"]) == 2


def test_columns_of_other_names_and_several_sources(capfd: Any) -> None:
    Path("a.csv").write_text('key,emb,body\n1,"[1, 0]",x\n')
    Path("b.csv").write_text('key,emb,body\n2,"[0, 1]",\n')
    words = ["--id", "key", "--vector", "emb", "--text", "body", "--metric", "l2", "-c", "both"]
    run(capfd, "ingest", "a.vecdb", "a.csv", "b.csv", *words)
    with vecdb.open("a.vecdb", mode="r") as db:
        assert [(r.id, r.text, r.metadata) for r in db["both"]] == [(1, "x", {}), (2, None, {})]
        assert db["both"].schema.metric == "l2"


def test_ids_made_up_and_cells_as_text(capfd: Any) -> None:
    Path("a.data").write_text("zip\n12345\n00501\n")
    words = ["--new-ids", "--no-vectors", "--strings", "--format", "csv", "--dim", "2"]
    run(capfd, "ingest", "a.vecdb", "a.data", *words)
    with vecdb.open("a.vecdb", mode="r") as db:
        assert sorted(r.metadata["zip"] for r in db["a"]) == ["00501", "12345"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ingest", "a.vecdb", "nowhere.jsonl"], "no file 'nowhere.jsonl'"),
        (["ingest", "a.vecdb", "papers.jsonl"], "give --encoder or --dim"),
        (["ingest", "a.vecdb", "papers.jsonl", "--no-vectors"], "give --encoder or --dim"),
        (["ingest", "a.vecdb", "papers.data"], "format="),
        (["ingest", "a.vecdb"], "SOURCE"),
        (["export", "nowhere.vecdb", "-"], "no file 'nowhere.vecdb'"),
        (["backup", "nowhere.vecdb", "b.vecdb"], "no file"),
        (["compact", "nowhere.vecdb"], "no file"),
    ],
)
def test_misuse_is_code_2_and_leaves_no_file(words: list[str], message: str, capfd: Any) -> None:
    _, err = run(capfd, *words, code=2)
    assert message in err.replace("\n", " ")
    assert not Path("a.vecdb").exists()


def test_misuse_of_what_is_there(library: str, capfd: Any) -> None:
    for words, message in [
        (["ingest", library, "papers.jsonl", "--dim", "3"], "has --dim 512, not 3"),
        (["ingest", library, "papers.jsonl", "--on-conflict", "ignore"], "on_conflict='ignore'"),
        (["export", library, "papers.jsonl"], "'papers.jsonl' exists"),
        (["export", library, "out.jsonl", "-c", "other"], "not 'other'"),
        (["export", library, "out.jsonl", "--where", "year >"], "year"),
        (["export", library, "out.xml"], "format="),
        (["export", library, "-", "--json"], "standard output"),
        (["backup", library, "papers.jsonl"], "papers.jsonl"),
    ]:
        _, err = run(capfd, *words, code=2)
        assert message in err.replace("\n", " ").replace("  ", " "), err


def test_export_to_standard_output(library: str, capfd: Any) -> None:
    out, err = run(capfd, "export", library, "-", "--no-vectors", "--where", '{"year": {"$gte": 1999}}')
    assert [json.loads(line)["id"] for line in out.splitlines()] == [7, "ahab"] and err == ""
    out, _ = run(capfd, "export", library, "-", "--format", "csv", "--no-vectors", "--text", "body")
    assert out.splitlines()[0] == "id,body,read,year,tags" or out.startswith("id,body,")
    out, err = run(capfd, "export", library, "-", "--where", "year > 3000", code=1)
    assert (out, err) == ("", "no row matches\n")


def test_export_of_a_key_that_is_a_column(capfd: Any) -> None:
    with vecdb.open("a.vecdb") as db:
        db.create_collection("c", dim=2).add(["a"], [[1, 0]], metadata=[{"text": "meta", "id": 3}])
    run(capfd, "export", "a.vecdb", "a.jsonl", code=2)
    run(capfd, "export", "a.vecdb", "a.jsonl", "--id", "key", "--text", "body")
    assert json.loads(Path("a.jsonl").read_text()) == {"key": "a", "vector": [1, 0], "text": "meta", "id": 3}


def test_backup(library: str, capfd: Any) -> None:
    out, _ = run(capfd, "backup", library, "b.vecdb", "--json")
    assert json.loads(out) == {"file": "b.vecdb", "bytes": Path("b.vecdb").stat().st_size}
    with vecdb.open(library, mode="r") as a, vecdb.open("b.vecdb", mode="r") as b:
        assert list(a["papers"]) == list(b["papers"])


def test_compact(library: str, capfd: Any) -> None:
    with vecdb.open(library) as db:
        big = db.create_collection("big", dim=2)
        big.add(list(range(2000)), metadata=[{"t": "x" * 1000}] * 2000)
        db.drop_collection("big")
    out, _ = run(capfd, "compact", library, "--json")
    found = json.loads(out)
    assert found["bytes"] == Path(library).stat().st_size < found["bytes_before"]
    assert "bytes before" in run(capfd, "compact", library)[0]


def test_repair(library: str, capfd: Any) -> None:
    out, _ = run(capfd, "repair", library, "saved.vecdb", "--json")
    assert json.loads(out)["ok"] is True
    assert "library.vecdb" in run(capfd, "repair", library, "saved2.vecdb")[0]
    run(capfd, "repair", library, "saved.vecdb", code=2)
    run(capfd, "repair", "nowhere.vecdb", "new.vecdb", code=2)


def test_search_get_info_check_for_programs(library: str, capfd: Any) -> None:
    found = json.loads(run(capfd, "search", library, "hunting a whale", "-k", "1", "--json")[0])
    assert [hit["id"] for hit in found["hits"]] == ["moby"]
    run(capfd, "search", library, "whale", "--where", "year > 3000", code=1)
    assert json.loads(run(capfd, "get", library, "7", "--int", "--json")[0])["id"] == 7
    assert "for an integer id add --int" in run(capfd, "get", library, "7", code=1)[1]
    assert json.loads(run(capfd, "info", library, "--json")[0])["collections"][0]["rows"] == 3
    assert json.loads(run(capfd, "check", library, "--json")[0]) == []


def test_several_vector_fields(capfd: Any) -> None:
    with vecdb.open("a.vecdb") as db:
        fields = {"plot": vecdb.Vector(2), "poster": vecdb.Vector(3, metric="l2")}
        c = db.create_collection("films", vectors=fields)
        c.add(["a", "b"], {"plot": [[1, 0], [0, 1]], "poster": [[1, 2, 3], None]})
        db.create_collection("again", vectors=fields)
    facts = json.loads(run(capfd, "info", "a.vecdb", "--json")[0])["collections"]
    assert [field["dim"] for field in facts[1]["vectors"].values()] == [2, 3]
    assert "poster" in run(capfd, "info", "a.vecdb")[0]
    out, _ = run(capfd, "search", "a.vecdb", "[1, 2, 3]", "-c", "films", "--using", "poster", "--json")
    assert [hit["id"] for hit in json.loads(out)["hits"]] == ["a"]
    run(capfd, "export", "a.vecdb", "films.csv", "-c", "films")
    run(capfd, "ingest", "a.vecdb", "films.csv", "-c", "again")
    with vecdb.open("a.vecdb", mode="r") as db:
        assert list(db["films"]) == list(db["again"])


def test_search_by_radius_and_offset(capfd: Any) -> None:
    with vecdb.open("a.vecdb") as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add(list(range(20)), [[i, 0] for i in range(20)])
    for words, ids in [
        (["--radius", "2.5", "--all"], [0, 1, 2]), (["--offset", "3", "-k", "2"], [3, 4]),
        (["--radius", "100", "--all", "--offset", "15"], [15, 16, 17, 18, 19]),
    ]:  # fmt: skip
        out, _ = run(capfd, "search", "a.vecdb", "[0, 0]", *words, "--exact", "--json")
        assert [hit["id"] for hit in json.loads(out)["hits"]] == ids


def test_json_is_valid_for_every_value(capfd: Any) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    with vecdb.open("a.vecdb") as db:
        db.create_collection("c", dim=2).add(["a"], metadata=[{"n": float("nan"), "d": [moment], "i": float("-inf")}])
    out, _ = run(capfd, "get", "a.vecdb", "a", "--json")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads(out, parse_constant=refuse)
    assert found["metadata"] == {"n": "nan", "d": [{"$datetime": moment.isoformat()}], "i": "-inf"}


def test_what_comes_from_a_database_is_not_obeyed(capfd: Any) -> None:
    with vecdb.open("a.vecdb") as db:
        c = db.create_collection("c", encoder="hashing")
        c.add(["a"], texts=["[bold]x[/bold] \x1b[31mred\x07"])
    for words in (["search", "a.vecdb", "red"], ["get", "a.vecdb", "a"]):
        out, _ = run(capfd, *words)
        assert "\x1b" not in out and "\x07" not in out and "[bold]x[/bold]" in out


def test_the_program_as_it_is_started(library: str) -> None:
    """Neither bars nor colours without a terminal."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = [sys.executable, "-m", "vecdb"]
    words = ["ingest", library, "papers.jsonl", "--on-conflict", "replace"]
    done = subprocess.run([*program, *words], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "") and "\x1b" not in done.stdout
    assert subprocess.run(program, capture_output=True, env=environment).returncode == 2


@pytest.fixture
def worded(capfd: Any) -> str:
    """A file with full text, in German and English, a saved search and somebody who watches it."""
    from vecdb.query import Near, Text

    with vecdb.open("w.vecdb") as db:
        c = db.create_collection(
            "w", encoder="hashing", fulltext={"text": vecdb.FullText(), "title": vecdb.FullText()}
        )
        c.add(
            ["a", "b", "c", "d"],
            texts=["a: a fast GPU \x1b[31m kernel\x07", "a slow printer", "the GPU of 1999", "a kernel is a seed"],
            metadata=[{"doc": "x", "title": "Chips"}, {"doc": "y"}, {"doc": "x"}, {"doc": 3, "title": "gpu"}],
        )
        gpu = db.searches.save("gpu", c, Near("gpu") + Text("gpu"), k=3, where="doc exists")
        gpu.watch("mailer", block=False)
        db.searches.save("groups", c, Text("gpu"), k=None, group_by="doc", group_size=2)
    return "w.vecdb"


def ids(out: str) -> list[Any]:
    return [hit["id"] for hit in json.loads(out)["hits"]]


def test_search_by_words_and_by_both(worded: str, capfd: Any) -> None:
    """The same as the query objects of Python give."""
    from vecdb.query import Near, Text

    for said, words, query in [
        ("gpu -printer", ["--text"], Text("gpu -printer")),
        ('"fast gpu"', ["--text"], Text('"fast gpu"')),
        ("kern*", ["--text", "--fields", "text,title"], Text("kern*")),
        ("gpu", ["--text", "--fields", "title"], Text("gpu", fields=["title"])),
        ("[1, 1999]", ["--text"], Text("[1, 1999]")),  # words, although it is a JSON list
        ("fast gpu", ["--hybrid"], Near("fast gpu") + Text("fast gpu")),
        ("gpu", ["--hybrid", "--offset", "1", "-k", "2"], None),
    ]:
        out, _ = run(capfd, "search", worded, said, *words, "--json")
        with vecdb.open(worded, mode="r") as db:
            if query is None:
                wanted = db["w"].search(Near("gpu") + Text("gpu"), 2, offset=1).ids
            else:
                wanted = db["w"].search(query).ids
        assert ids(out) == wanted and wanted, said
    assert run(capfd, "search", worded, "nowhere", "--text", code=1)[1] == "no row matches\n"


def test_what_a_hit_says_of_itself(worded: str, capfd: Any) -> None:
    found = json.loads(run(capfd, "search", worded, "gpu", "--hybrid", "--json", "--explain")[0])
    by_id = {hit["id"]: hit for hit in found["hits"]}
    near, text = by_id["c"]["parts"]
    assert near["query"] == "Near('gpu')" and text["query"] == "Text('gpu')"
    assert by_id["c"]["distance"] is None and near["distance"] == pytest.approx(1 - near["score"])
    assert {hit["parts"][1]["rank"] for hit in found["hits"]} == {1, 2, 3, None}
    (lit,) = by_id["c"]["highlights"]
    assert [lit["text"][start:end] for start, end in lit["spans"]] == ["GPU"] and lit["field"] == "text"
    assert by_id["d"]["highlights"][0]["field"] == "title" and by_id["b"]["highlights"] == []
    assert by_id["c"]["explanation"]["parts"][0]["rank"] == near["rank"] and "fuse, rrf" in found["plan"]
    plain = json.loads(run(capfd, "search", worded, "gpu", "--json")[0])["hits"][0]
    assert (plain["parts"], plain["highlights"]) == ([], []) and "explanation" not in plain
    out, _ = run(capfd, "search", worded, "gpu", "--hybrid", "--explain")
    assert "\n  rank 1, score" in out and "\n    rank 1, score" in out and "\n    not found" in out
    assert "fuse, rrf" in out and "\x1b" not in out


def test_groups_and_diversity(worded: str, capfd: Any) -> None:
    words = ["gpu", "--hybrid", "--group-by", "doc", "--group-size", "2", "-k", "2"]
    found = json.loads(run(capfd, "search", worded, *words, "--json")[0])
    assert [group["value"] for group in found["groups"]] == ["x", 3]
    assert [group["first"] for group in found["groups"]] == [0, 2]
    assert [id for group in found["groups"] for id in group["ids"]] == [hit["id"] for hit in found["hits"]]
    lines = run(capfd, "search", worded, *words)[0].splitlines()
    assert lines[0].split() == ["#", "doc", "score", "id", "text"]
    assert lines[1].split()[:2] == ["1", "x"] and lines[3].split()[:2] == ["2", "3"]
    assert lines[2].startswith("      ")  # the second hit of a group: neither rank nor value
    with vecdb.open(worded, mode="r") as db:
        wanted = db["w"].search("gpu", 3, diversity=0.9).ids
    assert ids(run(capfd, "search", worded, "gpu", "--diversity", "0.9", "-k", "3", "--json")[0]) == wanted


def test_saved_searches(worded: str, capfd: Any) -> None:
    with vecdb.open(worded, mode="r") as db:
        wanted = {name: db.searches[name].run().ids for name in db.searches}
    listed = json.loads(run(capfd, "search", worded, "--saved", "--json")[0])
    assert [(each["name"], each["watchers"]) for each in listed] == [("gpu", ["mailer"]), ("groups", [])]
    assert listed[0]["where"] == "doc exists" and listed[1]["options"] == {"group_by": "doc", "group_size": 2}
    for name, expected in wanted.items():
        found = json.loads(run(capfd, "search", worded, "--saved", name, "--json")[0])
        assert [hit["id"] for hit in found["hits"]] == expected and found["saved"] == name
        assert ("groups" in found) == (name == "groups")
    assert "group_size=2" in run(capfd, "search", worded, "--saved")[0]
    assert run(capfd, "search", worded, "groups", "--saved")[0].splitlines()[0].split()[1] == "doc"
    with vecdb.open(worded) as db:
        db.drop_collection("w")
        db.create_collection("w", dim=2)
    assert "(dropped)" in run(capfd, "search", worded, "--saved")[0]
    assert "was dropped" in run(capfd, "search", worded, "--saved", "gpu", code=2)[1]
    assert "(dropped)" in run(capfd, "info", worded)[0]
    with vecdb.open(worded) as db:
        for name in list(db.searches):
            db.searches.delete(name)
    assert run(capfd, "search", worded, "--saved", code=1)[1] == "no saved searches\n"


def test_a_saved_search_of_a_later_version_is_listed_as_such(worded: str, capfd: Any) -> None:
    from vecdb.storage import searches

    with vecdb.open(worded) as db, db._batch() as batch:
        stored = searches.get(batch.txn, "gpu")
        assert stored is not None
        searches.put(batch.txn, "gpu", stored._replace(query={"query": {"type": "Dream"}, "version": 9}))
        batch.changed = True
    for words in (["search", worded, "--saved"], ["info", worded]):
        assert "groups" in run(capfd, *words)[0]
    listed = json.loads(run(capfd, "search", worded, "--saved", "--json")[0])
    assert "cannot be read" in listed[0]["query"] and listed[1]["collection"] == "w"
    assert "cannot be read" in run(capfd, "search", worded, "--saved", "gpu", code=2)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "QUERY is missing"),
        (["gpu", "--text", "--hybrid"], "give one of them"),
        (["gpu", "--fields", "text"], "--fields goes with"),
        (["gpu", "--text", "--fields", "body"], "'text', 'title'"),
        (["gpu", "--text", "--fields", ""], "fields"),
        (["gpu", "--text", "--radius", "1"], "radius"),
        (["gpu", "--group-size", "2"], "group_size"),
        (["gpu", "--group-by", "doc", "--diversity", "0.5"], "diversity with group_by"),
        (["gpu", "--diversity", "2"], "diversity=2.0"),
        (["--saved", "nowhere"], "there are: 'gpu', 'groups'"),
        (["--saved", "gpu", "-k", "3"], "--k beside --saved"),
        (["--saved", "gpu", "--hybrid"], "--hybrid beside --saved"),
        (["--saved", "--collection", "w"], "--collection beside --saved"),
    ],
)
def test_misuse_of_search(worded: str, words: list[str], message: str, capfd: Any) -> None:
    _, err = run(capfd, "search", worded, *words, code=2)
    assert message in " ".join(err.split()), err


def test_words_stand_out_on_a_terminal(worded: str) -> None:
    import io

    from rich.console import Console

    from vecdb.cli import show
    from vecdb.query import Near, Text

    def printed(width: int, **options: Any) -> str:
        out = io.StringIO()
        with vecdb.open(worded, mode="r") as db:
            terminal = Console(
                file=out, force_terminal=True, width=width, markup=False, highlight=False, soft_wrap=True,
                color_system="standard",
            )  # fmt: skip
            hits = db["w"].search(Near("gpu") + Text("gpu kern*"), **options)
            (show.groups_table if options else show.hits_table)(terminal, *options.values(), hits)
        return out.getvalue()

    def plain(text: str) -> list[str]:
        return text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()

    wide = printed(100)
    assert "a fast \x1b[1mGPU\x1b[0m [31m \x1b[1mkernel\x1b[0m" in wide  # marked, and what was stored is not obeyed
    assert "a: a fast" not in wide  # the id stands in its own column
    for text in (printed(34), printed(39, group_by="doc")):
        assert max(map(len, plain(text))) in (34, 39) and "…" in text


def test_info_tells_what_is_kept(worded: str, capfd: Any) -> None:
    with vecdb.open(worded) as db:
        db.search_log.start(db["w"], max_bytes=1 << 20)
        db["w"].search("gpu")
    facts = json.loads(run(capfd, "info", worded, "--json")[0])
    assert facts["collections"][0]["fulltext"]["title"] == {"language": None, "stopwords": False}
    assert [each["name"] for each in facts["saved_searches"]] == ["gpu", "groups"]
    assert facts["search_log"]["w"]["on"] is True and facts["search_log"]["w"]["max_bytes"] == 1 << 20
    out, _ = run(capfd, "info", worded)
    for said in ("full text", "title", "mailer", "search log of", "saved searches, and how far"):
        assert said in out


def test_ingest_declares_full_text(capfd: Any) -> None:
    pytest.importorskip("Stemmer", reason="the extra `text` is not installed")
    words = ["ingest", "a.vecdb", "papers.jsonl", "--encoder", "hashing"]
    assert "klingon" in run(capfd, *words, "--fulltext", "text:klingon", code=2)[1]
    assert "named twice" in run(capfd, *words, "--fulltext", "text", "--fulltext", "text:german", code=2)[1]
    assert not Path("a.vecdb").exists()
    run(capfd, *words, "--fulltext", "text:english", "--fulltext", "tags")
    assert sorted(ids(run(capfd, "search", "a.vecdb", "whale", "--text", "--json")[0])) == ["ahab", "moby"]
    assert ids(run(capfd, "search", "a.vecdb", "sea", "--text", "--fields", "tags", "--json")[0]) == ["ahab"]
    again = ["ingest", "a.vecdb", "papers.jsonl", "--on-conflict", "skip", "--fulltext"]
    run(capfd, *again, "tags", "--fulltext", "text:english")
    assert "has --fulltext tags text:english, not tags" in " ".join(run(capfd, *again, "tags", code=2)[1].split())
