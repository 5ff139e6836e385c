"""Filters as values: pure, without I/O and without the index."""

from __future__ import annotations

from vecdb.query.build import F, Field
from vecdb.query.filter import Filter, as_filter, from_dict, from_json
from vecdb.query.parse import parse

__all__ = ["F", "Field", "Filter", "as_filter", "from_dict", "from_json", "parse"]
