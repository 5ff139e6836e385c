// audit.cpp: what must hold of the published links, checked: Graph::check and unreachable.
#include <algorithm>

#include "graph.h"

namespace vecdb {
namespace {

std::string at(u32 layer, u32 row) {
    return std::string(layer ? "entry layer, row " : "layer 0, row ") + std::to_string(row) + ": ";
}

// One row: ids in range, no self link, no duplicate, no link after the first empty place.
void check_row(const LayerView& v, u32 layer, u32 u, u32 rows, bool condemned,
               std::vector<std::string>& out) {
    const u32* row = row_of<false>(v, u);
    std::vector<u32> ids;
    bool ended = false;
    for (u32 j = 0; j < v.R; j++) {
        u32 e = load_link(row + j);
        if (e == ALONE && j) out.push_back(at(layer, u) + "a lone mark after its first place");
        if (e >= ALONE) {
            ended = true;
            continue;
        }
        u32 id = e & ID;
        if (ended) out.push_back(at(layer, u) + "a link after an empty place");
        if (id >= rows) {
            out.push_back(at(layer, u) + "a link to " + std::to_string(id) + ", out of range");
            continue;
        }
        if (id == u) out.push_back(at(layer, u) + "a link to itself");
        if (!condemned && load_link(row_of<false>(v, id)) == EMPTY)
            out.push_back(at(layer, u) + "a link to " + std::to_string(id) + ", not in the graph");
        ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end());
    if (std::adjacent_find(ids.begin(), ids.end()) != ids.end())
        out.push_back(at(layer, u) + "a link twice");
}

// Which rows a layer's links lead to from some of them.
std::vector<u8> reached(const LayerView& v, u32 rows, std::vector<u32> open) {
    std::vector<u8> seen(rows, 0);
    for (u32 u : open) seen[u] = 1;
    while (!open.empty()) {
        const u32* row = row_of<false>(v, open.back());
        open.pop_back();
        for (u32 j = 0; j < v.R && row[j] < ALONE; j++) {
            u32 id = row[j] & ID;
            if (id >= rows || seen[id]) continue;
            seen[id] = 1;
            open.push_back(id);
        }
    }
    return seen;
}

}  // namespace

std::vector<std::string> Graph::check(const u8* condemned, u64 bits) {
    std::lock_guard<std::mutex> hold(write_mutex);
    std::vector<std::string> out;
    u32 n = n_slots();
    for (u32 layer = 0; layer < 2; layer++) {
        LayerView v = layer_view(*this, layer);
        u32 rows = rows_of(layer, n);
        bool first = true;
        std::vector<u8> pins(rows, 0);
        for (u32 u = 0; u < rows; u++) {
            check_row(v, layer, u, rows, mask_has(condemned, bits, layer ? u << ENTRY_SHIFT : u), out);
            const u32* row = row_of<false>(v, u);
            for (u32 j = 0; j < v.R; j++)
                if (row[j] < ALONE && row[j] & PIN && (row[j] & ID) < rows && pins[row[j] & ID] < 2)
                    pins[row[j] & ID]++;
        }
        for (u32 u = 0; u < rows; u++) {
            if (load_link(row_of<false>(v, u)) == EMPTY) continue;
            if (pins[u] > 1) out.push_back(at(layer, u) + "more than one pinned link leads to it");
            if (!pins[u] && !first) out.push_back(at(layer, u) + "no pinned link leads to it");
            first = false;
        }
    }
    LayerView base = layer_view(*this, 0), entry = layer_view(*this, 1);
    for (u32 u = 0; u < rows_of(1, n); u++) {
        bool low = load_link(row_of<false>(base, u << ENTRY_SHIFT)) != EMPTY;
        bool high = load_link(row_of<false>(entry, u)) != EMPTY;
        if (low != high)
            out.push_back(at(1, u) + (low ? "missing although its slot is in the graph"
                                          : "present although its slot is not in the graph"));
    }
    return out;
}

// Slots in the graph that no path leads to: from the starts through the entry layer and down, and
// from the root.
std::vector<u32> Graph::unreachable() {
    std::lock_guard<std::mutex> hold(write_mutex);
    u32 n = n_slots();
    LayerView base = layer_view(*this, 0), entry = layer_view(*this, 1);
    std::vector<u32> from;
    for (u32 u : starts.node)
        if (u < rows_of(1, n) && load_link(row_of<false>(entry, u)) != EMPTY) from.push_back(u);
    std::vector<u8> high = reached(entry, rows_of(1, n), from);
    from.clear();
    for (u32 u = 0; u < high.size(); u++)
        if (high[u]) from.push_back(u << ENTRY_SHIFT);
    if (root.load() < n) from.push_back(root.load());
    std::vector<u8> low = reached(base, n, from);
    std::vector<u32> lost;
    for (u32 s = 0; s < n; s++)
        if (!low[s] && load_link(row_of<false>(base, s)) != EMPTY) lost.push_back(s);
    return lost;
}

}  // namespace vecdb
