// text_writer.cpp: postings into chunks; the bytes are described in text_segment.h.
#include <algorithm>

#include "text_segment.h"

namespace vecdb::text {
namespace {

constexpr u16 CHUNK_MAGIC = 0x5401;
constexpr u32 TABLE_ROW = 16, NUMBERS = 10, BOUNDS = 10;  // most bytes that n and first, high and low take

float as_float(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

}  // namespace

void ChunkWriter::column(u8 column, u8 kind, const u32* lengths) {
    close();
    column_ = column;
    kind_ = kind;
    lengths_ = lengths;
}

void ChunkWriter::start(const u8* term, u32 size) {
    term_.assign(term, term + size);
    count_ = 0;
    last_ = NO_DOC;
    started_ = true;
}

bool ChunkWriter::fits(u64 more) const {
    u64 piece = 1 + term_.size() + NUMBERS + table_.size() + packed_.size() + more;
    return 8 + 2 * (offsets_.size() + 1) + body_.size() + piece + SLACK <= MAX_CHUNK;
}

// One block into block_, with its bounds.
void ChunkWriter::encode(const u32* docs, const u32* values, u32 n) {
    block_.clear();
    if (kind_ == TEXT) {
        high_ = 0;
        low_ = NO_DOC;
        for (u32 i = 0; i < n; ++i) {
            high_ = std::max(high_, values[i]);
            low_ = std::min(low_, lengths_[docs[i]]);
        }
    } else {
        high_ = low_ = values[0];
        for (u32 i = 1; i < n; ++i) {
            if (as_float(values[i]) > as_float(high_)) high_ = values[i];
            if (as_float(values[i]) < as_float(low_)) low_ = values[i];
        }
    }
    u32 before = last_ == NO_DOC ? docs[0] - 1 : last_;
    if (n < BLOCK) {
        for (u32 i = 0; i < n; ++i) {
            u32 step = docs[i] - before - 1;
            before = docs[i];
            if (kind_ == SPARSE) {
                append_varint(block_, step);
                append(block_, values[i]);
            } else {
                append_varint(block_, (u64)step << 1 | (values[i] == 1));
                if (values[i] != 1) append_varint(block_, values[i]);
            }
        }
        return;
    }
    u32 steps[BLOCK], all = 0;
    for (u32 i = 0; i < BLOCK; ++i) {
        steps[i] = docs[i] - before - 1;
        before = docs[i];
        all |= steps[i];
    }
    doc_width_ = width_of(all);
    pack(block_, steps, BLOCK, doc_width_);
    if (kind_ == TEXT) {
        all = 0;
        for (u32 i = 0; i < BLOCK; ++i) all |= steps[i] = values[i] - 1;
        value_width_ = width_of(all);
        pack(block_, steps, BLOCK, value_width_);
    } else {
        value_width_ = 0;
        block_.insert(block_.end(), (const u8*)values, (const u8*)values + BLOCK * 4);
    }
}

void ChunkWriter::add(const u32* docs, const u32* values, u32 n) {
    u32 extra = n < BLOCK ? BOUNDS : TABLE_ROW;
    encode(docs, values, n);
    if (!fits(extra + block_.size())) {
        flush();
        close();
        last_ = NO_DOC;  // a new piece has its own first doc
        encode(docs, values, n);
    }
    if (!count_) {
        first_ = docs[0];
        if (offsets_.empty()) key_ = {column_, term_, first_};
    }
    if (n < BLOCK) {
        rest_ = block_;
    } else {
        packed_.insert(packed_.end(), block_.begin(), block_.end());
        append(table_, docs[n - 1]);
        append(table_, (u16)packed_.size());
        append(table_, (u8)doc_width_);
        append(table_, (u8)value_width_);
        append(table_, high_);
        append(table_, low_);
    }
    count_ += n;
    last_ = docs[n - 1];
}

void ChunkWriter::end() {
    flush();
    started_ = false;
}

// The piece of a list that was collected becomes an entry.
void ChunkWriter::flush() {
    if (!count_) return;
    offsets_.push_back((u16)body_.size());
    body_.push_back((u8)term_.size());
    body_.insert(body_.end(), term_.begin(), term_.end());
    append_varint(body_, count_);
    append_varint(body_, first_);
    body_.insert(body_.end(), table_.begin(), table_.end());
    if (count_ % BLOCK > 1 && kind_ == TEXT) {
        append_varint(body_, high_);
        append_varint(body_, low_);
    } else if (count_ % BLOCK > 1) {
        append(body_, high_);
        append(body_, low_);
    }
    body_.insert(body_.end(), packed_.begin(), packed_.end());
    body_.insert(body_.end(), rest_.begin(), rest_.end());
    table_.clear();
    packed_.clear();
    rest_.clear();
    count_ = 0;
}

void ChunkWriter::close() {
    if (offsets_.empty()) return;
    Bytes made;
    u32 start = 8 + 2 * (u32)offsets_.size();
    made.reserve(start + body_.size() + SLACK);
    append(made, CHUNK_MAGIC);
    append(made, column_);
    append(made, kind_);
    append(made, (u16)offsets_.size());
    append(made, (u16)0);
    for (u16 offset : offsets_) append(made, (u16)(offset + start));
    made.insert(made.end(), body_.begin(), body_.end());
    made.resize(made.size() + SLACK);
    out_.push_back({std::move(made), key_});
    body_.clear();
    offsets_.clear();
}

}  // namespace vecdb::text
