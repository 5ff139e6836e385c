// planted.cpp: the controls: calls that break the core's rules on purpose. Under the sanitizer that
// each is meant for it must end with that sanitizer's report, from code of the core.
#include <thread>

#include "world.h"

namespace vecdb {
namespace {

CASE("planted-heap", "a kernel is given a row on the heap that is one value short") {
    float* a = (float*)calloc(19, 4);
    float* b = (float*)calloc(18, 4);
    float d = kernels_for("scalar")->l2_f32(a, b, 19);
    CHECK(d == d, "used");
    free(a);
    free(b);
}

CASE("planted-guard", "a kernel is given a row before a forbidden page that is one value short") {
    Exact<float> a(std::vector<float>(19, 1)), b(std::vector<float>(18, 1));
    float d = kernels_for("")->l2_f32(a.start, b.start, 19);
    CHECK(d == d, "used");
}

CASE("planted-undefined", "a sum of products is made to leave 32 bits") {
    u32 n = 64 * 2200;  // 127 * 127 * n is above 2^31; no field has so many dimensions
    std::vector<u8> ones(n, 127);
    i32 sum = kernels_for("scalar")->code_dot(ones.data(), ones.data(), n);
    CHECK(sum != 1, "used");
}

CASE("planted-race", "a published row's code is rewritten beside searches, without a lock") {
    Random r(51);
    Graph g(options(16, L2));
    Bytes rows = rows_of_vectors(r, 300, 16);
    commit(g, rows);
    std::vector<float> v = a_query(r, 16);
    std::thread other([&] {
        for (u32 i = 0; i < 300; i++) g.codes->encode(i, &rows[i * 64]);
    });
    for (u32 i = 0; i < 50; i++) g.search(query(v, 50, 300));
    other.join();
    CHECK(true, "ran");
}

CASE("planted-kernel", "a kernel that leaves out the last value of a vector") {
    // compared as kernels.cpp does it, without any sanitizer
    Random r(52);
    const Kernels* good = kernels_for("");
    for (u32 n = 1; n < 100; n++) {
        std::vector<float> a(n), b(n);
        for (u32 i = 0; i < n; i++) a[i] = r.uniform(-1, 1), b[i] = r.uniform(-1, 1);
        float x = good->l2_f32(a.data(), b.data(), n - 1);
        float y = kernels_for("scalar")->l2_f32(a.data(), b.data(), n);
        CHECK(fabsf(x - y) <= 1.2e-7f * (n + 2) * y, "n=%u: %g, scalar %g", n, x, y);
    }
}

}  // namespace
}  // namespace vecdb
