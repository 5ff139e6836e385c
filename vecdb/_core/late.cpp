// late.cpp: see late.h.
//
// Queries stand side by side in the lanes of a register, and the numbers of a row's vector are broadcast to them:
// no sum runs across lanes, and the best of a query is a lane's maximum. Four vectors of a row share each load of
// the queries.
#include "late.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#define LATE_X86 1
#endif

namespace vecdb {
namespace {

constexpr size_t LANES = 16;
constexpr size_t WIDE = 8;
constexpr float FAR = std::numeric_limits<float>::infinity();

// One block of queries: their codes, and what makes values of whole dot products.
struct Block {
    const void* packed;     // pairs or quads
    const int32_t* offset;  // 128 * the sum of each query's code
    const float* scale;     // of each query; under l2 alone
};

// The vectors of a row, or some of them.
struct Part {
    const uint8_t* codes;
    size_t stride, n;
    const float* scales;
    const float* squares;  // null but under l2
};

// Values of the vectors of a part for the queries of a block, the best of each into best[16]:
// scale * dot, or under l2 2 * scale * (dot * query's scale) - square.
using Best = void (*)(const Part& part, const Block& block, float* best);

void best_plain(const Part& part, const Block& block, float* best) {
    const int16_t* pairs = static_cast<const int16_t*>(block.packed);
    for (size_t t = 0; t < part.n; ++t) {
        const uint8_t* code = part.codes + t * part.stride;
        int32_t sum[LANES] = {};
        for (size_t i = 0; i < part.stride / 2; ++i) {
            const int32_t a = int32_t(code[2 * i]) - 128, b = int32_t(code[2 * i + 1]) - 128;
            const int16_t* q = pairs + i * LANES * 2;
            for (size_t lane = 0; lane < LANES; ++lane) sum[lane] += a * q[2 * lane] + b * q[2 * lane + 1];
        }
        const float scale = part.scales[t];
        for (size_t lane = 0; lane < LANES; ++lane) {
            const float dot = float(sum[lane]);
            const float value =
                part.squares ? 2 * scale * (dot * block.scale[lane]) - part.squares[t] : scale * dot;
            best[lane] = std::max(best[lane], value);
        }
    }
}

#ifdef LATE_X86
__attribute__((target("avx2"))) inline __m256 value_avx2(const Part& part, const Block& block, size_t t, size_t half,
                                                         __m256i dot) {
    const __m256 whole = _mm256_cvtepi32_ps(dot), scale = _mm256_set1_ps(part.scales[t]);
    if (!part.squares) return _mm256_mul_ps(scale, whole);
    const __m256 scaled = _mm256_mul_ps(whole, _mm256_loadu_ps(block.scale + 8 * half));
    return _mm256_sub_ps(_mm256_mul_ps(_mm256_add_ps(scale, scale), scaled), _mm256_set1_ps(part.squares[t]));
}

__attribute__((target("avx2"))) void best_avx2(const Part& part, const Block& block, float* best) {
    const int16_t* pairs = static_cast<const int16_t*>(block.packed);
    alignas(32) static thread_local int16_t wide[4][65536 + LATE_PAD];
    const __m256i middle = _mm256_set1_epi16(128);
    const size_t stride = part.stride;
    __m256 low = _mm256_loadu_ps(best), high = _mm256_loadu_ps(best + 8);
    for (size_t t = 0; t < part.n; t += 4) {
        const size_t count = std::min<size_t>(4, part.n - t);
        for (size_t j = 0; j < count; ++j) {
            const uint8_t* code = part.codes + (t + j) * stride;
            for (size_t i = 0; i < stride; i += 16) {
                __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(code + i)));
                _mm256_store_si256(reinterpret_cast<__m256i*>(wide[j] + i), _mm256_sub_epi16(x, middle));
            }
        }
        __m256i sum[4][2];
        for (auto& each : sum) each[0] = each[1] = _mm256_setzero_si256();
        for (size_t i = 0; i < stride / 2; ++i) {
            const __m256i* q = reinterpret_cast<const __m256i*>(pairs + i * LANES * 2);
            const __m256i q0 = _mm256_loadu_si256(q), q1 = _mm256_loadu_si256(q + 1);
            for (size_t j = 0; j < 4; ++j) {
                int32_t two;
                std::memcpy(&two, wide[j] + 2 * i, 4);
                const __m256i x = _mm256_set1_epi32(two);
                sum[j][0] = _mm256_add_epi32(sum[j][0], _mm256_madd_epi16(x, q0));
                sum[j][1] = _mm256_add_epi32(sum[j][1], _mm256_madd_epi16(x, q1));
            }
        }
        for (size_t j = 0; j < count; ++j) {
            low = _mm256_max_ps(value_avx2(part, block, t + j, 0, sum[j][0]), low);
            high = _mm256_max_ps(value_avx2(part, block, t + j, 1, sum[j][1]), high);
        }
    }
    _mm256_storeu_ps(best, low);
    _mm256_storeu_ps(best + 8, high);
}

