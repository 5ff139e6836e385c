// audit.cpp: what must hold of the links, checked whole, and which slots no walk can reach.
#include <algorithm>
#include <string>

#include "graph.h"

namespace vecdb {
namespace {

const size_t MOST_PROBLEMS = 100;

std::string row_name(u32 layer, u32 u) {
    return (layer ? "entry row " : "row ") + std::to_string(u);
}

// One row: filled from the front, in range, no loop, no link twice, nothing to what is not there.
void check_row(Graph& g, u32 layer, u32 u, u32 rows, std::vector<std::string>& problems) {
    const u32* row = (const u32*)g.links(layer).row(u);
    u32 R = g.width(layer);
    std::vector<u32> seen;
    bool ended = false;
    for (u32 j = 0; j < R; j++) {
        u32 e = load_link(row + j);
        if (e == ALONE && j == 0) {
            ended = true;
            continue;
        }
        if (e >= ALONE) {
            ended = true;
            continue;
        }
        u32 id = e & ID;
        if (ended) problems.push_back(row_name(layer, u) + " has a link after its end");
        if (id >= rows)
            problems.push_back(row_name(layer, u) + " links to " + std::to_string(id) +
                               ", which is not there");
        else if (id == u)
            problems.push_back(row_name(layer, u) + " links to itself");
        else if (load_link((const u32*)g.links(layer).row(id)) == EMPTY)
            problems.push_back(row_name(layer, u) + " links to " + std::to_string(id) +
                               ", which is not in the graph");
        seen.push_back(id);
    }
    std::sort(seen.begin(), seen.end());
    if (std::adjacent_find(seen.begin(), seen.end()) != seen.end())
        problems.push_back(row_name(layer, u) + " has a link twice");
}

}  // namespace

std::vector<std::string> Graph::check() {
    std::lock_guard<std::mutex> hold(write_mutex);
    std::vector<std::string> problems;
    u32 n = n_slots();
    for (u32 layer = 0; layer < 2; layer++) {
        u32 rows = rows_of(layer, n);
        for (u32 u = 0; u < rows && problems.size() < MOST_PROBLEMS; u++)
            if (load_link((const u32*)links(layer).row(u)) != EMPTY)
                check_row(*this, layer, u, rows, problems);
    }
    for (u32 s = 0; s < n && problems.size() < MOST_PROBLEMS; s++) {
        bool linked = load_link((const u32*)base_links.row(s)) != EMPTY;
        if (linked && !stored.has(s))
            problems.push_back(row_name(0, s) + " is in the graph without a vector");
        if (linked && codes && !codes->coded(s))
            problems.push_back(row_name(0, s) + " is in the graph without a code");
        if (!linked && stored.has(s))
            problems.push_back(row_name(0, s) + " has a vector and is not in the graph");
    }
    return problems;
}

// Breadth first along all links from the entry nodes and the root.
std::vector<u32> Graph::unreachable() {
    std::lock_guard<std::mutex> hold(write_mutex);
    u32 n = n_slots();
    std::vector<bool> seen(n, false);
    std::vector<u32> queue, lost;
    auto reach = [&](u32 slot) {
        if (slot < n && !seen[slot]) {
            seen[slot] = true;
            queue.push_back(slot);
        }
    };
    u32 first = root.load(std::memory_order_acquire);
    if (first < n) reach(first);
    for (size_t at = 0; at < queue.size(); at++) {
        const u32* row = (const u32*)base_links.row(queue[at]);
        for (u32 j = 0; j < width(0); j++) {
            u32 e = load_link(row + j);
            if (e >= ALONE) break;
            reach(e & ID);
        }
    }
    for (u32 s = 0; s < n; s++)
        if (!seen[s] && load_link((const u32*)base_links.row(s)) != EMPTY) lost.push_back(s);
    return lost;
}

}  // namespace vecdb
