// search.cpp: searches and scans over a Sight: arguments, working memory, selection.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>

#include "graph.h"
#include "pool.h"
#include "writer.h"

namespace vecdb {
namespace {

const u32 LEAST_POOL = 4096;  // the frontier of a masked walk
const u32 SCAN_BATCH = 256;   // rows a scan compares before it looks at their distances

struct Memory : Scratch {
    u64 slots = 0;
    u32 rows = 0, cap = 0, code = 0;
    Memory() { memset((Scratch*)this, 0, sizeof(Scratch)); }
    ~Memory() {
        for (void* p : {(void*)visited, (void*)touched, (void*)pool, (void*)result, (void*)keys,
                        (void*)qcode, (void*)tmpcode, (void*)qvec, (void*)out_slots,
                        (void*)out_dist})
            free(p);
    }
    template <class T>
    void grow(T*& p, u64 n) {
        void* made = nullptr;
        if (posix_memalign(&made, 64, std::max<u64>(64, n * sizeof(T)))) throw std::bad_alloc();
        free(p);
        p = (T*)made;
    }
};

}  // namespace

Scratch& scratch_for(u32 limit, u32 cap, u32 k, const Shape& shape) {
    static thread_local Memory m;
    if (limit > m.slots || !m.visited) {
        u64 n = ((u64)limit + limit / 4 + 1024) / 64 + 1;
        m.slots = 0;
        m.grow(m.visited, n);
        m.grow(m.touched, n);
        memset(m.visited, 0, n * 8);
        m.slots = n * 64;
    }
    cap = std::max(cap, LEAST_POOL);
    if (cap > m.pool_cap) {
        m.pool_cap = 0;
        m.grow(m.pool, (u64)cap + 1);
        m.grow(m.result, (u64)cap + 1);
        m.grow(m.keys, (u64)cap + 1);
        m.pool_cap = cap;
    }
    if (k > m.rows || !m.out_slots) {
        m.rows = 0;
        m.grow(m.out_slots, (u64)k + 1);
        m.grow(m.out_dist, (u64)k + 1);
        m.rows = k;
    }
    if (shape.stride() > m.code) {
        m.code = 0;
        m.grow(m.qcode, shape.stride());
        m.grow(m.tmpcode, shape.stride());
        m.grow(m.qvec, shape.stride());
        m.code = shape.stride();
    }
    return m;
}

Sight Graph::published() const {
    Graph* self = const_cast<Graph*>(this);
    Sight s;
    s.limit = n_slots_.load(std::memory_order_acquire);  // before the codes: they cover it
    s.codes = code_ptr.load(std::memory_order_acquire);
    s.base = layer_view(*self, 0);
    s.entry = layer_view(*self, 1);
    s.root = root.load(std::memory_order_acquire);
    s.starts = starts.node;
    s.overlay = false;
    return s;
}

Found Graph::search_in(const Sight& sight, const Query& q) {
    Found found;
    if (!sight.codes || !sight.limit || !q.k) return found;
    u32 k = std::min(q.k, sight.limit);
    u32 rr = std::min(std::max(q.rr, k), sight.limit), ef = std::max(1u, std::min(q.ef, sight.limit));
    Scratch& s = scratch_for(sight.limit, std::max(ef, rr), k, opt_.shape);
    SearchArgs a;
    memset(&a, 0, sizeof a);
    a.query = q.vector;
    a.dim = opt_.shape.dim;
    a.metric = opt_.shape.metric;
    a.dtype = opt_.shape.dtype;
    a.codes = sight.codes->view();
    a.base = sight.base;
    a.entry = sight.entry;
    a.stored = stored.view();
    a.limit = sight.limit;
    a.n_visible = q.n_visible < 0 || q.n_visible > sight.limit ? sight.limit : (u32)q.n_visible;
    a.mask = q.mask;
    a.mask_bits = q.mask_bytes * 8;
    a.k = k;
    a.ef = ef;
    a.rr = rr;
    a.budget = q.budget;
    a.skip = q.skip < 0 || q.skip >= sight.limit ? NO_SLOT : (u32)q.skip;
    a.root = sight.root;
    a.starts = sight.starts;
    a.overlay = sight.overlay;
    a.scratch = &s;
    opt_.kernels->search(&a);
    found.slots = s.out_slots;
    found.distances = s.out_dist;
    found.n = a.n_out;
    found.n_dist = a.n_dist;
    found.n_hops = a.n_hops;
    found.exhausted = a.exhausted;
    return found;
}

Found Graph::search(const Query& q) {
    Epochs::Reader reader(epochs);
    return search_in(published(), q);
}

std::vector<Answer> Graph::search_many_in(const Sight& sight, const Query& like,
                                          const float* queries, u32 n, u32 threads) {
    std::vector<Answer> answers(n);
    parallel(n, threads, [&](u32 i) {
        Query q = like;
        q.vector = queries + (size_t)i * opt_.shape.dim;
        Found f = search_in(sight, q);
        Answer& a = answers[i];
        a.slots.assign(f.slots, f.slots + f.n);
        a.distances.assign(f.distances, f.distances + f.n);
        a.n_dist = f.n_dist;
        a.n_hops = f.n_hops;
        a.exhausted = f.exhausted;
    });
    return answers;
}

std::vector<Answer> Graph::search_many(const Query& like, const float* queries, u32 n,
                                       u32 threads) {
    Epochs::Reader reader(epochs);
    return search_many_in(published(), like, queries, n, threads);
}

namespace {

// The k least (key, slot) pairs offered; a heap with the worst on top.
struct Best {
    explicit Best(u32 k) : k(k) {}
    void offer(u64 key) {
        if (heap.size() < k) {
            heap.push_back(key);
            std::push_heap(heap.begin(), heap.end());
        } else if (k && key < heap[0]) {
            std::pop_heap(heap.begin(), heap.end());
            heap.back() = key;
            std::push_heap(heap.begin(), heap.end());
        }
    }
    u32 k;
    std::vector<u64> heap;
};

// Floats in an order that unsigned numbers share; a distance to a vector is never NaN.
u32 ordered(float d) {
    u32 b;
    d += 0.0f;  // -0 to 0
    memcpy(&b, &d, 4);
    return b & 0x80000000u ? ~b : b | 0x80000000u;
}
float unordered(u32 b) {
    b = b & 0x80000000u ? b & 0x7FFFFFFFu : ~b;
    float d;
    memcpy(&d, &b, 4);
    return d;
}

struct Scan {
    const Graph::Options& opt;
    const Sight& sight;
    const ScanQuery& q;
    StoredView stored;
    u32 upto;  // slots below it may be results
    const u8* qcode;