#define LATE_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

LATE_VNNI inline __m512 value_vnni(const Part& part, const Block& block, size_t t, __m512i dot) {
    const __m512 scale = _mm512_set1_ps(part.scales[t]);
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot, _mm512_loadu_si512(block.offset)));
    if (!part.squares) return _mm512_mul_ps(scale, whole);
    const __m512 scaled = _mm512_mul_ps(whole, _mm512_loadu_ps(block.scale));
    return _mm512_sub_ps(_mm512_mul_ps(_mm512_add_ps(scale, scale), scaled), _mm512_set1_ps(part.squares[t]));
}

LATE_VNNI inline __m512i spread(const uint8_t* at) {
    __m512i found;
    asm("vpbroadcastd %1, %0" : "=v"(found) : "m"(*reinterpret_cast<const int32_t(*)[1]>(at)));
    return found;
}

LATE_VNNI void best_vnni(const Part& part, const Block& block, float* best) {
    const int8_t* quads = static_cast<const int8_t*>(block.packed);
    const size_t stride = part.stride;
    __m512 kept = _mm512_loadu_ps(best);
    size_t t = 0;
    for (; t + 8 <= part.n; t += 8) {
        const uint8_t* x = part.codes + t * stride;
        __m512i sum[8];
        for (auto& each : sum) each = _mm512_setzero_si512();
        for (size_t i = 0; i < stride; i += 4) {
            const __m512i q = _mm512_loadu_si512(quads + i * LANES);
#pragma GCC unroll 8
            for (size_t j = 0; j < 8; ++j) sum[j] = _mm512_dpbusd_epi32(sum[j], spread(x + j * stride + i), q);
        }
        for (size_t j = 0; j < 8; ++j) kept = _mm512_max_ps(value_vnni(part, block, t + j, sum[j]), kept);
    }
    for (; t < part.n; ++t) {
        const uint8_t* x = part.codes + t * stride;
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < stride; i += 4)
            sum = _mm512_dpbusd_epi32(sum, spread(x + i), _mm512_loadu_si512(quads + i * LANES));
        kept = _mm512_max_ps(value_vnni(part, block, t, sum), kept);
    }
    _mm512_storeu_ps(best, kept);
}
#endif

enum class Isa { plain, avx2, vnni };

Isa best_isa() {
#ifdef LATE_X86
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) return Isa::vnni;
    if (__builtin_cpu_supports("avx2")) return Isa::avx2;
#endif
    return Isa::plain;
}

Isa& isa() {
    static Isa chosen = best_isa();
    return chosen;
}

Best best_of(Isa which) {
#ifdef LATE_X86
    if (which == Isa::vnni) return best_vnni;
    if (which == Isa::avx2) return best_avx2;
#endif
    (void)which;
    return best_plain;
}

