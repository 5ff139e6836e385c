"""Full text without storage: what words a text has, what a query says, where a text says it.

analysis.py makes analyzers by language, stopwords.py knows the words that say nothing, grammar.py reads
queries, highlight.py finds what to show. The engine is `vecdb._core._text`.
"""
