// text_search.cpp: see text_search.h.
#include "text_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace vecdb::text {
namespace {

constexpr u32 WINDOW = 4096, WORDS = WINDOW / 64;
constexpr u32 LOOKUP = 10;   // what looking up a doc costs, in postings read
constexpr u32 PATIENCE = 8;  // windows that are read whole after one where leaving legs out did not pay
constexpr double NOTHING = -std::numeric_limits<double>::infinity();

double as_float(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

// A leg's postings in one segment.
struct List {
    std::vector<Block> blocks;
    std::vector<double> bounds;  // of each block
    std::vector<u32> docs, values;  // of blocks that lie here
};

// What a posting of a leg adds.
struct Scorer {
    bool sparse = false;
    double weight = 0, base = 0, slope = 0;
    const u32* lengths = nullptr;
    double text(double tf, double length) const { return weight * tf / (tf + (base + slope * length)); }
    double of(u32 doc, u32 value) const {
        return sparse ? weight * as_float(value) : text(value, lengths[doc]);
    }
    double bound(const Block& block) const {
        if (!sparse) return text(block.high, block.low == NO_DOC ? lengths[block.last] : block.low);
        return std::max(0.0, std::max(weight * as_float(block.high), weight * as_float(block.low)));
    }
    double size(const Block& block) const {  // how large a contribution may be, either way
        if (!sparse) return bound(block);
        return std::max(std::fabs(weight * as_float(block.high)), std::fabs(weight * as_float(block.low)));
    }
};

// A place in a list that only goes forward.
class Cursor {
  public:
    Cursor() = default;
    Cursor(const List* list, u8 kind, u32 n_docs) : list_(list), kind_(kind), n_docs_(n_docs) {}
    // The lowest doc from `from` on that may be in the list; NO_DOC: none.
    u32 next(u32 from) {
        skip(from);
        if (done()) return NO_DOC;
        if (!decoded_) return std::max(from, here().before + 1);
        while (docs_[at_] < from) ++at_;  // there is one: the block's last
        return docs_[at_];
    }
    // The highest bound of blocks with docs in [from, end); negative: there are none.
    double bound(u32 from, u32 end) {
        double highest = -1;
        skip(from);
        for (size_t i = block_; i < list_->blocks.size() && list_->blocks[i].before + 1 < end; ++i)
            highest = std::max(highest, list_->bounds[i]);
        return highest;
    }
    // Calls fn(docs, values, n) with the postings in [from, end).
    template <class Fn>
    void scan(u32 from, u32 end, Fn&& fn) {
        for (skip(from); !done() && here().before + 1 < end; ++block_, decoded_ = false) {
            open();
            while (at_ < here().n && docs_[at_] < from) ++at_;
            u32 start = at_;
            if (here().last < end)
                at_ = here().n;
            else
                while (docs_[at_] < end) ++at_;
            if (at_ > start) fn(docs_ + start, values_ + start, at_ - start);
            if (at_ < here().n) return;
        }
    }
    // Whether the list has the doc, and its value; docs must come in ascending order.
    bool find(u32 doc, u32& value) {
        skip(doc);
        if (done() || here().before + 1 > doc) return false;
        open();
        const u32* found = std::lower_bound(docs_ + at_, docs_ + here().n, doc);
        at_ = (u32)(found - docs_);
        if (*found != doc) return false;  // there is one: the block's last is not below
        value = values_[at_];
        return true;
    }

  private:
    bool done() const { return block_ >= list_->blocks.size(); }
    const Block& here() const { return list_->blocks[block_]; }
    void skip(u32 from) {
        if (done() || here().last >= from) return;
        size_t step = 1, n = list_->blocks.size();
        while (block_ + step < n && list_->blocks[block_ + step].last < from) step *= 2;
        auto begin = list_->blocks.begin() + (i64)(block_ + step / 2 + (step == 1));
        auto end = list_->blocks.begin() + (i64)std::min(n, block_ + step + 1);
        auto found = std::partition_point(begin, end, [&](const Block& block) { return block.last < from; });
        block_ = (size_t)(found - list_->blocks.begin());
        decoded_ = false;
    }
    void open() {
        if (decoded_) return;
        decode(here(), kind_, n_docs_, docs_, values_);
        decoded_ = true;
        at_ = 0;
    }
    const List* list_ = nullptr;
    size_t block_ = 0;
    u32 at_ = 0;
    u8 kind_ = TEXT;
    bool decoded_ = false;
    u32 n_docs_ = 0;
    u32 docs_[BLOCK], values_[BLOCK];
};

// The best so far, and all that equal the k-th.
class Best {
  public:
    Best(u64 k, bool all) : k_(k), all_(all) {}
    double threshold() const { return threshold_; }
    void add(double score, u32 rid) {
        if (score < threshold_) return;
        found_.push_back({score, rid});
        if (all_) return;
        if (top_.size() < k_ || score > top_.front()) {
            if (top_.size() == k_) {
                std::pop_heap(top_.begin(), top_.end(), std::greater<double>());
                top_.back() = score;
            } else {
                top_.push_back(score);
            }
            std::push_heap(top_.begin(), top_.end(), std::greater<double>());
            if (top_.size() == k_) threshold_ = top_.front();
        }
        if (found_.size() >= room_) {
            trim();
            room_ = std::max<u64>(room_, found_.size() * 2);
        }
    }
    void finish(std::vector<Scored>& out) {
        trim();
        std::sort(found_.begin(), found_.end(), [](const Scored& a, const Scored& b) {
            return a.score != b.score ? a.score > b.score : a.rid < b.rid;
        });
        out = std::move(found_);
    }

  private:
    void trim() {
        auto low = [&](const Scored& one) { return one.score < threshold_; };
        found_.erase(std::remove_if(found_.begin(), found_.end(), low), found_.end());
    }
    u64 k_, room_ = 4096;
    bool all_;
    double threshold_ = NOTHING;
    std::vector<Scored> found_;
    std::vector<double> top_;
};

}  // namespace

// One query on one view.
class Run {
  public:
    Run(View& view, const Query& query, const Fetched& fetched)
        : view_(view), query_(query), fetched_(fetched), clauses_(query.occur.size()) {}

