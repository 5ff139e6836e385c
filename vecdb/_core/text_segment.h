// text_segment.h: what is a segment, and how are its bytes read and written?
//
// 1. A segment's header is in memory: rids of its docs, ascending, so that a doc is a rank; lengths;
//    the first key (column, term, doc) of each chunk. Chunks are sorted by key and never change.
// 2. A chunk holds entries of one column; a list that is longer than what is left goes on in the next
//    chunk, at a multiple of 128 postings. Chunks are filled as far as they go, so that the cuts follow
//    from what comes since the last one: a merge that is resumed at a cut writes the same bytes.
// 3. Postings are packed by 128; each full block says in front what bounds its scores: its highest tf
//    and its shortest length, or its highest and lowest weight. What is left over is varints.
// 4. Nothing is trusted: offsets, sizes, widths, docs are checked before they are used. Bounds are not
//    (they may only make a search wrong, not unsafe); Segment.postings compares them.
// Rejected: quantised lengths, as Lucene has them. They cost ranks, and 4 bytes a row are little.
// Rejected: terms by their difference to the one before. It saves a tenth and costs the binary search.
//
// A header: u32 magic, u8 version, u8 columns, u16 zero, u32 docs, u32 gone, u32 chunks, u64 bytes of
// all chunks, u8 kind of each column; rids, gone (blocks of 128: u8 width, packed differences less
// one), lengths of each column (blocks: u8 width, packed); for each chunk u8 column, varint bytes
// shared with the term before, varint bytes that follow, those, varint doc; 8 zero bytes.
// A chunk: u16 magic, u8 column, u8 kind, u16 entries, u16 zero, u16 offset of each entry; entries;
// 8 zero bytes. An entry: u8 size, term; varint postings n, varint first doc; for each of n / 128
// blocks u32 last doc, u16 end of its bytes, u8 width of docs, u8 of values, u32 high, u32 low; if n %
// 128 > 1 high and low of the rest (varints; floats in sparse columns); the blocks' bytes: differences
// of docs less one, then tf less one, or floats; the rest: varint difference less one, doubled, plus 1
// if tf is 1, else varint tf; or varint difference less one, float.
#pragma once

#include <memory>

#include "text_bits.h"

namespace vecdb::text {

constexpr u32 FORMAT_VERSION = 1;
constexpr u32 MAX_CHUNK = 32512;
constexpr u32 MAX_COLUMNS = 64;
constexpr u32 MAX_DOCS = 0x7FFFFFFFu;
constexpr u32 MAX_TF = 0x7FFFFFFFu;

enum ColumnKind : u8 { TEXT, SPARSE };

inline bool alive(const u8* dead, u64 dead_bytes, u32 doc) {
    u64 at = doc >> 3;
    return at >= dead_bytes || !(dead[at] >> (doc & 7) & 1);
}

struct Column {
    u8 kind = TEXT;
    std::vector<u32> lengths;
    u64 total = 0;  // sum of lengths
    u32 filled = 0;  // docs with a length
};

struct Key {
    u8 column = 0;
    Bytes term;
    u32 doc = 0;
    int compare(u8 other_column, const u8* other, u32 size) const;  // without the doc
};

struct Mask {
    const u8* p = nullptr;
    u64 n = 0;
    bool dead(u32 doc) const { return !alive(p, n, doc); }
};

struct Segment {
    std::vector<u32> rids, gone;
    std::vector<Column> columns;
    std::vector<Key> keys;
    u64 postings_bytes = 0;
    bool holds = false;
    std::vector<Bytes> chunks;

    u32 n_docs() const { return (u32)rids.size(); }
    u64 memory() const;
    u32 doc_of(u32 rid) const;  // NO_DOC: not in it
    // The chunks in which (column, term) may lie: [first, second).
    void range(u8 column, const u8* term, u32 size, u32& first, u32& second) const;
    // And those in which a term that begins so may lie.
    void prefix_range(u8 column, const u8* prefix, u32 size, u32& first, u32& second) const;
    void totals(u32 column, Mask dead, u64& rows, u64& length) const;
    u64 n_live(Mask dead) const;
    void count_up();  // totals from lengths
    Bytes header() const;
    static std::shared_ptr<Segment> open(const u8* p, u64 size);
};

struct Span {
    const u8* p = nullptr;
    u64 n = 0;
};

// A block of postings, wherever it lies.
enum Form : u8 { PACKED, REST, PLAIN };
struct Block {
    const u8* p;  // PLAIN: docs
    const u32* values;
    u32 size;      // bytes that may be read
    u32 before;    // doc before its first; NO_DOC: none
    u32 last;
    u32 high, low;
    u8 n, doc_width, value_width, form;
};

struct Entry {
    const u8* term;
    u32 size;
    Reader rest;
};

class Chunk {
  public:
    Chunk() = default;
    Chunk(const u8* p, u64 size);
    u8 column() const { return p_[2]; }
    u8 kind() const { return p_[3]; }
    u32 count() const { return get<u16>(p_ + 4); }
    Entry entry(u32 i) const;
    u32 lower_bound(const u8* term, u32 size) const;  // first entry not below

  private:
    const u8* p_ = nullptr;
    u32 size_ = 0;
};

u32 entry_count(Entry entry);      // its postings
u32 entry_first_doc(Entry entry);  // its first doc
// Adds an entry's blocks; `last` is the last doc before them (NO_DOC: none) and becomes theirs.
void read_blocks(Entry entry, u8 kind, u32 n_docs, u32& last, std::vector<Block>& out);
// The postings of a block: docs below n_docs, ascending; values: tf, or the bits of a finite float.
void decode(const Block& block, u8 kind, u32 n_docs, u32* docs, u32* values);

struct Made {
    Bytes bytes;
    Key key;
};

class ChunkWriter {
  public:
    explicit ChunkWriter(std::vector<Made>& out) : out_(out) {}
    void column(u8 column, u8 kind, const u32* lengths);  // closes the chunk
    void start(const u8* term, u32 size);
    void add(const u32* docs, const u32* values, u32 n);  // 128 at a time, the last time fewer
    void end();
    void close();
    bool empty() const { return !offsets_.size() && !count_; }
    const Key& key() const { return key_; }  // of the chunk that is not closed, unless empty

  private:
    void encode(const u32* docs, const u32* values, u32 n);
    bool fits(u64 more) const;
    void flush();
    std::vector<Made>& out_;
    u8 column_ = 0, kind_ = TEXT;
    const u32* lengths_ = nullptr;
    Bytes body_, table_, packed_, rest_, block_, term_;
    std::vector<u16> offsets_;
    Key key_;
    u32 count_ = 0, first_ = 0, last_ = NO_DOC, high_ = 0, low_ = 0, doc_width_ = 0, value_width_ = 0;
    bool started_ = false;
};

}  // namespace vecdb::text
