// build.inl: linking one node into a layer. Included by every instruction-set unit.
//
// 1. The new row takes the diverse candidates first (c is rejected when a kept s has
//    alpha * d(s, c) <= d(q, c)), then the nearest rejected ones until it is full.
// 2. Back-links go along the diverse ones only. A full row overwrites one victim in place: its
//    farthest filler, or the newcomer itself. Which links are diverse is kept in one bit each,
//    so that a newcomer costs at most 2R distances; unknown bits are computed once.
// 3. The first back-link that succeeds is pinned and never a victim. If no diverse candidate
//    takes one, the others are tried, then one is forced, then a descendant along pins that has
//    room: so every node is reachable from the layer's first, which has the lowest number. A node
//    that comes before it pins a link to it instead and is the first from then on.
// 4. A row is changed under its lock, entry by entry; readers need none.
// 5. With a mask, new links lead to its slots only, so that what is deleted is not linked to again; a
//    layer all of whose other nodes are masked out is entered at its first one. Pins may go further
//    down than the mask allows (descend): unlinking moves them.
// Rejected: shrinking a full row to fewer links (a bigger log), links as an ordered list.

static inline void lock_row(u8* locks, u32 u) {
    u8* l = locks + ((u * 2654435761u) >> 20);  // 4,096 of them
    while (__atomic_test_and_set(l, __ATOMIC_ACQUIRE)) {
        for (int i = 0; i < 64 && __atomic_load_n(l, __ATOMIC_RELAXED); i++) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        if (__atomic_load_n(l, __ATOMIC_RELAXED)) sched_yield();
    }
}
static inline void unlock_row(u8* locks, u32 u) {
    __atomic_clear(locks + ((u * 2654435761u) >> 20), __ATOMIC_RELEASE);
}

// A stored code as a query: itself, or its signed form in `buf`.
template <Kind K>
static inline QueryCode as_query(const u8* code, u32 n, u8* buf) {
    if (K != PRODUCTS) return {code, 0};
    i32 sum = 0;
    for (u32 i = 0; i < n; i++) {
        buf[i] = (u8)(code[i] - 64);
        sum += (int8_t)buf[i];
    }
    return {buf, 64 * sum};
}

template <Kind K>
static inline bool covers(u32 between, u32 to_query, u32 alpha) {
    if (K == PRODUCTS) return between <= to_query;
    return (u64)between * alpha <= (u64)to_query << 8;
}

// Whether one of n kept nodes rejects the candidate with this code and key.
template <Kind K>
static inline bool rejected(const InsertArgs& a, const u8* code, u32 key, const u8* const* kept,
                            u32 n) {
    QueryCode c = as_query<K>(code, a.codes.stride, a.scratch->tmpcode);
    u32 i = 0, d[4];
    for (; i + 4 <= n; i += 4) {
        keys4<K>(c, kept + i, a.codes.stride, d);
        if (covers<K>(d[0], key, a.alpha) | covers<K>(d[1], key, a.alpha) |
            covers<K>(d[2], key, a.alpha) | covers<K>(d[3], key, a.alpha))
            return true;
    }
    for (; i < n; i++)
        if (covers<K>(key1<K>(c, kept[i], a.codes.stride), key, a.alpha)) return true;
    return false;
}

// Chooses up to R of the sorted candidates: diverse ones first. Returns how many are diverse.
template <Kind K>
static u32 choose(const InsertArgs& a, const u64* keys, u32 n, u32* ids, u32* count) {
    const u8* kept[MAX_ROW];
    u32 R = a.layer.R, diverse = 0, fillers = 0, filler[MAX_ROW];
    for (u32 i = 0; i < n && diverse < R; i++) {
        u32 id = (u32)keys[i] & ID;
        const u8* code = code_of(a.codes, id << a.layer.shift);
        if (rejected<K>(a, code, (u32)(keys[i] >> 32), kept, diverse)) {
            if (fillers < R) filler[fillers++] = id;
        } else {
            kept[diverse] = code;
            ids[diverse++] = id;
        }
    }
    u32 total = diverse;
    for (u32 i = 0; i < fillers && total < R; i++) ids[total++] = filler[i];
    *count = total;
    return diverse;
}

struct Bits {  // bit j: link j is diverse; bit R: the others are known
    u64* w;
    u32 R;
    inline bool get(u32 j) const { return w[j >> 6] >> (j & 63) & 1; }
    inline void set(u32 j, bool on) {
        u64 b = 1ull << (j & 63);
        w[j >> 6] = on ? w[j >> 6] | b : w[j >> 6] & ~b;
    }
    inline bool known() const { return get(R); }
    inline void clear() {
        for (u32 i = 0; i <= R >> 6; i++) w[i] = 0;
    }
};
static inline Bits bits_of(const InsertArgs& a, u32 u) {
    return {a.bits_seg[u >> SEG_SHIFT] + (size_t)(u & SEG_MASK) * a.bits_words, a.layer.R};
}