    void prepare(bool scores) {
        lists_.assign(view_.parts_.size(), std::vector<List>(query_.legs.size()));
        scorers_.resize(query_.legs.size());
        for (u32 i = 0; i < query_.legs.size(); ++i) prepare_leg(i, scores);
        for (u8 occur : query_.occur) musts_ += occur == MUST;
    }

    void search(Best& best, bool exact, const Filter& filter) {
        for (u32 segment = 0; segment < view_.parts_.size(); ++segment) {
            begin(segment, true);
            walk(segment, filter, &best, exact, nullptr);
        }
    }

    void match(const Filter& filter, std::vector<u32>& out) {
        for (u32 segment = 0; segment < view_.parts_.size(); ++segment) {
            begin(segment, false);
            walk(segment, filter, nullptr, true, &out);
        }
    }

    void score(const u32* rids, u64 n, double* out) {
        std::fill(out, out + n, std::numeric_limits<double>::quiet_NaN());
        for (u32 segment = 0; segment < view_.parts_.size(); ++segment) {
            const View::Part& part = view_.parts_[segment];
            std::vector<std::pair<u32, u64>> places;
            for (u64 i = 0; i < n; ++i) {
                u32 doc = part.segment->doc_of(rids[i]);
                if (doc != NO_DOC && !part.dead.dead(doc)) places.push_back({doc, i});
            }
            if (places.empty()) continue;
            std::sort(places.begin(), places.end());
            begin(segment, true);
            for (u64 i = 0; i < places.size(); ++i) {
                auto [doc, to] = places[i];
                bool again = i && places[i - 1].first == doc;
                out[to] = again ? out[places[i - 1].second] : score_one(doc);
            }
        }
    }

  private:
    void prepare_leg(u32 i, bool scores) {
        const Leg& leg = query_.legs[i];
        u8 kind = view_.parts_.empty() ? (u8)TEXT : view_.parts_[0].segment->columns[leg.column].kind;
        u64 df = 0;
        std::vector<std::pair<std::string, u64>> terms;
        if (leg.kind == PREFIX) {
            view_.prefix_terms(leg.column, leg.term, MAX_PREFIX_TERMS, fetched_, terms);
            bool there = leg.also.empty();
            for (const auto& term : terms) there = there || term.first == leg.also;
            if (!there) terms.push_back({leg.also, 0});
        }
        for (u32 segment = 0; segment < view_.parts_.size(); ++segment) {
            List& list = lists_[segment][i];
            if (leg.kind == TERM)
                view_.blocks(segment, leg.column, leg.term, fetched_, list.blocks);
            else if (leg.kind == PREFIX)
                unite(segment, leg, terms, list);
            else
                place(segment, leg, list);
            if (leg.kind != TERM && scores) df += view_.live(segment, kind, list.blocks);
        }
        if (!scores || leg.occur == NOT) return;
        Scorer& scorer = scorers_[i];
        scorer.sparse = kind == SPARSE;
        scorer.weight = leg.weight;
        if (scorer.sparse) return;
        if (leg.kind == TERM) df = view_.df(leg.column, leg.term, fetched_);
        u64 rows, length;
        view_.totals(leg.column, rows, length);
        double n = (double)std::max(rows, df), average = rows ? (double)length / (double)rows : 1;
        double idf = std::log(1 + (n - (double)df + 0.5) / ((double)df + 0.5));
        scorer.weight = leg.weight * idf * (view_.k1_ + 1);
        scorer.base = view_.k1_ * (1 - view_.b_);
        scorer.slope = view_.k1_ * view_.b_ / (average > 0 ? average : 1);
    }

