// walk.inl: the search loop. Included by every instruction-set unit, inside its namespace.
//
// 1. One hop: gather the unvisited neighbours of the nearest unexpanded node, prefetch their
//    whole codes AHEAD ahead, compare four at a time. Cache lines decide, arithmetic does not.
// 2. The pool is a sorted array of keys (distance << 32 | expanded << 31 | id); insertion moves
//    memory. The walk ends when the best `width` entries are expanded; the pool may hold more.
// 3. A masked walk keeps its frontier apart from its matches, so that rows which may not be
//    results cost time but never a place; it ends at the width-th best match.
// 4. visited is cleared through the list of touched words.
// Rejected: a heap (slower at these sizes), row prefetch, two nodes a step (no gain measured).

static const u32 AHEAD = 6;
static const u64 EXPANDED = 0x80000000u;
static const u32 FRONTIER = 4096;  // most entries of a masked walk's frontier

static inline void prefetch_line(const u8* p) {
#if defined(__x86_64__)
    asm volatile("prefetcht0 %0" : : "m"(*p));  // GCC 12 drops builtin prefetches in loops
#elif defined(__aarch64__)
    asm volatile("prfm pldl1keep, [%0]" : : "r"(p));
#else
    __builtin_prefetch(p);
#endif
}
static inline void prefetch_bytes(const u8* p, u32 n) {
    for (u32 i = 0; i < n; i += 64) prefetch_line(p + i);
}

// How codes are compared: squares of differences, products with a signed query, bits that differ.
enum Kind { SQUARES, PRODUCTS, BITS };

struct QueryCode {
    const u8* bytes;
    i32 offset;  // dot: what a query in signed bytes adds to every product
};

// Ordered keys of four codes, or of one: smaller is nearer.
template <Kind K>
static inline void keys4(const QueryCode& q, const u8* const* p, u32 n, u32* out) {
    if (K == PRODUCTS) {
        i32 s[4];
        code_dotx4(q.bytes, p, n, s);
        for (int i = 0; i < 4; i++) out[i] = 0x80000000u - (u32)(s[i] - q.offset);
    } else if (K == BITS) {
        bitsx4(q.bytes, p, n, out);
    } else {
        code_l2x4(q.bytes, p, n, out);
    }
}
template <Kind K>
static inline u32 key1(const QueryCode& q, const u8* p, u32 n) {
    if (K == PRODUCTS) return 0x80000000u - (u32)(code_dot(p, q.bytes, n) - q.offset);
    if (K == BITS) return bits(q.bytes, p, n);
    return code_l2(q.bytes, p, n);
}

// Keys of n ids in order, with prefetch; each goes to f(index, key).
template <Kind K, class F>
static inline void each_key(const CodesView& c, u32 shift, const QueryCode& q, const u32* ids,
                            u32 n, F f) {
    const u8* p[MAX_ROW];
    u32 stride = c.stride, first = n < AHEAD ? n : AHEAD;
    for (u32 i = 0; i < n; i++) p[i] = code_of(c, ids[i] << shift);
    for (u32 i = 0; i < first; i++) prefetch_bytes(p[i], stride);
    u32 i = 0;
    for (; i + 4 <= n; i += 4) {
        u32 d[4];
        for (u32 j = i + AHEAD; j < i + AHEAD + 4 && j < n; j++) prefetch_bytes(p[j], stride);
        keys4<K>(q, p + i, stride, d);
        for (u32 j = 0; j < 4; j++) f(i + j, d[j]);
    }
    for (; i < n; i++) f(i, key1<K>(q, p[i], stride));
}

static inline bool visit(Scratch& s, u32 id) {
    u64 bit = 1ull << (id & 63), w = s.visited[id >> 6];
    if (w & bit) return false;
    if (!w) s.touched[s.n_touched++] = id >> 6;
    s.visited[id >> 6] = w | bit;
    return true;
}
static inline void forget(Scratch& s) {
    for (u32 i = 0; i < s.n_touched; i++) s.visited[s.touched[i]] = 0;
    s.n_touched = 0;
}

template <bool OV>
static inline u32 gather(const LayerView& l, u32 u, u32 limit, Scratch& s, u32* out) {
    const u32* row = row_of<OV>(l, u);
    u32 n = 0;
    for (u32 j = 0; j < l.R; j++) {
        u32 e = load_link(row + j);
        if (e >= ALONE) break;
        u32 id = e & ID;
        if (id < limit && visit(s, id)) out[n++] = id;
    }
    return n;
}

