// world.h: vectors, graphs and commits for the native tests.
//
// A commit here is what the index does: the writer's vectors are already private copies in its own
// graph; a follower puts the same vectors first and applies the record after.
#pragma once
#include <algorithm>
#include <memory>
#include <set>
#include <stdexcept>

#include "check.h"
#include "dispatch.h"
#include "graph.h"
#include "pool.h"
#include "writer.h"

namespace vecdb {

typedef std::vector<u8> Bytes;

inline Graph::Options options(u32 dim, u32 metric, u32 dtype = F32, u32 M = 8,
                              const char* isa = "") {
    return {{dim, metric, metric == HAMMING ? (u32)B1 : dtype}, M, 60, 64, kernels_for(isa)};
}

const float I8_SPREAD = 50;  // what a query of int8 rows is multiplied with

// n rows around a few centres, as stored bytes.
inline Bytes rows_of_vectors(Random& r, u32 n, u32 dim, u32 dtype = F32, float spread = 1) {
    std::vector<float> centres(16 * (size_t)dim);
    Random fixed(99);
    for (float& c : centres) c = fixed.uniform(-1, 1);
    Bytes out;
    out.reserve((size_t)n * dim * 4);
    for (u32 i = 0; i < n; i++) {
        const float* c = &centres[r.below(16) * (size_t)dim];
        size_t at = out.size();
        if (dtype == B1) out.resize(at + (dim + 7) / 8);
        for (u32 j = 0; j < dim; j++) {
            float v = spread * (c[j] + r.uniform(-.5f, .5f));
            u32 bits;
            memcpy(&bits, &v, 4);
            if (dtype == B1) {
                out[at + j / 8] |= (u8)((v > 0.5f) << (7 - j % 8));
            } else if (dtype == I8) {
                out.push_back((u8)(i8)lrintf(std::min(127.0f, std::max(-128.0f, v * I8_SPREAD))));
            } else if (dtype == F16) {  // |v| of 2^-14 to 2^15: cut the fraction; smaller: zero
                u32 e = bits >> 23 & 255;
                u16 h = e < 113 ? 0 : (u16)((bits >> 16 & 0x8000) | ((e - 112) << 10) | (bits >> 13 & 1023));
                out.push_back((u8)h);
                out.push_back((u8)(h >> 8));
            } else {
                for (int b = 0; b < 4; b++) out.push_back((u8)(bits >> (8 * b)));
            }
        }
    }
    return out;
}
inline std::vector<float> a_query(Random& r, u32 dim, float spread = 1) {  // of F32
    Bytes b = rows_of_vectors(r, 1, dim, F32, spread);
    std::vector<float> q(dim);
    memcpy(q.data(), b.data(), b.size());
    return q;
}

// Inserts rows after the last slot and applies the record; returns the record.
inline Bytes commit(Graph& g, const Bytes& rows, u32 threads = 1) {
    Writer w(g);
    w.insert(g.n_slots(), rows.data(), (u32)(rows.size() / g.options().shape.row_bytes()), threads);
    Bytes record = w.changes();
    g.apply(record.data(), record.size());
    return record;
}
inline void put(Graph& g, u32 first, const Bytes& rows) {
    std::vector<u32> slots(rows.size() / g.options().shape.row_bytes());
    for (u32 i = 0; i < slots.size(); i++) slots[i] = first + i;
    if (!slots.empty()) g.put_vectors(slots.data(), rows.data(), (u32)slots.size());
}

// Every link byte of the published graph.
inline Bytes image(Graph& g) {
    Bytes all;
    for (u32 layer = 0; layer < 2; layer++)
        for (u32 i = 0; i < g.n_chunks(layer); i++) {
            Bytes c = g.chunk(layer, i);
            all.insert(all.end(), c.begin(), c.end());
        }
    return all;
}
inline void load_image(Graph& to, Graph& from) {
    for (u32 layer = 0; layer < 2; layer++)
        for (u32 i = 0; i < from.n_chunks(layer); i++) {
            Bytes c = from.chunk(layer, i);
            to.load_chunk(layer, i, c.data(), c.size());
        }
    to.set_state(from.n_slots(), from.scale());
}

inline void sound(Graph& g) {
    std::vector<std::string> problems = g.check();
    CHECK(problems.empty(), "%zu problems, the first: %s", problems.size(), problems[0].c_str());
    std::vector<u32> lost = g.unreachable();
    CHECK(lost.empty(), "%zu slots cannot be reached, the first: %u", lost.size(), lost[0]);
}

// Sorted, no slot twice, all below `limit` and in the mask.
inline void well_formed(const Found& f, u32 k, u32 limit, const Bytes* mask = nullptr) {
    CHECK(f.n <= k, "%u results for k=%u", f.n, k);
    std::set<u32> seen;
    for (u32 i = 0; i < f.n; i++) {
        CHECK(f.slots[i] < limit, "slot %u of %u", f.slots[i], limit);
        CHECK(seen.insert(f.slots[i]).second, "slot %u twice", f.slots[i]);
        CHECK(!i || f.distances[i - 1] <= f.distances[i], "distances out of order");
        if (mask) CHECK(mask_has(mask->data(), mask->size() * 8, f.slots[i]), "a masked slot");
    }
}

inline Query query(const std::vector<float>& v, u32 k = 10, u32 ef = 64, const Bytes* mask = nullptr) {
    Query q;
    q.vector = v.data();
    q.k = k;
    q.ef = ef;
    q.rr = 2 * k;
    if (mask) {
        q.mask = mask->data();
        q.mask_bytes = mask->size();
    }
    return q;
}
inline ScanQuery scan_query(const std::vector<float>& v, u32 k = 10, const Bytes* mask = nullptr) {
    ScanQuery q;
    q.vector = v.data();
    q.k = k;
    if (mask) {
        q.mask = mask->data();
        q.mask_bytes = mask->size();
    }
    return q;
}
inline std::vector<u32> slots_of(const Found& f) { return {f.slots, f.slots + f.n}; }

// Share of an exact scan's results that walks find, over `n` queries.
template <class G>
double recall(G& g, u32 dim, Random& r, u32 n, const Bytes* mask = nullptr, u32 limit = ~0u,
              float spread = 1) {
    u32 hit = 0, all = 0;
    for (u32 i = 0; i < n; i++) {
        std::vector<float> v = a_query(r, dim, spread);
        std::vector<u32> exact = slots_of(g.scan(scan_query(v, 10, mask)));
        Found f = g.search(query(v, 10, 64, mask));
        well_formed(f, 10, limit, mask);
        for (u32 s : slots_of(f)) hit += std::count(exact.begin(), exact.end(), s) > 0;
        all += (u32)exact.size();
    }
    return all ? (double)hit / all : 1;
}

inline Bytes mask_of(u32 n, const std::vector<u32>& slots) {
    Bytes m((n + 63) / 64 * 8, 0);
    for (u32 s : slots) m[s >> 3] |= (u8)(1 << (s & 7));
    return m;
}

template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

}  // namespace vecdb