    // The lists of several terms as one; occurrences are added up.
    void unite(u32 segment, const Leg& leg, const std::vector<std::pair<std::string, u64>>& terms, List& to) {
        const Segment& of = *view_.parts_[segment].segment;
        std::vector<Block> blocks;
        u64 count = 0;
        for (const auto& term : terms) count += view_.blocks(segment, leg.column, term.first, fetched_, blocks);
        u32 docs[BLOCK], values[BLOCK];
        if (count * 32 > of.n_docs()) {
            std::vector<u32> sums(of.n_docs(), 0);
            for (const Block& block : blocks) {
                decode(block, TEXT, of.n_docs(), docs, values);
                for (u32 i = 0; i < block.n; ++i) sums[docs[i]] = std::min(MAX_TF, sums[docs[i]] + values[i]);
            }
            for (u32 doc = 0; doc < of.n_docs(); ++doc)
                if (sums[doc]) to.docs.push_back(doc), to.values.push_back(sums[doc]);
        } else {
            std::vector<u64> all;
            for (const Block& block : blocks) {
                decode(block, TEXT, of.n_docs(), docs, values);
                for (u32 i = 0; i < block.n; ++i) all.push_back((u64)docs[i] << 32 | values[i]);
            }
            std::sort(all.begin(), all.end());
            for (u64 one : all) {
                u32 doc = (u32)(one >> 32), tf = (u32)one;
                if (to.docs.empty() || to.docs.back() != doc)
                    to.docs.push_back(doc), to.values.push_back(tf);
                else
                    to.values.back() = std::min(MAX_TF, to.values.back() + tf);
            }
        }
        cut(segment, leg.column, to);
    }

    // Rows that the caller gives, as docs of this segment.
    void place(u32 segment, const Leg& leg, List& to) {
        const Segment& of = *view_.parts_[segment].segment;
        for (u64 i = 0; i < leg.n; ++i) {
            u32 doc = of.doc_of(leg.rids[i]);
            if (doc == NO_DOC || !leg.tfs[i]) continue;
            to.docs.push_back(doc);
            to.values.push_back(std::min(MAX_TF, leg.tfs[i]));
        }
        cut(segment, leg.column, to);
    }

    void cut(u32 segment, u32 column, List& list) {
        const u32* lengths = view_.parts_[segment].segment->columns[column].lengths.data();
        u32 before = NO_DOC;
        for (u64 at = 0; at < list.docs.size(); at += BLOCK) {
            u32 n = (u32)std::min<u64>(BLOCK, list.docs.size() - at), high = 0, low = NO_DOC - 1;
            for (u64 i = at; i < at + n; ++i) {
                high = std::max(high, list.values[i]);
                low = std::min(low, lengths[list.docs[i]]);
            }
            u32 last = list.docs[at + n - 1];
            list.blocks.push_back({(const u8*)(list.docs.data() + at), list.values.data() + at, 0, before, last,
                                   high, low, (u8)n, 0, 0, PLAIN});
            before = last;
        }
    }

    void begin(u32 segment, bool scores) {
        const Segment& of = *view_.parts_[segment].segment;
        std::vector<List>& lists = lists_[segment];
        cursors_.clear();
        seekers_.clear();
        slack_ = 0;
        postings_ = 0;
        for (u32 i = 0; i < lists.size(); ++i) {
            u8 kind = of.columns[query_.legs[i].column].kind;
            cursors_.emplace_back(&lists[i], kind, of.n_docs());
            seekers_.emplace_back(&lists[i], kind, of.n_docs());
            if (!scores || query_.legs[i].occur == NOT) continue;
            Scorer& scorer = scorers_[i];
            scorer.lengths = of.columns[query_.legs[i].column].lengths.data();
            double largest = 0;
            lists[i].bounds.resize(lists[i].blocks.size());
            for (size_t b = 0; b < lists[i].blocks.size(); ++b) {
                postings_ += lists[i].blocks[b].n;
                lists[i].bounds[b] = scorer.bound(lists[i].blocks[b]);
                largest = std::max(largest, scorer.size(lists[i].blocks[b]));
            }
            slack_ += largest * 1e-9;
        }
        if (musts_ || has_not()) markers_ = cursors_;
    }