// First place whose key is above k.
static inline u32 place(const u64* a, u32 n, u64 k) {
    const u64* base = a;
    while (n > 1) {
        u32 half = n / 2;
        base += base[half - 1] < k ? half : 0;
        n -= half;
    }
    return (u32)(base - a) + (n && *base < k);
}
// Inserts into a sorted array of at most cap keys; returns the place, or cap when it is full
// of better ones.
static inline u32 put(u64* a, u32& n, u32 cap, u64 k) {
    if (n == cap) {
        if (k >= a[n - 1]) return cap;
        n--;
    }
    u32 at = place(a, n, k);
    __builtin_memmove(a + at + 1, a + at, (size_t)(n - at) * 8);
    a[at] = k;
    n++;
    return at;
}

struct Walk {
    const CodesView* codes;
    Scratch* s;
    u32 limit;  // ids of this layer
    u64 n_dist, n_hops, budget;
    bool exhausted;
};

// The walk without a mask. The pool holds `size` start entries; visited knows them.
template <Kind K, bool OV>
static u32 walk(Walk& w, const LayerView& l, const QueryCode& q, u32 size, u32 width, u32 cap) {
    u64* pool = w.s->pool;
    u32 cursor = 0, ids[MAX_ROW];
    while (cursor < size && cursor < width) {
        u64 k = pool[cursor];
        if (k & EXPANDED) {
            cursor++;
            continue;
        }
        if (w.budget && w.n_dist >= w.budget) {
            w.exhausted = true;
            break;
        }
        pool[cursor++] = k | EXPANDED;
        u32 n = gather<OV>(l, (u32)k & ID, w.limit, *w.s, ids);
        w.n_hops++;
        w.n_dist += n;
        each_key<K>(*w.codes, l.shift, q, ids, n, [&](u32 i, u32 d) {
            u32 at = put(pool, size, cap, (u64)d << 32 | ids[i]);
            if (at < cursor) cursor = at;
        });
    }
    return size;
}

struct Wanted {
    const u8* mask;
    u64 mask_bits;
    u32 n_visible, skip;
    inline bool has(u32 slot) const {
        return slot < n_visible && slot != skip && (!mask || mask_has(mask, mask_bits, slot));
    }
};

// The walk with a mask: pool is the frontier, result the matches. Both hold their starts.
template <Kind K, bool OV>
static u32 walk_masked(Walk& w, const LayerView& l, const QueryCode& q, const Wanted& want,
                       u32 size, u32 found, u32 width, u32 cap) {
    u64 *pool = w.s->pool, *result = w.s->result;
    u32 cursor = 0, ids[MAX_ROW];
    u64 bound = found >= width ? result[width - 1] : ~0ull;
    while (cursor < size) {
        u64 k = pool[cursor];
        if (k & EXPANDED) {
            cursor++;
            continue;
        }
        if (k > bound) break;
        if (w.budget && w.n_dist >= w.budget) {
            w.exhausted = true;
            break;
        }
        pool[cursor++] = k | EXPANDED;
        u32 n = gather<OV>(l, (u32)k & ID, w.limit, *w.s, ids);
        w.n_hops++;
        w.n_dist += n;
        each_key<K>(*w.codes, l.shift, q, ids, n, [&](u32 i, u32 d) {
            u64 key = (u64)d << 32 | ids[i];
            if (want.has(ids[i] << l.shift) && put(result, found, cap, key) < width && found >= width) {
                bound = result[width - 1];
                while (size > cursor && pool[size - 1] > (bound | EXPANDED)) size--;
            }
            if (key <= bound) {
                u32 at = put(pool, size, FRONTIER, key);
                if (at < cursor) cursor = at;
            }
        });
    }
    return found;
}

// Leaves the nearest entry nodes in the pool (ids of the entry layer, sorted) and returns how
// many. visited is clean on return. Starts that are not in the graph yet are passed over.
template <Kind K, bool OV>
static u32 entries(Walk& w, const LayerView& l, const u32* starts, const QueryCode& q, u32 width,
                   u32 cap) {
    u32 ids[ENTRY_SCAN], n = 0, size = 0, listed = 0;
    for (; listed < ENTRY_SCAN; listed++) {
        u32 u = load_link(starts + listed);
        if (u == NO_SLOT) break;  // there are no others
        if (u < w.limit && load_link(row_of<OV>(l, u)) != EMPTY && visit(*w.s, u)) ids[n++] = u;
    }
    w.n_dist += n;
    each_key<K>(*w.codes, l.shift, q, ids, n, [&](u32 i, u32 d) {
        put(w.s->pool, size, cap, (u64)d << 32 | ids[i]);
    });
    if (listed == ENTRY_SCAN && w.limit > ENTRY_SCAN)
        size = walk<K, OV>(w, l, q, size, width, cap);
    forget(*w.s);
    return size;
}

