// How is the search log masked? ChaCha20 as RFC 8439 has it, eight blocks side by side.
//
// Each of the sixteen words of the state is an array over the blocks, so that the compiler makes vector
// instructions of the loops over them on every processor.

#include "veil.h"

#include <cstring>

namespace vecdb {
namespace {

constexpr int LANES = 8;
constexpr size_t BLOCK = 64;

struct Words {
    uint32_t at[LANES];
};

inline uint32_t little(const uint8_t* from) {
    return uint32_t(from[0]) | uint32_t(from[1]) << 8 | uint32_t(from[2]) << 16 | uint32_t(from[3]) << 24;
}

template <int BITS>
inline void add_and_turn(Words& a, const Words& b, Words& d) {
    for (int i = 0; i < LANES; ++i) a.at[i] += b.at[i];
    for (int i = 0; i < LANES; ++i) {
        const uint32_t x = d.at[i] ^ a.at[i];
        d.at[i] = x << BITS | x >> (32 - BITS);
    }
}

inline void quarter(Words& a, Words& b, Words& c, Words& d) {
    add_and_turn<16>(a, b, d);
    add_and_turn<12>(c, d, b);
    add_and_turn<8>(a, b, d);
    add_and_turn<7>(c, d, b);
}

// The keystream of LANES blocks from block `counter` on.
void blocks(const uint32_t (&first)[16], uint32_t counter, uint8_t (&out)[LANES * BLOCK]) {
    Words x[16], start[16];
    for (int w = 0; w < 16; ++w)
        for (int i = 0; i < LANES; ++i) start[w].at[i] = first[w] + (w == 12 ? counter + uint32_t(i) : 0);
    std::memcpy(x, start, sizeof x);
    for (int round = 0; round < 10; ++round) {
        quarter(x[0], x[4], x[8], x[12]);
        quarter(x[1], x[5], x[9], x[13]);
        quarter(x[2], x[6], x[10], x[14]);
        quarter(x[3], x[7], x[11], x[15]);
        quarter(x[0], x[5], x[10], x[15]);
        quarter(x[1], x[6], x[11], x[12]);
        quarter(x[2], x[7], x[8], x[13]);
        quarter(x[3], x[4], x[9], x[14]);
    }
    for (int w = 0; w < 16; ++w)
        for (int i = 0; i < LANES; ++i) {
            const uint32_t word = x[w].at[i] + start[w].at[i];
            uint8_t* to = out + i * BLOCK + w * 4;
            to[0] = uint8_t(word);
            to[1] = uint8_t(word >> 8);
            to[2] = uint8_t(word >> 16);
            to[3] = uint8_t(word >> 24);
        }
}

}  // namespace

void chacha20(const uint8_t* key, const uint8_t* nonce, const uint8_t* from, uint8_t* to, size_t n) {
    uint32_t first[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (int w = 0; w < 8; ++w) first[4 + w] = little(key + 4 * w);
    for (int w = 0; w < 3; ++w) first[13 + w] = little(nonce + 4 * w);
    uint8_t stream[LANES * BLOCK];
    uint32_t counter = 0;
    for (size_t at = 0; at < n; at += sizeof stream, counter += LANES) {
        blocks(first, counter, stream);
        const size_t some = n - at < sizeof stream ? n - at : sizeof stream;
        for (size_t i = 0; i < some; ++i) to[at + i] = from[at + i] ^ stream[i];
    }
    volatile uint8_t* wiped = stream;  // what masks the log stays in no memory
    for (size_t i = 0; i < sizeof stream; ++i) wiped[i] = 0;
}

}  // namespace vecdb
