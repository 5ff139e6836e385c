// graph.cpp: insertion, searches plain and masked, the overlay, holes, followers and images.
#include "world.h"

namespace vecdb {
namespace {

const u32 METRICS[] = {L2, COSINE, DOT};

CASE("graph", "rows inserted one commit at a time are reachable and found") {
    Random r(11);
    for (u32 metric : METRICS)
        for (u32 dtype : {F32, F16, I8}) {
            Graph g(options(19, metric, dtype));
            for (u32 n : {1u, 1u, 3u, 60u, 200u, 700u}) commit(g, rows_of_vectors(r, n, 19, dtype));
            CHECK(g.n_slots() == 965, "%u", g.n_slots());
            sound(g);
            double found = recall(g, 19, r, 40, nullptr, 965, dtype == I8 ? I8_SPREAD : 1);
            CHECK(found > .93, "recall %.3f, metric %u, dtype %u", found, metric, dtype);
        }
}

CASE("graph", "rows of bits are found by the bits that differ, ties by slot") {
    Random r(26);
    for (u32 dim : {1u, 77u, 200u, 1030u})
        for (u32 threads : {1u, 3u}) {
            u32 n = 1500;
            Graph g(options(dim, HAMMING)), follower(options(dim, HAMMING));
            for (u32 from = 0; from < n; from += 500) {
                Bytes rows = rows_of_vectors(r, 500, dim, B1);
                if (from == 500) std::fill(rows.begin(), rows.begin() + rows.size() / 5, 0);  // ties
                Bytes record = commit(g, rows, threads);
                put(follower, from, rows);
                follower.apply(record.data(), record.size());
            }
            sound(g);
            CHECK(g.scale() == (Scale{0, 1}) && follower.scale() == g.scale(), "a scale");
            CHECK(image(g) == image(follower), "a follower");
            Graph copy(options(dim, HAMMING));
            load_image(copy, g);
            CHECK(image(copy) == image(g) && copy.scale() == g.scale(), "an image");
            double near = 0;
            std::vector<u32> all(n);
            std::vector<float> d(n);
            for (u32 s = 0; s < n; s++) all[s] = s;
            for (u32 i = 0; i < 40; i++) {
                std::vector<float> v = a_query(r, dim);
                g.distances(v.data(), all.data(), n, d.data());
                std::vector<u32> best = all;
                std::sort(best.begin(), best.end(), [&](u32 a, u32 b) {
                    return d[a] < d[b] || (d[a] == d[b] && a < b);
                });
                best.resize(10);
                CHECK(slots_of(g.scan(scan_query(v, 10))) == best, "a scan");
                ScanQuery q = scan_query(v, 10);
                q.exact = false;
                q.rr = 10;
                CHECK(slots_of(g.scan(q)) == best, "a scan of codes, which are exact too");
                Found f = g.search(query(v, 10, 64));
                well_formed(f, 10, n);
                for (u32 j = 0; j < f.n; j++) {
                    CHECK(f.distances[j] == d[f.slots[j]], "a distance");
                    if (j && f.distances[j] == f.distances[j - 1])
                        CHECK(f.slots[j] > f.slots[j - 1], "a tie");
                    near += f.distances[j] <= d[best[9]];
                }
            }
            CHECK(near > .9 * 400, "dim %u: %g of 400", dim, near);
            CHECK(g.search(query(a_query(r, dim), n, 2 * n)).n == n, "all of them");
        }
}

CASE("graph", "many threads insert in bulk and every row is reachable and found") {
    Random r(12);
    for (u32 metric : METRICS) {
        Graph g(options(33, metric));
        commit(g, rows_of_vectors(r, 300, 33));
        commit(g, rows_of_vectors(r, 3000, 33), 4);
        sound(g);
        double found = recall(g, 33, r, 40, nullptr, 3300);
        CHECK(found > .9, "recall %.3f, metric %u", found, metric);
    }
}

CASE("graph", "the smallest and the largest rows, dims and duplicates are sound") {
    Random r(13);
    for (u32 M : {2u, 3u, 31u, 32u, 256u})
        for (u32 dim : {1u, 64u, 65u}) {
            Graph g(options(dim, L2, F32, M));
            commit(g, rows_of_vectors(r, 150, dim), 2);
            commit(g, Bytes(150 * (size_t)dim * 4, 0), 2);  // the same row, 150 times
            sound(g);
            well_formed(g.search(query(a_query(r, dim), 300, 300)), 300, 300);
        }
    for (u32 n : {1u, 31u, 32u, 33u, 511u, 512u, 513u, 1921u}) {
        Graph g(options(3, DOT, F32, 4));
        commit(g, rows_of_vectors(r, n, 3));
        sound(g);
        CHECK(g.search(query(a_query(r, 3), n, n)).n > 0, "%u rows", n);
    }
}

CASE("graph", "an empty graph answers every question with nothing") {
    Graph g(options(7, L2));
    std::vector<float> v(7, 1);
    CHECK(g.search(query(v)).n == 0, "search");
    CHECK(g.scan(scan_query(v)).n == 0, "scan");
    CHECK(g.search_many(query(v), v.data(), 1, 2)[0].slots.empty(), "search_many");
    CHECK(g.n_chunks(0) == 0 && g.n_chunks(1) == 0, "chunks");
    u32 slot = 5;
    float d = 0;
    g.distances(v.data(), &slot, 1, &d);
    CHECK(d != d, "a distance to nothing");
    sound(g);
    Writer w(g);
    CHECK(w.search(query(v)).n == 0, "the writer's search");
    CHECK(w.changes().size() > 0, "a record of no changes");
}

CASE("graph", "vectors of NaN, infinities and extremes keep the graph sound and every order total") {
    Random r(14);
    const float odd[] = {__builtin_nanf(""), __builtin_inff(), -__builtin_inff(), 3e38f, -3e38f,
                         1e-40f, 0.0f, -0.0f};
    for (u32 metric : METRICS) {
        Graph g(options(10, metric));
        Bytes rows = rows_of_vectors(r, 400, 10);
        for (u32 i = 0; i < 400; i += 3) {
            float v = odd[r.below(8)];
            for (u32 j = 0; j < 10; j++)
                if (r.below(3) == 0) memcpy(&rows[(i * 10 + j) * 4], &v, 4);
        }
        commit(g, rows, 2);
        sound(g);
        for (u32 i = 0; i < 50; i++) {
            std::vector<float> v = a_query(r, 10);
            if (i & 1) v[r.below(10)] = odd[r.below(8)];
            well_formed(g.search(query(v, 400, 400)), 400, 400);
            ScanQuery s = scan_query(v, 400);
            well_formed(g.scan(s), 400, 400);
            s.exact = false;
            s.rr = 400;
            well_formed(g.scan(s), 400, 400);
        }
    }
}

CASE("graph", "a mask, n_visible, skip and a budget are kept to; deleted rows are never found") {
    Random r(15);
    u32 n = 2000;
    Graph g(options(16, L2));
    commit(g, rows_of_vectors(r, n, 16), 2);
    for (u32 share : {1u, 2u, 10u, 100u, 700u}) {
        std::vector<u32> live;
        for (u32 s = 0; s < n; s++)
            if (r.below(share) == 0) live.push_back(s);
        Bytes mask = mask_of(n, live);
        double found = recall(g, 16, r, 30, &mask, n);
        CHECK(found > .9, "recall %.3f with one row in %u", found, share);
    }
    Bytes none((n + 63) / 64 * 8, 0), brief(8, 0xFF), empty;
    std::vector<float> v = a_query(r, 16);
    CHECK(g.search(query(v, 10, 64, &none)).n == 0, "an empty mask");
    well_formed(g.search(query(v, 10, 64, &brief)), 10, 64, &brief);  // shorter than the graph
    Query q = query(v);
    q.mask = brief.data();
    q.mask_bytes = 0;
    CHECK(g.search(q).n == 0, "a mask of no bytes");
    for (i64 visible : {0ll, 1ll, 31ll, 1000ll, 5000ll}) {
        q = query(v, 50, 200);
        q.n_visible = visible;
        well_formed(g.search(q), 50, (u32)std::min<i64>(visible, n));
    }
    std::vector<u32> first = slots_of(g.search(query(v)));
    q = query(v);
    q.skip = first[0];
    std::vector<u32> rest = slots_of(g.search(q));
    CHECK(!std::count(rest.begin(), rest.end(), first[0]), "a skipped slot");
    q.skip = n + 5;
    CHECK(slots_of(g.search(q)) == first, "a skip beyond the graph");
    q = query(v, 10, 1000);
    q.budget = 200;
    Found f = g.search(q);
    CHECK(f.exhausted && f.n_dist < 200 + 16 + 120, "%llu distances", (unsigned long long)f.n_dist);
    q = query(v, 0x7FFFFFFE, 0x7FFFFFFE);
    q.rr = 0x7FFFFFFE;
    CHECK(g.search(q).n == n, "all of the rows");
}

CASE("graph", "scans by slots, mask and threads agree with distances computed one by one") {
    Random r(16);
    u32 n = 20000;
    for (u32 metric : METRICS) {
        Graph g(options(5, metric));
        put(g, 0, rows_of_vectors(r, n, 5));
        g.set_state(n, Scale{-1.5f, .025f});
        std::vector<float> v = a_query(r, 5), d(n);
        std::vector<u32> all(n), some;
        for (u32 s = 0; s < n; s++) all[s] = s;
        for (u32 s = 0; s < n; s += 1 + r.below(5)) some.push_back(s);
        g.distances(v.data(), all.data(), n, d.data());
        auto nearer = [&](u32 a, u32 b) { return d[a] < d[b] || (d[a] == d[b] && a < b); };
        std::vector<u32> best = some;
        std::sort(best.begin(), best.end(), nearer);
        best.resize(20);
        Bytes mask = mask_of(n, some);
        ScanQuery q = scan_query(v, 20, &mask);
        CHECK(slots_of(g.scan(q)) == best, "by mask");
        q.threads = 3;
        CHECK(slots_of(g.scan(q)) == best, "by mask, threads");
        q = scan_query(v, 20);
        q.slots = some.data();
        q.n_slots = (u32)some.size();
        CHECK(slots_of(g.scan(q)) == best, "by slots");
        q.exact = false;
        q.rr = 2000;
        q.threads = 3;
        std::vector<u32> coded = slots_of(g.scan(q));
        u32 hit = 0;
        for (u32 s : coded) hit += std::count(best.begin(), best.end(), s) > 0;
        CHECK(hit >= 19, "by codes: %u of 20", hit);
    }
}

CASE("graph", "a writer sees its own rows, readers do not, and a rollback leaves no trace") {
    Random r(17);
    Graph g(options(12, L2));
    commit(g, rows_of_vectors(r, 700, 12), 2);
    Bytes before = image(g), more = rows_of_vectors(r, 500, 12);
    std::vector<float> v(12);
    memcpy(v.data(), &more[0], 48);
    for (int turn = 0; turn < 3; turn++) {
        Writer w(g);
        CHECK(refusal([&] { Writer other(g); }).size(), "a second writer");
        w.insert(700, more.data(), 500, 2);
        CHECK(w.search(query(v, 1)).slots[0] == 700, "the writer does not see its row");
        CHECK(w.search_many(query(v, 1), v.data(), 1, 1)[0].slots[0] == 700, "search_many");
        CHECK(w.scan(scan_query(v, 1)).slots[0] == 700, "scan");
        CHECK(recall(w, 12, r, 20, nullptr, 1200) > .93, "the writer's recall");
        CHECK(g.search(query(v, 1)).slots[0] < 700, "a reader sees it");
        CHECK(image(g) == before, "a published row changed");
        w.changes();
        w.rollback();
        CHECK(image(g) == before && g.n_slots() == 700, "the rollback left something");
        CHECK(!g.has_vector(700), "a vector of a rolled back row");
        CHECK(refusal([&] { w.insert(700, more.data(), 1, 1); }).size(), "an ended writer inserts");
    }
    Graph fresh(options(12, L2));
    put(fresh, 0, rows_of_vectors(r, 700, 12));  // other vectors: only links are compared
    load_image(fresh, g);
    CHECK(image(fresh) == before, "an image of it");
    commit(g, more, 1);
    sound(g);
}

CASE("graph", "wrong insertions are refused and change nothing") {
    Random r(18);
    Graph g(options(4, L2));
    Bytes rows = rows_of_vectors(r, 100, 4);
    commit(g, rows);
    Bytes before = image(g);
    {
        Writer w(g);
        u32 twice[] = {200, 200}, taken[] = {5}, huge[] = {MAX_SLOTS};
        CHECK(refusal([&] { w.insert(99, rows.data(), 1, 1); }).size(), "a slot in use");
        CHECK(refusal([&] { w.insert(MAX_SLOTS - 3, rows.data(), 5, 1); }).size(), "too many slots");
        CHECK(refusal([&] { w.insert_at(twice, rows.data(), 2, 1); }).size(), "a slot twice");
        CHECK(refusal([&] { w.insert_at(taken, rows.data(), 1, 1); }).size(), "a slot in the graph");
        CHECK(refusal([&] { w.insert_at(huge, rows.data(), 1, 1); }).size(), "a slot out of range");
        w.insert(100, rows.data(), 0, 1);
        CHECK(!w.dirty(), "nothing inserted");
        w.insert(100, rows.data(), 3, 1);
        CHECK(refusal([&] { g.set_state(500, Scale()); }).size(), "a new state under a writer");
    }
    CHECK(image(g) == before, "something changed");
}

CASE("graph", "slots may be left out, filled later, and a follower has the same bytes") {
    Random r(19);
    for (u32 metric : METRICS) {
        Graph g(options(9, metric)), follower(options(9, metric));
        std::vector<u32> order(900);
        for (u32 i = 0; i < 900; i++) order[i] = i;
        for (u32 i = 900; i > 1; i--) std::swap(order[i - 1], order[r.below(i)]);
        for (u32 from = 0; from < 900; from += 100) {
            Bytes rows = rows_of_vectors(r, 100, 9);
            Writer w(g);
            w.insert_at(&order[from], rows.data(), 100, from / 100 % 2 + 1);
            Bytes record = w.changes();
            g.apply(record.data(), record.size());
            follower.put_vectors(&order[from], rows.data(), 100);
            follower.apply(record.data(), record.size());
            CHECK(image(g) == image(follower), "after %u", from + 100);
        }
        sound(g);
        sound(follower);
        CHECK(g.scale() == follower.scale(), "scales");
        for (u32 i = 0; i < 30; i++) {
            std::vector<float> v = a_query(r, 9);
            std::vector<u32> here = slots_of(g.search(query(v)));
            CHECK(here == slots_of(follower.search(query(v))), "a follower finds other rows");
        }
        double found = recall(g, 9, r, 30, nullptr, 900);
        CHECK(found > .9, "recall %.3f", found);
    }
}

CASE("graph", "growing values change the scale, for followers and searches that follow too") {
    Random r(20);
    for (u32 metric : METRICS) {
        Graph g(options(9, metric)), follower(options(9, metric));
        Scale first;
        u32 n = 0;
        for (float spread : {1.0f, 1.0f, 30.0f, 1000.0f, 1e6f}) {
            Bytes rows = rows_of_vectors(r, 150, 9, F32, spread);
            Bytes record = commit(g, rows);
            put(follower, n, rows);
            follower.apply(record.data(), record.size());
            n += 150;
            if (!first.valid()) first = g.scale();
            CHECK(g.scale() == follower.scale(), "scales differ");
            CHECK(image(g) == image(follower), "images differ");
            std::vector<float> v = a_query(r, 9, spread);
            CHECK(slots_of(g.search(query(v))) == slots_of(follower.search(query(v))), "searches");
        }
        CHECK(metric == COSINE || g.scale() != first, "the scale stayed");
        sound(g);
    }
}

CASE("graph", "an image at rest and records after it make the same graph") {
    Random r(21);
    Graph g(options(8, L2));
    Bytes all = rows_of_vectors(r, 1300, 8), records;
    std::vector<Bytes> kept;
    std::unique_ptr<Graph> copy;
    for (u32 n = 0; n < 1300; n += 100) {
        if (n == 600) {
            copy = std::make_unique<Graph>(options(8, L2));
            Bytes stored(all.begin(), all.begin() + n * 32);
            put(*copy, 0, stored);
            load_image(*copy, g);
        }
        Bytes rows(all.begin() + n * 32, all.begin() + (n + 100) * 32);
        kept.push_back(commit(g, rows));
        if (copy) {
            put(*copy, n, rows);
            copy->apply(kept.back().data(), kept.back().size());
        }
    }
    CHECK(image(g) == image(*copy), "image and records");
    for (size_t i = 6; i < kept.size(); i++) copy->apply(kept[i].data(), kept[i].size());
    CHECK(image(g) == image(*copy), "the same records once more");
    CHECK(refusal([&] {
              Graph late(options(8, L2));
              late.apply(kept[5].data(), kept[5].size());
          }).size(), "a record that does not follow");
    sound(*copy);
}

CASE("graph", "attached blocks serve vectors, writable copies replace them, detaching forgets them") {
    Random r(22);
    for (u32 dtype : {F32, F16, I8, B1})
        for (size_t off = 0; off < 3; off++) {  // storage does not promise alignment
            Graph g(options(dtype == B1 ? 70 : 6, dtype == B1 ? HAMMING : L2, dtype));
            const u32 dim = g.options().shape.dim;
            u32 row = g.options().shape.row_bytes();
            Bytes rows = rows_of_vectors(r, 256, dim, dtype);
            Exact<u8> where(rows, off);
            for (u32 b = 0; b < 4; b++) g.attach_block(b, where.start + b * 64 * row, 64);
            CHECK(g.private_blocks().empty(), "private already");
            Bytes got(row);
            for (u32 s = 0; s < 256; s++)
                CHECK(g.vector(s, got.data()) && !memcmp(got.data(), &rows[s * row], row), "slot %u", s);
            g.set_state(256, Scale{-1.5f, .025f});
            std::vector<float> v = a_query(r, dim);
            ScanQuery q = scan_query(v, 300);
            well_formed(g.scan(q), 300, 256);
            q.exact = false;
            q.rr = 300;
            well_formed(g.scan(q), 300, 256);
            u32 slot = 70;
            g.put_vectors(&slot, rows.data(), 1);
            CHECK(g.vector(70, got.data()) && !memcmp(got.data(), rows.data(), row), "the new copy");
            CHECK(g.vector(71, got.data()) && !memcmp(got.data(), &rows[71 * row], row), "its neighbour");
            CHECK(g.private_blocks() == std::vector<u32>{1}, "private blocks");
            g.detach_all();
            CHECK(!g.vector(0, got.data()) && !g.vector(255, got.data()), "still there");
            CHECK(refusal([&] { g.attach_block(0xFFFFFFFF, where.start, 64); }).size(), "a block number");
        }
}

CASE("graph", "slots beyond the machine's memory are refused with nothing changed") {
    Graph g(options(4, L2, F32, 256));  // 2 kB of links a slot: 4 TB for all of them
    const u32 far = MAX_SLOTS - 64;
    Bytes block(64 * 16, 0);
    auto refuses = [](std::function<void()> f) {
        try {
            f();
        } catch (const std::bad_alloc&) {
            return true;
        }
        return false;
    };
    CHECK(refuses([&] { g.set_state(far, Scale{0, 1}); }), "a state");
    CHECK(refuses([&] { g.put_vectors(&far, block.data(), 1); }), "a vector");
    CHECK(refuses([&] { g.attach_block(far / 64, block.data(), 64); }), "a block");
    {
        Writer w(g);
        CHECK(refuses([&] { w.insert(far, block.data(), 1, 1); }), "an insertion");
        CHECK(refusal([&] { w.changes(); }).size(), "a record of what failed");
    }
    CHECK(g.n_slots() == 0 && g.stored.rows() == 0 && g.base_links.rows() == 0, "it grew");
    Random r(25);
    commit(g, rows_of_vectors(r, 100, 4));
    sound(g);
}

CASE("graph", "one thread builds the same graph on every instruction set") {
    for (u32 metric : {L2, DOT, HAMMING}) {
        Bytes first;
        std::vector<std::vector<u32>> found;
        for (const std::string& isa : available_isas()) {
            Random r(23);
            Graph g(options(21, metric, F32, 8, isa.c_str()));
            u32 dtype = g.options().shape.dtype;
            for (u32 n : {64u, 400u, 300u}) commit(g, rows_of_vectors(r, n, 21, dtype));
            if (first.empty()) first = image(g);
            CHECK(image(g) == first, "%s builds another graph, metric %u", isa.c_str(), metric);
            for (u32 i = 0; i < 20; i++) {
                std::vector<u32> s = slots_of(g.search(query(a_query(r, 21), 5, 40)));
                if (found.size() < 20) found.push_back(s);
                CHECK(s == found[i], "%s finds other rows", isa.c_str());
            }
        }
    }
}

CASE("graph", "an unknown instruction set is refused by name with the list") {
    std::string why = refusal([] { kernels_for("mmx"); });
    CHECK(why.find("mmx") != std::string::npos && why.find("scalar") != std::string::npos, "%s",
          why.c_str());
    setenv("VECDB_ISA", "scalar", 1);
    CHECK(!strcmp(kernels_for(nullptr)->name, "scalar"), "VECDB_ISA");
    setenv("VECDB_ISA", "abacus", 1);
    why = refusal([] { kernels_for(""); });
    CHECK(why.find("VECDB_ISA") != std::string::npos, "%s", why.c_str());
    unsetenv("VECDB_ISA");
}

CASE("graph", "a parallel loop runs every index once and passes on the first failure") {
    for (u32 threads : {1u, 2u, 7u, 400u})
        for (u32 n : {0u, 1u, 5u, 3000u}) {
            std::vector<std::atomic<u32>> seen(n);
            parallel(n, threads, [&](u32 i) { seen[i]++; });
            for (u32 i = 0; i < n; i++) CHECK(seen[i] == 1, "%u ran %u times", i, seen[i].load());
        }
    bool thrown = false;
    try {
        parallel(100, 4, [](u32 i) {
            if (i == 37) throw std::runtime_error("37");
        });
    } catch (const std::runtime_error&) {
        thrown = true;
    }
    CHECK(thrown, "the exception was lost");
}

CASE("graph", "checksums by the instruction equal those computed bit by bit") {
    Random r(24);
    for (u32 n : {0u, 1u, 7u, 8u, 9u, 1023u, 3071u, 3072u, 3073u, 10000u}) {
        Bytes b(n);
        for (u8& x : b) x = (u8)r.next();
        u32 start = r.below(2) ? 0 : (u32)r.next(), c = ~start;
        for (u8 x : b) {
            c ^= x;
            for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0x82F63B78u : c >> 1;
        }
        CHECK(crc32c(start, b.data(), n) == ~c, "%u bytes", n);
    }
    CHECK(crc32c(0, "123456789", 9) == 0xE3069283u, "the published check value");
}

}  // namespace
}  // namespace vecdb
