// sweep.cpp: how dead slots leave the graph, in small steps, without a row becoming unreachable.
//
// A round has a set of condemned slots, all of them dead. Its steps, each in a commit of its own if
// need be, are sweep() for all rows of both layers, rehome() for all condemned slots, and, once no
// reader is older than that, vacate() until none is left in the graph:
//
// 1. sweep() takes every link to a condemned slot out of the other rows, but for pinned ones, and fills
//    their places from the condemned slot's own row. One sequential pass over the links finds them all.
//    Rows are independent of each other: threads share the work, and the result is the same.
// 2. rehome() gives what is pinned to a condemned slot, and stays, another parent: its nearest link that
//    is not below it, or an ancestor. The old link stays, as one that is not pinned. A search that has
//    read the new parent's row before that finds its way through the old one: so nothing is vacated
//    while there is a reader who may have (tests/model/protocol.py found what happens otherwise).
// 3. vacate() lets slots go, those that are pinned below others first. The tree of pins (graph.h, 7) is
//    whole after each step and each slot: a round may stop anywhere.
// 4. A layer's first node is never let go.
// 5. Between the first vacated slot and the last of a round, rows of condemned slots may link to vacated
//    ones. Whoever hands out vacated slots waits for the end of the round.
// Rejected: vacating a slot as soon as it is due (each has 20 to 40 in-links: a row would be rewritten
// for each of its dead neighbours, and a pass over all links would serve one of them).
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "pool.h"
#include "writer.h"

namespace vecdb {

static const u32 BATCH = 128;       // rows a parallel task sweeps
static const u32 PARENTS = 8;       // links tried as a new parent
static const u32 LONGEST = 100000;  // steps along pins: more means that they are damaged

[[noreturn]] static void damaged(const char* what, u32 u) {
    throw std::invalid_argument("pinned links: " + std::string(what) + " row " + std::to_string(u));
}

// Which row pins each; for rows that nothing pins NO_SLOT.
void Graph::know_parents() {
    for (u32 layer = 0; layer < 2; layer++) {
        std::vector<u32>& of = parents[layer];
        if (!of.empty()) continue;
        LayerView v = layer_view(*this, layer);
        u32 rows = rows_of(layer, n_slots());
        of.assign(rows, NO_SLOT);
        for (u32 u = 0; u < rows; u++) {
            const u32* row = row_of<false>(v, u);
            for (u32 j = 0; j < v.R && row[j] < ALONE; j++)
                if (row[j] & PIN && (row[j] & ID) < rows) of[row[j] & ID] = u;
        }
    }
}

bool Writer::gone(u32 layer, u32 u) const {
    return mask_has(condemned_.data(), condemned_.size() * 8, layer ? u << ENTRY_SHIFT : u);
}

void Writer::condemn(const u8* mask, size_t bytes) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    condemned_.assign(mask, mask + bytes);
    u32 first = starts_.node[0];
    for (u32 s : {root_.load(), first == NO_SLOT ? NO_SLOT : first << ENTRY_SHIFT})  // 4
        if (s < bytes * 8) condemned_[s >> 3] &= (u8)~(1u << (s & 7));
}

// Arguments for work on rows of a layer.
InsertArgs Writer::upkeep(u32 layer, u32 slot) {
    InsertArgs a = insertion(slot, n_slots());
    if (!layer) return a;
    a.layer = a.entry;
    a.bits_seg = (u64* const*)g_.entry_bits.table();
    a.bits_words = g_.entry_words;
    return a;
}

u32 Writer::sweep(u32 layer, u32 first, u32 n, u32 threads) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    if (layer > 1) throw std::invalid_argument("sweep: no such layer");
    u32 rows = rows_of(layer, base_n_);
    if (first >= rows || !codes_) return 0;
    n = std::min(n, rows - first);
    LayerView v = this->layer(layer);
    std::atomic<u32> changed{0};
    parallel((n + BATCH - 1) / BATCH, threads, [&](u32 b) {
        MendArgs m;
        memset(&m, 0, sizeof m);
        m.insert = upkeep(layer, 0);
        m.condemned = condemned_.data();
        m.condemned_bits = condemned_.size() * 8;
        m.child = EMPTY;
        for (u32 u = first + b * BATCH; u < std::min(first + n, first + (b + 1) * BATCH); u++) {
            if (gone(layer, u) || load_link(row_of<true>(v, u)) == EMPTY) continue;
            m.insert.slot = layer ? u << ENTRY_SHIFT : u;
            g_.options().kernels->mend(&m);
            changed += m.changed;
        }
    });
    if (changed) changed_links();
    if (failed_) throw std::bad_alloc();
    return changed;
}

