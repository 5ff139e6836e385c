// simd_avx2.h: kernels for AVX2, FMA and F16C (x86-64 processors since 2013).
//
// 1. maddubs saturates at 32,767; two products of seven-bit differences reach 32,258.
// 2. Tails shorter than a register are computed value by value: no byte outside is read.

static inline __m256i square_add(__m256i acc, __m256i a, __m256i b) {
    __m256i d = _mm256_abs_epi8(_mm256_sub_epi8(a, b));
    return _mm256_add_epi32(
        acc, _mm256_madd_epi16(_mm256_maddubs_epi16(d, d), _mm256_set1_epi16(1)));
}
static inline __m256i dot_add(__m256i acc, __m256i a, __m256i b) {
    return _mm256_add_epi32(
        acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
static inline __m256i bytes(const u8* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline i32 fold(__m256i v) {
    __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xB1)));
}
static u32 code_l2(const u8* a, const u8* b, u32 n) {
    __m256i s = _mm256_setzero_si256(), t = s;
    for (u32 i = 0; i < n; i += 64) {
        s = square_add(s, bytes(a + i), bytes(b + i));
        t = square_add(t, bytes(a + i + 32), bytes(b + i + 32));
    }
    return (u32)fold(_mm256_add_epi32(s, t));
}
static i32 code_dot(const u8* a, const u8* b, u32 n) {
    __m256i s = _mm256_setzero_si256(), t = s;
    for (u32 i = 0; i < n; i += 64) {
        s = dot_add(s, bytes(a + i), bytes(b + i));
        t = dot_add(t, bytes(a + i + 32), bytes(b + i + 32));
    }
    return fold(_mm256_add_epi32(s, t));
}
static inline __m128i fold4(__m256i a, __m256i b, __m256i c, __m256i d) {
    __m256i h = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}
static inline void code_l2x4(const u8* q, const u8* const* p, u32 n, u32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 32) {
        __m256i v = bytes(q + i);
        a = square_add(a, v, bytes(p0 + i));
        b = square_add(b, v, bytes(p1 + i));
        c = square_add(c, v, bytes(p2 + i));
        d = square_add(d, v, bytes(p3 + i));
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}
static inline void code_dotx4(const u8* q, const u8* const* p, u32 n, i32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 32) {
        __m256i v = bytes(q + i);
        a = dot_add(a, bytes(p0 + i), v);
        b = dot_add(b, bytes(p1 + i), v);
        c = dot_add(c, bytes(p2 + i), v);
        d = dot_add(d, bytes(p3 + i), v);
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}

// Bits set in each byte, by halves from a table; then sums of eight bytes.
static inline __m256i bit_sums(__m256i v) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, half));
    __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), half));
    return _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256());
}
static u32 bits(const u8* a, const u8* b, u32 n) {
    __m256i s = _mm256_setzero_si256();
    u32 i = 0;
    for (; i + 32 <= n; i += 32)
        s = _mm256_add_epi32(s, bit_sums(_mm256_xor_si256(bytes(a + i), bytes(b + i))));
    u32 tail = 0;
    for (; i + 8 <= n; i += 8) {
        u64 x, y;
        __builtin_memcpy(&x, a + i, 8);
        __builtin_memcpy(&y, b + i, 8);
        tail += (u32)__builtin_popcountll(x ^ y);
    }
    for (; i < n; i++) tail += (u32)__builtin_popcount((u32)(a[i] ^ b[i]));
    return (u32)fold(s) + tail;
}
static inline void bitsx4(const u8* q, const u8* const* p, u32 n, u32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 32) {
        __m256i v = bytes(q + i);
        a = _mm256_add_epi32(a, bit_sums(_mm256_xor_si256(v, bytes(p0 + i))));
        b = _mm256_add_epi32(b, bit_sums(_mm256_xor_si256(v, bytes(p1 + i))));
        c = _mm256_add_epi32(c, bit_sums(_mm256_xor_si256(v, bytes(p2 + i))));
        d = _mm256_add_epi32(d, bit_sums(_mm256_xor_si256(v, bytes(p3 + i))));
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}

