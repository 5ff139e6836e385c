// kernels_dotprod.cpp: the table of hot loops for one processor family. 64-bit ARM with the
// dot product of ARMv8.2.
#include <arm_neon.h>
#include <sched.h>

#include "abi.h"

#define VECDB_DOTPROD 1

namespace vecdb {
namespace dotprod {
namespace {
#include "simd_neon.h"
#include "walk.inl"
#include "build.inl"
#include "mend.inl"
#include "flat.inl"
}  // namespace
extern const Kernels kernels;
const Kernels kernels = VECDB_TABLE("dotprod");
}  // namespace dotprod
}  // namespace vecdb
