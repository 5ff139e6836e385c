// adopt.cpp: layer 0 of a graph that was built elsewhere, taken over link by link.
//
// 1. Every link is checked before anything changes.
// 2. A link of a slot to itself, or one that its row has already, is left out; the others stay.
//    Which of them are diverse is unknown: insertions that meet a full row find out.
// 3. The pins are a tree over these links from slot 0. At first a quarter of a row is pinned at
//    most, so that rows near the root keep places that later insertions may take.
// 4. What the links do not lead to is offered to the nearest of what they do lead to, as an
//    insertion does, and keeps its own links; the tree grows on from there.
// 5. The entry layer is built by insertion: foreign layers have other nodes.
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "pool.h"
#include "writer.h"

namespace vecdb {
namespace {

const u32 BATCH = 1024;  // rows a parallel task takes over

void check_links(const u32* links, u32 n, u32 R) {
    for (u32 u = 0; u < n; u++)
        for (u32 j = 0; j < R; j++) {
            u32 e = links[(size_t)u * R + j];
            if (e >= n && e != EMPTY)
                throw std::invalid_argument("adopt: row " + std::to_string(u) + " links to slot " +
                                            std::to_string(e) + " of " + std::to_string(n));
        }
}

// Writes u's links to its row.
void take(const u32* links, u32 u, u32 R, u32* row) {
    u32 ids[MAX_ROW], sorted[MAX_ROW], n = 0;
    for (u32 j = 0; j < R; j++)
        if (links[j] != EMPTY && links[j] != u) ids[n++] = links[j];
    std::copy(ids, ids + n, sorted);
    std::sort(sorted, sorted + n);
    if (std::adjacent_find(sorted, sorted + n) != sorted + n) {
        u32 kept = 0;
        for (u32 j = 0; j < n; j++)
            if (std::find(ids, ids + kept, ids[j]) == ids + kept) ids[kept++] = ids[j];
        n = kept;
    }
    for (u32 j = 0; j < n; j++) store_link(row + j, ids[j]);
    if (!n) store_link(row, ALONE);
}

// The tree of pins.
struct PinTree {
    const LayerView& base;
    std::vector<u8> seen;
    std::vector<u32> order;

    // From the last node of the order to all that links lead to from it.
    void grow() {
        size_t from = order.size() - 1;
        for (u32 most : {std::max(1u, base.R / 4), base.R})
            for (size_t i = from; i < order.size(); i++) {
                u32 *row = row_of<false>(base, order[i]), pins = 0;
                for (u32 j = 0; j < base.R && row[j] < ALONE; j++) pins += (row[j] & PIN) != 0;
                for (u32 j = 0; j < base.R && row[j] < ALONE && pins < most; j++) {
                    u32 id = row[j] & ID;
                    if (seen[id]) continue;
                    store_link(row + j, id | PIN);
                    pins++;
                    add(id);
                }
            }
    }
    void add(u32 id) {
        seen[id] = 1;
        order.push_back(id);
    }
};

}  // namespace

void Writer::adopt(const u8* vectors, const u32* links, u32 n, u32 threads) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    if (n_slots()) throw std::invalid_argument("adopt: the graph has slots already");
    if (n > MAX_SLOTS) throw std::invalid_argument("adopt: more slots than a graph has");
    const u32 R = g_.width(0);
    check_links(links, n, R);
    if (!n) return;
    begin_change();
    g_.ensure(n);
    calibrate(vectors, n, threads);
    codes_->ensure(n);
    std::vector<u32> slots(n);
    for (u32 i = 0; i < n; i++) slots[i] = i;
    store(slots.data(), vectors, n, threads);
    parallel((n + BATCH - 1) / BATCH, threads, [&](u32 b) {
        for (u32 u = b * BATCH; u < std::min(n, (b + 1) * BATCH); u++)
            take(links + (size_t)u * R, u, R, (u32*)g_.links(0).row(u));
    });
    root_.store(0);

    LayerView base = layer(0);
    PinTree tree = {base, std::vector<u8>(n, 0), {}};
    tree.add(0);
    tree.grow();
    for (u32 s = 1; s < n; s++) {
        if (tree.seen[s]) continue;
        attach(s, n);
        tree.add(s);
        tree.grow();
    }
    u32 entries = rows_of(1, n), i = 1;
    link_entry(0, n);
    for (u32 u = 0; u < entries; u++) starts_.add(u);
    for (; i < std::min(entries, FIRST_ALONE); i++) link_entry(i << ENTRY_SHIFT, n);
    parallel(entries - i, threads, [&](u32 j) { link_entry((i + j) << ENTRY_SHIFT, n); });
    n_.store(n, std::memory_order_release);
    failed_ = false;
}

}  // namespace vecdb