    // Compares up to SCAN_BATCH slots by their vectors, and offers them.
    void by_rows(const u32* slots, const u8* const* rows, u32 n, Best& best) const {
        float d[SCAN_BATCH];
        const Shape& s = opt.shape;
        opt.kernels->exact(q.vector, s.dim, s.metric, s.dtype, rows, n, d);
        for (u32 i = 0; i < n; i++) best.offer((u64)ordered(d[i]) << 32 | slots[i]);
    }
    void by_codes(const u32* slots, u32 n, Best& best) const {
        u32 d[SCAN_BATCH];
        CodesView c = sight.codes->view();
        opt.kernels->code_keys(&c, opt.shape.metric, qcode, slots, n, d);
        for (u32 i = 0; i < n; i++) best.offer((u64)d[i] << 32 | slots[i]);
    }
    bool wanted(u32 slot) const {
        return slot < upto && (!q.mask || mask_has(q.mask, q.mask_bytes * 8, slot));
    }
    // Offers what is wanted of positions [from, to) of the slots given, or of all slots.
    void part(u32 from, u32 to, bool exact, Best& best) const {
        u32 ids[SCAN_BATCH], n = 0;
        const u8* rows[SCAN_BATCH];
        for (u32 i = from; i < to; i++) {
            u32 slot = q.slots ? q.slots[i] : i;
            if (!q.slots && q.mask && (i & 7) == 0 && i + 8 <= to) {
                if ((u64)i >> 3 >= q.mask_bytes) break;
                if (!q.mask[i >> 3]) {
                    i += 7;
                    continue;
                }
            }
            if (!wanted(slot)) continue;
            if (exact ? !(rows[n] = stored_row(stored, slot)) : !sight.codes->coded(slot)) continue;
            ids[n++] = slot;
            if (n == SCAN_BATCH) {
                exact ? by_rows(ids, rows, n, best) : by_codes(ids, n, best);
                n = 0;
            }
        }
        if (n) exact ? by_rows(ids, rows, n, best) : by_codes(ids, n, best);
    }
};

}  // namespace

Found Graph::scan_in(const Sight& sight, const ScanQuery& q) {
    Found found;
    bool exact = q.exact || !sight.codes;
    u32 rows = exact ? stored.rows() : sight.codes->rows();  // what may be read
    u32 upto = q.n_visible >= 0 ? (u32)std::min<i64>(q.n_visible, rows)
                                : q.slots ? rows : std::min(sight.limit, rows);
    u32 total = q.slots ? q.n_slots : upto;
    u32 k = std::min(q.k, total);
    if (!k) return found;
    u32 keep = exact ? k : std::min(std::max(q.rr, k), total);
    Scratch& s = scratch_for(0, 0, k, opt_.shape);
    Scan scan = {opt_, sight, q, stored.view(), upto, s.qcode};
    if (!exact) {
        CodesView c = sight.codes->view();
        opt_.kernels->query_code(q.vector, opt_.shape.dim, opt_.shape.metric, c.lo, c.step,
                                 s.qcode, s.qvec, c.stride);
    }
    const u32 part = 8192;  // a multiple of 8: parts begin at whole mask bytes
    u32 parts = (total + part - 1) / part;
    std::vector<Best> bests(q.threads == 1 ? 1 : parts, Best(keep));
    parallel(parts, q.threads, [&](u32 i) {
        u32 to = (u32)std::min<u64>(total, (u64)(i + 1) * part);
        scan.part(i * part, to, exact, bests[q.threads == 1 ? 0 : i]);
    });
    for (u32 i = 1; i < bests.size(); i++)
        for (u64 key : bests[i].heap) bests[0].offer(key);
    std::vector<u64>& keys = bests[0].heap;
    std::sort(keys.begin(), keys.end());
    if (!exact) {
        Best final(k);
        u32 ids[SCAN_BATCH], n = 0;
        const u8* rows[SCAN_BATCH];
        for (u64 key : keys) {
            rows[n] = stored_row(scan.stored, ids[n] = (u32)key);
            n += rows[n] != nullptr;
            if (n == SCAN_BATCH) {
                scan.by_rows(ids, rows, n, final);
                n = 0;
            }
        }
        if (n) scan.by_rows(ids, rows, n, final);
        keys = std::move(final.heap);
        std::sort(keys.begin(), keys.end());
    }
    found.n = (u32)keys.size();
    for (u32 i = 0; i < found.n; i++) {
        s.out_slots[i] = (u32)keys[i];
        s.out_dist[i] = unordered((u32)(keys[i] >> 32));
    }
    found.slots = s.out_slots;
    found.distances = s.out_dist;
    found.n_dist = total;
    return found;
}

Found Graph::scan(const ScanQuery& q) {
    Epochs::Reader reader(epochs);
    return scan_in(published(), q);
}

// Exact distances; NaN for a slot without a vector.
void Graph::distances(const float* query, const u32* slots, u32 n, float* out) {
    Epochs::Reader reader(epochs);
    const Shape& s = opt_.shape;
    const u8* rows[SCAN_BATCH];
    for (u32 i = 0; i < n; i += SCAN_BATCH) {
        u32 m = std::min(SCAN_BATCH, n - i);
        for (u32 j = 0; j < m; j++) rows[j] = stored.row(slots[i + j]);
        opt_.kernels->exact(query, s.dim, s.metric, s.dtype, rows, m, out + i);
    }
}

}  // namespace vecdb
