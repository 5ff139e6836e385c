"""Which vectors are good enough, and how sure is that?

    metrics.py       how good is one ranking? as trec_eval defines it
    significance.py  how sure is a mean over queries; is one system really better than another?

Imported when first asked for.
"""
