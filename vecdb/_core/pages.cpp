// pages.cpp: see pages.h.
#include "pages.h"

#include <string.h>

#include <algorithm>
#include <atomic>

namespace vecdb {
namespace {

const u32 HEADER = 16, NODE = 8, MAX_DEPTH = 32, SIDE_BY_SIDE = 16;
const u32 MAGIC = 0xBEEFC0DEu;
const u32 BRANCH = 0x01, LEAF = 0x02, OVERFLOW_PAGE = 0x04, BIG = 0x01;
// in a meta page: magic, then two trees of 48 bytes after 24, the second of which is ours
const u32 META_ROOT = HEADER + 24 + 48 + 40;
const u32 META_TXN = HEADER + 24 + 2 * 48 + 8;  // number of the engine's transaction, last of all
const u64 NO_PAGE = ~(u64)0;

template <class T>
T load(const u8* p) {
    T v;
    memcpy(&v, p, sizeof v);
    return v;
}

void prefetch(const u8* p) { __builtin_prefetch(p); }

struct Node {
    const u8 *key, *data;
    u32 key_size, low, flags;
    u64 child() const { return low | (u64)flags << 32; }
};

struct Page {
    const u8* p = nullptr;
    u32 bytes = 0, flags = 0, count = 0;
    explicit operator bool() const { return p != nullptr; }
    // Node i, all of its header and key inside the page; key null: damaged.
    Node node(u32 i) const {
        Node n = {nullptr, nullptr, 0, 0, 0};
        u32 at = load<u16>(p + HEADER + 2 * i);
        if (at + NODE > bytes) return n;
        n.key_size = load<u16>(p + at + 6);
        if (at + NODE + n.key_size > bytes) return n;
        n.low = load<u16>(p + at) | (u32)load<u16>(p + at + 2) << 16;
        n.flags = load<u16>(p + at + 4);
        n.key = p + at + NODE;
        n.data = n.key + n.key_size;
        return n;
    }
};

Page page_at(const Tree& t, u64 number) {
    Page page;
    if (number >= t.pages) return page;
    const u8* p = t.base + number * t.page_bytes;
    u32 lower = load<u16>(p + 12), flags = load<u16>(p + 10);
    if (load<u64>(p) != number || lower < HEADER || lower > t.page_bytes) return page;
    if (!(flags & (BRANCH | LEAF))) return page;
    page.p = p;
    page.bytes = t.page_bytes;
    page.flags = flags;
    page.count = (lower - HEADER) / 2;
    return page;
}

int compare(const u8* a, u32 an, const u8* b, u32 bn) {
    int c = memcmp(a, b, std::min(an, bn));
    return c ? c : (int)an - (int)bn;
}

// The first node of a page whose key is at least `key`; count when there is none.
u32 first_at_least(const Page& page, const u8* key, u32 size, u32 from) {
    u32 low = from, high = page.count;
    while (low < high) {
        u32 middle = (low + high) / 2;
        Node n = page.node(middle);
        if (n.key && compare(n.key, n.key_size, key, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The child that a key belongs to: the first key of a branch stands for everything before.
u64 child_of(const Page& page, const u8* key, u32 size) {
    if (!page.count) return NO_PAGE;
    u32 i = first_at_least(page, key, size, 1);
    bool exact = false;
    if (i < page.count) {
        Node n = page.node(i);
        exact = n.key && !compare(n.key, n.key_size, key, size);
    }
    Node n = page.node(exact ? i : i - 1);
    return n.key ? n.child() : NO_PAGE;
}

Record value_of(const Tree& t, const Page& page, const Node& n) {
    Record r;
    u64 size = n.low;
    if (!(n.flags & BIG)) {
        if ((u64)(n.data - page.p) + size > page.bytes) return r;
        r.p = n.data;
        r.n = size;
        return r;
    }
    if ((u32)(n.data - page.p) + 8 > page.bytes) return r;
    u64 number = load<u64>(n.data);
    u64 needed = (HEADER + size + t.page_bytes - 1) / t.page_bytes;
    if (number >= t.pages || needed > t.pages - number) return r;
    const u8* p = t.base + number * t.page_bytes;
    if (load<u64>(p) != number || !(load<u16>(p + 10) & OVERFLOW_PAGE)) return r;
    r.p = p + HEADER;
    r.n = size;
    return r;
}

// The value of the tree's last record.
Record last_of(const Tree& t) {
    u64 number = t.root;
    for (u32 depth = 0; depth < MAX_DEPTH; depth++) {
        Page page = page_at(t, number);
        if (!page || !page.count) break;
        Node n = page.node(page.count - 1);
        if (!n.key) break;
        if (page.flags & LEAF) return value_of(t, page, n);
        number = n.child();
    }
    return Record();
}

}  // namespace

bool Tree::locate(const u8* map, u32 page_size, u64 file_bytes, const u8* last) {
    base = map;
    page_bytes = page_size;
    pages = file_bytes / page_size;
    if (pages < 2 || load<u32>(base + HEADER) != MAGIC) return false;
    for (u32 i = 0; i < 2; i++) {
        root = load<u64>(base + (u64)i * page_size + META_ROOT);
        if (last && last_of(*this).p == last) return true;
    }
    return false;
}

bool Tree::is_newest(const u8* record, u64 size) const {
    if (pages < 2) return false;
    std::atomic_thread_fence(std::memory_order_acquire);
    const u8 *first = base, *second = base + page_bytes;
    const u8* meta = load<u64>(first + META_TXN) < load<u64>(second + META_TXN) ? second : first;
    if (load<u64>(meta + META_ROOT) != root) return false;
    Record r = last_of(*this);
    bool same = r.p && r.n == size && !memcmp(r.p, record, size);
    std::atomic_thread_fence(std::memory_order_acquire);
    return same;
}

Record Tree::find(const u8* key, u32 size) const {
    Record r;
    find_many(key, size, 1, &r);
    return r;
}

void Tree::find_many(const u8* keys, u32 size, u32 n, Record* out) const {
    for (u32 first = 0; first < n; first += SIDE_BY_SIDE) {
        u32 m = std::min(SIDE_BY_SIDE, n - first);
        u64 number[SIDE_BY_SIDE];
        for (u32 i = 0; i < m; i++) {
            number[i] = root;
            out[first + i] = Record();
        }
        bool more = true;
        for (u32 depth = 0; more && depth < MAX_DEPTH; depth++) {
            more = false;
            for (u32 i = 0; i < m; i++) {
                if (number[i] == NO_PAGE) continue;
                const u8* key = keys + (size_t)(first + i) * size;
                Page page = page_at(*this, number[i]);
                number[i] = NO_PAGE;
                if (!page) continue;
                if (page.flags & BRANCH) {
                    u64 child = number[i] = child_of(page, key, size);
                    if (child >= pages) continue;
                    more = true;
                    const u8* p = base + child * page_bytes;
                    prefetch(p);
                    prefetch(p + 64);
                    continue;
                }
                u32 at = first_at_least(page, key, size, 0);
                if (at >= page.count) continue;
                Node node = page.node(at);
                if (!node.key || compare(node.key, node.key_size, key, size)) continue;
                Record& r = out[first + i] = value_of(*this, page, node);
                for (u64 b = 0; b < std::min<u64>(r.n, 512); b += 64) prefetch(r.p + b);
            }
        }
    }
}

}  // namespace vecdb
