// adopt.cpp: links that were made elsewhere, good ones and any, become a graph like another.
#include "world.h"

namespace vecdb {
namespace {

const u32 DIM = 9;

// The rows of layer 0 as an exporter would give them: slots, EMPTY for none.
std::vector<u32> links_of(Graph& g) {
    std::vector<u32> all;
    for (u32 i = 0; i < g.n_chunks(0); i++) {
        Bytes c = g.chunk(0, i);
        for (size_t j = 0; j < c.size(); j += 4) {
            u32 e;
            memcpy(&e, &c[j], 4);
            all.push_back(e >= ALONE ? EMPTY : e & ID);
        }
    }
    return all;
}

Bytes adopt(Graph& g, const Bytes& rows, const std::vector<u32>& links, u32 threads = 1) {
    Writer w(g);
    u32 n = (u32)(rows.size() / g.options().shape.row_bytes());
    w.adopt(rows.data(), links.data(), n, threads);
    CHECK(w.n_slots() == n, "%u slots", w.n_slots());
    Bytes record = w.changes();
    g.apply(record.data(), record.size());
    return record;
}

CASE("adopt", "links of a graph are taken over as they are and found by as good a walk") {
    Random r(81);
    for (u32 metric : {L2, COSINE, DOT, HAMMING})
        for (u32 dtype : {F32, F16})
            for (u32 threads : {1u, 3u}) {
                u32 n = 3000, DIM = metric == HAMMING ? 300 : 9;
                if (metric == HAMMING && dtype == F16) continue;
                u32 stored = metric == HAMMING ? B1 : dtype;
                Bytes rows = rows_of_vectors(r, n, DIM, stored);
                Graph made(options(DIM, metric, dtype)), g(options(DIM, metric, dtype));
                Graph follower(options(DIM, metric, dtype));
                commit(made, rows);
                std::vector<u32> links = links_of(made);
                Bytes record = adopt(g, rows, links, threads);
                sound(g);
                std::vector<u32> now = links_of(g);  // each row has the links, in any order
                for (u32 u = 0; u < n; u++) {
                    std::sort(links.begin() + u * 16, links.begin() + (u + 1) * 16);
                    std::sort(now.begin() + u * 16, now.begin() + (u + 1) * 16);
                }
                CHECK(links == now, "links differ");
                put(follower, 0, rows);
                follower.apply(record.data(), record.size());
                CHECK(image(follower) == image(g) && follower.scale() == g.scale(), "a follower");
                Random same = r;  // the same queries
                double found = recall(g, DIM, r, 40, nullptr, n), was = recall(made, DIM, same, 40);
                CHECK(found > was - .03, "recall %.3f, was %.3f", found, was);
                for (u32 more : {1u, 500u, 700u}) commit(g, rows_of_vectors(r, more, DIM, stored), threads);
                sound(g);
                found = recall(g, DIM, r, 40, nullptr, n + 1201);
                CHECK(found > .9, "recall %.3f after insertions", found);
            }
}

CASE("adopt", "any links make a graph in which every row is reached") {
    Random r(82);
    for (u32 turn = 0; turn < 60; turn++) {
        u32 M = turn % 3 ? 4 : 2, R = 2 * M, n = turn % 7 ? 1 + r.below(400) : 1 + r.below(3);
        Graph g(options(DIM, turn % 2 ? L2 : DOT, F32, M));
        std::vector<u32> links(n * R, EMPTY);
        for (u32 u = 0; u < n; u++)
            for (u32 j = 0; j < R; j++) {
                u32& e = links[u * R + j];
                switch (turn % 6) {
                    case 0: break;                                       // none at all
                    case 1: e = r.below(n); break;                       // any, to itself and twice
                    case 2: e = r.below(3) ? EMPTY : r.below(n); break;  // with gaps
                    case 3: e = (u + 1 + j) % n; break;                  // a ring
                    case 4: e = u ? u - 1 - r.below(std::min(u, 5u)) : EMPTY; break;  // to lower
                    default: e = u / 50 * 50 + r.below(std::min(50u, n - u / 50 * 50));  // islands
                }
            }
        Bytes rows = rows_of_vectors(r, n, DIM);
        adopt(g, rows, links, 1 + turn % 2);
        sound(g);
        CHECK(g.search(query(a_query(r, DIM), n, n)).n, "turn %u", turn);
        commit(g, rows_of_vectors(r, 100, DIM));
        sound(g);
    }
}

CASE("adopt", "wrong links, a graph that is not empty and a rollback change nothing") {
    Random r(83);
    Graph g(options(DIM, L2, F32, 2));
    Bytes rows = rows_of_vectors(r, 50, DIM);
    std::vector<u32> links(200, EMPTY), bad;
    for (u32 u = 1; u < 50; u++) links[u * 4] = u - 1;
    Bytes before = image(g);
    for (u32 wrong : {50u, 51u, ID, ALONE, 0x80000001u}) {
        bad = links;
        bad[4 * 17 + 2] = wrong;
        bad[4 * 30] = 99;
        Writer w(g);
        std::string why = refusal([&] { w.adopt(rows.data(), bad.data(), 50, 1); });
        CHECK(why.find("row 17 ") != std::string::npos, "%s", why.c_str());
        CHECK(!w.dirty() && w.n_slots() == 0 && !w.codes(), "something changed");
    }
    {
        Writer w(g);
        w.adopt(rows.data(), links.data(), 0, 1);
        CHECK(!w.dirty(), "no rows");
        w.adopt(rows.data(), links.data(), 50, 1);
        std::vector<float> v = a_query(r, DIM);
        well_formed(w.search(query(v, 50, 100)), 50, 50);
        CHECK(w.search(query(v, 50, 100)).n && w.scan(scan_query(v, 50)).n == 50, "its own search");
        CHECK(refusal([&] { w.adopt(rows.data(), links.data(), 50, 1); }).size(), "twice");
        w.changes();
    }
    CHECK(g.n_slots() == 0 && image(g) == before && g.stored.count() == 0, "a rollback");
    adopt(g, rows, links);
    sound(g);
    Writer w(g);
    CHECK(refusal([&] { w.adopt(rows.data(), links.data(), 50, 1); }).size(), "over rows");
}

}  // namespace
}  // namespace vecdb