struct Single {
    typedef float value;
    static inline __m256 load(const float* p) { return _mm256_loadu_ps(p); }
    static inline float one(const float* p) {
        float f;
        __builtin_memcpy(&f, p, 4);  // stored rows may be unaligned
        return f;
    }
};
struct Half {
    typedef u16 value;
    static inline __m256 load(const u16* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
    }
    static inline float one(const u16* p) {
        u16 h;
        __builtin_memcpy(&h, p, 2);
        return _cvtsh_ss(h);
    }
};
struct Byte {
    typedef i8 value;
    static inline __m256 load(const i8* p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
    }
    static inline float one(const i8* p) { return (float)*p; }
};
static inline float fold_ps(__m256 v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
template <class T>
static inline float wide_l2(const float* a, const typename T::value* b, u32 n) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    u32 i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256 d0 = _mm256_sub_ps(_mm256_loadu_ps(a + i), T::load(b + i));
        __m256 d1 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 8), T::load(b + i + 8));
        __m256 d2 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 16), T::load(b + i + 16));
        __m256 d3 = _mm256_sub_ps(_mm256_loadu_ps(a + i + 24), T::load(b + i + 24));
        s0 = _mm256_fmadd_ps(d0, d0, s0);
        s1 = _mm256_fmadd_ps(d1, d1, s1);
        s2 = _mm256_fmadd_ps(d2, d2, s2);
        s3 = _mm256_fmadd_ps(d3, d3, s3);
    }
    for (; i + 8 <= n; i += 8) {
        __m256 d = _mm256_sub_ps(_mm256_loadu_ps(a + i), T::load(b + i));
        s0 = _mm256_fmadd_ps(d, d, s0);
    }
    float tail = 0;
    for (; i < n; i++) {
        float d = Single::one(a + i) - T::one(b + i);
        tail += d * d;
    }
    return fold_ps(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3))) + tail;
}
template <class T>
static inline float wide_dot(const float* a, const typename T::value* b, u32 n, float* xx) {
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, x0 = s0, x1 = s0;
    u32 i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256 v0 = T::load(b + i), v1 = T::load(b + i + 8);
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), v0, s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), v1, s1);
        x0 = _mm256_fmadd_ps(v0, v0, x0);
        x1 = _mm256_fmadd_ps(v1, v1, x1);
    }
    float tail = 0, tail_xx = 0;
    for (; i < n; i++) {
        float v = T::one(b + i);
        tail += Single::one(a + i) * v;
        tail_xx += v * v;
    }
    *xx = fold_ps(_mm256_add_ps(x0, x1)) + tail_xx;
    return fold_ps(_mm256_add_ps(s0, s1)) + tail;
}
static float l2_f32(const float* a, const float* b, u32 n) { return wide_l2<Single>(a, b, n); }
static float l2_f16(const float* a, const u16* b, u32 n) { return wide_l2<Half>(a, b, n); }
static float dot_f32(const float* a, const float* b, u32 n, float* xx) {
    return wide_dot<Single>(a, b, n, xx);
}
static float dot_f16(const float* a, const u16* b, u32 n, float* xx) {
    return wide_dot<Half>(a, b, n, xx);
}
static void from_f16(const u16* a, u32 n, float* out) {
    u32 i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, Half::load(a + i));
    for (; i < n; i++) out[i] = Half::one(a + i);
}
static float l2_i8(const float* a, const i8* b, u32 n) { return wide_l2<Byte>(a, b, n); }
static float dot_i8(const float* a, const i8* b, u32 n, float* xx) {
    return wide_dot<Byte>(a, b, n, xx);
}
static void from_i8(const i8* a, u32 n, float* out) {
    u32 i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, Byte::load(a + i));
    for (; i < n; i++) out[i] = Byte::one(a + i);
}
static inline __m256i rounded(__m256 t) {
    t = _mm256_min_ps(_mm256_max_ps(t, _mm256_setzero_ps()), _mm256_set1_ps(127.0f));
    return _mm256_cvtps_epi32(t);
}
static inline void store8(u8* out, __m256i v) {  // eight small ints to bytes
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64((__m128i*)out, _mm_packs_epi16(w, w));
}
static u32 encode_row(const float* x, u32 n, float s, float lo, float inv, u8* out) {
    const __m256 vs = _mm256_set1_ps(s), vlo = _mm256_set1_ps(lo), vi = _mm256_set1_ps(inv);
    const __m256 under = _mm256_set1_ps(-0.5f), over = _mm256_set1_ps(127.5f);
    u32 clipped = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 t = _mm256_mul_ps(_mm256_loadu_ps(x + i), vs);
        t = _mm256_mul_ps(_mm256_sub_ps(t, vlo), vi);
        __m256 bad = _mm256_or_ps(_mm256_cmp_ps(t, under, _CMP_LT_OQ),
                                  _mm256_cmp_ps(t, over, _CMP_GT_OQ));
        clipped += (u32)__builtin_popcount((u32)_mm256_movemask_ps(bad));
        store8(out + i, rounded(t));
    }
    for (; i < n; i++) {
        float t = (Single::one(x + i) * s - lo) * inv;
        clipped += (t < -0.5f) | (t > 127.5f);
        t = t > 0.0f ? t : 0.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)__builtin_rintf(t);
    }
    return clipped;
}
static void encode_signed(const float* x, u32 n, float s, u8* out) {
    const __m256 vs = _mm256_set1_ps(s), top = _mm256_set1_ps(127.0f);
    const __m256 bottom = _mm256_set1_ps(-127.0f);
    u32 i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 t = _mm256_mul_ps(_mm256_loadu_ps(x + i), vs);
        t = _mm256_and_ps(t, _mm256_cmp_ps(t, t, _CMP_ORD_Q));
        t = _mm256_min_ps(_mm256_max_ps(t, bottom), top);
        store8(out + i, _mm256_cvtps_epi32(t));
    }
    for (; i < n; i++) {
        float t = Single::one(x + i) * s;
        t = t == t ? t : 0.0f;
        t = t > -127.0f ? t : -127.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)(int8_t)__builtin_rintf(t);
    }
}