void Writer::changed_links() {
    dirty_ = true;
    last_size_ = 0;
}

u32 Writer::vacate(u32 first, u32 most, std::vector<u32>& vacated) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    u32 end = (u32)std::min<u64>(base_n_, condemned_.size() * 8), s = first;
    if (!codes_) return base_n_;
    know_moved();
    failed_ = true;  // until it is done
    for (; s < end; s++) {
        if (!gone(0, s) || load_link(row_of<true>(layer(0), s)) == EMPTY) continue;
        if (!vacate_below(s, most, vacated) && vacated.size() >= most) break;
    }
    failed_ = out_of_memory_.load();
    if (failed_) throw std::bad_alloc();
    if (s < end) return s;
    return left_behind() ? NO_SLOT : base_n_;
}

// Whether a condemned slot is in the graph still: an earlier call may have passed it over.
bool Writer::left_behind() const {
    for (u32 s = 0; s < std::min<u64>(base_n_, condemned_.size() * 8); s++)
        if (gone(0, s) && load_link(row_of<true>(layer(0), s)) != EMPTY) return true;
    return false;
}

u32 Writer::rehome(u32 first, u32 most) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    u32 end = (u32)std::min<u64>(base_n_, condemned_.size() * 8), s = first, done = 0;
    if (!codes_) return base_n_;
    know_moved();
    failed_ = true;  // until it is done
    for (; s < end && done < most; s++) {
        if (!gone(0, s) || load_link(row_of<true>(layer(0), s)) == EMPTY) continue;
        done += rehome_children(0, s);
        if (!(s & ((1u << ENTRY_SHIFT) - 1))) done += rehome_children(1, s >> ENTRY_SHIFT);
    }
    failed_ = out_of_memory_.load();
    if (failed_) throw std::bad_alloc();
    return s < end ? s : base_n_;
}

// In layer 0 those that stay; in the entry layer all of them, so that its nodes go one by one.
u32 Writer::rehome_children(u32 layer, u32 u) {
    u32 done = 0;
    LayerView v = this->layer(layer);
    for (u32 j = 0; j < v.R; j++) {
        u32 e = load_link(row_of<true>(v, u) + j);
        if (e >= ALONE) break;
        if (!(e & PIN) || (!layer && gone(0, e & ID))) continue;
        rehome_one(layer, u, e & ID);
        done++;
    }
    return done;
}

// Lets s go and, first, every condemned node that is pinned below it; false: `most` was reached, or
// something that stays is pinned to one of them, because no other row had room for a pin: what goes now
// makes room.
bool Writer::vacate_below(u32 s, u32 most, std::vector<u32>& vacated) {
    std::vector<u32> path{s};
    while (!path.empty()) {
        if (vacated.size() >= most) return false;
        u32 u = path.back(), child = pinned_child(0, u, EMPTY);
        if (path.size() > LONGEST) damaged("a circle through", u);
        if (child == EMPTY) {
            if (!(u & ((1u << ENTRY_SHIFT) - 1))) {
                if (pinned_child(1, u >> ENTRY_SHIFT, EMPTY) != EMPTY) return false;
                leave(1, u >> ENTRY_SHIFT);
            }
            leave(0, u);
            vacated_.push_back(u);
            vacated.push_back(u);
            path.pop_back();
        } else if (gone(0, child) && load_link(row_of<true>(layer(0), child)) != EMPTY) {
            path.push_back(child);
        } else {
            return false;
        }
    }
    return true;
}

// A child of u along a pin, a node that stays if there is one; never `but`.
u32 Writer::pinned_child(u32 layer, u32 u, u32 but) const {
    LayerView v = this->layer(layer);
    const u32* row = row_of<true>(v, u);
    u32 child = EMPTY;
    for (u32 j = 0; j < v.R; j++) {
        u32 e = load_link(row + j);
        if (e >= ALONE) break;
        if (!(e & PIN) || (e & ID) == but) continue;
        child = e & ID;
        if (!gone(layer, child)) break;
    }
    return child;
}

// Takes a node out of a layer to which none is pinned any more.
void Writer::leave(u32 layer, u32 u) {
    u32 p = parent(layer, u), R = g_.width(layer);
    if (p == NO_SLOT) damaged("none leads to", u);
    if (gone(layer, p)) {
        take_out(layer, p, u);
    } else {
        MendArgs m;
        memset(&m, 0, sizeof m);
        m.insert = upkeep(layer, layer ? p << ENTRY_SHIFT : p);
        m.condemned = condemned_.data();
        m.condemned_bits = condemned_.size() * 8;
        m.child = u;
        g_.options().kernels->mend(&m);
    }
    if (u32* row = own_row(layer, u)) {
        for (u32 j = 0; j < R; j++) store_link(row + j, EMPTY);
        Segments& bits = layer ? g_.entry_bits : g_.base_bits;
        memset(bits.row(u), 0, bits.row_bytes());
    }
    moved_[layer][u] = NO_SLOT;
    changed_links();
}

