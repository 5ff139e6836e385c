// The stream cipher that masks the search log: ChaCha20 of RFC 8439.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vecdb {

// to = from XOR the keystream of a 32-byte key and a 12-byte nonce, from block 0 on; to may be from.
void chacha20(const uint8_t* key, const uint8_t* nonce, const uint8_t* from, uint8_t* to, size_t n);

}  // namespace vecdb