    bool has_not() const {
        for (u8 occur : query_.occur)
            if (occur == NOT) return true;
        return false;
    }

    double score_one(u32 doc) {
        double sum = 0;
        std::fill(clauses_.begin(), clauses_.end(), 0);
        for (u32 i = 0; i < query_.legs.size(); ++i) {
            u32 value;
            if (!seekers_[i].find(doc, value)) continue;
            clauses_[query_.legs[i].clause] = 1;
            if (query_.legs[i].occur != NOT) sum += scorers_[i].of(doc, value);
        }
        bool some = false;
        for (size_t c = 0; c < clauses_.size(); ++c) {
            if (query_.occur[c] == NOT ? clauses_[c] : query_.occur[c] == MUST && !clauses_[c])
                return std::numeric_limits<double>::quiet_NaN();
            some = some || (query_.occur[c] != NOT && clauses_[c]);
        }
        return some ? sum : std::numeric_limits<double>::quiet_NaN();
    }

    // The first doc from `from` on that could match.
    u32 next(u32 from) {
        u32 lowest = NO_DOC;
        for (u32 i = 0; i < query_.legs.size(); ++i)
            if (query_.legs[i].occur != NOT) lowest = std::min(lowest, cursors_[i].next(from));
        if (!musts_) return lowest;
        for (u32 i = 0; i < query_.legs.size();) {
            u32 clause = query_.legs[i].clause, first = NO_DOC;
            bool must = query_.legs[i].occur == MUST;
            for (; i < query_.legs.size() && query_.legs[i].clause == clause; ++i)
                if (must) first = std::min(first, cursors_[i].next(from));
            if (must) lowest = std::max(lowest, first);
        }
        return lowest;
    }

    void walk(u32 segment, const Filter& filter, Best* best, bool exact, std::vector<u32>* out) {
        const Segment& of = *view_.parts_[segment].segment;
        std::vector<double> sums(best ? WINDOW : 0);
        u64 allowed[WORDS], touched[WORDS];
        if (impossible()) return;
        for (u32 from = next(0); from < of.n_docs(); from = next(from)) {
            u32 end = (u32)std::min<u64>(of.n_docs(), (u64)from + WINDOW), start = from;
            from = end;
            double rest = 0;
            bool pruned = false;
            if (!plan(start, end, best && !exact ? best->threshold() : NOTHING, best, rest, pruned)) continue;
            if (!admit(segment, filter, start, end, allowed)) continue;
            if (!require(start, end, allowed)) continue;
            memset(touched, 0, sizeof touched);
            if (best) {
                std::fill(sums.begin(), sums.end(), 0.0);
                for (u32 leg : active_) add_up(cursors_[leg], leg, start, end, sums.data(), touched);
                pick(of, start, end, allowed, touched, sums, rest, pruned, *best);
            } else {
                for (u32 leg : active_) mark(cursors_[leg], start, end, touched);
                for (u32 w = 0; w < WORDS; ++w)
                    for (u64 bits = touched[w] & allowed[w]; bits; bits &= bits - 1)
                        out->push_back(of.rids[start + w * 64 + (u32)__builtin_ctzll(bits)]);
            }
        }
    }

    // A must clause without legs matches nothing.
    bool impossible() const {
        std::vector<u8> some(query_.occur.size(), 0);
        for (const Leg& leg : query_.legs) some[leg.clause] = 1;
        for (size_t c = 0; c < some.size(); ++c)
            if (query_.occur[c] == MUST && !some[c]) return true;
        return false;
    }

