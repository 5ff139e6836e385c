// crc.cpp: CRC32C (Castagnoli), by the processor's instruction where it has one.
//
// Three streams are computed side by side because the instruction takes three cycles and can start
// every cycle; their checksums are joined by multiplication with x^n modulo the polynomial, from
// tables made once. Elsewhere eight tables take eight bytes a step.
#include <string.h>

#include "abi.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <arm_acle.h>
#endif

namespace vecdb {
namespace {

const u32 POLY = 0x82F63B78u;
const size_t LANE = 1024;  // bytes of each of the three streams

struct Tables {
    u32 t[8][256];
    u32 shift[4][256];  // advances a checksum over LANE zero bytes
    Tables() {
        for (u32 i = 0; i < 256; i++) {
            u32 c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ POLY : c >> 1;
            t[0][i] = c;
        }
        for (u32 i = 0; i < 256; i++)
            for (int k = 1; k < 8; k++) t[k][i] = t[0][t[k - 1][i] & 255] ^ (t[k - 1][i] >> 8);
        u32 bit[32];
        for (int b = 0; b < 32; b++) {
            u32 c = 1u << b;
            for (size_t i = 0; i < LANE; i++) c = t[0][c & 255] ^ (c >> 8);
            bit[b] = c;
        }
        for (int byte = 0; byte < 4; byte++)
            for (u32 v = 0; v < 256; v++) {
                u32 c = 0;
                for (int b = 0; b < 8; b++)
                    if (v >> b & 1) c ^= bit[8 * byte + b];
                shift[byte][v] = c;
            }
    }
    u32 advance(u32 c) const {
        return shift[0][c & 255] ^ shift[1][c >> 8 & 255] ^ shift[2][c >> 16 & 255] ^
               shift[3][c >> 24];
    }
};
const Tables& tables() {
    static const Tables made;
    return made;
}

u32 by_table(u32 c, const u8* p, size_t n) {
    const Tables& T = tables();
    for (; n >= 8; n -= 8, p += 8) {
        u32 lo, hi;
        memcpy(&lo, p, 4);
        memcpy(&hi, p + 4, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        lo = __builtin_bswap32(lo);
        hi = __builtin_bswap32(hi);
#endif
        lo ^= c;
        c = T.t[7][lo & 255] ^ T.t[6][lo >> 8 & 255] ^ T.t[5][lo >> 16 & 255] ^ T.t[4][lo >> 24] ^
            T.t[3][hi & 255] ^ T.t[2][hi >> 8 & 255] ^ T.t[1][hi >> 16 & 255] ^ T.t[0][hi >> 24];
    }
    for (; n; n--) c = T.t[0][(c ^ *p++) & 255] ^ (c >> 8);
    return c;
}

#if defined(__x86_64__)
#define WITH_CRC __attribute__((target("sse4.2")))
WITH_CRC inline u64 step(u64 c, const u8* p) {
    u64 v;
    memcpy(&v, p, 8);
    return _mm_crc32_u64(c, v);
}
bool has_instruction() { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__linux__)
#define WITH_CRC __attribute__((target("+crc")))
WITH_CRC inline u64 step(u64 c, const u8* p) {
    u64 v;
    memcpy(&v, p, 8);
    return __crc32cd((u32)c, v);
}
bool has_instruction() { return getauxval(AT_HWCAP) & (1u << 7); }
#elif defined(__aarch64__) && defined(__APPLE__) && defined(__ARM_FEATURE_CRC32)
#define WITH_CRC  // every Apple processor that runs macOS has it, and the compiler knows
inline u64 step(u64 c, const u8* p) {
    u64 v;
    memcpy(&v, p, 8);
    return __crc32cd((u32)c, v);
}
bool has_instruction() { return true; }
#endif

#ifdef WITH_CRC
WITH_CRC u32 by_instruction(u32 start, const u8* p, size_t n) {
    const Tables& T = tables();
    u64 a = start;
    for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
        u64 b = 0, c = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            a = step(a, p + i);
            b = step(b, p + LANE + i);
            c = step(c, p + 2 * LANE + i);
        }
        a = T.advance(T.advance((u32)a) ^ (u32)b) ^ (u32)c;
    }
    for (; n >= 8; n -= 8, p += 8) a = step(a, p);
    return by_table((u32)a, p, n);
}
#endif

}  // namespace

u32 crc32c(u32 crc, const void* data, size_t n) {
    const u8* p = (const u8*)data;
#ifdef WITH_CRC
    static const bool fast = has_instruction();
    if (fast) return ~by_instruction(~crc, p, n);
#endif
    return ~by_table(~crc, p, n);
}

}  // namespace vecdb
