// kernels_avx2.cpp: the table of hot loops for one processor family. x86-64 with AVX2, FMA, F16C.
#include <immintrin.h>
#include <sched.h>

#include "abi.h"

namespace vecdb {
namespace avx2 {
namespace {
#include "simd_avx2.h"
#include "walk.inl"
#include "build.inl"
#include "mend.inl"
#include "flat.inl"
}  // namespace
extern const Kernels kernels;
const Kernels kernels = VECDB_TABLE("avx2");
}  // namespace avx2
}  // namespace vecdb