// The bits of numbers above one half, the first in the highest place of the first byte.
static inline void pack_bits(const float* q, u32 dim, u8* out) {
    __builtin_memset(out, 0, bytes_of_row(dim, B1));
    for (u32 i = 0; i < dim; i++) out[i >> 3] |= (u8)((q[i] > 0.5f) << (7 - (i & 7)));
}

static inline QueryCode make_query(const float* q, u32 dim, u32 metric, const CodesView& c,
                                   u8* out, float* tmp) {
    (void)tmp;
    QueryCode code = {out, 0};
    if (metric == HAMMING) {
        pack_bits(q, dim, out);
        u32 bytes = bytes_of_row(dim, B1);
        __builtin_memset(out + bytes, 0, c.stride - bytes);
        return code;
    }
    if (metric == DOT) {
        float top = 0;
        for (u32 i = 0; i < dim; i++) {
            float a = __builtin_fabsf(q[i]);
            top = a > top && a <= 3.4e38f ? a : top;
        }
        encode_signed(q, dim, top > 0 ? 127.0f / top : 0.0f, out);
        __builtin_memset(out + dim, 0, c.stride - dim);
        i32 sum = 0;
        for (u32 i = 0; i < dim; i++) sum += (int8_t)out[i];
        code.offset = 64 * sum;
        return code;
    }
    float scale = 1.0f;
    if (metric == COSINE) {
        float xx;
        dot_f32(q, q, dim, &xx);
        scale = xx > 0 ? 1.0f / __builtin_sqrtf(xx) : 1.0f;
    }
    encode_row(q, dim, scale, c.lo, 1.0f / c.step, out);
    __builtin_memset(out + dim, 0, c.stride - dim);
    return code;
}

struct ExactQuery {
    const float* q;
    u32 dim, metric, dtype;
    float norm;
    const u8* packed;  // the query's bits, under HAMMING
};
static inline ExactQuery exact_query(const float* q, u32 dim, u32 metric, u32 dtype,
                                     const u8* packed) {
    ExactQuery e = {q, dim, metric, dtype, 0.0f, packed};
    if (metric == COSINE) {
        dot_f32(q, q, dim, &e.norm);
        e.norm = __builtin_sqrtf(e.norm);
    }
    return e;
}
static inline float l2_of(const ExactQuery& e, const u8* row) {
    if (e.dtype == F32) return l2_f32(e.q, (const float*)row, e.dim);
    if (e.dtype == F16) return l2_f16(e.q, (const u16*)row, e.dim);
    return l2_i8(e.q, (const i8*)row, e.dim);
}
static inline float dot_of(const ExactQuery& e, const u8* row, float* xx) {
    if (e.dtype == F32) return dot_f32(e.q, (const float*)row, e.dim, xx);
    if (e.dtype == F16) return dot_f16(e.q, (const u16*)row, e.dim, xx);
    return dot_i8(e.q, (const i8*)row, e.dim, xx);
}
// The distance of the API; NaN becomes infinity, so that every order is total.
static inline float exact_distance(const ExactQuery& e, const u8* row) {
    float d, xx;
    if (e.metric == L2) {
        d = __builtin_sqrtf(l2_of(e, row));
    } else if (e.metric == HAMMING) {
        d = (float)bits(e.packed, row, (e.dim + 7) / 8);
    } else {
        float s = dot_of(e, row, &xx);
        if (e.metric == DOT) {
            d = -s;
        } else {
            float norms = e.norm * __builtin_sqrtf(xx);
            d = norms > 0 ? 1.0f - s / norms : 1.0f;
            d = d < 0.0f ? 0.0f : d > 2.0f ? 2.0f : d;
        }
    }
    return d == d ? d : __builtin_inff();
}

