// pages.cpp: trees in storage pages, sound and damaged: what is found is true and inside the map.
//
// The pages are built here, from the format's description: two meta pages, branches, leaves, large
// values on pages of their own. The map ends with its last byte (a heap block of exactly that
// size), so that a sanitizer sees a read beyond it.
#include "pages.h"

#include <map>

#include "check.h"

namespace vecdb {
namespace {

typedef std::vector<u8> Bytes;
const u32 PAGE = 512, HEAD = 16, NODE = 8;
const u32 META_ROOT = 128;

struct Image {
    Bytes bytes = Bytes(2 * PAGE);
    u32 n_pages() const { return (u32)(bytes.size() / PAGE); }
    template <class T>
    void put(size_t at, T v) {
        memcpy(&bytes[at], &v, sizeof v);
    }
    u32 page(u32 flags, u32 n = 1) {
        u32 number = n_pages();
        bytes.resize(bytes.size() + (size_t)n * PAGE);
        put<u64>((size_t)number * PAGE, number);
        put<u16>((size_t)number * PAGE + 10, (u16)flags);
        put<u16>((size_t)number * PAGE + 12, HEAD);
        put<u16>((size_t)number * PAGE + 14, PAGE);
        return number;
    }
    // False: no room for a node of this size.
    bool node(u32 number, const Bytes& key, u32 low, u32 flags, const Bytes& data) {
        size_t p = (size_t)number * PAGE;
        u16 lower, upper;
        memcpy(&lower, &bytes[p + 12], 2);
        memcpy(&upper, &bytes[p + 14], 2);
        u32 need = (NODE + (u32)(key.size() + data.size()) + 1) / 2 * 2;
        if (lower + 2u + need > upper) return false;
        upper = (u16)(upper - need);
        put<u16>(p + lower, upper);
        put<u16>(p + 12, (u16)(lower + 2));
        put<u16>(p + 14, upper);
        put<u16>(p + upper, (u16)low);
        put<u16>(p + upper + 2, (u16)(low >> 16));
        put<u16>(p + upper + 4, (u16)flags);
        put<u16>(p + upper + 6, (u16)key.size());
        if (key.size()) memcpy(&bytes[p + upper + NODE], key.data(), key.size());
        if (data.size()) memcpy(&bytes[p + upper + NODE + key.size()], data.data(), data.size());
        return true;
    }
};

struct Forest {
    Image image;
    std::map<Bytes, Bytes> records;
    size_t last = 0;  // where the last record's value lies
    u32 depth = 1;
};

bool same(const Record& r, const Bytes& value) {
    return r.p && r.n == value.size() && (!r.n || !memcmp(r.p, value.data(), r.n));
}

Forest grow(Random& r, u32 n, u32 key_size) {
    Forest f;
    Image& m = f.image;
    while (f.records.size() < n) {
        Bytes key(key_size), value(r.below(8) ? r.below(60) : r.below(3 * PAGE));
        for (u8& b : key) b = (u8)r.next();
        for (u8& b : value) b = (u8)r.next();
        f.records[key] = value;
    }
    std::vector<std::pair<Bytes, u32>> level;  // first keys and pages
    for (const auto& [key, value] : f.records) {
        Bytes held = value;
        u32 flags = 0;
        if (value.size() > 100) {
            u32 pages = (u32)((HEAD + value.size() + PAGE - 1) / PAGE);
            u64 at = m.page(4, pages);
            memcpy(&m.bytes[at * PAGE + HEAD], value.data(), value.size());
            held.resize(8);
            memcpy(held.data(), &at, 8);
            flags = 1;
            f.last = at * PAGE + HEAD;
        }
        if (level.empty() || !m.node(level.back().second, key, (u32)value.size(), flags, held)) {
            level.push_back({key, m.page(2)});
            CHECK(m.node(level.back().second, key, (u32)value.size(), flags, held), "room");
        }
        if (!flags) {
            u16 upper;
            memcpy(&upper, &m.bytes[(size_t)level.back().second * PAGE + 14], 2);
            f.last = (size_t)level.back().second * PAGE + upper + NODE + key.size();
        }
    }
    while (level.size() > 1) {
        std::vector<std::pair<Bytes, u32>> above;
        for (const auto& [key, child] : level)
            if (above.empty() || !m.node(above.back().second, key, child, 0, {})) {
                above.push_back({key, m.page(1)});
                CHECK(m.node(above.back().second, {}, child, 0, {}), "room");
            }
        level = above;
        f.depth++;
    }
    m.put<u32>(HEAD, 0xBEEFC0DEu);
    u32 mine = r.below(2);
    m.put<u64>(META_ROOT + (size_t)(1 - mine) * PAGE, r.next());  // the other commit's
    m.put<u64>(META_ROOT + (size_t)mine * PAGE, level[0].second);
    return f;
}

CASE("pages", "every record is found, alone and side by side, and no other key is") {
    Random r(61);
    u32 deepest = 0;
    for (u32 n : {1u, 2u, 15u, 16u, 17u, 300u, 4000u})
        for (u32 key_size : {4u, 9u}) {
            Forest f = grow(r, n, key_size);
            Exact<u8> map(f.image.bytes);
            Tree t;
            CHECK(t.locate(map.start, PAGE, f.image.bytes.size(), map.start + f.last), "%u", n);
            deepest = std::max(deepest, f.depth);
            Bytes keys;
            for (const auto& [key, value] : f.records) {
                keys.insert(keys.end(), key.begin(), key.end());
                Record one = t.find(key.data(), key_size);
                CHECK(same(one, value), "not found");
                Bytes other = key;
                other[r.below(key_size)] ^= 1;
                if (!f.records.count(other)) CHECK(!t.find(other.data(), key_size).p, "another key");
                CHECK(!t.find(key.data(), key_size - 1).p, "a shorter key");
            }
            std::vector<Record> all(n);
            t.find_many(keys.data(), key_size, n, all.data());
            u32 i = 0;
            for (const auto& [key, value] : f.records) {
                CHECK(same(all[i], value), "%u", i);
                i++;
            }
        }
    CHECK(deepest >= 3, "%u levels", deepest);
}

CASE("pages", "a tree whose last record lies elsewhere is not taken") {
    Random r(62);
    Forest f = grow(r, 100, 9);
    Exact<u8> map(f.image.bytes);
    size_t size = f.image.bytes.size();
    Tree t;
    CHECK(!t.locate(map.start, PAGE, size, map.start + f.last + 1), "a place beside");
    CHECK(!t.locate(map.start, PAGE, size, nullptr), "no place");
    CHECK(!t.locate(map.start, PAGE, PAGE, map.start + f.last), "one page");
    CHECK(!t.locate(map.start, PAGE, 0, map.start + f.last), "no page");
    map.start[HEAD] ^= 1;
    CHECK(!t.locate(map.start, PAGE, size, map.start + f.last), "another magic number");
    Tree none;
    CHECK(!none.find((const u8*)"key", 3).p, "a tree of nothing");
}

struct Tally {
    u64 located = 0, found = 0, missing = 0;
};

void look(const Tree& t, const Forest& f, const u8* start, size_t size, Random& r, Tally& tally) {
    Bytes keys;
    u32 n = 0;
    for (const auto& [key, value] : f.records) {
        (void)value;
        if (r.below(4)) continue;
        keys.insert(keys.end(), key.begin(), key.end());
        n++;
    }
    std::vector<Record> out(n);
    t.find_many(keys.data(), 9, n, out.data());
    volatile u8 sum = 0;
    for (const Record& x : out) {
        if (!x.p) {
            tally.missing++;
            continue;
        }
        tally.found++;
        CHECK(x.p >= start && x.n <= size && x.p + x.n <= start + size, "a record outside of the map");
        for (u64 i = 0; i < x.n; i++) sum = sum ^ x.p[i];  // each byte may be read
    }
}

CASE("pages", "damaged pages give records inside the map, or none, and every search ends") {
    Random r(63);
    Tally tally;
    for (u32 turn = 0; turn < 400; turn++) {
        Forest f = grow(r, 20 + r.below(200), 9);
        Exact<u8> map(f.image.bytes);
        size_t size = f.image.bytes.size();
        Tree t;
        CHECK(t.locate(map.start, PAGE, size, map.start + f.last), "sound yet");
        for (u32 hits = 1 + r.below(30); hits; hits--) {
            u8* p = map.start + (size_t)r.below(f.image.n_pages()) * PAGE;
            u32 kind = r.below(5), count = (PAGE - HEAD) / 2;
            if (kind == 0) p[r.below(PAGE)] = (u8)r.next();  // anywhere
            if (kind == 1) p[8 + r.below(8)] ^= (u8)(1 << r.below(8));  // flags, room
            if (kind == 2) {  // where a node lies: at the end, beyond, anywhere
                u16 to = (u16)(r.below(2) ? PAGE - r.below(20) : r.next());
                memcpy(p + HEAD + 2 * r.below(std::min(count, 8u)), &to, 2);
            }
            if (kind == 3) {  // a node's numbers
                u16 at;
                memcpy(&at, p + HEAD, 2);
                if (at + NODE <= PAGE) p[at + r.below(NODE)] = r.below(2) ? 0xFF : (u8)r.below(64);
            }
            if (kind == 4) {  // a page in a page's place: circles and crossings
                u64 number = r.below(f.image.n_pages());
                memcpy(p, &number, 8);
            }
        }
        look(t, f, map.start, size, r, tally);
        tally.located += t.locate(map.start, PAGE, size, map.start + f.last);
        look(t, f, map.start, size, r, tally);
    }
    printf("           damaged: %llu of 400 located anew, %llu found, %llu not\n",
           (unsigned long long)tally.located, (unsigned long long)tally.found,
           (unsigned long long)tally.missing);
    CHECK(tally.found > 1000 && tally.missing > 1000, "both are seen");
}

CASE("pages", "noise behind a sound meta page, and circles of branches, end") {
    Random r(64);
    Tally tally;
    Forest f = grow(r, 50, 9);
    for (u32 turn = 0; turn < 2000; turn++) {
        Bytes noise((2 + r.below(6)) * PAGE);
        for (u8& b : noise) b = (u8)r.next();
        u32 pages = (u32)(noise.size() / PAGE);
        u32 magic = 0xBEEFC0DEu;
        memcpy(&noise[HEAD], &magic, 4);
        for (u32 i = 0; i < 2; i++) {
            u64 root = r.below(8) ? r.below(pages) : r.next();
            memcpy(&noise[i * PAGE + META_ROOT], &root, 8);
        }
        for (u32 i = 2; i < pages; i++) {  // the page's own number and kind are right
            u64 number = i;
            u16 kind = turn % 3 == 0 ? 1 : (u16)(1 + r.below(7)), lower = (u16)(HEAD + 2 * r.below(248));
            memcpy(&noise[i * PAGE], &number, 8);
            memcpy(&noise[i * PAGE + 10], &kind, 2);
            memcpy(&noise[i * PAGE + 12], &lower, 2);
            for (u32 j = 0; j < 248 && turn % 2; j++) {  // nodes inside, that lead to these pages
                u16 at = (u16)(PAGE - 16 - r.below(60)), zero = 0, small = (u16)r.below(10);
                u16 child = (u16)r.below(pages);
                memcpy(&noise[i * PAGE + HEAD + 2 * j], &at, 2);
                if (HEAD + 2 * j + 2 > at) break;
                memcpy(&noise[i * PAGE + at], &child, 2);
                memcpy(&noise[i * PAGE + at + 2], &zero, 2);
                memcpy(&noise[i * PAGE + at + 4], &zero, 2);
                memcpy(&noise[i * PAGE + at + 6], &small, 2);
            }
        }
        Exact<u8> map(noise);
        Tree t;
        t.locate(map.start, PAGE, noise.size(), map.start + r.below((u32)noise.size()));
        look(t, f, map.start, noise.size(), r, tally);
        // a file cut short since: less is there than the tree was made for
        Tree shorter = t;
        shorter.pages = r.below(pages);
        look(shorter, f, map.start, noise.size(), r, tally);
    }
    CHECK(tally.missing > 1000, "%llu not found", (unsigned long long)tally.missing);
}

}  // namespace
}  // namespace vecdb
