// pages.h: records read straight from the storage map, without asking the engine for each.
//
// 1. The map holds LMDB's 0.9 format (storage/header.py describes it). Whoever uses a Tree holds
//    a read transaction of its commit, so no page that it leads to is written meanwhile.
// 2. A tree is not guessed: its root is the one of the two meta pages' from which the way along
//    the last entries ends at the very record that the engine itself handed out.
// 3. Every page number, offset and size is checked before it is followed: a damaged page gives
//    "not found", and the caller asks the engine, whose errors have names.
// 4. Without a transaction: what was read between two is_newest() that hold is of that commit. The
//    engine overwrites a tree's pages only when a later commit has replaced it, and that is seen.
// Rejected: a table of addresses per row. A row moves whenever its neighbours in the page change.
#pragma once
#include "abi.h"

namespace vecdb {

struct Record {
    const u8* p = nullptr;  // null: not found
    u64 n = 0;
};

struct Tree {
    const u8* base = nullptr;  // of the map
    u32 page_bytes = 0;
    u64 pages = 0;  // that the file really has
    u64 root = 0;

    // Finds the tree whose last record lies at `last`; false: nothing is known.
    bool locate(const u8* map, u32 page_size, u64 file_bytes, const u8* last);
    // Whether this is the tree of the file's last commit, its last record holding these bytes.
    bool is_newest(const u8* record, u64 size) const;
    Record find(const u8* key, u32 size) const;
    // The same for n keys of one size, side by side: their cache misses overlap.
    void find_many(const u8* keys, u32 size, u32 n, Record* out) const;
};

}  // namespace vecdb