// Marks the diverse links of a full row anew; dist: keys from the row's owner to its links.
template <Kind K>
static void know(const InsertArgs& a, Bits bits, const u32* row, const u32* dist, u32 R) {
    u64 order[MAX_ROW];
    const u8* kept[MAX_ROW];
    u32 n = 0, diverse = 0;
    for (u32 j = 0; j < R; j++) put(order, n, MAX_ROW, (u64)dist[j] << 32 | j);
    bits.clear();
    for (u32 i = 0; i < R; i++) {
        u32 j = (u32)order[i], id = load_link(row + j) & ID;
        const u8* code = code_of(a.codes, id << a.layer.shift);
        if (rejected<K>(a, code, dist[j], kept, diverse)) continue;
        kept[diverse++] = code;
        bits.set(j, true);
    }
    bits.set(R, true);
}

// The position that newcomer q takes in n's full row, R for none. Updates the bits.
template <Kind K>
static u32 victim(const InsertArgs& a, u32 n, u32 q, const u32* row, bool force) {
    u32 R = a.layer.R, shift = a.layer.shift, stride = a.codes.stride;
    const u8* qcode = code_of(a.codes, q << shift);
    u32 ids[MAX_ROW], dist[MAX_ROW], to_q = 0;
    for (u32 j = 0; j < R; j++) ids[j] = load_link(row + j) & ID;
    QueryCode c = as_query<K>(code_of(a.codes, n << shift), stride, a.scratch->tmpcode);
    each_key<K>(a.codes, shift, c, ids, R, [&](u32 i, u32 d) { dist[i] = d; });
    to_q = key1<K>(c, qcode, stride);
    Bits bits = bits_of(a, n);
    if (!bits.known()) know<K>(a, bits, row, dist, R);

    c = as_query<K>(qcode, stride, a.scratch->tmpcode);
    bool q_diverse = true;
    for (u32 j = 0; j < R && q_diverse; j++)
        if (bits.get(j) && dist[j] <= to_q)
            q_diverse = !covers<K>(
                key1<K>(c, code_of(a.codes, ids[j] << shift), stride), to_q, a.alpha);
    if (q_diverse)
        for (u32 j = 0; j < R; j++)
            if (bits.get(j) && dist[j] > to_q &&
                covers<K>(key1<K>(c, code_of(a.codes, ids[j] << shift), stride),
                               dist[j], a.alpha))
                bits.set(j, false);
    // fillers go before diverse links, farther ones first; a tie keeps what is there
    u32 at = R, worst = 0;
    bool worst_filler = false;
    for (u32 j = 0; j < R; j++) {
        bool filler = !bits.get(j);
        if (load_link(row + j) & PIN) continue;
        if (at == R || filler > worst_filler || (filler == worst_filler && dist[j] > worst)) {
            at = j;
            worst = dist[j];
            worst_filler = filler;
        }
    }
    if (at == R) return R;
    bool better = worst_filler > !q_diverse || (worst_filler == !q_diverse && worst > to_q);
    if (!better && !force) return R;
    bits.set(at, q_diverse);
    return at;
}

// Offers the link n -> q; true when n now has it.
template <Kind K>
static bool offer(InsertArgs& a, u32 n, u32 q, bool pin, bool force) {
    bool done = false;
    u32 R = a.layer.R;
    lock_row(a.locks, n);
    const u32* seen = row_of<true>(a.layer, n);
    u32 count = 0;
    while (count < R && load_link(seen + count) < ALONE) count++;
    u32 at = count < R ? count : victim<K>(a, n, q, seen, force);
    if (at < R) {
        if (count < R) bits_of(a, n).clear();
        u32* row = a.own_row(a.owner, a.layer.shift, n);
        if (row) {
            store_link(row + at, q | (pin ? PIN : 0));
            done = true;
        }
    }
    unlock_row(a.locks, n);
    return done;
}

static inline bool linkable(const InsertArgs& a, u32 node) {
    return !a.mask || mask_has(a.mask, a.mask_bits, node << a.layer.shift);
}

// Down the pins from n until a row takes q: ends, because the tree of pins has leaves. Where a
// damaged image makes a circle of them, the way comes back to a row that was marked (Brent's
// method: the mark moves on after 1, 2, 4, ... steps), and q stays without a pin: check() tells.
template <Kind K>
static void descend(InsertArgs& a, u32 n, u32 q) {
    u32 mark = EMPTY, steps = 0, next_mark = 1;
    for (;;) {
        if (n == mark || offer<K>(a, n, q, true, true)) return;
        if (++steps == next_mark) {
            mark = n;
            next_mark *= 2;
        }
        const u32* row = row_of<true>(a.layer, n);
        u32 R = a.layer.R, child = EMPTY;
        u32 start = q % R;  // spread over the children
        for (u32 j = 0; j < R; j++) {
            u32 e = load_link(row + (start + j) % R);
            if (e < ALONE && (e & PIN) && (e & ID) != q) {
                child = e & ID;
                if (linkable(a, child)) break;
            }
        }
        if (child == EMPTY) return;  // out of memory for a private row
        n = child;
    }
}

