"""Tables in and out: Arrow, DataFrames, JSON lines, CSV, Parquet.

capsule.py, decode.py   the Arrow C interface, read without an Arrow library
sources.py              what a table looks like from here, whoever made it
batches.py, load.py     how a table becomes rows: `Collection.add_table`
arrow.py                which Arrow table holds these rows: `Collection.to_arrow`
files.py                files by suffix: `read` and `write`
marks.py, jsonl.py, delimited.py, parquet.py    one format each
"""

from vecdb.tables.files import TableFile, read, write

__all__ = ["TableFile", "read", "write"]
