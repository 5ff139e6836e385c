"""Filters and queries as values: pure, without I/O and without the index."""

from __future__ import annotations

from vecdb.query.boosts import Decay, Field
from vecdb.query.build import F
from vecdb.query.filter import Filter, as_filter, from_dict
from vecdb.query.objects import Context, Fuse, Late, Like, Near, Query, Rerank, Sparse, Text
from vecdb.query.parse import parse
from vecdb.query.values import ById
from vecdb.query.written import from_json

__all__ = [
    "ById",
    "Context",
    "Decay",
    "F",
    "Field",
    "Filter",
    "Fuse",
    "Late",
    "Like",
    "Near",
    "Query",
    "Rerank",
    "Sparse",
    "Text",
    "as_filter",
    "from_dict",
    "from_json",
    "parse",
]
