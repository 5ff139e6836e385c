"""The compiled core: graph, kernels, bit sets, record frames. No LMDB, no metadata, no policy."""

from vecdb._core._core import (
    Graph,
    Prepared,
    Tree,
    Writer,
    after_fork,
    available_isas,
    crc32c,
    isa,
    mask_count,
    mask_of,
    mask_to_slots,
    mask_update,
    read_rows,
    seal,
    set_threads,
    unseal,
)

__all__ = [
    "Graph",
    "Prepared",
    "Tree",
    "Writer",
    "after_fork",
    "available_isas",
    "crc32c",
    "isa",
    "mask_count",
    "mask_of",
    "mask_to_slots",
    "mask_update",
    "read_rows",
    "seal",
    "set_threads",
    "unseal",
]
