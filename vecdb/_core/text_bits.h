// Numbers in bytes: little-endian words, varints, 128 values of the same width.
//
// Every reader is bounds-checked: damaged bytes throw std::invalid_argument, which becomes ValueError.
#pragma once

#include <string.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace vecdb::text {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i32 = int32_t;
using i64 = int64_t;
using Bytes = std::vector<u8>;

constexpr u32 BLOCK = 128;  // postings that are packed together
constexpr u32 SLACK = 8;    // bytes after anything that is unpacked: loads are of 8 bytes
constexpr u32 NO_DOC = 0xFFFFFFFFu;

template <class T>
inline T get(const u8* p) {
    T v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void put(u8* p, T v) {
    memcpy(p, &v, sizeof v);
}

template <class T>
inline void append(Bytes& to, T v) {
    size_t at = to.size();
    to.resize(at + sizeof v);
    memcpy(to.data() + at, &v, sizeof v);
}

[[noreturn]] inline void damaged(const char* what) {
    throw std::invalid_argument(std::string("not a text segment's bytes: ") + what);
}

inline void append_varint(Bytes& to, u64 v) {
    while (v >= 128) {
        to.push_back((u8)(v | 128));
        v >>= 7;
    }
    to.push_back((u8)v);
}

inline u32 varint_size(u64 v) {
    u32 n = 1;
    while (v >= 128) v >>= 7, ++n;
    return n;
}

// A place in bytes that never reads beyond their end.
struct Reader {
    const u8 *p, *end;

    const u8* take(u64 n) {
        if (n > (u64)(end - p)) damaged("cut short");
        const u8* at = p;
        p += n;
        return at;
    }
    template <class T>
    T number() {
        return get<T>(take(sizeof(T)));
    }
    u32 varint() {
        u64 v = 0;
        for (u32 shift = 0; shift < 35; shift += 7) {
            if (p == end) damaged("cut short");
            u8 c = *p++;
            v |= (u64)(c & 127) << shift;
            if (c < 128) {
                if (v > 0xFFFFFFFFu) break;
                return (u32)v;
            }
        }
        damaged("a number too large");
    }
};

inline u32 width_of(u32 all) { return all ? 32 - (u32)__builtin_clz(all) : 0; }

inline u32 packed_size(u32 n, u32 width) { return (n * width + 7) / 8; }

// n values of `width` bits; n * width bits, filled up to whole bytes.
inline void pack(Bytes& to, const u32* values, u32 n, u32 width) {
    size_t at = to.size(), size = packed_size(n, width);
    to.resize(at + size + SLACK);
    u8* p = to.data() + at;
    u64 word = 0;
    u32 bits = 0;
    for (u32 i = 0; i < n; ++i) {
        word |= (u64)values[i] << bits;
        bits += width;
        if (bits >= 32) {
            put(p, (u32)word);
            p += 4;
            word >>= 32;
            bits -= 32;
        }
    }
    put(p, word);
    to.resize(at + size);
}

// 128 values; reads at most SLACK bytes more than they take.
template <u32 W>
inline void unpack_block(const u8* p, u32* out) {
    if constexpr (W == 0) {
        memset(out, 0, BLOCK * sizeof(u32));
    } else {
        constexpr u64 MASK = ((u64)1 << W) - 1;
        for (u32 g = 0; g < BLOCK / 8; ++g, p += W, out += 8)
            for (u32 j = 0; j < 8; ++j)
                out[j] = (u32)(get<u64>(p + (j * W >> 3)) >> (j * W & 7) & MASK);
    }
}

using Unpack = void (*)(const u8*, u32*);
extern const Unpack UNPACK[33];

// n values, one at a time; reads at most SLACK bytes more than they take.
inline void unpack_some(const u8* p, u32* out, u32 n, u32 width) {
    if (n == BLOCK) return UNPACK[width](p, out);
    u64 mask = ((u64)1 << width) - 1;
    for (u32 i = 0; i < n; ++i) {
        u64 bit = (u64)i * width;
        out[i] = width ? (u32)(get<u64>(p + (bit >> 3)) >> (bit & 7) & mask) : 0;
    }
}

}  // namespace vecdb::text
