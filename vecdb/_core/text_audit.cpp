// text_audit.cpp: see text_audit.h.
#include "text_audit.h"

#include <algorithm>

namespace vecdb::text {
namespace {

float as_float(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void check_bounds(const Block& block, u8 kind, const u32* docs, const u32* values, const Column& column) {
    for (u32 i = 0; i < block.n; ++i) {
        if (kind == SPARSE) {
            if (as_float(values[i]) > as_float(block.high) || as_float(values[i]) < as_float(block.low))
                damaged("a weight beyond its bounds");
        } else if (values[i] > block.high || (block.low != NO_DOC && column.lengths[docs[i]] < block.low)) {
            damaged("a posting beyond its bounds");
        } else if (values[i] > column.lengths[docs[i]]) {
            damaged("more occurrences than words");
        }
    }
}

}  // namespace

void read_chunk(const Segment& of, u32 number, const u8* p, u64 size, Mask dead, Bytes& term, u32& last,
                std::vector<Posted>& out) {
    Chunk chunk(p, size);
    const Key& key = of.keys.at(number);
    u8 kind = of.columns[key.column].kind;
    if (chunk.column() != key.column || chunk.kind() != kind) damaged("a chunk of another column");
    bool same_column = number && of.keys[number - 1].column == key.column;
    if (!same_column) term.clear();
    std::vector<Block> blocks;
    u32 docs[BLOCK], values[BLOCK];
    for (u32 i = 0; i < chunk.count(); ++i) {
        Entry entry = chunk.entry(i);
        Key before{key.column, term, 0};
        int c = before.compare(key.column, entry.term, entry.size);
        if (c > 0 || (c == 0 && i)) damaged("terms in disorder");
        if (c) last = NO_DOC;
        if (!i && (key.compare(key.column, entry.term, entry.size) || entry_first_doc(entry) != key.doc))
            damaged("another first key");
        term.assign(entry.term, entry.term + entry.size);
        blocks.clear();
        read_blocks(entry, kind, of.n_docs(), last, blocks);
        out.emplace_back();
        Posted& to = out.back();
        to.term = term;
        for (const Block& block : blocks) {
            decode(block, kind, of.n_docs(), docs, values);
            check_bounds(block, kind, docs, values, of.columns[key.column]);
            for (u32 j = 0; j < block.n; ++j) {
                if (dead.dead(docs[j])) continue;
                to.rids.push_back(of.rids[docs[j]]);
                to.values.push_back(values[j]);
            }
        }
    }
}

}  // namespace vecdb::text