    // Which legs must be read in this window; false: it cannot hold any row that is good enough.
    bool plan(u32 start, u32 end, double threshold, bool scores, double& rest, bool& pruned) {
        active_.clear();
        ranked_.clear();
        double total = 0;
        for (u32 i = 0; i < query_.legs.size(); ++i) {
            if (query_.legs[i].occur == NOT) continue;
            if (!scores || threshold == NOTHING) {
                if (cursors_[i].next(start) < end) active_.push_back(i);
                continue;
            }
            double bound = cursors_[i].bound(start, end);
            if (bound < 0) continue;
            ranked_.push_back({bound, i});
            total += bound;
        }
        if (!scores || threshold == NOTHING) return !active_.empty();
        if (total + slack_ < threshold) return false;
        std::sort(ranked_.begin(), ranked_.end());
        size_t first = 0;
        if (patience_) --patience_, threshold = NOTHING;  // not worth it in the windows before
        while (first < ranked_.size() && rest + ranked_[first].first + slack_ < threshold)
            rest += ranked_[first++].first;
        pruned = first > 0;
        for (; first < ranked_.size(); ++first) active_.push_back(ranked_[first].second);
        std::sort(active_.begin(), active_.end());
        return !active_.empty();
    }

    // Rows of the window that are alive and pass the filter, as bits; false: none.
    bool admit(u32 segment, const Filter& filter, u32 start, u32 end, u64* to) {
        const View::Part& part = view_.parts_[segment];
        const std::vector<u32>& rids = part.segment->rids;
        u64 any = 0;
        for (u32 w = 0; w < WORDS; ++w) {
            u32 first = start + w * 64;
            to[w] = 0;
            if (first >= end) continue;
            u32 n = std::min(64u, end - first);
            u64 bits = n == 64 ? ~(u64)0 : ((u64)1 << n) - 1;
            bits &= ~word_of(part.dead, first);
            bits &= passing(filter, rids.data() + first, n);
            any |= to[w] = bits;
        }
        return any != 0;
    }

    // 64 bits of a bitset from any place on; 0 beyond its end.
    static u64 word_of(const Mask& mask, u64 from) {
        u64 at = from >> 3, shift = from & 7;
        if (at + 9 <= mask.n) {
            u64 low = get<u64>(mask.p + at) >> shift;
            return shift ? low | (u64)mask.p[at + 8] << (64 - shift) : low;
        }
        u64 word = 0;
        for (u64 i = 0; i < 64; ++i) {
            u64 byte = (from + i) >> 3;
            if (byte >= mask.n) break;
            word |= (u64)(mask.p[byte] >> ((from + i) & 7) & 1) << i;
        }
        return word;
    }

    static u64 passing(const Filter& filter, const u32* rids, u32 n) {
        constexpr u32 FIRST_PLAIN = 1u << 31;
        bool all_slots = rids[n - 1] < FIRST_PLAIN, no_slots = rids[0] >= FIRST_PLAIN;
        if ((all_slots && !filter.slots) || (no_slots && !filter.plain)) return ~(u64)0;
        if (all_slots && rids[n - 1] - rids[0] == n - 1) return word_of(filter.slot_bits, rids[0]);
        u64 bits = 0;
        for (u32 i = 0; i < n; ++i) {
            u32 rid = rids[i];
            bool pass;
            if (rid < FIRST_PLAIN)
                pass = !filter.slots || filter.slot_bits.dead(rid);
            else
                pass = !filter.plain ||
                       std::binary_search(filter.plain_rids, filter.plain_rids + filter.n_plain, rid);
            bits |= (u64)pass << i;
        }
        return bits;
    }

    // Clears what a must clause misses and what a not clause has; false: nothing is left.
    bool require(u32 start, u32 end, u64* allowed) {
        if (markers_.empty()) return true;
        u64 bits[WORDS], any = 1;
        for (u32 i = 0; i < query_.legs.size() && any;) {
            u32 clause = query_.legs[i].clause;
            u8 occur = query_.legs[i].occur;
            memset(bits, 0, sizeof bits);
            for (; i < query_.legs.size() && query_.legs[i].clause == clause; ++i)
                if (occur != SHOULD) mark(markers_[i], start, end, bits);
            if (occur == SHOULD) continue;
            any = 0;
            for (u32 w = 0; w < WORDS; ++w) any |= allowed[w] &= occur == MUST ? bits[w] : ~bits[w];
        }
        return any != 0;
    }

    static void mark(Cursor& cursor, u32 start, u32 end, u64* to) {
        cursor.scan(start, end, [&](const u32* docs, const u32*, u32 n) {
            for (u32 i = 0; i < n; ++i) {
                u32 at = docs[i] - start;
                to[at >> 6] |= (u64)1 << (at & 63);
            }
        });
    }

