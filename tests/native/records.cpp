// records.cpp: damaged redo records and link chunks: refused with nothing changed, or harmless.
//
// In a file both lie behind a checksum; this is the second line, for bytes that somebody made so.
#include "world.h"

namespace vecdb {
namespace {

const u32 DIM = 5, M = 4, OLD = 70, NEW = 30;

struct Scene {  // a base of OLD rows, and the record of the commit after it
    Bytes base_rows, new_rows, first, record;
    Scene() {
        Random r(31);
        Graph g(options(DIM, L2, F32, M));
        base_rows = rows_of_vectors(r, OLD, DIM);
        new_rows = rows_of_vectors(r, NEW, DIM);
        first = commit(g, base_rows);
        record = commit(g, new_rows);
    }
    std::unique_ptr<Graph> follower() const {
        auto g = std::make_unique<Graph>(options(DIM, L2, F32, M));
        put(*g, 0, base_rows);
        g->apply(first.data(), first.size());
        put(*g, OLD, new_rows);
        return g;
    }
};

// Uses a graph whose links may be anything that was accepted.
void use(Graph& g, Random& r) {
    g.check();
    g.unreachable();
    std::vector<float> v = a_query(r, DIM);
    Bytes mask = mask_of(64, {1, 3, 5, 60});
    well_formed(g.search(query(v, 20, 40)), 20, g.n_slots());
    well_formed(g.search(query(v, 20, 40, &mask)), 20, g.n_slots(), &mask);
    Writer w(g);
    Bytes rows = rows_of_vectors(r, 3, DIM);
    w.insert(g.n_slots(), rows.data(), 3, 1);
    well_formed(w.search(query(v, 20, 40)), 20, w.n_slots());
    w.changes();
}

struct Tally {
    u32 refused = 0, accepted = 0;
};

void offer(const Scene& s, std::unique_ptr<Graph>& g, const Bytes& before, const Bytes& record,
           Random& r, Tally& t) {
    Exact<u8> exact(record);
    std::string why = refusal([&] { g->apply(exact.start, record.size()); });
    if (!why.empty()) {
        t.refused++;
        CHECK(g->n_slots() == OLD && (t.refused % 16 || image(*g) == before),
              "refused (%s), and changed", why.c_str());
        return;
    }
    t.accepted++;
    use(*g, r);
    g = s.follower();
}

CASE("records", "a record cut short anywhere, or with bytes after it, is refused") {
    Scene s;
    Random r(32);
    std::unique_ptr<Graph> g = s.follower();
    Bytes before = image(*g);
    Tally t;
    for (size_t n = 0; n < s.record.size(); n++)
        offer(s, g, before, Bytes(s.record.begin(), s.record.begin() + n), r, t);
    for (u8 b : {0, 1, 128, 255}) {
        Bytes longer = s.record;
        longer.push_back(b);
        offer(s, g, before, longer, r, t);
    }
    CHECK(t.accepted == 0 && t.refused > 300, "%u accepted of %u", t.accepted, t.refused);
    offer(s, g, before, s.record, r, t);
    CHECK(t.accepted == 1, "the whole record");
}

CASE("records", "a record with any byte changed is refused with nothing changed, or is harmless") {
    Scene s;
    Random r(33);
    std::unique_ptr<Graph> g = s.follower();
    Bytes before = image(*g);
    Tally t;
    for (size_t at = 0; at < s.record.size(); at++)
        for (u32 change : {1u, 2u, 4u, 0x40u, 0x80u, 0xFFu, 0x7Fu}) {
            Bytes bad = s.record;
            bad[at] ^= (u8)change;
            offer(s, g, before, bad, r, t);
        }
    printf("           changed bytes: %u refused, %u accepted\n", t.refused, t.accepted);
    CHECK(t.refused > 500 && t.accepted > 500, "%u refused, %u accepted", t.refused, t.accepted);
}

CASE("records", "records of many changes, of noise and of huge numbers are refused or harmless") {
    Scene s;
    Random r(34);
    std::unique_ptr<Graph> g = s.follower();
    Bytes before = image(*g);
    Tally t;
    for (u32 turn = 0; turn < 6000; turn++) {
        Bytes bad = s.record;
        switch (turn % 4) {
            case 0:
                for (u32 i = 0; i <= r.below(4); i++) bad[r.below((u32)bad.size())] = (u8)r.next();
                break;
            case 1: {  // a number of ten bytes somewhere
                size_t at = r.below((u32)bad.size());
                Bytes huge(r.below(11), 0xFF);
                huge.push_back((u8)r.below(128));
                bad.insert(bad.begin() + at, huge.begin(), huge.end());
                break;
            }
            case 2:  // a part taken out or said twice
                if (r.below(2))
                    bad.erase(bad.begin() + r.below((u32)bad.size()));
                else
                    bad.insert(bad.begin() + r.below((u32)bad.size()), bad[r.below((u32)bad.size())]);
                break;
            default:
                bad.assign(r.below(200), 0);
                for (u8& b : bad) b = (u8)r.next();
                if (!bad.empty()) bad[0] = 1;
        }
        offer(s, g, before, bad, r, t);
    }
    printf("           mangled: %u refused, %u accepted\n", t.refused, t.accepted);
}

Bytes row_bytes(const std::vector<u32>& entries) {
    Bytes b(entries.size() * 4);
    memcpy(b.data(), entries.data(), b.size());
    return b;
}

CASE("records", "link chunks of a wrong size, number or link are refused") {
    Graph g(options(DIM, L2, F32, M));
    Bytes row = row_bytes(std::vector<u32>(2 * M, EMPTY)), big(513 * row.size(), 0xFF);
    auto loads = [&](u32 layer, u32 i, const Bytes& b) {
        Exact<u8> exact(b);
        return refusal([&] { g.load_chunk(layer, i, exact.start, b.size()); }).empty();
    };
    CHECK(!loads(0, 0, {}), "no bytes");
    CHECK(!loads(0, 0, Bytes(row.begin(), row.end() - 1)), "half a row");
    CHECK(!loads(0, 0, big), "more than 512 rows");
    CHECK(!loads(2, 0, row) && !loads(0xFFFFFFFF, 0, row), "a third layer");
    CHECK(!loads(0, 0xFFFFFFFF, row) && !loads(0, MAX_SLOTS / 512 + 1, row), "a number too large");
    CHECK(!loads(1, MAX_SLOTS / 512, row), "a number too large for the entry layer");
    std::vector<u32> entries(2 * M, EMPTY);
    entries[0] = 0xFFFFFFFD;  // pinned, to the largest number
    loads(0, 0, row_bytes(entries));
    CHECK(!refusal([&] { g.set_state(1000, Scale{0, 1}); }).empty(), "a link beyond n_slots");
}

CASE("records", "searches, checks and insertions end on chunks of any links below n_slots") {
    Random r(35);
    for (u32 turn = 0; turn < 300; turn++) {
        Graph g(options(DIM, turn % 2 ? L2 : DOT, F32, M));
        u32 n = 40 + r.below(60), entries_of_1 = (n + 31) / 32;
        put(g, 0, rows_of_vectors(r, n, DIM));
        for (u32 layer = 0; layer < 2; layer++) {
            u32 rows = layer ? entries_of_1 : n, R = layer ? M : 2 * M;
            std::vector<u32> entries(rows * R);
            for (u32& e : entries) {
                u32 pick = r.below(turn % 3 == 0 ? 1 : 12);
                e = pick == 10 ? EMPTY : pick == 11 ? ALONE : r.below(rows) | (r.below(2) ? PIN : 0);
            }
            Bytes b = row_bytes(entries);
            g.load_chunk(layer, 0, b.data(), b.size());
        }
        g.set_state(n, Scale{-1.5f, .025f});
        use(g, r);
    }
}

CASE("records", "an insertion ends where every row is full of pinned links in a circle") {
    Random r(36);
    Graph g(options(DIM, L2, F32, 2));
    u32 n = 12, R = 4;
    put(g, 0, rows_of_vectors(r, n, DIM));
    std::vector<u32> entries;
    for (u32 u = 0; u < n; u++)
        for (u32 j = 1; j <= R; j++) entries.push_back((u + j) % n | PIN);
    Bytes b = row_bytes(entries);
    g.load_chunk(0, 0, b.data(), b.size());
    Bytes alone = row_bytes({ALONE, EMPTY});
    g.load_chunk(1, 0, alone.data(), alone.size());
    g.set_state(n, Scale{-1.5f, .025f});
    commit(g, rows_of_vectors(r, 5, DIM));
    CHECK(!g.check().empty(), "the check sees nothing");
    CHECK(!g.unreachable().empty(), "nothing took the new rows, yet they are reached");
}

}  // namespace
}  // namespace vecdb
