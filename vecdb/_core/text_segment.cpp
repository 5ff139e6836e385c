// text_segment.cpp: see text_segment.h; this reads headers and chunks, text_writer.cpp writes chunks.
#include "text_segment.h"

#include <algorithm>
#include <cmath>

namespace vecdb::text {
namespace {

constexpr u32 HEADER_MAGIC = 0x31545856u;  // "VXT1"
constexpr u16 CHUNK_MAGIC = 0x5401;
constexpr u32 TABLE_ROW = 16;

int compare_bytes(const u8* a, u32 n, const u8* b, u32 m) {
    int c = n && m ? memcmp(a, b, std::min(n, m)) : 0;
    return c ? c : n < m ? -1 : n > m;
}

void append_blocks(Bytes& to, const u32* values, size_t n, bool ascending) {
    u32 part[BLOCK], before = NO_DOC;
    for (size_t at = 0; at < n; at += BLOCK) {
        u32 k = (u32)std::min<size_t>(BLOCK, n - at), all = 0;
        for (u32 i = 0; i < k; ++i) {
            part[i] = ascending ? values[at + i] - before - 1 : values[at + i];
            before = values[at + i];
            all |= part[i];
        }
        to.push_back((u8)width_of(all));
        pack(to, part, k, width_of(all));
    }
}

void read_numbers(Reader& from, std::vector<u32>& out, u32 n, bool ascending) {
    if (n > (u64)(from.end - from.p) * BLOCK) damaged("cut short");
    out.resize(n);
    u64 before = (u64)-1;
    for (u32 at = 0; at < n; at += BLOCK) {
        u32 k = std::min(BLOCK, n - at), width = from.number<u8>();
        if (width > 32) damaged("a width");
        const u8* p = from.take(packed_size(k, width));
        if (from.end - from.p < SLACK) damaged("cut short");
        unpack_some(p, out.data() + at, k, width);
        if (!ascending) continue;
        for (u32 i = at; i < at + k; ++i) {
            before += (u64)out[i] + 1;
            if (before > 0xFFFFFFFFu) damaged("rids");
            out[i] = (u32)before;
        }
    }
}

}  // namespace

int Key::compare(u8 other_column, const u8* other, u32 size) const {
    if (column != other_column) return column < other_column ? -1 : 1;
    return compare_bytes(term.data(), (u32)term.size(), other, size);
}

u64 Segment::memory() const {
    u64 sum = sizeof *this + (rids.capacity() + gone.capacity()) * 4;
    for (const Column& column : columns) sum += sizeof column + column.lengths.capacity() * 4;
    for (const Key& key : keys) sum += sizeof key + key.term.capacity();
    for (const Bytes& chunk : chunks) sum += sizeof chunk + chunk.capacity();
    return sum;
}

u32 Segment::doc_of(u32 rid) const {
    u64 n = rids.size();
    if (!n || rid < rids[0] || rid > rids[n - 1]) return NO_DOC;
    if (rids[n - 1] - rids[0] == n - 1) return rid - rids[0];
    auto at = std::lower_bound(rids.begin(), rids.end(), rid);
    return *at == rid ? (u32)(at - rids.begin()) : NO_DOC;
}

void Segment::range(u8 column, const u8* term, u32 size, u32& first, u32& second) const {
    auto below = [&](const Key& key) { return key.compare(column, term, size) < 0; };
    auto upto = [&](const Key& key) { return key.compare(column, term, size) <= 0; };
    auto at = std::partition_point(keys.begin(), keys.end(), below);
    auto end = std::partition_point(at, keys.end(), upto);
    if (at != keys.begin() && at[-1].column == column) --at;
    first = (u32)(at - keys.begin());
    second = (u32)(end - keys.begin());
}

void Segment::prefix_range(u8 column, const u8* prefix, u32 size, u32& first, u32& second) const {
    auto upto = [&](const Key& key) {
        if (key.column != column) return key.column < column;
        u32 n = std::min(size, (u32)key.term.size());
        int c = n ? memcmp(key.term.data(), prefix, n) : 0;
        return c <= 0;
    };
    u32 unused;
    range(column, prefix, size, first, unused);
    auto end = std::partition_point(keys.begin() + first, keys.end(), upto);
    second = (u32)(end - keys.begin());
}

void Segment::totals(u32 column, Mask dead, u64& rows, u64& length) const {
    const Column& of = columns[column];
    rows = of.filled;
    length = of.total;
    u64 bytes = std::min<u64>(dead.n, ((u64)n_docs() + 7) / 8);
    for (u64 at = 0; at < bytes; ++at) {
        for (u32 bits = dead.p[at]; bits; bits &= bits - 1) {
            u64 doc = at * 8 + (u32)__builtin_ctz(bits);
            if (doc >= n_docs()) break;
            rows -= of.lengths[doc] != 0;
            length -= of.lengths[doc];
        }
    }
}

u64 Segment::n_live(Mask dead) const {
    u64 count = n_docs(), bytes = std::min<u64>(dead.n, ((u64)n_docs() + 7) / 8);
    for (u64 at = 0; at < bytes; ++at) {
        u32 bits = dead.p[at];
        if (at * 8 + 8 > n_docs()) bits &= (1u << (n_docs() - at * 8)) - 1;
        count -= (u32)__builtin_popcount(bits);
    }
    return count;
}

void Segment::count_up() {
    for (Column& column : columns) {
        column.total = 0;
        column.filled = 0;
        for (u32 length : column.lengths) column.total += length, column.filled += length != 0;
    }
}

Bytes Segment::header() const {
    Bytes to;
    append(to, HEADER_MAGIC);
    append(to, (u8)FORMAT_VERSION);
    append(to, (u8)columns.size());
    append(to, (u16)0);
    append(to, n_docs());
    append(to, (u32)gone.size());
    append(to, (u32)keys.size());
    append(to, postings_bytes);
    for (const Column& column : columns) append(to, column.kind);
    append_blocks(to, rids.data(), rids.size(), true);
    append_blocks(to, gone.data(), gone.size(), true);
    for (const Column& column : columns)
        append_blocks(to, column.lengths.data(), column.lengths.size(), false);
    const Key* before = nullptr;
    for (const Key& key : keys) {
        u32 shared = 0;
        if (before)
            while (shared < before->term.size() && shared < key.term.size() &&
                   before->term[shared] == key.term[shared])
                ++shared;
        append(to, key.column);
        append_varint(to, shared);
        append_varint(to, key.term.size() - shared);
        to.insert(to.end(), key.term.begin() + shared, key.term.end());
        append_varint(to, key.doc);
        before = &key;
    }
    to.resize(to.size() + SLACK);
    return to;
}

std::shared_ptr<Segment> Segment::open(const u8* p, u64 size) {
    auto made = std::make_shared<Segment>();
    Reader from{p, p + size};
    if (from.number<u32>() != HEADER_MAGIC) damaged("another beginning");
    if (from.number<u8>() != FORMAT_VERSION) damaged("another version");
    u32 n_columns = from.number<u8>();
    from.take(2);
    u32 n_docs = from.number<u32>(), n_gone = from.number<u32>(), n_chunks = from.number<u32>();
    made->postings_bytes = from.number<u64>();
    if (n_columns > MAX_COLUMNS || n_docs > MAX_DOCS) damaged("counts");
    if ((u64)n_chunks * 4 > size) damaged("counts");
    made->columns.resize(n_columns);
    for (Column& column : made->columns)
        if ((column.kind = from.number<u8>()) > SPARSE) damaged("a column");
    read_numbers(from, made->rids, n_docs, true);
    read_numbers(from, made->gone, n_gone, true);
    for (Column& column : made->columns) read_numbers(from, column.lengths, n_docs, false);
    made->count_up();
    made->keys.resize(n_chunks);
    const Key* before = nullptr;
    for (Key& key : made->keys) {
        key.column = from.number<u8>();
        u32 shared = from.varint(), more = from.varint();
        if (key.column >= n_columns || shared > (before ? before->term.size() : 0)) damaged("a key");
        if (more > 255 || shared + more > 255 || shared + more == 0) damaged("a key");
        const u8* bytes = from.take(more);
        if (shared) key.term.assign(before->term.begin(), before->term.begin() + shared);
        key.term.insert(key.term.end(), bytes, bytes + more);
        key.doc = from.varint();
        if (before) {
            int c = before->compare(key.column, key.term.data(), (u32)key.term.size());
            if (c > 0 || (c == 0 && before->doc >= key.doc)) damaged("keys in disorder");
        }
        if (key.doc >= n_docs) damaged("a key");
        before = &key;
    }
    if (from.end - from.p != SLACK) damaged("another end");
    return made;
}

Chunk::Chunk(const u8* p, u64 size) : p_(p), size_((u32)size) {
    if (size < 8 + SLACK || size > MAX_CHUNK) damaged("a chunk's size");
    if (get<u16>(p) != CHUNK_MAGIC || kind() > SPARSE) damaged("a chunk");
    if (8 + 2 * count() + SLACK > size || !count()) damaged("a chunk's entries");
}

Entry Chunk::entry(u32 i) const {
    u32 n = count(), floor = 8 + 2 * n;
    if (i >= n) damaged("an entry");
    u32 start = get<u16>(p_ + 8 + 2 * i);
    u32 end = i + 1 < n ? get<u16>(p_ + 8 + 2 * (i + 1)) : size_ - SLACK;
    if (start < floor || start >= end || end > size_ - SLACK) damaged("an entry's place");
    Reader from{p_ + start, p_ + end};
    u32 size = from.number<u8>();
    if (!size) damaged("an empty term");
    const u8* term = from.take(size);
    return {term, size, from};
}

u32 Chunk::lower_bound(const u8* term, u32 size) const {
    u32 low = 0, high = count();
    while (low < high) {
        u32 middle = (low + high) / 2;
        Entry at = entry(middle);
        if (compare_bytes(at.term, at.size, term, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

u32 entry_count(Entry entry) { return entry.rest.varint(); }

u32 entry_first_doc(Entry entry) {
    entry.rest.varint();
    return entry.rest.varint();
}

void read_blocks(Entry entry, u8 kind, u32 n_docs, u32& last, std::vector<Block>& out) {
    Reader& from = entry.rest;
    u32 n = from.varint(), first = from.varint();
    if (!n || first >= n_docs || n > n_docs - first) damaged("a list");
    if (last != NO_DOC && first <= last) damaged("a list in disorder");
    u32 blocks = n / BLOCK, rest = n % BLOCK;
    const u8* table = from.take((u64)blocks * TABLE_ROW);
    u32 high = 0, low = 0;
    if (rest > 1 && kind == TEXT) {
        high = from.varint();
        low = from.varint();
    } else if (rest > 1) {
        high = from.number<u32>();
        low = from.number<u32>();
    }
    u32 before = first - 1, start = 0;
    for (u32 i = 0; i < blocks; ++i, table += TABLE_ROW) {
        u32 size = get<u16>(table + 4) - start;
        Block block{nullptr, nullptr, size, before, get<u32>(table), get<u32>(table + 8),
                    get<u32>(table + 12), (u8)BLOCK, table[6], table[7], PACKED};
        u32 wanted = block.doc_width * (BLOCK / 8);
        wanted += kind == TEXT ? block.value_width * (BLOCK / 8) : BLOCK * 4;
        if (block.doc_width > 31 || block.value_width > 31 || size != wanted) damaged("a block");
        if (block.last >= n_docs || (u64)block.last < (u64)(u32)(before + 1) + BLOCK - 1) damaged("a block");
        block.p = from.take(size);
        out.push_back(block);
        before = last = block.last;
        start += size;
    }
    if (!rest) return;
    u32 size = (u32)(from.end - from.p);
    const u8* p = from.take(size);
    Block block{p, nullptr, size, before, 0, high, low, (u8)rest, 0, 0, REST};
    if (rest == 1) {  // its own bounds; they are worked out from the posting
        u32 doc, value;
        block.last = n_docs;
        decode(block, kind, n_docs, &doc, &value);
        block.last = doc;
        block.high = value;
        block.low = kind == TEXT ? NO_DOC : value;  // NO_DOC: the length of the doc
    } else {
        u32 docs[BLOCK], values[BLOCK];
        block.last = n_docs;
        decode(block, kind, n_docs, docs, values);
        block.last = docs[rest - 1];
    }
    last = block.last;
    out.push_back(block);
}

static void decode_rest(const Block& block, u8 kind, u32 n_docs, u32* docs, u32* values) {
    Reader from{block.p, block.p + block.size};
    u64 doc = (u64)block.before + 1;
    if (block.before == NO_DOC) doc = 0;
    for (u32 i = 0; i < block.n; ++i) {
        u32 step = from.varint();
        if (kind == SPARSE) {
            doc += step;
            values[i] = from.number<u32>();
        } else {
            doc += step >> 1;
            values[i] = step & 1 ? 1 : from.varint();
            if (!values[i] || values[i] > MAX_TF) damaged("a number of occurrences");
        }
        if (doc >= n_docs) damaged("a doc");
        docs[i] = (u32)doc++;
    }
    if (from.p != from.end) damaged("a list's end");
}

void decode(const Block& block, u8 kind, u32 n_docs, u32* docs, u32* values) {
    if (block.form == PLAIN) {
        memcpy(docs, block.p, block.n * sizeof(u32));
        memcpy(values, block.values, block.n * sizeof(u32));
        return;
    }
    if (block.form == REST) {
        decode_rest(block, kind, n_docs, docs, values);
    } else {
        UNPACK[block.doc_width](block.p, docs);
        u32 doc = block.before, highest = 0;
        for (u32 i = 0; i < BLOCK; ++i) docs[i] = doc += docs[i] + 1;
        for (u32 i = 0; i < BLOCK; ++i) highest = std::max(highest, docs[i]);
        if (highest >= n_docs || doc != block.last) damaged("docs");
        const u8* p = block.p + block.doc_width * (BLOCK / 8);
        if (kind == TEXT) {
            UNPACK[block.value_width](p, values);
            for (u32 i = 0; i < BLOCK; ++i) values[i] += 1;
        } else {
            memcpy(values, p, BLOCK * 4);
        }
    }
    if (kind == TEXT) return;
    u32 odd = 0;  // an exponent of all ones: no finite number
    for (u32 i = 0; i < block.n; ++i) odd |= (values[i] & 0x7F800000u) == 0x7F800000u;
    if (odd) damaged("a weight");
}

}  // namespace vecdb::text
