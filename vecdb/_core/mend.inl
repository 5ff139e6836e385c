// mend.inl: rows that lose links to condemned slots, and pins that move. Included by every
// instruction-set unit, after build.inl. The order of it all: sweep.cpp.
//
// 1. A row keeps its other links where they are; the places of those that go are filled from the links
//    of what they led to: first candidates that no nearer link of the row rejects, then the nearest
//    others. So a row logs as many entries as it loses.
// 2. Pinned links stay, but for one that is named: what they lead to must stay reachable.
// 3. A row never has a gap: where candidates are too few, its last links move forward.
// Rejected: choosing the whole row anew (28 entries of log a row, of which most move places only),
// candidates by a search (misses half of what links to a slot).

static const u32 CANDIDATES = 1024;  // looked at for one row
static const u32 NEAREST = 160;      // of them tried

struct Losing {  // a row's links that stay and that go
    u32 kept[MAX_ROW], gone[MAX_ROW];  // rows; positions
    u32 n_kept, n_gone, count;
};

static inline bool is_condemned(const MendArgs& m, u32 node) {
    return mask_has(m.condemned, m.condemned_bits, node << m.insert.layer.shift);
}

static inline void sort_links(const MendArgs& m, const u32* row, Losing& l) {
    l.n_kept = l.n_gone = l.count = 0;
    for (; l.count < m.insert.layer.R; l.count++) {
        u32 e = load_link(row + l.count);
        if (e >= ALONE) break;
        bool goes = e & PIN ? (e & ID) == m.child : is_condemned(m, e & ID);
        if (goes)
            l.gone[l.n_gone++] = l.count;
        else
            l.kept[l.n_kept++] = e & ID;
    }
}

// What the links that go led to, with keys from u, nearest first; returns how many are in s.keys.
template <Kind K>
static u32 heirs(MendArgs& m, u32 u, const u32* row, const Losing& l, const QueryCode& code) {
    InsertArgs& a = m.insert;
    Scratch& s = *a.scratch;
    u32 ids[CANDIDATES], n = 0, size = 0;
    bool lives = linkable(a, u);  // a dead row keeps its way to others that older readers still find
    visit(s, u);
    for (u32 i = 0; i < l.n_kept; i++) visit(s, l.kept[i]);
    for (u32 g = 0; g < l.n_gone && n < CANDIDATES; g++) {
        const u32* from = row_of<true>(a.layer, load_link(row + l.gone[g]) & ID);
        for (u32 j = 0; j < a.layer.R && n < CANDIDATES; j++) {
            u32 e = load_link(from + j), id = e & ID;
            if (e >= ALONE) break;
            if (id << a.layer.shift >= a.limit || is_condemned(m, id)) continue;
            if (lives && !linkable(a, id)) continue;
            if (visit(s, id)) ids[n++] = id;
        }
    }
    forget(s);
    for (u32 from = 0; from < n; from += MAX_ROW)
        each_key<K>(a.codes, a.layer.shift, code, ids + from, n - from < MAX_ROW ? n - from : MAX_ROW,
                    [&](u32 i, u32 d) { put(s.keys, size, NEAREST, (u64)d << 32 | ids[from + i]); });
    return size;
}

// Chooses up to `want` of the n sorted candidates in s.keys.
template <Kind K>
static u32 inherit(MendArgs& m, const Losing& l, const QueryCode& code, u32 n, u32 want, u32* ids) {
    InsertArgs& a = m.insert;
    u64 near[MAX_ROW];  // the row's links, nearest first
    const u8* codes[MAX_ROW];
    u32 n_near = 0, taken = 0, filler[NEAREST], fillers = 0;
    each_key<K>(a.codes, a.layer.shift, code, l.kept, l.n_kept,
                [&](u32 i, u32 d) { put(near, n_near, MAX_ROW, (u64)d << 32 | l.kept[i]); });
    u32 n_codes = 0, at = 0;
    for (u32 i = 0; i < n && taken < want; i++) {
        u32 id = (u32)a.scratch->keys[i] & ID, key = (u32)(a.scratch->keys[i] >> 32);
        for (; at < n_near && near[at] < a.scratch->keys[i]; at++)
            codes[n_codes++] = code_of(a.codes, ((u32)near[at] & ID) << a.layer.shift);
        const u8* its = code_of(a.codes, id << a.layer.shift);
        if (rejected<K>(a, its, key, codes, n_codes)) {
            filler[fillers++] = id;
        } else {
            ids[taken++] = id;
            codes[n_codes++] = its;
        }
    }
    for (u32 i = 0; i < fillers && taken < want; i++) ids[taken++] = filler[i];
    return taken;
}