// Ranks the first `n` ids of keys by their stored vectors; a slot without one is left out.
static u32 rerank(SearchArgs& a, const QueryCode& q, const u64* keys, u32 n) {
    Scratch& s = *a.scratch;
    ExactQuery e = exact_query(a.query, a.dim, a.metric, a.dtype, q.bytes);
    u32 found = 0, bytes = a.stored.row_bytes < 1024 ? a.stored.row_bytes : 1024;
    const u8* next = n ? stored_row(a.stored, (u32)keys[0] & ID) : nullptr;
    if (next) prefetch_bytes(next, bytes);
    for (u32 i = 0; i < n; i++) {
        const u8* row = next;
        u32 slot = (u32)keys[i] & ID;
        next = i + 1 < n ? stored_row(a.stored, (u32)keys[i + 1] & ID) : nullptr;
        if (next) prefetch_bytes(next, bytes);
        if (!row) continue;
        float d = exact_distance(e, row);
        u32 j = found;
        if (found == a.k) {
            float last = s.out_dist[j - 1];
            if (d > last || (d == last && slot > s.out_slots[j - 1])) continue;
            j--;
        } else {
            found++;
        }
        for (; j > 0; j--) {
            if (s.out_dist[j - 1] < d || (s.out_dist[j - 1] == d && s.out_slots[j - 1] < slot))
                break;
            s.out_dist[j] = s.out_dist[j - 1];
            s.out_slots[j] = s.out_slots[j - 1];
        }
        s.out_dist[j] = d;
        s.out_slots[j] = slot;
    }
    return found;
}

// The layer's first node as one more start, where it is no node of the entry layer: nothing but the
// place where walks begin is sure to lead to it.
template <Kind K>
static void add_root(Walk& w, u32 root, u32 limit, const QueryCode& q, u32& size) {
    if (!(root & ((1u << ENTRY_SHIFT) - 1)) || root >= limit || !visit(*w.s, root)) return;
    u32 d = key1<K>(q, code_of(*w.codes, root), w.codes->stride);
    w.n_dist++;
    put(w.s->pool, size, 2, (u64)d << 32 | root);
}

template <Kind K, bool OV>
static void search_as(SearchArgs& a) {
    Scratch& s = *a.scratch;
    QueryCode q = make_query(a.query, a.dim, a.metric, a.codes, s.qcode, s.qvec);
    u32 rr = a.rr > a.k ? a.rr : a.k, cap = a.ef > rr ? a.ef : rr;
    Wanted want = {a.mask, a.mask_bits, a.n_visible, a.skip};
    bool masked = a.mask || a.n_visible < a.limit;
    u32 ordinals = (u32)(((u64)a.limit + (1u << ENTRY_SHIFT) - 1) >> ENTRY_SHIFT);
    Walk w = {&a.codes, &s, ordinals, 0, 0, 0, false};

    u32 n = entries<K, OV>(w, a.entry, a.starts, q, 1, masked ? 16 : 2);
    u64* pool = s.pool;
    u32 size = 0, found = 0;
    if (n) {  // the nearest that may be a result, else the nearest
        u32 at = 0;
        if (masked || a.skip != NO_SLOT)
            for (u32 i = 0; i < n; i++)
                if (want.has(((u32)pool[i] & ID) << ENTRY_SHIFT)) {
                    at = i;
                    break;
                }
        pool[0] = (pool[at] & ~0xFFFFFFFFull) | ((u32)pool[at] & ID) << ENTRY_SHIFT;
        size = 1;
    } else if (a.root < a.limit) {
        pool[0] = (u64)key1<K>(q, code_of(a.codes, a.root), a.codes.stride) << 32 | a.root;
        w.n_dist++;
        size = 1;
    }
    w.limit = a.limit;
    w.budget = a.budget;
    const u64* keys = pool;
    if (size) visit(s, (u32)pool[0] & ID);
    if (n) add_root<K>(w, a.root, a.limit, q, size);
    if (a.skip != NO_SLOT) visit(s, a.skip);  // as if it were not there: its links are not read
    if (masked) {
        for (u32 i = 0; i < size; i++)
            if (want.has((u32)pool[i] & ID)) s.result[found++] = pool[i];
        size = walk_masked<K, OV>(w, a.base, q, want, size, found, a.ef, cap);
        keys = s.result;
    } else {
        size = walk<K, OV>(w, a.base, q, size, a.ef, cap);
    }
    forget(s);
    a.n_out = rerank(a, q, keys, size < rr ? size : rr);
    a.n_dist = w.n_dist;
    a.n_hops = w.n_hops;
    a.exhausted = w.exhausted;
}

static void search(SearchArgs* a) {
    if (a->metric == DOT)
        a->overlay ? search_as<PRODUCTS, true>(*a) : search_as<PRODUCTS, false>(*a);
    else if (a->metric == HAMMING)
        a->overlay ? search_as<BITS, true>(*a) : search_as<BITS, false>(*a);
    else
        a->overlay ? search_as<SQUARES, true>(*a) : search_as<SQUARES, false>(*a);
}
