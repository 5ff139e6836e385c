// codes.cpp: see codes.h.
#include "codes.h"

#include <math.h>

#include <algorithm>

#include "pool.h"

namespace vecdb {

static const u32 BATCH = 512;          // rows a parallel task encodes
static const u32 VALUES_PER_ROW = 128;  // values a sampled row gives, at most
static const float WIDEST = 1e30f;     // values beyond are left out of a scale

CodeSet::CodeSet(const Shape& shape, const Kernels* kernels, Scale s)
    : scale(s), shape_(shape), kernels_(kernels), codes_(shape.stride()), coded_(1) {}

void CodeSet::ensure(u32 n) {
    codes_.ensure(n);
    coded_.ensure(n);
}

u64 CodeSet::encode(u32 slot, const u8* row) {
    static thread_local std::vector<float> tmp;
    if (tmp.size() < shape_.dim) tmp.resize(shape_.dim);
    EncodeArgs a = {row,       1,          shape_.dim,       shape_.metric,   shape_.dtype, scale.lo,
                    scale.step, codes_.row(slot), shape_.stride(), tmp.data(), 0};
    kernels_->encode(&a);
    __atomic_store_n(coded_.row(slot), (u8)1, __ATOMIC_RELEASE);
    return a.clipped;
}

void CodeSet::fill(const Stored& stored, u32 first, u32 n, u32 threads, bool again) {
    ensure(first + n);
    parallel((n + BATCH - 1) / BATCH, threads, [&](u32 b) {
        u32 from = first + b * BATCH, upto = std::min(first + n, from + BATCH);
        for (u32 s = from; s < upto; s++) {
            if (!again && coded(s)) continue;
            const u8* row = stored.row(s);
            if (row) encode(s, row);
        }
    });
}

void Sample::add(const u8* row) {
    u32 d = shape_.dim;
    if (row_.size() < d) row_.resize(d);
    if (shape_.dtype == F16)
        kernels_->from_f16((const u16*)row, d, row_.data());
    else if (shape_.dtype == I8)
        kernels_->from_i8((const i8*)row, d, row_.data());
    else
        std::copy((const u8*)row, (const u8*)row + (size_t)d * 4, (u8*)row_.data());
    float scale = 1.0f;
    if (shape_.metric == COSINE) {
        float xx;
        kernels_->dot_f32(row_.data(), row_.data(), d, &xx);
        scale = xx > 0 ? 1.0f / sqrtf(xx) : 1.0f;
    }
    u32 take = std::min(d, VALUES_PER_ROW), start = turn_++ * 31 % d;
    for (u32 i = 0; i < take; i++) {
        float v = row_[(start + (u64)i * d / take) % d] * scale;
        if (v > -WIDEST && v < WIDEST) values_.push_back(v);
    }
}

void Sample::add_rows(const u8* rows, u32 n, u32 at_most) {
    u32 take = std::min(n, at_most);
    for (u32 i = 0; i < take; i++) add(rows + (size_t)((u64)i * n / take) * shape_.row_bytes());
}

void Sample::add_stored(const Stored& stored, u32 n_slots, u32 at_most, const u8* mask, u64 bits) {
    auto counts = [&](u32 s) { return stored.has(s) && (!mask || mask_has(mask, bits, s)); };
    u32 take = std::min(n_slots, at_most);
    for (u32 i = 0; i < take; i++) {
        u32 s = (u32)((u64)i * n_slots / take), end = (u32)((u64)(i + 1) * n_slots / take);
        while (s + 1 < end && !counts(s)) s++;  // past holes and dead slots
        if (counts(s)) add(stored.row(s));
    }
}

Scale Sample::scale() {
    Scale s;
    s.step = 1.0f;
    s.lo = shape_.metric == DOT ? -64.0f : 0.0f;
    if (values_.empty()) return s;
    size_t n = values_.size(), cut = (size_t)((double)n * .0005);
    std::nth_element(values_.begin(), values_.begin() + cut, values_.end());
    double lo = values_[cut];
    std::nth_element(values_.begin(), values_.begin() + (n - 1 - cut), values_.end());
    double hi = values_[n - 1 - cut];
    double step = shape_.metric == DOT ? std::max(fabs(lo), fabs(hi)) / 63 : (hi - lo) / 127;
    if (!(step > 1e-30)) {  // one value only: any scale that holds it
        step = std::max(fabs(hi), 1e-20) / 63;
        lo -= 63 * step;
    }
    s.step = (float)step;
    s.lo = shape_.metric == DOT ? -64.0f * s.step : (float)lo;
    return s;
}

double Sample::clipped(const Scale& s) const {
    if (values_.empty()) return 0;
    size_t out = 0;
    float lo = s.lo - s.step, hi = s.lo + 128 * s.step;
    for (float v : values_) out += v < lo || v > hi;
    return (double)out / (double)values_.size();
}

}  // namespace vecdb