template <Kind K>
static void mend_as(MendArgs& m) {
    InsertArgs& a = m.insert;
    u32 u = a.slot >> a.layer.shift, ids[MAX_ROW];
    const u32* seen = row_of<true>(a.layer, u);
    Losing l;
    sort_links(m, seen, l);
    m.changed = l.n_gone != 0;
    if (!l.n_gone) return;
    QueryCode code = as_query<K>(code_of(a.codes, a.slot), a.codes.stride, a.scratch->qcode);
    u32 n = heirs<K>(m, u, seen, l, code);
    u32 taken = inherit<K>(m, l, code, n, l.n_gone, ids);
    u32* row = a.own_row(a.owner, a.layer.shift, u);
    if (!row) return;
    for (u32 i = 0; i < taken; i++) store_link(row + l.gone[i], ids[i]);
    for (u32 i = l.n_gone; i > taken; i--) {  // from the back: what moves forward stays
        l.count--;
        if (l.gone[i - 1] != l.count) store_link(row + l.gone[i - 1], load_link(row + l.count));
        store_link(row + l.count, EMPTY);
    }
    if (!l.count) store_link(row, ALONE);
    bits_of(a, u).clear();
}

static void mend(MendArgs* m) {
    if (m->insert.metric == DOT)
        mend_as<PRODUCTS>(*m);
    else if (m->insert.metric == HAMMING)
        mend_as<BITS>(*m);
    else
        mend_as<SQUARES>(*m);
}

template <Kind K>
static u32 hold_as(InsertArgs& a, u32 parent, u32 child) {
    u32 R = a.layer.R, at = 0;
    const u32* seen = row_of<true>(a.layer, parent);
    while (at < R && load_link(seen + at) < ALONE && (load_link(seen + at) & ID) != child) at++;
    bool there = at < R && load_link(seen + at) < ALONE;
    if (at == R) at = victim<K>(a, parent, child, seen, true);
    if (at == R) return 0;  // all of them are pinned
    u32* row = a.own_row(a.owner, a.layer.shift, parent);
    if (!row) return 0;
    if (!there && load_link(row + at) >= ALONE) bits_of(a, parent).clear();
    store_link(row + at, child | PIN);
    return 1;
}

static u32 hold(InsertArgs* a, u32 parent, u32 child) {
    if (a->metric == DOT) return hold_as<PRODUCTS>(*a, parent, child);
    if (a->metric == HAMMING) return hold_as<BITS>(*a, parent, child);
    return hold_as<SQUARES>(*a, parent, child);
}

template <Kind K>
static void nearest_first_as(InsertArgs& a, u32 node, u32* rows, u32 n) {
    u64 order[MAX_ROW];
    u32 size = 0, shift = a.layer.shift;
    QueryCode code =
        as_query<K>(code_of(a.codes, node << shift), a.codes.stride, a.scratch->qcode);
    each_key<K>(a.codes, shift, code, rows, n,
                [&](u32 i, u32 d) { put(order, size, MAX_ROW, (u64)d << 32 | rows[i]); });
    for (u32 i = 0; i < n; i++) rows[i] = (u32)order[i];
}

static void nearest_first(InsertArgs* a, u32 node, u32* rows, u32 n) {
    if (a->metric == DOT)
        nearest_first_as<PRODUCTS>(*a, node, rows, n);
    else if (a->metric == HAMMING)
        nearest_first_as<BITS>(*a, node, rows, n);
    else
        nearest_first_as<SQUARES>(*a, node, rows, n);
}
