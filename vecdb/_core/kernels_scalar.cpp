// kernels_scalar.cpp: the table of hot loops for one processor family. Every processor; the reference.
#include <sched.h>

#include "abi.h"

namespace vecdb {
namespace scalar {
namespace {
#include "simd_scalar.h"
#include "walk.inl"
#include "build.inl"
#include "mend.inl"
#include "flat.inl"
}  // namespace
extern const Kernels kernels;
const Kernels kernels = VECDB_TABLE("scalar");
}  // namespace scalar
}  // namespace vecdb
