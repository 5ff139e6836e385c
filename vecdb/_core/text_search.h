// text_search.h: which rows match, and which score highest?
//
// 1. A document's score is the sum of its legs' contributions in the order of the query, in float64,
//    whatever way found it: what pruning adds up in another order is only compared, with `slack`.
// 2. N, lengths and document frequencies are of live rows over all segments: exact, so that scores
//    do not depend on how rows are spread.
// 3. A segment is gone through by windows of docs. Legs whose highest scores together stay below the
//    k-th best score so far are not read for candidates, only looked up for those that others find
//    (MaxScore, Turtle and Flood 1995; bounds by blocks, Ding and Suel 2011; windows as in Lucene 10).
// 4. All rows that score as high as the k-th are kept: only the caller can rank them.
// 5. Absent legs count 0, so a bound is never below 0: negative weights are safe.
// Rejected: WAND. Its pivots cost more than adding up where lists are dense, and queries of many terms
// sort cursors at each step.
// Rejected: scores in float32 or fixed point. Equal scores would no longer be equal.
#pragma once

#include <mutex>
#include <unordered_map>

#include "text_segment.h"

namespace vecdb::text {

constexpr u32 MAX_PREFIX_TERMS = 1024, MAX_LEGS = 20000;
enum Occur : u8 { SHOULD, MUST, NOT };
enum LegKind : u8 { TERM, PREFIX, LIST };

struct Leg {
    u32 column = 0;
    double weight = 0;
    u8 kind = TERM, occur = SHOULD;
    u32 clause = 0;
    std::string term, also;
    const u32 *rids = nullptr, *tfs = nullptr;
    u64 n = 0;
};

struct Query {
    std::vector<Leg> legs;  // by clauses
    std::vector<u8> occur;  // of each clause
};

struct Filter {
    bool slots = false, plain = false;  // whether there is one
    Mask slot_bits;
    const u32* plain_rids = nullptr;
    u64 n_plain = 0;
};

// Chunks that a caller fetched, by segment, ascending.
struct Fetched {
    std::vector<std::vector<u32>> numbers;
    std::vector<std::vector<Span>> spans;
};

struct Scored {
    double score;
    u32 rid;
};

class View {
  public:
    void add(std::shared_ptr<Segment> segment, Mask dead);
    void finish(double k1, double b);
    u32 n_segments() const { return (u32)parts_.size(); }
    bool holds(u32 segment) const { return parts_[segment].segment->holds; }
    u64 n_live() const { return n_live_; }
    void totals(u32 column, u64& rows, u64& length) const;

    // The chunks of a segment that the query's terms may lie in.
    std::vector<u32> needed(const Query& query, u32 segment) const;
    u64 df(u32 column, const std::string& term, const Fetched& fetched);
    void search(const Query& query, u64 k, bool all, bool exact, const Filter& filter, const Fetched& fetched,
                std::vector<Scored>& out);
    void match(const Query& query, const Filter& filter, const Fetched& fetched, std::vector<u32>& out);
    void score(const u32* rids, u64 n, const Query& query, const Fetched& fetched, double* out);
    void prefix_terms(u32 column, const std::string& prefix, u64 limit, const Fetched& fetched,
                      std::vector<std::pair<std::string, u64>>& out) const;

  private:
    friend class Run;
    struct Part {
        std::shared_ptr<Segment> segment;
        Mask dead;
    };
    Chunk chunk(u32 segment, u32 number, const Fetched& fetched) const;
    // The blocks of a term's list; its count.
    u64 blocks(u32 segment, u32 column, const std::string& term, const Fetched& fetched,
               std::vector<Block>& out) const;
    u64 live(u32 segment, u8 kind, const std::vector<Block>& blocks) const;
    std::vector<Part> parts_;
    std::vector<u64> rows_, length_;  // by column, live
    u64 n_live_ = 0;
    double k1_ = 1.2, b_ = 0.75;
    std::mutex lock_;
    std::unordered_map<std::string, u64> df_;
};

}  // namespace vecdb::text