// The layer's first node as the only candidate, where there is another than q: how many that is.
template <Kind K>
static u32 first_of(const InsertArgs& a, const QueryCode& code, u32 q) {
    u32 first = a.layer.shift ? load_link(a.starts) : a.root;
    if (first == NO_SLOT || first == q || (first << a.layer.shift) >= a.limit) return 0;
    const u8* its = code_of(a.codes, first << a.layer.shift);
    a.scratch->keys[0] = (u64)key1<K>(code, its, a.codes.stride) << 32 | first;
    return 1;
}

template <Kind K>
static void insert_as(InsertArgs& a) {
    Scratch& s = *a.scratch;
    u32 shift = a.layer.shift, q = a.slot >> shift, R = a.layer.R;
    QueryCode code =
        as_query<K>(code_of(a.codes, a.slot), a.codes.stride, s.qcode);
    u32 ordinals = (u32)(((u64)a.limit + (1u << ENTRY_SHIFT) - 1) >> ENTRY_SHIFT);
    Walk w = {&a.codes, &s, ordinals, 0, 0, 0, false};
    u32 size;
    const u64* found_in = s.pool;
    if (shift) {
        size = entries<K, true>(w, a.entry, a.starts, code, a.ef, a.ef);
        if (w.limit <= ENTRY_SCAN && size > a.ef) size = a.ef;
    } else {
        size = entries<K, true>(w, a.entry, a.starts, code, 1, 2);
        if (size) {
            s.pool[0] = (s.pool[0] & ~0xFFFFFFFFull) | ((u32)s.pool[0] & ID) << ENTRY_SHIFT;
            size = 1;
        } else if (a.root < a.limit) {
            u32 d = key1<K>(code, code_of(a.codes, a.root), a.codes.stride);
            s.pool[0] = (u64)d << 32 | a.root;
            size = 1;
        }
        w.limit = a.limit;
        if (size) visit(s, (u32)s.pool[0] & ID);
        if (size && a.root != q) add_root<K>(w, a.root, a.limit, code, size);
        if (a.mask) {
            Wanted want = {a.mask, a.mask_bits, a.limit, q};
            u32 found = 0;
            for (u32 i = 0; i < size; i++)
                if (want.has((u32)s.pool[i] & ID)) s.result[found++] = s.pool[i];
            size = walk_masked<K, true>(w, a.layer, code, want, size, found, a.ef, a.ef);
            found_in = s.result;
        } else {
            size = walk<K, true>(w, a.layer, code, size, a.ef, a.ef);
        }
        forget(s);
    }
    u32 n = 0;  // candidates, the node itself left out
    for (u32 i = 0; i < size; i++) {
        u32 id = (u32)found_in[i] & ID;
        if (id != q && linkable(a, id)) s.keys[n++] = found_in[i] & ~EXPANDED;
    }
    if (!n && a.mask) n = first_of<K>(a, code, q);

    u32 ids[MAX_ROW], count = 0, diverse = choose<K>(a, s.keys, n, ids, &count);
    bool pinned = a.first != EMPTY && count;  // the first node has no pinned link to it
    if (pinned) {
        u32 j = 0;
        while (j < count && ids[j] != a.first) j++;
        if (j == R) j--;  // in place of the last
        if (j == count) count++;
        if (j < diverse && ids[j] != a.first) diverse = j;
        ids[j] = a.first | PIN;
    }
    lock_row(a.locks, q);
    u32* own = a.own_row(a.owner, shift, q);
    if (own && !a.keep) {
        for (u32 j = 0; j < R; j++) store_link(own + j, j < count ? ids[j] : EMPTY);
        if (!count) store_link(own, ALONE);
        Bits bits = bits_of(a, q);
        bits.clear();
        for (u32 j = 0; j < diverse; j++) bits.set(j, true);
        bits.set(R, count == R);
    }
    unlock_row(a.locks, q);
    if (!own || !count) return;

    for (u32 j = 0; j < diverse; j++)
        pinned |= offer<K>(a, ids[j] & ID, q, !pinned, false);
    for (int force = 0; force < 2 && !pinned; force++)
        for (u32 i = 0; i < n && !pinned; i++)
            pinned = offer<K>(a, (u32)s.keys[i] & ID, q, true, force);
    if (!pinned) descend<K>(a, (u32)s.keys[0] & ID, q);
}

static void insert(InsertArgs* a) {
    if (a->metric == DOT)
        insert_as<PRODUCTS>(*a);
    else if (a->metric == HAMMING)
        insert_as<BITS>(*a);
    else
        insert_as<SQUARES>(*a);
}