// Takes the link p -> u out of a row that goes too: its last link moves to the place.
void Writer::take_out(u32 layer, u32 p, u32 u) {
    u32 *row = own_row(layer, p), R = g_.width(layer), count = 0, at = R;
    if (!row) return;
    for (; count < R && row[count] < ALONE; count++)
        if ((row[count] & ID) == u) at = count;
    if (at == R) damaged("none leads to", u);
    if (at != --count) store_link(row + at, row[count]);
    store_link(row + count, count ? EMPTY : ALONE);
}

// Pins c, a child of u, to another node that stays.
void Writer::rehome_one(u32 layer, u32 u, u32 c) {
    u32 *row = own_row(layer, u), R = g_.width(layer), ids[MAX_ROW], n = 0;
    if (!row) return unpinned(layer, c, NO_SLOT);
    for (u32 j = 0; j < R; j++)
        if (row[j] == (c | PIN)) store_link(row + j, c);
    unpinned(layer, c, NO_SLOT);
    changed_links();
    canonical_ = false;
    if (c >= rows_of(layer, n_slots()) || load_link(row_of<true>(this->layer(layer), c)) == EMPTY)
        return;
    InsertArgs a = upkeep(layer, layer ? c << ENTRY_SHIFT : c);
    // what is dead itself may hang on others that are: readers who find it are near them
    auto may_link = [&](u32 id) {
        return !a.mask || mask_has(a.mask, a.mask_bits, id << a.layer.shift);
    };
    bool lives = may_link(c);
    const u32* its = row_of<true>(a.layer, c);
    for (u32 j = 0; j < R && its[j] < ALONE; j++) {
        u32 id = its[j] & ID;
        if (id == u || gone(layer, id)) continue;
        if (lives && !may_link(id)) continue;
        ids[n++] = id;
    }
    g_.options().kernels->nearest_first(&a, c, ids, n);
    for (u32 i = 0; i < std::min(n, PARENTS); i++)
        if (!is_below(layer, ids[i], c) && g_.options().kernels->hold(&a, ids[i], c))
            return unpinned(layer, c, ids[i]);
    u32 above = parent(layer, u), steps = 0;
    for (; above != NO_SLOT && gone(layer, above); above = parent(layer, above))
        if (++steps > LONGEST) damaged("a circle through", above);
    for (; above != NO_SLOT; above = pinned_child(layer, above, c)) {
        if (++steps > LONGEST) damaged("a circle through", above);
        if (g_.options().kernels->hold(&a, above, c)) return unpinned(layer, c, above);
        if (out_of_memory_) return;
    }
    damaged("none leads from the first to", c);
}

void Writer::unpinned(u32 layer, u32 c, u32 now) { moved_[layer][c] = now; }

u32 Writer::parent(u32 layer, u32 u) const {
    auto found = moved_[layer].find(u);
    if (found != moved_[layer].end()) return found->second;
    return u < g_.parents[layer].size() ? g_.parents[layer][u] : NO_SLOT;
}

// Whether the pins lead from c to u, or do not lead to u at all.
bool Writer::is_below(u32 layer, u32 u, u32 c) const {
    for (u32 steps = 0; steps < LONGEST; steps++) {
        if (u == c) return true;
        u32 up = parent(layer, u);
        if (up == NO_SLOT) return u != (layer ? starts_.node[0] : root_.load());
        u = up;
    }
    return true;
}

// The pins that this transaction has set: those of the rows that it has changed and of new ones.
void Writer::know_moved() {
    g_.know_parents();
    for (u32 layer = 0; layer < 2; layer++) {
        moved_[layer].clear();
        LayerView v = this->layer(layer);
        auto note = [&](u32 u) {
            const u32* row = row_of<true>(v, u);
            for (u32 j = 0; j < v.R && row[j] < ALONE; j++)
                if (row[j] & PIN) moved_[layer][row[j] & ID] = u;
        };
        for (u32 u : g_.overlay[layer].touched()) note(u);
        for (u32 u = rows_of(layer, base_n_); u < rows_of(layer, n_slots()); u++) note(u);
    }
}

}  // namespace vecdb
