// holes.cpp: slots without a vector, for ever: gaps, leading and trailing ones, no entry nodes.
//
// 1. A hole is never a result, of a walk or a scan, with a mask or without.
// 2. A walk of full width finds every row that has a vector, however they lie.
// 3. A follower, an image and a replayed record have the same bytes as the writer's graph.
#include "world.h"

namespace vecdb {
namespace {

const u32 DIM = 9;

// The slots that a pattern gives a vector to, below n.
struct Pattern {
    const char* name;
    bool (*has)(u32 slot);
};
const Pattern PATTERNS[] = {
    {"every seventh", [](u32 s) { return s % 7 == 3; }},
    {"no entry node", [](u32 s) { return s % 32 != 0; }},
    {"entry nodes alone", [](u32 s) { return s % 32 == 0; }},
    {"none below 3000", [](u32 s) { return s >= 3000; }},
    {"none below 3000, no entry node", [](u32 s) { return s > 3000 && s % 32 && s % 3; }},
    {"few and far", [](u32 s) { return s % 131 == 5 || s % 1024 == 0; }},
    {"two ends", [](u32 s) { return s < 40 || s > 3900; }},
    {"one", [](u32 s) { return s == 3999; }},
};
const u32 TOP = 4000;

std::vector<u32> chosen(const Pattern& p, u32 from = 0, u32 to = TOP) {
    std::vector<u32> slots;
    for (u32 s = from; s < to; s++)
        if (p.has(s)) slots.push_back(s);
    return slots;
}

// A commit of these slots that makes n slots; a follower takes it too.
Bytes commit_at(Graph& g, Graph* follower, const std::vector<u32>& slots, u32 n, Random& r,
                u32 threads = 1) {
    Bytes rows = rows_of_vectors(r, (u32)slots.size(), DIM, g.options().shape.dtype);
    Writer w(g);
    if (!slots.empty()) w.insert_at(slots.data(), rows.data(), (u32)slots.size(), threads);
    w.extend_to(n);
    Bytes record = w.changes();
    g.apply(record.data(), record.size());
    if (follower) {
        if (!slots.empty()) follower->put_vectors(slots.data(), rows.data(), (u32)slots.size());
        follower->apply(record.data(), record.size());
    }
    return record;
}

// Every way to ask: nothing but slots that have a vector, and all of them where all are asked for.
template <class G>
void only_rows(G& g, const std::vector<u32>& slots, u32 n, Random& r, const char* what) {
    u32 rows = (u32)slots.size();
    Bytes held = mask_of(n, slots), every((n + 63) / 64 * 8, 0xFF);
    for (int turn = 0; turn < 3; turn++) {
        std::vector<float> v = a_query(r, DIM);
        for (const Bytes* mask : {(const Bytes*)nullptr, (const Bytes*)&every}) {
            Found f = g.search(query(v, n, 2 * n, mask));
            well_formed(f, n, n, &held);
            CHECK(f.n == rows && !f.exhausted, "%s: a walk finds %u of %u", what, f.n, rows);
            well_formed(g.search(query(v, 10, 30, mask)), 10, n, &held);
            for (bool exact : {true, false})
                for (u32 threads : {1u, 3u}) {
                    ScanQuery q = scan_query(v, n, mask);
                    q.exact = exact;
                    q.rr = n;
                    q.threads = threads;
                    f = g.scan(q);
                    well_formed(f, n, n, &held);
                    CHECK(f.n == rows, "%s: a scan finds %u of %u", what, f.n, rows);
                }
        }
        std::vector<u32> all(n);
        for (u32 s = 0; s < n; s++) all[s] = s;
        ScanQuery q = scan_query(v, n);
        q.slots = all.data();
        q.n_slots = n;
        well_formed(g.scan(q), n, n, &held);
        CHECK(g.scan(q).n == rows, "%s: a scan of slots", what);
        for (const Answer& a : g.search_many(query(v, 7, 50), v.data(), 1, 2))
            for (u32 s : a.slots) CHECK(mask_has(held.data(), n, s), "%s: a hole", what);
    }
}

CASE("holes", "gaps of every kind: only rows are found, all of them are, and followers agree") {
    Random r(71);
    for (const Pattern& p : PATTERNS)
        for (u32 metric : {L2, COSINE, DOT, HAMMING})
            for (u32 threads : {1u, 3u}) {
                Graph g(options(DIM, metric)), follower(options(DIM, metric));
                std::vector<Bytes> records;
                for (u32 from = 0; from < TOP; from += 500)
                    records.push_back(commit_at(g, &follower, chosen(p, from, from + 500),
                                                from + 500, r, threads));
                std::vector<u32> slots = chosen(p);
                CHECK(g.n_slots() == TOP && follower.n_slots() == TOP, "%s: slots", p.name);
                CHECK(image(g) == image(follower), "%s: a follower differs", p.name);
                CHECK(g.scale() == follower.scale(), "%s: scales", p.name);
                sound(g);
                sound(follower);
                only_rows(g, slots, TOP, r, p.name);
                for (int i = 0; i < 10; i++) {
                    std::vector<float> v = a_query(r, DIM);
                    CHECK(slots_of(g.search(query(v))) == slots_of(follower.search(query(v))),
                          "%s: a follower finds other rows", p.name);
                }
                double found = recall(g, DIM, r, 20, nullptr, TOP);
                if (metric != HAMMING)  // nine bits: ties
                    CHECK(found > .9, "%s, metric %u: recall %.3f", p.name, metric, found);
                for (const Bytes& record : records) follower.apply(record.data(), record.size());
                CHECK(image(g) == image(follower), "%s: replayed", p.name);
            }
}

CASE("holes", "slots in any order, from the last down too, hang together") {
    Random r(72);
    for (u32 threads : {1u, 4u})
        for (int order = 0; order < 3; order++) {
            Graph g(options(DIM, L2)), follower(options(DIM, L2));
            std::vector<u32> slots;
            for (u32 s = 2000; s < 6000; s += 2) slots.push_back(s);
            if (order == 0) std::reverse(slots.begin(), slots.end());
            if (order == 1)
                for (u32 i = (u32)slots.size(); i > 1; i--) std::swap(slots[i - 1], slots[r.below(i)]);
            for (u32 from = 0; from < slots.size(); from += 250) {
                std::vector<u32> part(slots.begin() + from, slots.begin() + from + 250);
                commit_at(g, &follower, part, 6100, r, threads);
                sound(g);
            }
            CHECK(image(g) == image(follower), "a follower differs");
            sound(follower);
            only_rows(g, slots, 6100, r, "any order");
            // an image: state first or chunks first
            for (bool state_first : {false, true}) {
                Graph copy(options(DIM, L2));
                std::vector<u8> row(g.options().shape.row_bytes());
                for (u32 s : slots) {
                    g.vector(s, row.data());
                    copy.put_vectors(&s, row.data(), 1);
                }
                if (state_first) copy.set_state(g.n_slots(), g.scale());
                for (u32 layer = 0; layer < 2; layer++)
                    for (u32 i = 0; i < g.n_chunks(layer); i++) {
                        Bytes c = g.chunk(layer, i);
                        copy.load_chunk(layer, i, c.data(), c.size());
                    }
                if (!state_first) copy.set_state(g.n_slots(), g.scale());
                sound(copy);
                std::vector<float> v = a_query(r, DIM);
                CHECK(slots_of(g.search(query(v))) == slots_of(copy.search(query(v))), "an image");
                commit_at(copy, nullptr, {1, 64, 6200}, 6300, r);
                sound(copy);
            }
        }
}

CASE("holes", "trailing ones alone: a commit without a vector, an empty graph, a rollback") {
    Random r(73);
    Graph g(options(DIM, L2)), follower(options(DIM, L2));
    std::vector<float> v = a_query(r, DIM);
    for (u32 n : {1u, 40u, 700u}) {
        commit_at(g, &follower, {}, n, r);
        CHECK(g.n_slots() == n && follower.n_slots() == n, "%u slots", g.n_slots());
        CHECK(!g.scale().valid() && !follower.scale().valid(), "a scale of nothing");
        CHECK(g.search(query(v)).n == 0 && g.scan(scan_query(v)).n == 0, "a hole is found");
        CHECK(g.n_chunks(0) == (n + 511) / 512 && image(g) == image(follower), "chunks");
        u32 slot = n - 1;
        float d = 0;
        g.distances(v.data(), &slot, 1, &d);
        CHECK(d != d && !g.has_vector(slot), "a distance to a hole");
        sound(g);
    }
    Bytes before = image(g);
    {
        Writer w(g);
        w.extend_to(900);
        w.extend_to(5);  // no fewer than there are
        CHECK(w.n_slots() == 900 && w.dirty(), "%u slots", w.n_slots());
        w.extend_to(2000000);
        CHECK(refusal([&] { w.extend_to(MAX_SLOTS + 1); }).size(), "too many");
        w.changes();
    }
    CHECK(g.n_slots() == 700 && image(g) == before, "a rollback leaves something");
    commit_at(g, &follower, {750}, 751, r);
    commit_at(g, &follower, {}, 900, r);
    commit_at(g, &follower, {5, 899}, 900, r);  // holes that are handed out after all
    only_rows(g, {5, 750, 899}, 900, r, "three rows");
    CHECK(image(g) == image(follower), "a follower differs");
    sound(g);
    {
        Writer w(g);
        Bytes rows = rows_of_vectors(r, 3, DIM);
        u32 slots[] = {2, 960, 1000};
        w.insert_at(slots, rows.data(), 3, 1);
        w.extend_to(1500);
        only_rows(w, {2, 5, 750, 899, 960, 1000}, 1500, r, "the writer's own");
    }
    only_rows(g, {5, 750, 899}, 900, r, "after a rollback");
    sound(g);
    CHECK(image(g) == image(follower), "a rollback leaves something");
    commit_at(g, &follower, {2, 950}, 960, r);
    sound(g);
    CHECK(image(g) == image(follower), "a follower differs");
}

CASE("holes", "new rows without a scale are refused, holes without one are not") {
    Random r(74);
    Graph g(options(DIM, L2)), other(options(DIM, L2));
    Bytes record = commit_at(g, nullptr, {3}, 5, r), bad = record;
    memset(&bad[3], 0, 8);  // version, before, after; then the scale
    CHECK(refusal([&] { other.apply(bad.data(), bad.size()); }).find("scale") != std::string::npos,
          "accepted");
    CHECK(other.n_slots() == 0, "changed");
    Graph empty(options(DIM, L2));
    Bytes holes = commit_at(empty, nullptr, {}, 5, r);
    other.apply(holes.data(), holes.size());
    CHECK(other.n_slots() == 5, "%u slots", other.n_slots());
}

CASE("holes", "a block serves the rows that its bits name; the others are holes") {
    Random r(75);
    Graph g(options(DIM, L2));
    Bytes rows = rows_of_vectors(r, 192, DIM);
    Exact<u8> where(rows, 1);
    std::vector<u32> slots;
    Bytes present(24, 0);
    for (u32 s = 0; s < 192; s++)
        if (r.below(3) == 0 || s == 64) {
            slots.push_back(s);
            present[s >> 3] |= (u8)(1 << (s & 7));
        }
    u32 row = g.options().shape.row_bytes();
    for (u32 b = 0; b < 3; b++) g.attach_block(b, where.start + b * 64 * row, 64, &present[b * 8]);
    for (u32 s = 0; s < 192; s++)
        CHECK(g.has_vector(s) == mask_has(present.data(), 192, s), "slot %u", s);
    CHECK(g.stored.count() == slots.size(), "%u vectors", g.stored.count());
    g.set_state(192, Scale{-1.5f, .025f});
    Bytes held = mask_of(192, slots);
    for (bool exact : {true, false}) {
        std::vector<float> v = a_query(r, DIM);
        ScanQuery q = scan_query(v, 192);
        q.exact = exact;
        q.rr = 192;
        well_formed(g.scan(q), 192, 192, &held);
        CHECK(g.scan(q).n == slots.size(), "a scan");
    }
    // a private copy of one more row, then the block again, without it
    u32 hole = 65, kept = 64;
    while (mask_has(present.data(), 192, hole)) hole++;
    g.put_vectors(&hole, rows.data(), 1);
    CHECK(g.has_vector(hole) && g.has_vector(kept), "a copy");
    g.attach_block(1, where.start + 64 * row, 64, &present[8]);
    CHECK(!g.has_vector(hole) && g.has_vector(kept), "the block's bits");
    CHECK(g.stored.count() == slots.size(), "%u vectors", g.stored.count());
    g.detach_all();
    CHECK(g.stored.count() == 0, "%u vectors left", g.stored.count());
}

CASE("holes", "a million of them before the first row touch no memory for codes or vectors") {
    Random r(76);
    Graph g(options(DIM, L2, F32, 4)), follower(options(DIM, L2, F32, 4));
    std::vector<u32> slots(300);
    for (u32 i = 0; i < 300; i++) slots[i] = 1000000 + 3 * i;
    commit_at(g, &follower, slots, 1000900, r, 2);
    sound(g);
    CHECK(image(g) == image(follower), "a follower differs");
    CHECK(g.private_blocks().size() == 15, "%zu blocks", g.private_blocks().size());
    std::vector<float> v = a_query(r, DIM);
    CHECK(g.search(query(v, 300, 1000)).n == 300, "a walk");
    CHECK(g.scan(scan_query(v, 300)).n == 300, "a scan");
    u32 pages = 0;  // of codes, below the first row
    unsigned char in[16];
    for (u32 s = 0; s < 15; s++) {
        CHECK(!mincore(g.codes->view().seg[s], 16 * 4096, in), "mincore");
        for (unsigned char p : in) pages += p & 1;
    }
    CHECK(pages == 0, "%u pages of codes", pages);
    double found = recall(g, DIM, r, 20, nullptr, 1000900);
    CHECK(found > .9, "recall %.3f", found);
}

}  // namespace
}  // namespace vecdb
