// bytes.h: checksums and bit masks.
//
// A mask is little-endian 64-bit words as bytes; bit s of the whole is slot s. What lies beyond
// its end is not set, so a mask may be shorter than the graph.
#pragma once
#include "abi.h"

namespace vecdb {

u32 crc32c(u32 crc, const void* data, size_t n);
u32 crc32c_plain(u32 crc, const void* data, size_t n);  // without the instruction, for tests

inline u64 mask_bytes(u64 n_bits) { return (n_bits + 63) / 64 * 8; }
// Sets or clears bits; false when a slot is at or above n_bits (then nothing was changed).
bool mask_put(u8* mask, u64 n_bits, const u32* slots, u64 n, bool on);
u64 mask_count(const u8* mask, u64 bytes);
// Writes the set bits below n_bits, ascending, at most room of them; returns how many.
u64 mask_list(const u8* mask, u64 bytes, u64 n_bits, u32* out, u64 room);

}  // namespace vecdb
