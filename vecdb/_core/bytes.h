// bytes.h: checksums.
#pragma once
#include "abi.h"

namespace vecdb {

u32 crc32c(u32 crc, const void* data, size_t n);

}  // namespace vecdb
