// kernels_avx512.cpp: the table of hot loops for one processor family. x86-64 with AVX-512 and VNNI.
#include <immintrin.h>
#include <sched.h>

#include "abi.h"

namespace vecdb {
namespace avx512 {
namespace {
#include "simd_avx512.h"
#include "walk.inl"
#include "build.inl"
#include "mend.inl"
#include "flat.inl"
}  // namespace
extern const Kernels kernels;
const Kernels kernels = VECDB_TABLE("avx512");
}  // namespace avx512
}  // namespace vecdb
