// text_builder.cpp: see text_builder.h.
#include "text_builder.h"

#include <algorithm>
#include <numeric>

namespace vecdb::text {
namespace {

constexpr u64 SLICE = 4 << 20;  // bytes of text that are taken apart at once

std::vector<u32> ranked(const Table& terms) {
    struct Ranked {
        u64 head;
        u32 term;
    };
    std::vector<Ranked> all(terms.count());
    for (u32 i = 0; i < terms.count(); ++i)
        all[i] = {terms.size(i) ? __builtin_bswap64(get<u64>(terms.bytes(i))) : 0, i};
    std::sort(all.begin(), all.end(), [&](const Ranked& a, const Ranked& b) {
        if (a.head != b.head) return a.head < b.head;
        u32 n = terms.size(a.term), m = terms.size(b.term);
        int c = memcmp(terms.bytes(a.term), terms.bytes(b.term), std::min(n, m));
        return c ? c < 0 : n < m;
    });
    std::vector<u32> out(all.size());
    for (u32 i = 0; i < all.size(); ++i) out[i] = all[i].term;
    return out;
}

}  // namespace

void Builder::add_column(Analyzer* analyzer) {
    columns_.emplace_back();
    columns_.back().analyzer = analyzer;
    if (analyzer) columns_.back().lexicon = std::make_unique<Lexicon>();
}

void Builder::mark() {
    marked_rids_ = rids_.size();
    for (Side& side : columns_) {
        side.marked = side.terms.size();
        side.marked_rows = side.ends.size();
    }
}

void Builder::rollback() {
    rids_.resize(marked_rids_);
    for (Side& side : columns_) {
        side.terms.resize(side.marked);
        side.values.resize(side.marked);
        side.ends.resize(side.marked_rows);
        side.lengths.resize(side.marked_rows);
        side.words.clear();
        side.word_ends.clear();
        if (side.lexicon) side.lexicon->forget_missing();
    }
}

void Builder::room(const Side& side, u64 more) const {
    if (side.terms.size() + more >= NO_DOC)
        throw std::invalid_argument("more than 4,294,967,000 postings in one segment: finish it before");
}

u64 Builder::tokenize(u32 column, const Span* texts, u64 n) {
    Side& side = columns_[column];
    side.words.clear();
    side.word_ends.clear();
    u64 bytes = 0, i = 0;
    for (; i < n && bytes < SLICE; ++i) {
        bytes += texts[i].n;
        if (texts[i].n >= NO_DOC) throw std::invalid_argument("a text of 4 GiB or more");
        words_of(*side.analyzer, texts[i].p, texts[i].n, *side.lexicon, side.words);
        if (side.words.size() >= NO_DOC) throw std::invalid_argument("more than 4,294,967,000 words at once");
        side.word_ends.push_back((u32)side.words.size());
    }
    room(side, side.words.size());
    return i;
}

void Builder::invert(u32 column) {
    Side& side = columns_[column];
    side.place.resize(side.lexicon->terms().count(), NO_DOC);
    side.terms.reserve(side.terms.size() + side.words.size() > side.terms.capacity()
                           ? std::max(side.terms.size() * 2, side.terms.size() + side.words.size())
                           : 0);
    side.values.reserve(side.terms.capacity());
    u32 at = 0;
    for (u32 end : side.word_ends) {
        u32 start = (u32)side.terms.size(), length = 0;
        for (; at < end; ++at) {
            u32 term = side.lexicon->term_of(side.words[at]);
            if (term == STOP) continue;
            ++length;
            u32 place = side.place[term];
            if (place >= start && place < side.terms.size() && side.terms[place] == term) {
                ++side.values[place];
                continue;
            }
            side.place[term] = (u32)side.terms.size();
            side.terms.push_back(term);
            side.values.push_back(1);
        }
        side.ends.push_back((u32)side.terms.size());
        side.lengths.push_back(length);
    }
    side.words.clear();
    side.word_ends.clear();
}

void Builder::weight(u32 column, const u8* term, u32 size, float weight) {
    Side& side = columns_[column];
    room(side, 1);
    bool is_new;
    u32 number = side.tokens.add_any(term, size, is_new);
    side.terms.push_back(number);
    u32 bits;
    memcpy(&bits, &weight, 4);
    side.values.push_back(bits);
}

void Builder::end_row(u32 column) {
    Side& side = columns_[column];
    u32 before = side.ends.empty() ? 0 : side.ends.back();
    side.lengths.push_back((u32)side.terms.size() - before);
    side.ends.push_back((u32)side.terms.size());
}

void Builder::rids(const u32* rids, u64 n) {
    if (rids_.size() + n > MAX_DOCS) throw std::invalid_argument("more than 2,147,483,647 rows in one segment");
    rids_.insert(rids_.end(), rids, rids + n);
}

void Builder::touch(const u32* rids, u64 n) { touched_.insert(touched_.end(), rids, rids + n); }

std::shared_ptr<Segment> Builder::finish() {
    auto made = std::make_shared<Segment>();
    u32 n = (u32)rids_.size();
    std::vector<u32> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (!std::is_sorted(rids_.begin(), rids_.end()))
        std::sort(order.begin(), order.end(), [&](u32 a, u32 b) { return rids_[a] < rids_[b]; });
    made->rids.resize(n);
    for (u32 doc = 0; doc < n; ++doc) {
        made->rids[doc] = rids_[order[doc]];
        if (doc && made->rids[doc] == made->rids[doc - 1])
            throw std::invalid_argument("row " + std::to_string(made->rids[doc]) + " was added twice");
    }
    made->gone = touched_;
    std::sort(made->gone.begin(), made->gone.end());
    made->gone.erase(std::unique(made->gone.begin(), made->gone.end()), made->gone.end());
    made->gone.erase(std::remove_if(made->gone.begin(), made->gone.end(), [&](u32 rid) {
        return std::binary_search(made->rids.begin(), made->rids.end(), rid);
    }), made->gone.end());
    std::vector<Made> out;
    made->columns.resize(columns_.size());
    for (u32 column = 0; column < columns_.size(); ++column) write(*made, column, order, out);
    made->count_up();
    made->holds = true;
    for (Made& chunk : out) {
        made->postings_bytes += chunk.bytes.size();
        made->keys.push_back(std::move(chunk.key));
        made->chunks.push_back(std::move(chunk.bytes));
    }
    for (Side& side : columns_) {
        side.terms = {};
        side.values = {};
        side.ends = {};
        side.lengths = {};
        side.place = {};
    }
    rids_ = {};
    touched_ = {};
    return made;
}

void Builder::write(Segment& into, u32 column, const std::vector<u32>& order, std::vector<Made>& out) {
    Side& side = columns_[column];
    Column& to = into.columns[column];
    const Table& terms = side.analyzer ? side.lexicon->terms() : side.tokens;
    to.kind = side.analyzer ? TEXT : SPARSE;
    to.lengths.resize(order.size());
    for (u32 doc = 0; doc < order.size(); ++doc) to.lengths[doc] = side.lengths[order[doc]];
    std::vector<u32> by_name = ranked(terms), starts(terms.count() + 1, 0);
    for (u32 term : side.terms) ++starts[term];
    u32 sum = 0;
    for (u32 term : by_name) {
        u32 count = starts[term];
        starts[term] = sum;
        sum += count;
    }
    std::vector<u32> docs(side.terms.size()), values(side.terms.size());
    for (u32 doc = 0; doc < order.size(); ++doc) {
        u32 row = order[doc];
        for (u32 at = row ? side.ends[row - 1] : 0; at < side.ends[row]; ++at) {
            u32 place = starts[side.terms[at]]++;
            docs[place] = doc;
            values[place] = side.values[at];
        }
    }
    ChunkWriter writer(out);
    writer.column((u8)column, to.kind, to.lengths.data());
    u32 at = 0;
    for (u32 term : by_name) {  // starts[term] is now the end of its postings
        u32 end = starts[term];
        if (at == end) continue;
        writer.start(terms.bytes(term), terms.size(term));
        for (; at < end; at += std::min(BLOCK, end - at))
            writer.add(docs.data() + at, values.data() + at, std::min(BLOCK, end - at));
        writer.end();
    }
    writer.close();
}

}  // namespace vecdb::text
