// kernels.cpp: every kernel of every instruction set of this processor against the scalar one.
//
// 1. All lengths from 0 to twice the longest unrolled step (64 floats) and three more; buffers
//    end exactly where the vectors do.
// 2. What is integer arithmetic, or one rounding a value, must be equal to the bit; sums of floats
//    agree within the rounding of their order, and in kind (NaN, infinite, finite) always.
#include <float.h>

#include <algorithm>

#include "check.h"
#include "dispatch.h"

namespace vecdb {
namespace {

const u32 LONGEST = 2 * 64 + 3;
const float INF = __builtin_inff();
const float NOT = __builtin_nanf("");
const float SPECIAL[] = {NOT,   INF,       -INF,  0.0f,    -0.0f,  1.4e-45f, -1.4e-45f, 1e-40f,
                         1e18f, -1e18f,    1e19f, FLT_MIN, FLT_MAX, -FLT_MAX, 3e38f,    65504.0f};

std::vector<const Kernels*> others() {
    std::vector<const Kernels*> found;
    for (const std::string& name : available_isas())
        if (name != "scalar") found.push_back(kernels_for(name.c_str()));
    return found;
}
const Kernels* plain() { return kernels_for("scalar"); }

std::vector<float> floats(Random& r, u32 n, float lo = -2, float hi = 2) {
    std::vector<float> v(n);
    for (float& x : v) x = r.uniform(lo, hi);
    return v;
}
// An independent conversion, by arithmetic.
float half_value(u16 h) {
    int e = h >> 10 & 31, m = h & 1023;
    float f = e == 31 ? (m ? NOT : INF) : e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
    return h & 0x8000 ? -f : f;
}
u16 nearest_half(float f) {  // of a float that a half holds well; enough for test data
    u16 sign = signbit(f) ? 0x8000 : 0;
    f = fabsf(f);
    if (f != f) return 0x7E00;
    if (f > 65504) return sign | 0x7C00;
    if (f < ldexpf(1, -14)) return sign | (u16)lrintf(ldexpf(f, 24));
    int e;
    float m = frexpf(f, &e);
    return (u16)(sign + ((e + 14) << 10) + lrintf(ldexpf(m, 11)) - 1024);
}
std::vector<u16> halves(const std::vector<float>& v) {
    std::vector<u16> h;
    for (float x : v) h.push_back(nearest_half(x));
    return h;
}

std::vector<i8> small_ints(const std::vector<float>& v) {
    std::vector<i8> b;
    for (float x : v) b.push_back(x != x ? 0 : (i8)lrintf(std::min(127.0f, std::max(-128.0f, x * 63))));
    return b;
}

const char* kind(float f) {
    return f != f ? "NaN" : f == INF ? "infinity" : f == -INF ? "-infinity" : "finite";
}
// Equal in kind, and within the rounding of a sum of n terms whose sizes add up to `size`.
bool same(float a, float b, double size, u32 n) {
    if (strcmp(kind(a), kind(b))) return false;
    if (kind(a)[0] != 'f') return true;
    return fabs((double)a - b) <= 1.2e-7 * (n + 2) * size + 1e-44 * (n + 2);
}
double size_of_l2(const std::vector<float>& a, const std::vector<float>& b) {
    double s = 0;
    for (size_t i = 0; i < a.size(); i++) s += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return s;
}
double size_of_dot(const std::vector<float>& a, const std::vector<float>& b) {
    double s = 0;
    for (size_t i = 0; i < a.size(); i++) s += fabs((double)a[i] * b[i]);
    return s;
}

// All six float kernels on one pair; b lies at an odd address where asked.
void compare_floats(const Kernels* k, const std::vector<float>& a, const std::vector<float>& b,
                    size_t off) {
    const Kernels* s = plain();
    u32 n = (u32)a.size();
    Exact<float> ea(a), eb(b, off);
    float xk, xs, x, y;
    x = k->l2_f32(ea.start, eb.start, n);
    y = s->l2_f32(ea.start, eb.start, n);
    CHECK(same(x, y, size_of_l2(a, b), n), "%s l2_f32 n=%u: %g, scalar %g", k->name, n, x, y);
    x = k->dot_f32(ea.start, eb.start, n, &xk);
    y = s->dot_f32(ea.start, eb.start, n, &xs);
    CHECK(same(x, y, size_of_dot(a, b), n), "%s dot_f32 n=%u: %g, scalar %g", k->name, n, x, y);
    CHECK(same(xk, xs, size_of_dot(b, b), n), "%s dot_f32 b.b n=%u: %g, scalar %g", k->name, n,
          xk, xs);

    std::vector<u16> h = halves(b);
    std::vector<float> bh;
    for (u16 v : h) bh.push_back(half_value(v));
    Exact<u16> eh(h, off);
    x = k->l2_f16(ea.start, eh.start, n);
    y = s->l2_f16(ea.start, eh.start, n);
    CHECK(same(x, y, size_of_l2(a, bh), n), "%s l2_f16 n=%u: %g, scalar %g", k->name, n, x, y);
    x = k->dot_f16(ea.start, eh.start, n, &xk);
    y = s->dot_f16(ea.start, eh.start, n, &xs);
    CHECK(same(x, y, size_of_dot(a, bh), n), "%s dot_f16 n=%u: %g, scalar %g", k->name, n, x, y);
    CHECK(same(xk, xs, size_of_dot(bh, bh), n), "%s dot_f16 b.b n=%u: %g, scalar %g", k->name, n,
          xk, xs);

    std::vector<i8> c = small_ints(b);
    std::vector<float> bc(c.begin(), c.end());
    Exact<i8> ec(c, off);
    x = k->l2_i8(ea.start, ec.start, n);
    y = s->l2_i8(ea.start, ec.start, n);
    CHECK(same(x, y, size_of_l2(a, bc), n), "%s l2_i8 n=%u: %g, scalar %g", k->name, n, x, y);
    x = k->dot_i8(ea.start, ec.start, n, &xk);
    y = s->dot_i8(ea.start, ec.start, n, &xs);
    CHECK(same(x, y, size_of_dot(a, bc), n), "%s dot_i8 n=%u: %g, scalar %g", k->name, n, x, y);
    CHECK(xk == xs, "%s dot_i8 b.b n=%u: %g, scalar %g", k->name, n, xk, xs);
}

CASE("kernels", "the scalar float kernels agree with sums in double precision") {
    Random r(1);
    const Kernels* s = plain();
    for (u32 n = 0; n <= LONGEST; n++) {
        std::vector<float> a = floats(r, n), b = floats(r, n);
        std::vector<u16> h = halves(b);
        std::vector<float> bh;
        for (u16 v : h) bh.push_back(half_value(v));
        for (int half = 0; half < 2; half++) {
            const std::vector<float>& v = half ? bh : b;
            double l2 = 0, dot = 0, xx = 0;
            for (u32 i = 0; i < n; i++) {
                l2 += ((double)a[i] - v[i]) * ((double)a[i] - v[i]);
                dot += (double)a[i] * v[i];
                xx += (double)v[i] * v[i];
            }
            float x, f = half ? s->l2_f16(a.data(), h.data(), n) : s->l2_f32(a.data(), b.data(), n);
            CHECK(same(f, (float)l2, l2, n), "l2 n=%u: %g for %g", n, f, l2);
            f = half ? s->dot_f16(a.data(), h.data(), n, &x) : s->dot_f32(a.data(), b.data(), n, &x);
            CHECK(same(f, (float)dot, size_of_dot(a, v), n), "dot n=%u: %g for %g", n, f, dot);
            CHECK(same(x, (float)xx, xx, n), "b.b n=%u: %g for %g", n, x, xx);
        }
    }
}

CASE("kernels", "float kernels agree for all lengths, aligned or not") {
    Random r(2);
    for (const Kernels* k : others())
        for (u32 n = 0; n <= LONGEST; n++)
            for (size_t off = 0; off < 4; off++) {
                std::vector<float> a = floats(r, n), b = floats(r, n);
                compare_floats(k, a, b, off);
                compare_floats(k, a, a, off);
            }
}

CASE("kernels", "float kernels agree for special values in every place") {
    Random r(3);
    for (const Kernels* k : others())
        for (u32 n = 1; n <= LONGEST; n += n < 40 || n > 120 ? 1 : 5)
            for (u32 at = 0; at < n; at++) {
                float one = SPECIAL[r.below(16)], other = SPECIAL[r.below(16)];
                for (int where = 1; where < 4; where++) {
                    std::vector<float> a = floats(r, n), b = floats(r, n);
                    if (where & 1) a[at] = one;
                    if (where & 2) b[at] = other;
                    compare_floats(k, a, b, 0);
                }
            }
    for (const Kernels* k : others())  // each pair once, in vector body and tail
        for (float one : SPECIAL)
            for (float other : SPECIAL)
                for (u32 n : {1u, 8u, 19u, 67u})
                    for (u32 at : {0u, n - 1}) {
                        std::vector<float> a = floats(r, n), b = floats(r, n);
                        a[at] = one;
                        b[at] = other;
                        compare_floats(k, a, b, 0);
                    }
}

CASE("kernels", "all 65,536 half floats become the same float, in every place") {
    Random r(4);
    std::vector<u16> every(65536);
    for (u32 i = 0; i < 65536; i++) every[i] = (u16)i;
    std::vector<float> expected(65536), got(65536);
    plain()->from_f16(every.data(), 65536, expected.data());
    for (u32 i = 0; i < 65536; i++) {
        float v = half_value((u16)i), w = expected[i];
        bool equal = v == v ? !memcmp(&v, &w, 4) : w != w;
        CHECK(equal, "scalar: half %04x is %g, not %g", i, w, v);
    }
    for (const Kernels* k : others()) {
        k->from_f16(every.data(), 65536, got.data());
        CHECK(!memcmp(got.data(), expected.data(), 65536 * 4), "%s from_f16", k->name);
        for (u32 n = 0; n <= LONGEST; n++) {
            u32 from = r.below(65536 - LONGEST);
            for (size_t off = 0; off < 2; off++) {
                Exact<u16> in(std::vector<u16>(every.begin() + from, every.begin() + from + n), off);
                Exact<float> out((std::vector<float>(n)));
                k->from_f16(in.start, n, out.start);
                CHECK(!memcmp(out.start, expected.data() + from, n * 4), "%s from_f16 n=%u",
                      k->name, n);
            }
        }
    }
}

CASE("kernels", "distances of whole numbers between bytes are exact, and each byte is its value") {
    Random r(10);
    std::vector<const Kernels*> all = others();
    all.push_back(plain());
    for (const Kernels* k : all)
        for (u32 n : {1u, 7u, 8u, 16u, 31u, 64u, 100u, 768u, 1536u})
            for (int turn = 0; turn < 10; turn++) {
                std::vector<i8> b(n);
                std::vector<float> a(n), out(n);
                for (u32 i = 0; i < n; i++) {
                    b[i] = (i8)(turn ? (int)r.below(256) - 128 : -128);
                    a[i] = (float)(turn ? (int)r.below(256) - 128 : 127);
                }
                i64 l2 = 0, dot = 0, xx = 0;
                for (u32 i = 0; i < n; i++) {
                    i64 x = (i64)a[i], y = b[i];
                    l2 += (x - y) * (x - y), dot += x * y, xx += y * y;
                }
                Exact<i8> eb(b, turn % 4);
                Exact<float> ea(a), eo(out);
                float norm;
                k->from_i8(eb.start, n, eo.start);
                for (u32 i = 0; i < n; i++) CHECK(eo.start[i] == (float)b[i], "%s from_i8", k->name);
                // beyond 2^24 the last sum is rounded, and no other
                CHECK(fabs(k->l2_i8(ea.start, eb.start, n) - (double)l2) <= 3e-7 * l2 * (l2 >> 24 > 0),
                      "%s l2_i8 n=%u", k->name, n);
                float d = k->dot_i8(ea.start, eb.start, n, &norm);
                CHECK(fabs(d - (double)dot) <= 8.0 * (xx >> 24 > 0), "%s dot_i8 n=%u", k->name, n);
                CHECK(fabs(norm - (double)xx) <= 8.0 * (xx >> 24 > 0), "%s b.b n=%u", k->name, n);
            }
}

void compare_codes(const Kernels* k, const std::vector<u8>& a, const std::vector<u8>& b,
                   const std::vector<u8>& b_signed) {
    u32 n = (u32)a.size();
    Exact<u8> ea(a), eb(b), es(b_signed);
    u32 x = k->code_l2(ea.start, eb.start, n), y = 0;
    i32 d = k->code_dot(ea.start, es.start, n), e = 0;
    for (u32 i = 0; i < n; i++) {
        y += (u32)((a[i] - b[i]) * (a[i] - b[i]));
        e += a[i] * (int8_t)b_signed[i];
    }
    CHECK(x == y, "%s code_l2 n=%u: %u, not %u", k->name, n, x, y);
    CHECK(d == e, "%s code_dot n=%u: %d, not %d", k->name, n, d, e);
}

CASE("kernels", "code kernels are exact, up to the extremes of codes and of dim") {
    Random r(5);
    std::vector<const Kernels*> all = others();
    all.push_back(plain());
    for (const Kernels* k : all) {
        for (u32 words = 0; words <= 7; words++)
            for (int turn = 0; turn < 20; turn++) {
                u32 n = words * 64;
                std::vector<u8> a(n), b(n), s(n);
                for (u32 i = 0; i < n; i++) {
                    a[i] = (u8)r.below(128);
                    b[i] = (u8)r.below(128);
                    s[i] = (u8)r.below(256);
                }
                compare_codes(k, a, b, s);
            }
        for (u32 n : {64u, 128u, 192u, 1024u, 65536u})
            for (int low : {0, 127})
                for (int high : {0, 127})
                    for (int sign : {-128, -127, -1, 0, 1, 127}) {
                        std::vector<u8> a(n, (u8)low), b(n, (u8)high), s(n, (u8)sign);
                        compare_codes(k, a, b, s);
                    }
    }
}

CASE("kernels", "bits that differ are counted for every length, and no byte beyond") {
    Random r(11);
    std::vector<const Kernels*> all = others();
    all.push_back(plain());
    for (const Kernels* k : all)
        for (u32 n = 0; n <= 2 * LONGEST; n++)
            for (size_t off = 0; off < 3; off++) {
                std::vector<u8> a(n), b(n);
                u32 expected = 0;
                for (u32 i = 0; i < n; i++) {
                    a[i] = (u8)(off ? r.next() : 0xFF);
                    b[i] = (u8)(off ? r.next() : 0);
                    for (int j = 0; j < 8; j++) expected += (a[i] ^ b[i]) >> j & 1;
                }
                Exact<u8> ea(a), eb(b, off);
                u32 x = k->bits(ea.start, eb.start, n);
                CHECK(x == expected, "%s n=%u: %u, not %u", k->name, n, x, expected);
            }
    std::vector<u8> ones(8192, 0xFF), none(8192, 0);
    for (const Kernels* k : all)
        CHECK(k->bits(ones.data(), none.data(), 8192) == 65536, "%s: the longest", k->name);
}

CASE("kernels", "packed bits are their own code, and a query of floats is packed as they are") {
    Random r(12);
    std::vector<const Kernels*> all = others();
    all.push_back(plain());
    for (const Kernels* k : all)
        for (u32 dim : {1u, 7u, 8u, 9u, 100u, 511u, 512u, 513u, 1024u, 65535u}) {
            u32 bytes = (dim + 7) / 8, stride = (bytes + 63) / 64 * 64;
            std::vector<float> q(dim);
            std::vector<u8> row(bytes, 0);
            for (u32 i = 0; i < dim; i++) {
                q[i] = i % 5 == 4 ? SPECIAL[r.below(16)] : r.uniform(0, 1);
                row[i / 8] |= (u8)((q[i] > 0.5f) << (7 - i % 8));
            }
            Exact<float> eq(q);
            Exact<u8> er(row, 1), code((std::vector<u8>(stride, 0xAA))), query((std::vector<u8>(stride, 0xAA)));
            EncodeArgs a = {er.start, 1, dim, HAMMING, B1, 0, 1, code.start, stride, nullptr, 0};
            k->encode(&a);
            k->query_code(eq.start, dim, HAMMING, 0, 1, query.start, nullptr, stride);
            CHECK(!memcmp(code.start, query.start, stride), "%s dim %u", k->name, dim);
            CHECK(!memcmp(code.start, row.data(), bytes), "%s dim %u: the row", k->name, dim);
            for (u32 i = bytes; i < stride; i++) CHECK(!code.start[i], "%s: the padding", k->name);
            const u8* rows[3] = {er.start, nullptr, er.start};
            er.start[bytes / 2] ^= 0xFF;
            float d[3];
            k->exact(eq.start, dim, HAMMING, B1, rows, 3, d);
            CHECK(d[0] == 8 && d[1] != d[1] && d[2] == 8, "%s dim %u: %g", k->name, dim, d[0]);
        }
}

// Codes and queries in one call each, for one shape.
struct Coded {
    std::vector<u8> code, query;
    u64 clipped;
};
Coded code_with(const Kernels* k, const std::vector<float>& v, u32 metric, u32 dtype, float lo,
                float step, size_t off = 0) {
    u32 dim = (u32)v.size(), stride = (dim + 63) / 64 * 64;
    Coded c;
    Exact<u8> out((std::vector<u8>(stride, 0xAA))), query((std::vector<u8>(stride, 0xAA)));
    Exact<float> tmp((std::vector<float>(dim))), more((std::vector<float>(stride)));
    Exact<float> full(v), stored(v, off);
    Exact<u16> half(halves(v), off);
    Exact<i8> byte(small_ints(v), off);
    const void* in = dtype == F32   ? (const void*)stored.start
                     : dtype == F16 ? (const void*)half.start
                                    : (const void*)byte.start;
    EncodeArgs a = {in, 1, dim, metric, dtype, lo, step, out.start, stride, tmp.start, 0};
    k->encode(&a);
    k->query_code(full.start, dim, metric, lo, step, query.start, more.start, stride);
    c.code.assign(out.start, out.start + stride);
    c.query.assign(query.start, query.start + stride);
    c.clipped = a.clipped;
    return c;
}

void compare_coding(const Kernels* k, const std::vector<float>& v, u32 metric, u32 dtype, float lo,
                    float step) {
    Coded x = code_with(k, v, metric, dtype, lo, step, v.size() % 4);
    Coded y = code_with(plain(), v, metric, dtype, lo, step);
    u32 dim = (u32)v.size(), off = 0;
    for (size_t i = 0; i < x.code.size(); i++) {
        int d = (int)x.code[i] - y.code[i], q = (int)(int8_t)x.query[i] - (int8_t)y.query[i];
        int most = metric == COSINE && i < dim ? 1 : 0;  // the norm's rounding moves a tie
        CHECK(abs(d) <= most && abs(q) <= most,
              "%s metric %u dtype %u dim %u at %zu: code %u, scalar %u; query %u, scalar %u", k->name,
              metric, dtype, dim, i, x.code[i], y.code[i], x.query[i], y.query[i]);
        CHECK(x.code[i] < 128, "%s: a code of %u", k->name, x.code[i]);
        off += d || q;
    }
    CHECK(off <= 1 + dim / 50, "%s: %u of %u codes differ", k->name, off, dim);
    i64 most = metric == COSINE ? 1 : 0, apart = (i64)x.clipped - (i64)y.clipped;
    CHECK(apart <= most && -apart <= most, "%s metric %u dim %u: %llu clipped, scalar %llu", k->name,
          metric, dim, (unsigned long long)x.clipped, (unsigned long long)y.clipped);
}

CASE("kernels", "codes and queries are the same for all dims, ties and special values included") {
    Random r(6);
    for (const Kernels* k : others())
        for (u32 metric : {L2, COSINE, DOT})
            for (u32 dtype : {F32, F16, I8})
                for (u32 dim = 1; dim <= LONGEST; dim++) {
                    float step = metric == COSINE ? 0.013f : dtype == I8 ? 1.9f : 0.03f;
                    float lo = metric == DOT ? -64 * step : metric == COSINE ? -0.8f : -1.9f;
                    compare_coding(k, floats(r, dim), metric, dtype, lo, step);
                    std::vector<float> ties = floats(r, dim), special = ties;
                    for (float& x : ties) x = ((float)r.below(130) - 0.5f) * 0.25f - 16;
                    if (metric != COSINE) compare_coding(k, ties, metric, dtype, -16.0f, 0.25f);
                    special[r.below(dim)] = SPECIAL[r.below(16)];
                    if (metric != COSINE) compare_coding(k, special, metric, dtype, lo, step);
                    std::vector<float> all(dim, SPECIAL[dim % 16]);
                    if (metric != COSINE) compare_coding(k, all, metric, dtype, lo, step);
                }
}

CASE("kernels", "cosine codes of vectors with special values agree in kind") {
    Random r(7);
    for (const Kernels* k : others())
        for (u32 dim = 1; dim <= LONGEST; dim++)
            for (float value : SPECIAL) {
                std::vector<float> v = floats(r, dim);
                v[r.below(dim)] = value;
                compare_coding(k, v, COSINE, F32, -0.8f, 0.013f);
            }
}

CASE("kernels", "keys of many slots are the same, four at a time or one") {
    Random r(8);
    for (u32 stride : {64u, 192u}) {
        std::vector<u8> codes(2000 * (size_t)stride), query(stride), query_signed(stride);
        for (u8& c : codes) c = (u8)r.below(128);
        for (u8& c : query) c = (u8)r.below(128);
        for (u8& c : query_signed) c = (u8)(r.below(255) - 127);
        u8* segment[1] = {codes.data()};
        CodesView view = {segment, stride, 0, 1};
        for (const Kernels* k : others())
            for (u32 metric : {L2, COSINE, DOT, HAMMING})
                for (u32 n : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 511u, 512u, 513u,
                              1029u, 1500u}) {
                    std::vector<u32> slots(n);
                    for (u32& s : slots) s = r.below(2000);
                    Exact<u32> in(slots), x((std::vector<u32>(n))), y((std::vector<u32>(n)));
                    const u8* q = metric == DOT ? query_signed.data() : query.data();
                    k->code_keys(&view, metric, q, in.start, n, x.start);
                    plain()->code_keys(&view, metric, q, in.start, n, y.start);
                    CHECK(!memcmp(x.start, y.start, n * 4), "%s metric %u n=%u", k->name, metric, n);
                }
    }
}

CASE("kernels", "distances of the API agree, are never NaN for a row, and NaN for none") {
    Random r(9);
    for (const Kernels* k : others())
        for (u32 metric : {L2, COSINE, DOT})
            for (u32 dtype : {F32, F16, I8})
                for (u32 dim = 1; dim <= LONGEST; dim++) {
                    std::vector<float> q = floats(r, dim);
                    std::vector<std::vector<float>> rows;
                    for (int i = 0; i < 5; i++) rows.push_back(floats(r, dim));
                    rows[1] = q;
                    rows[2].assign(dim, 0);
                    rows[3][r.below(dim)] = SPECIAL[r.below(16)];
                    std::vector<std::vector<u16>> half;
                    std::vector<std::vector<i8>> byte;
                    const u8* address[6] = {nullptr};
                    for (const auto& v : rows) half.push_back(halves(v)), byte.push_back(small_ints(v));
                    for (int i = 0; i < 5; i++)
                        address[i] = dtype == F32   ? (const u8*)rows[i].data()
                                     : dtype == F16 ? (const u8*)half[i].data()
                                                    : (const u8*)byte[i].data();
                    float x[6], y[6];
                    k->exact(q.data(), dim, metric, dtype, address, 6, x);
                    plain()->exact(q.data(), dim, metric, dtype, address, 6, y);
                    CHECK(x[5] != x[5] && y[5] != y[5], "%s: a distance to no row", k->name);
                    for (int i = 0; i < 5; i++) {
                        // the root makes an error of e near zero one of sqrt(e)
                        double most = i == 1 ? 2e-3 : 1e-4;
                        bool near = fabs((double)x[i] - y[i]) <= most * (1 + fabs((double)y[i]));
                        CHECK(x[i] == x[i] && (x[i] == y[i] || near),
                              "%s metric %u dtype %u dim %u row %d: %g, scalar %g", k->name, metric,
                              dtype, dim, i, x[i], y[i]);
                    }
                }
}

}  // namespace
}  // namespace vecdb
