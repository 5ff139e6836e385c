"""Which vectors are good enough, and how sure is that?

    metrics.py       how good is one ranking? as trec_eval defines it
    significance.py  how sure is a mean over queries; is one system really better than another?
    judgements.py    what may be given as documents, queries and judgements?
    evaluate.py      which encoder finds best on these documents? ranks.py: exact rankings
    running.py       how good is a collection as it runs, and what does its index lose?
    report.py        what an evaluation found; verdict.py: in plain words
    judge.py         which judgements tell most? pooling.py

Imported when first asked for.
"""
