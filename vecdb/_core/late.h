// late.h: MaxSim, by 8-bit codes and by stored vectors; codes of vectors. No threads: callers share rows out.
//
// A row has the vectors starts[i] to starts[i + 1]. For each of m query vectors its best vector in the row
// counts; a row's score is their sum.
//
// 1. A code is a byte a number, (x / scale) + 128 rounded, with one float scale a vector: dot products of codes
//    are whole numbers, the same on every processor, and so are the scores made of them.
// 2. Exact scores are sums of products of float32 in double, number by number: no order of summation, no
//    instruction set changes them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vecdb {

enum LateMetric : uint32_t { LATE_COSINE = 0, LATE_L2 = 1, LATE_DOT = 2, LATE_HAMMING = 3 };

constexpr size_t LATE_PAD = 32;  // codes are padded to a multiple of so many bytes
inline size_t late_stride(size_t dim) { return (dim + LATE_PAD - 1) / LATE_PAD * LATE_PAD; }

// Codes of n vectors (dim,): `codes` n * late_stride(dim), `scales` n, `squares` n under l2 (else null).
// Under cosine the scales are those of the vectors at length 1.
void late_encode(const float* x, size_t n, size_t dim, uint32_t metric, uint8_t* codes, float* scales,
                 float* squares);

// A query, packed once for any number of rows.
class LateQuery {
public:
    LateQuery(const float* vectors, size_t m, size_t dim, uint32_t metric);
    LateQuery(const uint8_t* bits, size_t m, size_t bytes);

    // Scores by codes of the rows `rows` (n of them; null: 0 to n - 1) into `out`: sums of similarities;
    // under l2 minus the sum of distances.
    void by_codes(const uint8_t* codes, const float* scales, const float* squares, const int64_t* starts,
                  const int64_t* rows, size_t n, double* out) const;
    // The same by vectors (float32).
    void exact(const float* x, const int64_t* starts, const int64_t* rows, size_t n, double* out) const;
    // By packed bits: the sum of the fewest differing bits.
    void by_bits(const uint8_t* bits, const int64_t* starts, const int64_t* rows, size_t n, double* out) const;

private:
    size_t m_, dim_, blocks_;
    uint32_t metric_;
    std::vector<double> wide_;      // (blocks of 8, dim, 8)
    std::vector<double> square_;    // of each query vector
    std::vector<int8_t> quads_;     // (blocks of 16, stride / 4, 16, 4)
    std::vector<int16_t> pairs_;    // (blocks of 16, stride / 2, 16, 2)
    std::vector<int32_t> offset_;   // 128 * the sum of a query's code, padded to whole blocks
    std::vector<float> scale_;      // of a query's code, padded with 0
    std::vector<uint8_t> bits_;
};

std::string late_isa();                 // what the codes are compared with: "vnni", "avx2" or "plain"
void late_use(const std::string& isa);  // for tests; "": the best there is

}  // namespace vecdb
