// races.cpp: searches beside a writer and a follower, for ThreadSanitizer above all.
//
// What a search answers is checked as it comes: in order, no slot twice, every distance the true
// one of that slot's vector, which the test knows because vectors never change.
#include <sched.h>

#include <thread>

#include "world.h"

namespace vecdb {
namespace {

const u32 DIM = 16;

struct Beside {  // searchers of one or more graphs until stop()
    std::atomic<bool> over{false};
    std::atomic<u64> answers{0};
    std::vector<std::thread> threads;
    void start(std::function<void(Random&)> act, u64 seed) {
        threads.emplace_back([this, act, seed] {
            Random r(seed);
            while (!over) {
                act(r);
                answers++;
            }
        });
    }
    void stop() {
        over = true;
        for (std::thread& t : threads) t.join();
    }
};

float true_distance(const Bytes& rows, u32 slot, const std::vector<float>& v) {
    double s = 0;
    for (u32 j = 0; j < DIM; j++) {
        float x;
        memcpy(&x, &rows[((size_t)slot * DIM + j) * 4], 4);
        s += ((double)x - v[j]) * ((double)x - v[j]);
    }
    return (float)sqrt(s);
}

void right(const Found& f, u32 k, u32 limit, const Bytes& rows, const std::vector<float>& v,
           const Bytes* mask = nullptr) {
    well_formed(f, k, limit, mask);
    for (u32 i = 0; i < f.n; i++) {
        float d = true_distance(rows, f.slots[i], v);
        CHECK(fabsf(d - f.distances[i]) <= 1e-3f * (1 + d), "slot %u at %g, truly %g", f.slots[i],
              f.distances[i], d);
    }
}

// One question of each kind, to a graph whose slots will hold `rows`.
void ask(Graph& g, const Bytes& rows, Random& r, const Bytes& mask) {
    std::vector<float> v = a_query(r, DIM);
    u32 all = (u32)(rows.size() / (DIM * 4));
    switch (r.below(6)) {
        case 0:
            right(g.search(query(v)), 10, all, rows, v);
            break;
        case 1:
            right(g.search(query(v, 10, 48, &mask)), 10, all, rows, v, &mask);
            break;
        case 2: {
            ScanQuery q = scan_query(v, 10, &mask);
            q.exact = r.below(2);
            q.rr = 50;
            q.threads = 1 + r.below(2);
            right(g.scan(q), 10, all, rows, v, &mask);
            break;
        }
        case 3: {
            std::vector<float> many = v;
            many.insert(many.end(), v.begin(), v.end());
            for (const Answer& a : g.search_many(query(v), many.data(), 2, 2)) {
                Found f;
                f.slots = a.slots.data();
                f.distances = a.distances.data();
                f.n = (u32)a.slots.size();
                right(f, 10, all, rows, v);
            }
            break;
        }
        case 4: {
            u32 n = g.n_slots();
            if (!n) break;
            u32 slot = r.below(n);
            float d;
            g.distances(v.data(), &slot, 1, &d);
            float truth = true_distance(rows, slot, v);
            CHECK(fabsf(d - truth) <= 1e-3f * (1 + truth), "slot %u: %g, truly %g", slot, d, truth);
            break;
        }
        default: {
            Bytes row(DIM * 4);
            u32 n = g.n_slots();
            if (!n) break;
            u32 slot = r.below(n);
            CHECK(g.vector(slot, row.data()), "no vector at %u", slot);
            CHECK(!memcmp(row.data(), &rows[(size_t)slot * DIM * 4], DIM * 4), "the vector of %u", slot);
            g.scale();
        }
    }
}

Bytes growing_rows(Random& r, u32 n) {  // in ranges that ask for new scales on the way
    Bytes all;
    for (u32 part = 0; part < 6; part++) {
        Bytes b = rows_of_vectors(r, n / 6, DIM, F32, part < 2 ? 1.0f : (float)part * 8);
        all.insert(all.end(), b.begin(), b.end());
    }
    return all;
}

CASE("races", "searches beside inserts, commits, rollbacks and a follower are right") {
    Random r(41);
    const u32 STEP = 50, ALL = 1800;
    Bytes rows = growing_rows(r, ALL);
    std::vector<u32> half;
    for (u32 s = 0; s < ALL; s += 2) half.push_back(s);
    Bytes mask = mask_of(ALL, half);
    Graph g(options(DIM, L2)), follower(options(DIM, L2));
    Beside beside;
    for (u64 i = 0; i < 2; i++) {
        beside.start([&](Random& own) { ask(g, rows, own, mask); }, 100 + i);
        beside.start([&](Random& own) { ask(follower, rows, own, mask); }, 200 + i);
    }
    u32 scales = 0;
    Scale last;
    for (u32 n = 0; n < ALL; n += STEP) {
        Bytes fresh(rows.begin() + n * DIM * 4, rows.begin() + (n + STEP) * DIM * 4);
        if (n % 200 == 0) {
            Writer w(g);
            w.insert(n, fresh.data(), STEP, 2);
            std::vector<float> v = a_query(r, DIM);
            right(w.search(query(v)), 10, n + STEP, rows, v);
            w.rollback();
        }
        Bytes record = commit(g, fresh, 2);
        put(follower, n, fresh);
        follower.apply(record.data(), record.size());
        scales += g.scale() != last;
        last = g.scale();
    }
    beside.stop();
    CHECK(scales > 2, "%u scales", scales);
    CHECK(image(g) == image(follower), "the follower's image");
    sound(g);
    printf("           %llu answers beside %u commits, %u scales\n",
           (unsigned long long)beside.answers.load(), ALL / STEP, scales);
}

CASE("races", "a writer's own searches wait for its insertions and are right") {
    Random r(42);
    Bytes rows = rows_of_vectors(r, 1200, DIM);
    Graph g(options(DIM, L2));
    commit(g, Bytes(rows.begin(), rows.begin() + 400 * DIM * 4));
    Writer w(g);
    Beside beside;
    for (u64 i = 0; i < 2; i++)
        beside.start([&](Random& own) {
            std::vector<float> v = a_query(own, DIM);
            u32 kind = own.below(3);
            if (kind == 0) right(w.search(query(v)), 10, 1200, rows, v);
            if (kind == 1) right(w.scan(scan_query(v)), 10, 1200, rows, v);
            if (kind == 2) w.search_many(query(v), v.data(), 1, 2);
            sched_yield();  // the mutex is not fair
        }, 300 + i);
    for (u32 n = 400; n < 1200; n += 100) {
        w.insert(n, &rows[n * DIM * 4], 100, 2);
        if (n % 300 == 0) w.changes();
    }
    beside.stop();
    Bytes record = w.changes();
    g.apply(record.data(), record.size());
    sound(g);
}

CASE("races", "many threads make a writer's first private rows at once") {
    Random r(45);
    Bytes base = rows_of_vectors(r, 1000, DIM), more = rows_of_vectors(r, 130, DIM);
    Graph g(options(DIM, L2));
    commit(g, base, 2);
    for (u32 turn = 0; turn < 15; turn++) {
        Graph copy(options(DIM, L2));  // whose overlay has no chunks yet
        put(copy, 0, base);
        load_image(copy, g);
        commit(copy, more, 4);
        sound(copy);
    }
}

CASE("races", "holes are filled, and rows reused after a rollback, beside searches") {
    Random r(43);
    Bytes rows = rows_of_vectors(r, 900, DIM);
    Graph g(options(DIM, L2)), follower(options(DIM, L2));
    std::vector<u32> order(900);
    for (u32 i = 0; i < 900; i++) order[i] = i;
    for (u32 i = 900; i > 1; i--) std::swap(order[i - 1], order[r.below(i)]);
    Beside beside;
    for (u64 i = 0; i < 2; i++) {
        beside.start([&](Random& own) {
            std::vector<float> v = a_query(own, DIM);
            right(g.search(query(v)), 10, 900, rows, v);
        }, 400 + i);
        beside.start([&](Random& own) {
            std::vector<float> v = a_query(own, DIM);
            right(follower.search(query(v)), 10, 900, rows, v);
        }, 500 + i);
    }
    for (u32 from = 0; from < 900; from += 30) {
        Bytes fresh;
        for (u32 i = from; i < from + 30; i++)
            fresh.insert(fresh.end(), &rows[order[i] * DIM * 4], &rows[order[i] * DIM * 4] + DIM * 4);
        if (from % 90 == 0) {
            Writer w(g);
            w.insert_at(&order[from], fresh.data(), 30, 2);
            w.rollback();
        }
        Writer w(g);
        w.insert_at(&order[from], fresh.data(), 30, 2);
        Bytes record = w.changes();
        g.apply(record.data(), record.size());
        follower.put_vectors(&order[from], fresh.data(), 30);
        follower.apply(record.data(), record.size());
    }
    beside.stop();
    CHECK(image(g) == image(follower), "the follower's image");
    sound(g);
}

CASE("races", "blocks may be freed once detached, whatever searches run") {
    Random r(44);
    const u32 BLOCK = 64, BLOCKS = 20;
    size_t bytes = (size_t)BLOCK * DIM * 4;
    Bytes rows = rows_of_vectors(r, BLOCKS * BLOCK, DIM);
    Graph g(options(DIM, L2));
    Beside beside;
    for (u64 i = 0; i < 3; i++)
        beside.start([&](Random& own) {
            std::vector<float> v = a_query(own, DIM);
            right(g.search(query(v)), 10, BLOCKS * BLOCK, rows, v);
            if (own.below(4) == 0) right(g.scan(scan_query(v)), 10, BLOCKS * BLOCK, rows, v);
        }, 600 + i);
    for (u32 turn = 0; turn < 3 * BLOCKS; turn++) {
        u32 blocks = turn / 3 + 1;
        if (turn % 3 == 0)  // a private block, that an attached one is to replace
            commit(g, Bytes(rows.begin() + turn / 3 * bytes, rows.begin() + blocks * bytes));
        u8* borrowed = (u8*)malloc(rows.size());
        memcpy(borrowed, rows.data(), rows.size());
        for (u32 b = 0; b < blocks; b++) g.attach_block(b, borrowed + b * bytes, BLOCK);
        sched_yield();
        g.detach_all();
        memset(borrowed, 0xFF, rows.size());
        free(borrowed);
    }
    beside.stop();
    CHECK(g.private_blocks().empty(), "private copies stay");
}

CASE("races", "graphs may be searched, filled and destroyed on threads of their own") {
    std::vector<std::thread> threads;
    for (u64 t = 0; t < 4; t++)
        threads.emplace_back([t] {
            for (u32 turn = 0; turn < 5; turn++) {
                Random r(700 + t);
                Graph g(options(DIM, L2));
                Bytes rows = rows_of_vectors(r, 200, DIM);
                commit(g, rows, 2);
                std::vector<float> v = a_query(r, DIM);
                right(g.search(query(v)), 10, 200, rows, v);
            }
        });
    for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace vecdb