    void add_up(Cursor& cursor, u32 leg, u32 start, u32 end, double* sums, u64* touched) {
        const Scorer scorer = scorers_[leg];
        cursor.scan(start, end, [&](const u32* docs, const u32* values, u32 n) {
            if (scorer.sparse)
                for (u32 i = 0; i < n; ++i) sums[docs[i] - start] += scorer.weight * as_float(values[i]);
            else
                add_text(scorer, docs, values, n, sums, start);
            if (!touched) return;
            for (u32 i = 0; i < n; ++i) touched[(docs[i] - start) >> 6] |= (u64)1 << ((docs[i] - start) & 63);
        });
    }

    // In three loops, of which the middle one is several divisions at a time. Lengths and occurrences are
    // below 2^31 (text_builder.h), so they may be taken as signed.
    static void add_text(const Scorer& scorer, const u32* docs, const u32* values, u32 n, double* sums, u32 start) {
        i32 lengths[BLOCK];
        double worth[BLOCK];
        const double weight = scorer.weight, base = scorer.base, slope = scorer.slope;
        for (u32 i = 0; i < n; ++i) lengths[i] = (i32)scorer.lengths[docs[i]];
        for (u32 i = 0; i < n; ++i) {
            double tf = (double)(i32)values[i];
            worth[i] = weight * tf / (tf + (base + slope * (double)lengths[i]));
        }
        for (u32 i = 0; i < n; ++i) sums[docs[i] - start] += worth[i];
    }

    // Hands out the window's candidates. With legs left out, those that may be good enough are looked up
    // in all lists, or, where they are many, all lists are read after all.
    void pick(const Segment& of, u32 start, u32 end, u64* allowed, const u64* touched,
              std::vector<double>& sums, double rest, bool pruned, Best& best) {
        if (pruned) {
            u64 left = 0;
            each(allowed, touched, [&](u32 at, u64& word) {
                if (sums[at] + rest + slack_ < best.threshold())
                    word &= ~((u64)1 << (at & 63));
                else
                    ++left;
            });
            if (!left) return;
            double postings = (double)postings_ * (end - start) / of.n_docs();
            if ((double)(left * ranked_.size()) * LOOKUP > postings) {
                std::fill(sums.begin(), sums.end(), 0.0);
                for (u32 leg = 0; leg < query_.legs.size(); ++leg)
                    if (query_.legs[leg].occur != NOT) add_up(seekers_[leg], leg, start, end, sums.data(), nullptr);
                pruned = false;
                patience_ = PATIENCE;
            }
        }
        each(allowed, touched, [&](u32 at, u64&) {
            best.add(pruned ? sum_of(start + at) : sums[at], of.rids[start + at]);
        });
    }

    template <class Fn>
    static void each(u64* allowed, const u64* touched, Fn&& fn) {
        for (u32 w = 0; w < WORDS; ++w)
            for (u64 bits = touched[w] & allowed[w]; bits; bits &= bits - 1)
                fn(w * 64 + (u32)__builtin_ctzll(bits), allowed[w]);
    }

    double sum_of(u32 doc) {
        double sum = 0;
        for (u32 i = 0; i < query_.legs.size(); ++i) {
            u32 value;
            if (query_.legs[i].occur != NOT && seekers_[i].find(doc, value)) sum += scorers_[i].of(doc, value);
        }
        return sum;
    }

    View& view_;
    const Query& query_;
    const Fetched& fetched_;
    std::vector<std::vector<List>> lists_;
    std::vector<Scorer> scorers_;
    std::vector<Cursor> cursors_, seekers_, markers_;
    std::vector<u32> active_;
    std::vector<std::pair<double, u32>> ranked_;
    std::vector<u8> clauses_;
    u32 musts_ = 0, patience_ = 0;
    u64 postings_ = 0;  // of the legs that score, in this segment
    double slack_ = 0;
};

void View::search(const Query& query, u64 k, bool all, bool exact, const Filter& filter, const Fetched& fetched,
                  std::vector<Scored>& out) {
    Best best(k, all);
    Run run(*this, query, fetched);
    run.prepare(true);
    run.search(best, exact || all, filter);
    best.finish(out);
}

void View::match(const Query& query, const Filter& filter, const Fetched& fetched, std::vector<u32>& out) {
    Run run(*this, query, fetched);
    run.prepare(false);
    run.match(filter, out);
    if (!std::is_sorted(out.begin(), out.end())) std::sort(out.begin(), out.end());
}

void View::score(const u32* rids, u64 n, const Query& query, const Fetched& fetched, double* out) {
    Run run(*this, query, fetched);
    run.prepare(true);
    run.score(rids, n, out);
}

}  // namespace vecdb::text
