// codes.h: one array of 7-bit codes, and the choice of its scale.
//
// 1. c = round((x - lo) / step), clipped to 0..127: one scale for all dimensions, so that the
//    distance of two codes needs no table. Under cosine x is normalised first; under dot
//    lo = -64 * step, so that 64 stands for zero.
// 2. The scale spans the quantiles .0005 and .9995 of sampled values.
// 3. A new scale means a new CodeSet; searches that run keep the old one.
// 4. Packed bits are their own code and need no scale; theirs is always 0, 1, as if each bit were a
//    byte, so that records and state files need no exception.
// Rejected: a scale per dimension (recall .98 falls to .69 when it was fitted to one class).
#pragma once
#include "memory.h"
#include "stored.h"

namespace vecdb {

struct Scale {
    float lo = 0, step = 0;  // step 0: none
    bool valid() const { return step > 0; }
    bool operator==(const Scale& o) const { return lo == o.lo && step == o.step; }
    bool operator!=(const Scale& o) const { return !(*this == o); }
};

struct Shape {
    u32 dim, metric, dtype;
    u32 row_bytes() const { return bytes_of_row(dim, dtype); }
    u32 code_bytes() const { return dtype == B1 ? row_bytes() : dim; }
    u32 stride() const { return (code_bytes() + 63) / 64 * 64; }
};

class CodeSet {
  public:
    CodeSet(const Shape& shape, const Kernels* kernels, Scale scale);

    void ensure(u32 n);
    // Encodes one row into a slot's code; returns how many values were clipped.
    u64 encode(u32 slot, const u8* row);
    void forget(u32 slot) {
        if (coded(slot)) __atomic_store_n(coded_.row(slot), (u8)0, __ATOMIC_RELEASE);
    }
    bool coded(u32 slot) const {
        return slot < coded_.rows() && __atomic_load_n(coded_.row(slot), __ATOMIC_ACQUIRE);
    }
    // Encodes what is stored and not coded yet (or all of it) in [first, first + n).
    void fill(const Stored& stored, u32 first, u32 n, u32 threads, bool again);
    CodesView view() const { return {codes_.table(), shape_.stride(), scale.lo, scale.step}; }
    u32 rows() const { return coded_.rows(); }

    const Scale scale;

  private:
    Shape shape_;
    const Kernels* kernels_;
    Segments codes_, coded_;
};

// Values drawn evenly from rows, for a scale and for the share that a scale clips.
class Sample {
  public:
    Sample(const Shape& shape, const Kernels* kernels) : shape_(shape), kernels_(kernels) {}
    void add_rows(const u8* rows, u32 n, u32 at_most);
    // mask: a bit a slot of those that count; null: all.
    void add_stored(const Stored& stored, u32 n_slots, u32 at_most, const u8* mask, u64 bits);
    Scale scale();  // of the values; always valid
    double clipped(const Scale& s) const;
    bool empty() const { return values_.empty(); }

  private:
    void add(const u8* row);
    Shape shape_;
    const Kernels* kernels_;
    std::vector<float> values_, row_;
    u32 turn_ = 0;
};

}  // namespace vecdb