double norm_of(const float* x, size_t dim) {
    double sums[4] = {};
    size_t i = 0;
    for (; i + 4 <= dim; i += 4)
        for (size_t j = 0; j < 4; ++j) sums[j] += double(x[i + j]) * double(x[i + j]);
    for (; i < dim; ++i) sums[0] += double(x[i]) * double(x[i]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

float largest(const float* x, size_t dim) {
    float most = 0;
    for (size_t i = 0; i < dim; ++i) most = std::max(most, std::fabs(x[i]));
    return most;
}

int rounded(float x) {
    return int(std::lrintf(std::max(-127.0f, std::min(127.0f, x))));
}

#if defined(LATE_X86) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define LATE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LATE_CLONES
#endif

constexpr size_t TOGETHER = 4;  // vectors of a row: a sum waits for its last addition, other sums do not

// Sums of four vectors against eight queries; `count` of the vectors are there, the others repeat the last.
LATE_CLONES void sums_of_four(const float* const* v, size_t dim, const double* q, bool away, double* sums) {
    double a[WIDE] = {}, b[WIDE] = {}, c[WIDE] = {}, d[WIDE] = {};
    if (away) {
        for (size_t i = 0; i < dim; ++i, q += WIDE) {
            const double va = v[0][i], vb = v[1][i], vc = v[2][i], vd = v[3][i];
            for (size_t lane = 0; lane < WIDE; ++lane) a[lane] += (va - q[lane]) * (va - q[lane]);
            for (size_t lane = 0; lane < WIDE; ++lane) b[lane] += (vb - q[lane]) * (vb - q[lane]);
            for (size_t lane = 0; lane < WIDE; ++lane) c[lane] += (vc - q[lane]) * (vc - q[lane]);
            for (size_t lane = 0; lane < WIDE; ++lane) d[lane] += (vd - q[lane]) * (vd - q[lane]);
        }
    } else {
        for (size_t i = 0; i < dim; ++i, q += WIDE) {
            const double va = v[0][i], vb = v[1][i], vc = v[2][i], vd = v[3][i];
            for (size_t lane = 0; lane < WIDE; ++lane) a[lane] += va * q[lane];
            for (size_t lane = 0; lane < WIDE; ++lane) b[lane] += vb * q[lane];
            for (size_t lane = 0; lane < WIDE; ++lane) c[lane] += vc * q[lane];
            for (size_t lane = 0; lane < WIDE; ++lane) d[lane] += vd * q[lane];
        }
    }
    std::memcpy(sums, a, sizeof a);
    std::memcpy(sums + WIDE, b, sizeof b);
    std::memcpy(sums + 2 * WIDE, c, sizeof c);
    std::memcpy(sums + 3 * WIDE, d, sizeof d);
}

// Similarity of the vectors of a row to eight queries, the best of each into best[8].
void best_exact(const float* x, size_t n, size_t dim, const double* q, const double* lengths, uint32_t metric,
                double* best) {
    double sums[TOGETHER * WIDE];
    for (size_t t = 0; t < n; t += TOGETHER) {
        const float* v[TOGETHER];
        for (size_t j = 0; j < TOGETHER; ++j) v[j] = x + std::min(t + j, n - 1) * dim;
        sums_of_four(v, dim, q, metric == LATE_L2, sums);
        for (size_t j = 0; j < TOGETHER; ++j) {
            double* mine = sums + j * WIDE;
            if (metric == LATE_COSINE) {
                const double length = std::sqrt(norm_of(v[j], dim));
                for (size_t lane = 0; lane < WIDE; ++lane) {
                    const double scale = length * lengths[lane];
                    mine[lane] = scale > 0 ? std::max(-1.0, std::min(1.0, mine[lane] / scale)) : 0.0;
                }
            }
            for (size_t lane = 0; lane < WIDE; ++lane)
                best[lane] = std::max(best[lane], metric == LATE_L2 ? -mine[lane] : mine[lane]);
        }
    }
}

}  // namespace

void late_encode(const float* x, size_t n, size_t dim, uint32_t metric, uint8_t* codes, float* scales,
                 float* squares) {
    const size_t stride = late_stride(dim);
    for (size_t t = 0; t < n; ++t) {
        const float* v = x + t * dim;
        uint8_t* code = codes + t * stride;
        const float most = largest(v, dim);
        const float step = most > 0 ? 127.0f / most : 0.0f;
        const bool tiny = !(step < FAR);  // denormal: as good as zero
        for (size_t i = 0; i < dim; ++i) code[i] = uint8_t(128 + (tiny ? 0 : rounded(v[i] * step)));
        std::memset(code + dim, 128, stride - dim);
        double scale = tiny ? 0.0 : double(most) / 127.0;
        if (metric == LATE_COSINE || squares != nullptr) {
            const double square = norm_of(v, dim);
            if (squares != nullptr) squares[t] = float(square);
            if (metric == LATE_COSINE) scale = square > 0 ? scale / std::sqrt(square) : 0.0;
        }
        scales[t] = float(scale);
    }
}

LateQuery::LateQuery(const float* vectors, size_t m, size_t dim, uint32_t metric)
    : m_(m), dim_(dim), blocks_((m + LANES - 1) / LANES), metric_(metric) {
    const size_t stride = late_stride(dim), padded = blocks_ * LANES;
    quads_.assign(padded * stride, 0);
    pairs_.assign(padded * stride, 0);
    offset_.assign(padded, 0);
    scale_.assign(padded, 0);
    square_.assign(padded, 0);
    wide_.assign(padded * dim, 0);
    for (size_t at = 0; at < m; ++at) {
        const float* v = vectors + at * dim;
        const size_t block = at / LANES, lane = at % LANES;
        const float most = largest(v, dim), step = most > 0 ? 127.0f / most : 0.0f;
        const bool tiny = !(step < FAR);
        int32_t sum = 0;
        for (size_t i = 0; i < dim; ++i) {
            const int code = tiny ? 0 : rounded(v[i] * step);
            sum += code;
            quads_[block * LANES * stride + (i / 4 * LANES + lane) * 4 + i % 4] = int8_t(code);
            pairs_[block * LANES * stride + (i / 2 * LANES + lane) * 2 + i % 2] = int16_t(code);
            wide_[at / WIDE * WIDE * dim + i * WIDE + at % WIDE] = v[i];
        }
        square_[at] = norm_of(v, dim);
        offset_[at] = 128 * sum;
        double scale = tiny ? 0.0 : double(most) / 127.0;
        if (metric == LATE_COSINE) scale = square_[at] > 0 ? scale / std::sqrt(square_[at]) : 0.0;
        scale_[at] = float(scale);
    }
}

LateQuery::LateQuery(const uint8_t* bits, size_t m, size_t bytes)
    : m_(m), dim_(bytes), blocks_(0), metric_(LATE_HAMMING), bits_(bits, bits + m * bytes) {}

void LateQuery::by_codes(const uint8_t* codes, const float* scales, const float* squares, const int64_t* starts,
                         const int64_t* rows, size_t n, double* out) const {
    const size_t stride = late_stride(dim_);
    const Isa which = isa();
    const Best best_in = best_of(which);
    const bool quads = which == Isa::vnni;
    for (size_t at = 0; at < n; ++at) {
        const size_t row = rows == nullptr ? at : size_t(rows[at]);
        const size_t first = size_t(starts[row]);
        const Part part{codes + first * stride, stride, size_t(starts[row + 1]) - first, scales + first,
                        metric_ == LATE_L2 ? squares + first : nullptr};
        double total = 0;
        for (size_t block = 0; block < blocks_; ++block) {
            const size_t from = block * LANES;
            const float* scale = scale_.data() + from;
            float best[LANES];
            std::fill(best, best + LANES, -FAR);
            const void* packed = quads ? static_cast<const void*>(quads_.data() + from * stride)
                                       : static_cast<const void*>(pairs_.data() + from * stride);
            best_in(part, Block{packed, offset_.data() + from, scale}, best);
            const size_t used = std::min(LANES, m_ - block * LANES);
            for (size_t lane = 0; lane < used; ++lane) {
                if (metric_ == LATE_L2)
                    total -= std::sqrt(std::max(0.0, square_[block * LANES + lane] - double(best[lane])));
                else
                    total += double(best[lane]) * double(scale[lane]);
            }
        }
        out[at] = total;
    }
}

void LateQuery::exact(const float* x, const int64_t* starts, const int64_t* rows, size_t n, double* out) const {
    std::vector<double> lengths(square_.size());
    for (size_t i = 0; i < square_.size(); ++i) lengths[i] = std::sqrt(square_[i]);
    for (size_t at = 0; at < n; ++at) {
        const size_t row = rows == nullptr ? at : size_t(rows[at]);
        const size_t first = size_t(starts[row]), count = size_t(starts[row + 1]) - first;
        double total = 0;
        for (size_t block = 0; block * WIDE < m_; ++block) {
            double best[WIDE];
            std::fill(best, best + WIDE, -double(FAR));
            best_exact(x + first * dim_, count, dim_, wide_.data() + block * WIDE * dim_,
                       lengths.data() + block * WIDE, metric_, best);
            const size_t used = std::min(WIDE, m_ - block * WIDE);
            for (size_t lane = 0; lane < used; ++lane)
                total += metric_ == LATE_L2 ? -std::sqrt(std::max(0.0, -best[lane])) : best[lane];
        }
        out[at] = total;
    }
}

void LateQuery::by_bits(const uint8_t* bits, const int64_t* starts, const int64_t* rows, size_t n,
                        double* out) const {
    for (size_t at = 0; at < n; ++at) {
        const size_t row = rows == nullptr ? at : size_t(rows[at]);
        double total = 0;
        for (size_t q = 0; q < m_; ++q) {
            const uint8_t* query = bits_.data() + q * dim_;
            uint64_t least = std::numeric_limits<uint64_t>::max();
            for (int64_t t = starts[row]; t < starts[row + 1]; ++t) {
                const uint8_t* v = bits + size_t(t) * dim_;
                uint64_t differing = 0;
                size_t i = 0;
                for (; i + 8 <= dim_; i += 8) {
                    uint64_t a, b;
                    std::memcpy(&a, v + i, 8);
                    std::memcpy(&b, query + i, 8);
                    differing += uint64_t(__builtin_popcountll(a ^ b));
                }
                for (; i < dim_; ++i) differing += uint64_t(__builtin_popcount(unsigned(v[i] ^ query[i])));
                least = std::min(least, differing);
            }
            total += double(least);
        }
        out[at] = total;
    }
}

std::string late_isa() {
    return isa() == Isa::vnni ? "vnni" : isa() == Isa::avx2 ? "avx2" : "plain";
}

void late_use(const std::string& name) {
    const Isa best = best_isa();
    const Isa wanted = name == "vnni" ? Isa::vnni : name == "avx2" ? Isa::avx2 : Isa::plain;
    if (name.empty()) {
        isa() = best;
        return;
    }
    if ((name != "plain" && wanted == Isa::plain) || int(wanted) > int(best))
        throw std::invalid_argument("no such instruction set here");
    isa() = wanted;
}

}  // namespace vecdb
