// kernels_neon.cpp: the table of hot loops for one processor family. Every 64-bit ARM.
#include <arm_neon.h>
#include <sched.h>

#include "abi.h"

namespace vecdb {
namespace neon {
namespace {
#include "simd_neon.h"
#include "walk.inl"
#include "build.inl"
#include "mend.inl"
#include "flat.inl"
}  // namespace
extern const Kernels kernels;
const Kernels kernels = VECDB_TABLE("neon");
}  // namespace neon
}  // namespace vecdb
