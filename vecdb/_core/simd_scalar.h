// simd_scalar.h: the kernels in plain C++, for every processor; the reference for the others.
//
// 1. Sixteen float accumulators, so that a compiler may vectorise without -ffast-math.
// 2. Code kernels read n bytes, n a multiple of 64; float kernels read exactly n values.
// 3. Stored rows may be unaligned: every value is loaded by memcpy.
struct Half {
    static inline float load(const u16* p) {
        u16 half;
        __builtin_memcpy(&half, p, 2);
        u32 h = half, sign = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 1023, bits;
        if (e == 31) {
            bits = sign | 0x7F800000u | m << 13 | (m ? 0x400000u : 0u);
        } else if (e) {
            bits = sign | (e + 112) << 23 | m << 13;
        } else {  // zero or subnormal: m * 2^-24, exact in float
            float v = (float)m * 5.9604644775390625e-08f;
            __builtin_memcpy(&bits, &v, 4);
            bits |= sign;
        }
        float f;
        __builtin_memcpy(&f, &bits, 4);
        return f;
    }
};
struct Byte {
    static inline float load(const i8* p) { return (float)*p; }
};
struct Single {
    static inline float load(const float* p) {
        float f;
        __builtin_memcpy(&f, p, 4);
        return f;
    }
};

static inline float fold16(const float* a) {
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = a[i] + a[i + 8];
    for (int i = 0; i < 4; i++) s[i] += s[i + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

template <class T, class V>
static inline float plain_l2(const float* a, const V* b, u32 n) {
    float acc[16] = {0};
    u32 i = 0;
    for (; i + 16 <= n; i += 16)
        for (u32 j = 0; j < 16; j++) {
            float d = Single::load(a + i + j) - T::load(b + i + j);
            acc[j] += d * d;
        }
    for (u32 j = 0; i < n; i++, j++) {
        float d = Single::load(a + i) - T::load(b + i);
        acc[j] += d * d;
    }
    return fold16(acc);
}

template <class T, class V>
static inline float plain_dot(const float* a, const V* b, u32 n, float* xx) {
    float acc[16] = {0}, sq[16] = {0};
    u32 i = 0;
    for (; i + 16 <= n; i += 16)
        for (u32 j = 0; j < 16; j++) {
            float x = T::load(b + i + j);
            acc[j] += Single::load(a + i + j) * x;
            sq[j] += x * x;
        }
    for (u32 j = 0; i < n; i++, j++) {
        float x = T::load(b + i);
        acc[j] += Single::load(a + i) * x;
        sq[j] += x * x;
    }
    *xx = fold16(sq);
    return fold16(acc);
}


static u32 code_l2(const u8* a, const u8* b, u32 n) {
    u32 s = 0;
    for (u32 i = 0; i < n; i += 64) {
        i32 t = 0;
        for (u32 j = 0; j < 64; j++) {
            i32 d = (i32)a[i + j] - (i32)b[i + j];
            t += d * d;
        }
        s += (u32)t;
    }
    return s;
}
static i32 code_dot(const u8* a, const u8* b, u32 n) {
    i32 s = 0;
    for (u32 i = 0; i < n; i++) s += (i32)a[i] * (i32)(int8_t)b[i];
    return s;
}
static inline void code_l2x4(const u8* q, const u8* const* p, u32 n, u32* out) {
    for (int t = 0; t < 4; t++) out[t] = code_l2(q, p[t], n);
}
static inline void code_dotx4(const u8* q, const u8* const* p, u32 n, i32* out) {
    for (int t = 0; t < 4; t++) out[t] = code_dot(p[t], q, n);
}
// How many bits of n bytes differ.
static u32 bits(const u8* a, const u8* b, u32 n) {
    u32 s = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        u64 x, y;
        __builtin_memcpy(&x, a + i, 8);
        __builtin_memcpy(&y, b + i, 8);
        s += (u32)__builtin_popcountll(x ^ y);
    }
    for (; i < n; i++) s += (u32)__builtin_popcount((u32)(a[i] ^ b[i]));
    return s;
}
static inline void bitsx4(const u8* q, const u8* const* p, u32 n, u32* out) {
    for (int t = 0; t < 4; t++) out[t] = bits(q, p[t], n);
}
static float l2_f32(const float* a, const float* b, u32 n) { return plain_l2<Single>(a, b, n); }
static float dot_f32(const float* a, const float* b, u32 n, float* xx) {
    return plain_dot<Single>(a, b, n, xx);
}
static float l2_f16(const float* a, const u16* b, u32 n) { return plain_l2<Half>(a, b, n); }
static float dot_f16(const float* a, const u16* b, u32 n, float* xx) {
    return plain_dot<Half>(a, b, n, xx);
}
static void from_f16(const u16* a, u32 n, float* out) {
    for (u32 i = 0; i < n; i++) out[i] = Half::load(a + i);
}
static float l2_i8(const float* a, const i8* b, u32 n) { return plain_l2<Byte>(a, b, n); }
static float dot_i8(const float* a, const i8* b, u32 n, float* xx) {
    return plain_dot<Byte>(a, b, n, xx);
}
static void from_i8(const i8* a, u32 n, float* out) {
    for (u32 i = 0; i < n; i++) out[i] = Byte::load(a + i);
}
// c = round((x * s - lo) * inv), clipped to 0..127; NaN gives 0. Returns how many were clipped.
static u32 encode_row(const float* x, u32 n, float s, float lo, float inv, u8* out) {
    u32 clipped = 0;
    for (u32 i = 0; i < n; i++) {
        float t = (Single::load(x + i) * s - lo) * inv;
        clipped += (t < -0.5f) | (t > 127.5f);
        t = t > 0.0f ? t : 0.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)__builtin_rintf(t);
    }
    return clipped;
}
// round(x * s) clipped to -127..127, NaN gives 0
static void encode_signed(const float* x, u32 n, float s, u8* out) {
    for (u32 i = 0; i < n; i++) {
        float t = Single::load(x + i) * s;
        t = t == t ? t : 0.0f;
        t = t > -127.0f ? t : -127.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)(int8_t)__builtin_rintf(t);
    }
}
