// How is the search log masked? ChaCha20 as RFC 8439 has it, four blocks side by side.
//
// Each of the sixteen words of the state is a vector over the blocks, in the compilers' own notation, which
// they turn into the instructions of any processor.

#include "veil.h"

#include <cstring>

namespace vecdb {
namespace {

constexpr int LANES = 4;
constexpr size_t BLOCK = 64;

typedef uint32_t Word __attribute__((vector_size(4 * LANES)));

inline uint32_t little(const uint8_t* from) {
    return uint32_t(from[0]) | uint32_t(from[1]) << 8 | uint32_t(from[2]) << 16 | uint32_t(from[3]) << 24;
}

template <int BITS>
inline Word turned(Word x) {
    return x << BITS | x >> (32 - BITS);
}

inline void quarter(Word& a, Word& b, Word& c, Word& d) {
    a += b;
    d = turned<16>(d ^ a);
    c += d;
    b = turned<12>(b ^ c);
    a += b;
    d = turned<8>(d ^ a);
    c += d;
    b = turned<7>(b ^ c);
}

// The keystream of LANES blocks from block `counter` on.
void blocks(const uint32_t (&first)[16], uint32_t counter, uint8_t (&out)[LANES * BLOCK]) {
    Word x[16], start[16];
    for (int w = 0; w < 16; ++w)
        for (int i = 0; i < LANES; ++i) start[w][i] = first[w] + (w == 12 ? counter + uint32_t(i) : 0);
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
    for (int w = 0; w < 16; ++w) {
        const Word word = x[w] + start[w];
        for (int i = 0; i < LANES; ++i) {
            uint8_t* to = out + size_t(i) * BLOCK + size_t(w) * 4;
            const uint32_t one = word[i];
            to[0] = uint8_t(one);
            to[1] = uint8_t(one >> 8);
            to[2] = uint8_t(one >> 16);
            to[3] = uint8_t(one >> 24);
        }
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
