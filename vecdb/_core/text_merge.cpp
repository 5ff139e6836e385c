// text_merge.cpp: see text_merge.h.
#include "text_merge.h"

#include <algorithm>

namespace vecdb::text {
namespace {

constexpr u32 MAGIC = 0x314D5856u;  // "VXM1"
enum Where : u8 { START, AT, END };

}  // namespace

void Merge::add(std::shared_ptr<Segment> segment, Mask dead) {
    inputs_.emplace_back();
    inputs_.back().segment = std::move(segment);
    inputs_.back().dead = dead;
}

void Merge::begin(bool keep_gone, const u8* progress, u64 size) {
    settle_docs(keep_gone);
    writer_ = std::make_unique<ChunkWriter>(made_);
    if (!progress) return;
    Reader from{progress, progress + size};
    if (from.number<u32>() != MAGIC) damaged("another progress");
    if (from.number<u64>() != print_)
        throw std::invalid_argument("progress of another merge: pass the same segments and masks as before");
    first_ = from.number<u32>();
    u8 where = from.number<u8>();
    column_ = from.number<u8>();
    from_doc_ = from.number<u32>();
    u32 n = from.number<u8>();
    const u8* term = from.take(n);
    if (from.p != from.end || where > END || column_ >= out_->columns.size()) damaged("a merge's progress");
    done_ = where == END;
    if (where != AT) return;
    term_.assign(term, term + n);
    skip_term_ = from_doc_ == NO_DOC;
    begun_ = seeking_ = true;
    seek(column_, term_);
}

void Merge::settle_docs(bool keep_gone) {
    out_ = std::make_shared<Segment>();
    if (inputs_.empty()) throw std::invalid_argument("no segments to merge");
    out_->columns.resize(inputs_[0].segment->columns.size());
    for (size_t c = 0; c < out_->columns.size(); ++c) out_->columns[c].kind = inputs_[0].segment->columns[c].kind;
    std::vector<u32> at(inputs_.size(), 0);
    auto live_from = [&](Input& in, u32 doc) {
        while (doc < in.segment->n_docs() && in.dead.dead(doc)) ++doc;
        return doc;
    };
    for (size_t i = 0; i < inputs_.size(); ++i) {
        Input& in = inputs_[i];
        bool same = in.segment->columns.size() == out_->columns.size();
        for (size_t c = 0; same && c < out_->columns.size(); ++c)
            same = in.segment->columns[c].kind == out_->columns[c].kind;
        if (!same) throw std::invalid_argument("segments have other columns than the first");
        in.to.assign(in.segment->n_docs(), NO_DOC);
        at[i] = live_from(in, 0);
    }
    std::vector<u32>& rids = out_->rids;
    for (;;) {
        size_t lowest = inputs_.size();
        u64 first = (u64)-1, second = (u64)-1;  // the lowest rid, and the lowest of the others
        for (size_t i = 0; i < inputs_.size(); ++i) {
            if (at[i] >= inputs_[i].segment->n_docs()) continue;
            u64 rid = inputs_[i].segment->rids[at[i]];
            if (rid < first)
                second = first, first = rid, lowest = i;
            else
                second = std::min(second, rid);
        }
        if (lowest == inputs_.size()) break;
        if (first == second)
            throw std::invalid_argument("row " + std::to_string(first) + " is alive in two segments");
        Input& in = inputs_[lowest];
        u32 doc = at[lowest];
        for (; doc < in.segment->n_docs() && in.segment->rids[doc] < second; doc = live_from(in, doc + 1)) {
            in.to[doc] = (u32)rids.size();
            print_ += (u64)in.segment->rids[doc] * (2 * lowest + 1);
            rids.push_back(in.segment->rids[doc]);
        }
        at[lowest] = doc;
        if (rids.size() > MAX_DOCS) throw std::invalid_argument("more than 2,147,483,647 rows in one segment");
    }
    for (size_t c = 0; c < out_->columns.size(); ++c) {
        out_->columns[c].lengths.resize(rids.size());
        for (const Input& in : inputs_)
            for (u32 doc = 0; doc < in.to.size(); ++doc)
                if (in.to[doc] != NO_DOC) out_->columns[c].lengths[in.to[doc]] = in.segment->columns[c].lengths[doc];
    }
    for (const Input& in : inputs_) {
        print_ = print_ * 0x9E3779B97F4A7C15u + in.segment->postings_bytes * 31 + in.segment->keys.size();
        if (keep_gone) out_->gone.insert(out_->gone.end(), in.segment->gone.begin(), in.segment->gone.end());
    }
    print_ = (print_ * 2 + keep_gone) * 0x9E3779B97F4A7C15u + rids.size();
    std::vector<u32>& gone = out_->gone;
    std::sort(gone.begin(), gone.end());
    gone.erase(std::unique(gone.begin(), gone.end()), gone.end());
    gone.erase(std::remove_if(gone.begin(), gone.end(), [&](u32 rid) {
        return std::binary_search(rids.begin(), rids.end(), rid);
    }), gone.end());
}

// Each input at the chunk in which the key may lie; entries before it are passed over by `pick`.
void Merge::seek(u8 column, const Bytes& term) {
    for (Input& in : inputs_) {
        u32 second;
        in.segment->range(column, term.data(), (u32)term.size(), in.next, second);
    }
}

// A slice ends where it has gone on at all: else one that is smaller than a chunk would never end.
bool Merge::enough(u64 work) const {
    return worked_ >= work && (!made_.empty() || (moved_ && writer_->empty() && !filling_));
}

bool Merge::run(u64 work, u32& input, u32& number) {
    while (!done_ && !enough(work)) {
        bool needs = filling_ ? fill(input, number) : pick(input, number);
        if (needs) return true;
    }
    return false;
}

void Merge::give(u32 input, const u8* p, u64 size) {
    Input& in = inputs_[input];
    in.bytes.assign(p, p + size);
    in.chunk = Chunk(in.bytes.data(), size);
    const Key& key = in.segment->keys[in.next];
    if (in.chunk.column() != key.column || in.chunk.kind() != out_->columns[key.column].kind)
        damaged("a chunk of another column");
    Entry first = in.chunk.entry(0);
    if (key.compare(key.column, first.term, first.size) || entry_first_doc(first) != key.doc)
        damaged("another chunk than asked for");
    in.entry = 0;
    in.entries = in.chunk.count();
    ++in.next;
    worked_ += size;
}

// Whether an entry lies before the place to go on from.
bool Merge::before_start(const Input& in, const Entry& entry) const {
    if (in.chunk.column() != column_) return in.chunk.column() < column_;
    u32 n = (u32)term_.size();
    int c = memcmp(entry.term, term_.data(), std::min(entry.size, n));
    if (c || entry.size != n) return c ? c < 0 : entry.size < n;
    return skip_term_;
}

// The next key, and who has it.
bool Merge::pick(u32& input, u32& number) {
    const Input* lowest = nullptr;
    Entry least{};
    for (size_t i = 0; i < inputs_.size(); ++i) {
        Input& in = inputs_[i];
        Entry entry{};
        for (;;) {
            if (in.entry == in.entries) {
                if (in.next == in.segment->keys.size()) break;
                input = (u32)i;
                number = in.next;
                return true;
            }
            entry = in.chunk.entry(in.entry);
            if (!seeking_ || !before_start(in, entry)) break;
            ++in.entry;
        }
        if (in.entry == in.entries) continue;
        bool less = !lowest || in.chunk.column() < lowest->chunk.column();
        if (lowest && in.chunk.column() == lowest->chunk.column()) {
            u32 n = std::min(entry.size, least.size);
            int c = memcmp(entry.term, least.term, n);
            less = c ? c < 0 : entry.size < least.size;
        }
        if (less) lowest = &in, least = entry;
    }
    if (!lowest) {
        writer_->close();
        done_ = true;
        return false;
    }
    u8 column = lowest->chunk.column();
    Bytes term(least.term, least.term + least.size);
    upto_ = begun_ && !skip_term_ && column == column_ && term == term_ ? from_doc_ : 0;
    from_doc_ = upto_;
    column_ = column;
    term_ = std::move(term);
    begun_ = true;
    skip_term_ = true;
    seeking_ = false;
    if (open_column_ != column) {
        writer_->column(column, out_->columns[column].kind, out_->columns[column].lengths.data());
        open_column_ = column;
    }
    writer_->start(term_.data(), (u32)term_.size());
    for (Input& in : inputs_) {
        in.here = false;
        if (in.entry == in.entries || in.chunk.column() != column) continue;
        Entry entry = in.chunk.entry(in.entry);
        if (entry.size != term_.size() || memcmp(entry.term, term_.data(), entry.size)) continue;
        in.here = true;
        in.at = in.n = 0;
        in.block = 0;
        in.last = NO_DOC;
        in.blocks.clear();
        read_blocks(entry, out_->columns[column].kind, in.segment->n_docs(), in.last, in.blocks);
        ++in.entry;
    }
    filling_ = true;
    return false;
}

// Makes an input's next live postings available; false: it has none. `needs`: its next chunk first.
bool Merge::refill(Input& in, bool& needs) {
    u8 kind = out_->columns[column_].kind;
    while (in.at == in.n) {
        if (in.block == in.blocks.size()) {
            if (in.entry == in.entries) {
                bool more = in.next < in.segment->keys.size() &&
                            !in.segment->keys[in.next].compare(column_, term_.data(), (u32)term_.size());
                if (!more) return false;
                needs = true;
                return false;
            }
            Entry entry = in.chunk.entry(in.entry);
            if (in.entry || entry.size != term_.size() || memcmp(entry.term, term_.data(), entry.size)) return false;
            if (in.chunk.column() != column_) return false;
            in.blocks.clear();
            in.block = 0;
            read_blocks(entry, kind, in.segment->n_docs(), in.last, in.blocks);
            ++in.entry;
            continue;
        }
        const Block& block = in.blocks[in.block++];
        decode(block, kind, in.segment->n_docs(), in.docs, in.values);
        worked_ += block.n;
        in.at = in.n = 0;
        for (u32 i = 0; i < block.n; ++i) {
            u32 doc = in.to[in.docs[i]];
            if (doc == NO_DOC || doc < from_doc_) continue;
            in.docs[in.n] = doc;
            in.values[in.n++] = in.values[i];
        }
    }
    return true;
}

void Merge::hand_over(u32 n) {
    if (n) {
        writer_->add(pending_, pending_values_, n);
        upto_ = pending_[n - 1] + 1;
    }
    n_pending_ = 0;
}

bool Merge::fill(u32& input, u32& number) {
    Input* lowest = nullptr;
    u32 second = NO_DOC;
    for (size_t i = 0; i < inputs_.size(); ++i) {
        Input& in = inputs_[i];
        if (!in.here) continue;
        bool needs = false;
        if (!refill(in, needs)) {
            if (needs) {
                input = (u32)i;
                number = in.next;
                return true;
            }
            in.here = false;
            continue;
        }
        u32 doc = in.docs[in.at];
        if (!lowest || doc < lowest->docs[lowest->at]) {
            if (lowest) second = std::min(second, lowest->docs[lowest->at]);
            lowest = &in;
        } else {
            second = std::min(second, doc);
        }
    }
    if (!lowest) {
        hand_over(n_pending_);
        writer_->end();
        filling_ = false;
        moved_ = true;
        return false;
    }
    Input& in = *lowest;
    do {
        pending_[n_pending_] = in.docs[in.at];
        pending_values_[n_pending_++] = in.values[in.at++];
        if (n_pending_ == BLOCK) hand_over(BLOCK);
    } while (in.at < in.n && in.docs[in.at] < second);
    return false;
}

void Merge::account() {
    for (Made& one : made_) {
        bytes_ += one.bytes.size();
        keys_.push_back(std::move(one.key));
    }
    made_.clear();
}

Bytes Merge::progress() const {
    Bytes to;
    append(to, MAGIC);
    append(to, print_);
    append(to, n_chunks());
    Key key;
    Where where = done_ ? END : AT;
    if (done_ || !begun_) {
        if (!done_) where = START;
    } else if (!writer_->empty()) {
        key = writer_->key();
    } else {
        key = {column_, term_, filling_ ? upto_ : NO_DOC};
        if (!filling_ && !skip_term_) key.doc = from_doc_;  // resumed, and nothing done since
    }
    append(to, (u8)where);
    append(to, key.column);
    append(to, key.doc);
    append(to, (u8)key.term.size());
    to.insert(to.end(), key.term.begin(), key.term.end());
    return to;
}

void Merge::written(const u8* p, u64 size) {
    Chunk chunk(p, size);
    Entry first = chunk.entry(0);
    before_.push_back({chunk.column(), Bytes(first.term, first.term + first.size), entry_first_doc(first)});
    bytes_ += size;
}

std::shared_ptr<Segment> Merge::segment() {
    if (!done_) throw std::invalid_argument("the merge is not done");
    if (before_.size() != first_) throw std::invalid_argument("the chunks before were not given");
    out_->keys = before_;
    out_->keys.insert(out_->keys.end(), keys_.begin(), keys_.end());
    out_->postings_bytes = bytes_;
    out_->count_up();
    return out_;
}

}  // namespace vecdb::text
