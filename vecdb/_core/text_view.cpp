// text_view.cpp: lists of a view's segments, and how many live rows are in them; see text_search.h.
#include <algorithm>

#include "text_search.h"

namespace vecdb::text {
namespace {

constexpr u64 KEPT = 16384;  // document frequencies

const u8* bytes(const std::string& s) { return (const u8*)s.data(); }

bool begins(const Entry& entry, const std::string& prefix) {
    return entry.size >= prefix.size() && !memcmp(entry.term, prefix.data(), prefix.size());
}

}  // namespace

void View::add(std::shared_ptr<Segment> segment, Mask dead) {
    if (!parts_.empty()) {
        const auto& first = parts_[0].segment->columns;
        bool same = first.size() == segment->columns.size();
        for (size_t i = 0; same && i < first.size(); ++i) same = first[i].kind == segment->columns[i].kind;
        if (!same) throw std::invalid_argument("segments have other columns than the first");
    }
    parts_.push_back({std::move(segment), dead});
}

void View::finish(double k1, double b) {
    k1_ = k1;
    b_ = b;
    rows_.assign(parts_.empty() ? 0 : parts_[0].segment->columns.size(), 0);
    length_ = rows_;
    for (const Part& part : parts_) {
        n_live_ += part.segment->n_live(part.dead);
        for (u32 column = 0; column < rows_.size(); ++column) {
            u64 rows, length;
            part.segment->totals(column, part.dead, rows, length);
            rows_[column] += rows;
            length_[column] += length;
        }
    }
}

void View::totals(u32 column, u64& rows, u64& length) const {
    rows = column < rows_.size() ? rows_[column] : 0;
    length = column < rows_.size() ? length_[column] : 0;
}

std::vector<u32> View::needed(const Query& query, u32 segment) const {
    const Segment& of = *parts_[segment].segment;
    std::vector<u32> out;
    auto want = [&](u32 first, u32 second) {
        for (u32 i = first; i < second; ++i) out.push_back(i);
    };
    for (const Leg& leg : query.legs) {
        u32 first, second;
        if (leg.kind == LIST) continue;
        if (leg.kind == PREFIX) {
            of.prefix_range((u8)leg.column, bytes(leg.term), (u32)leg.term.size(), first, second);
            want(first, second);
        }
        const std::string& term = leg.kind == PREFIX ? leg.also : leg.term;
        if (term.empty()) continue;
        of.range((u8)leg.column, bytes(term), (u32)term.size(), first, second);
        want(first, second);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

Chunk View::chunk(u32 segment, u32 number, const Fetched& fetched) const {
    const Segment& of = *parts_[segment].segment;
    if (of.holds) return Chunk(of.chunks[number].data(), of.chunks[number].size());
    const auto& numbers = fetched.numbers[segment];
    auto at = std::lower_bound(numbers.begin(), numbers.end(), number);
    if (at == numbers.end() || *at != number) throw std::invalid_argument("a chunk was not fetched");
    const Span& span = fetched.spans[segment][(size_t)(at - numbers.begin())];
    return Chunk(span.p, span.n);
}

u64 View::blocks(u32 segment, u32 column, const std::string& term, const Fetched& fetched,
                 std::vector<Block>& out) const {
    const Segment& of = *parts_[segment].segment;
    u32 first, second, last = NO_DOC;
    u64 count = 0;
    of.range((u8)column, bytes(term), (u32)term.size(), first, second);
    for (u32 number = first; number < second; ++number) {
        Chunk in = chunk(segment, number, fetched);
        if (in.column() != column || in.kind() != of.columns[column].kind) damaged("a chunk of another column");
        u32 i = in.lower_bound(bytes(term), (u32)term.size());
        if (i == in.count()) continue;
        Entry entry = in.entry(i);
        if (entry.size != term.size() || !begins(entry, term)) continue;
        count += entry_count(entry);
        read_blocks(entry, in.kind(), of.n_docs(), last, out);
    }
    return count;
}

u64 View::live(u32 segment, u8 kind, const std::vector<Block>& blocks) const {
    const Part& part = parts_[segment];
    u64 count = 0;
    u32 docs[BLOCK], values[BLOCK];
    for (const Block& block : blocks) {
        if (!part.dead.n) {
            count += block.n;
            continue;
        }
        decode(block, kind, part.segment->n_docs(), docs, values);
        for (u32 i = 0; i < block.n; ++i) count += !part.dead.dead(docs[i]);
    }
    return count;
}

u64 View::df(u32 column, const std::string& term, const Fetched& fetched) {
    std::string key(1, (char)column);
    key += term;
    {
        std::lock_guard<std::mutex> hold(lock_);
        auto at = df_.find(key);
        if (at != df_.end()) return at->second;
    }
    u64 count = 0;
    std::vector<Block> list;
    for (u32 segment = 0; segment < parts_.size(); ++segment) {
        list.clear();
        blocks(segment, column, term, fetched, list);
        count += live(segment, parts_[segment].segment->columns[column].kind, list);
    }
    std::lock_guard<std::mutex> hold(lock_);
    if (df_.size() >= KEPT) df_.clear();
    df_.emplace(std::move(key), count);
    return count;
}

void View::prefix_terms(u32 column, const std::string& prefix, u64 limit, const Fetched& fetched,
                        std::vector<std::pair<std::string, u64>>& out) const {
    std::unordered_map<std::string, u64> counts;
    for (u32 segment = 0; segment < parts_.size(); ++segment) {
        const Segment& of = *parts_[segment].segment;
        u32 first, second;
        of.prefix_range((u8)column, bytes(prefix), (u32)prefix.size(), first, second);
        for (u32 number = first; number < second; ++number) {
            Chunk in = chunk(segment, number, fetched);
            if (in.column() != column) damaged("a chunk of another column");
            u32 i = prefix.empty() ? 0 : in.lower_bound(bytes(prefix), (u32)prefix.size());
            for (; i < in.count(); ++i) {
                Entry entry = in.entry(i);
                if (!begins(entry, prefix)) break;
                counts[std::string((const char*)entry.term, entry.size)] += entry_count(entry);
            }
        }
    }
    out.assign(counts.begin(), counts.end());
    auto more = [](const std::pair<std::string, u64>& a, const std::pair<std::string, u64>& b) {
        return a.second != b.second ? a.second > b.second : a.first < b.first;
    };
    u64 n = std::min<u64>(limit, out.size());
    std::partial_sort(out.begin(), out.begin() + (i64)n, out.end(), more);
    out.resize(n);
}

}  // namespace vecdb::text
