// simd_avx512.h: kernels for AVX-512 F, BW, VL, DQ and VNNI (server processors since 2019).
//
// 1. Seven-bit codes make |a - b| fit a signed byte, so one dot-product instruction squares
//    and adds it; no saturation is possible.
// 2. Tails are masked loads: no byte outside of a vector is read.

static inline __m512i abs_diff(__m512i a, __m512i b) {
    return _mm512_abs_epi8(_mm512_sub_epi8(a, b));
}
static u32 code_l2(const u8* a, const u8* b, u32 n) {
    __m512i s = _mm512_setzero_si512(), t = s;
    u32 i = 0;
    for (; i + 128 <= n; i += 128) {
        __m512i d = abs_diff(_mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i));
        __m512i e = abs_diff(_mm512_loadu_si512(a + i + 64), _mm512_loadu_si512(b + i + 64));
        s = _mm512_dpbusd_epi32(s, d, d);
        t = _mm512_dpbusd_epi32(t, e, e);
    }
    if (i < n) {
        __m512i d = abs_diff(_mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i));
        s = _mm512_dpbusd_epi32(s, d, d);
    }
    return (u32)_mm512_reduce_add_epi32(_mm512_add_epi32(s, t));
}
static i32 code_dot(const u8* a, const u8* b, u32 n) {
    __m512i s = _mm512_setzero_si512();
    for (u32 i = 0; i < n; i += 64)
        s = _mm512_dpbusd_epi32(s, _mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i));
    return _mm512_reduce_add_epi32(s);
}
// four sums at once: 4 x 16 lanes to 4 x 1
static inline __m128i fold4(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m256i x = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m256i y = _mm256_add_epi32(_mm512_castsi512_si256(b), _mm512_extracti64x4_epi64(b, 1));
    __m256i z = _mm256_add_epi32(_mm512_castsi512_si256(c), _mm512_extracti64x4_epi64(c, 1));
    __m256i w = _mm256_add_epi32(_mm512_castsi512_si256(d), _mm512_extracti64x4_epi64(d, 1));
    __m256i h = _mm256_hadd_epi32(_mm256_hadd_epi32(x, y), _mm256_hadd_epi32(z, w));
    return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}
static inline void code_l2x4(const u8* q, const u8* const* p, u32 n, u32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 64) {
        __m512i v = _mm512_loadu_si512(q + i);
        __m512i x = abs_diff(v, _mm512_loadu_si512(p0 + i));
        __m512i y = abs_diff(v, _mm512_loadu_si512(p1 + i));
        __m512i z = abs_diff(v, _mm512_loadu_si512(p2 + i));
        __m512i w = abs_diff(v, _mm512_loadu_si512(p3 + i));
        a = _mm512_dpbusd_epi32(a, x, x);
        b = _mm512_dpbusd_epi32(b, y, y);
        c = _mm512_dpbusd_epi32(c, z, z);
        d = _mm512_dpbusd_epi32(d, w, w);
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}
static inline void code_dotx4(const u8* q, const u8* const* p, u32 n, i32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 64) {
        __m512i v = _mm512_loadu_si512(q + i);
        a = _mm512_dpbusd_epi32(a, _mm512_loadu_si512(p0 + i), v);
        b = _mm512_dpbusd_epi32(b, _mm512_loadu_si512(p1 + i), v);
        c = _mm512_dpbusd_epi32(c, _mm512_loadu_si512(p2 + i), v);
        d = _mm512_dpbusd_epi32(d, _mm512_loadu_si512(p3 + i), v);
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}

// Bits set in each byte, by halves from a table (not every processor with AVX-512 can count
// them); then sums of eight bytes.
static inline __m512i bit_sums(__m512i v) {
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i half = _mm512_set1_epi8(15);
    __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(v, half));
    __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), half));
    return _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512());
}
static u32 bits(const u8* a, const u8* b, u32 n) {
    __m512i s = _mm512_setzero_si512();
    for (u32 i = 0; i < n; i += 64) {
        __mmask64 m = n - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - i)) - 1;
        __m512i x = _mm512_maskz_loadu_epi8(m, a + i), y = _mm512_maskz_loadu_epi8(m, b + i);
        s = _mm512_add_epi32(s, bit_sums(_mm512_xor_si512(x, y)));
    }
    return (u32)_mm512_reduce_add_epi32(s);
}
static inline void bitsx4(const u8* q, const u8* const* p, u32 n, u32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 64) {
        __m512i v = _mm512_loadu_si512(q + i);
        a = _mm512_add_epi32(a, bit_sums(_mm512_xor_si512(v, _mm512_loadu_si512(p0 + i))));
        b = _mm512_add_epi32(b, bit_sums(_mm512_xor_si512(v, _mm512_loadu_si512(p1 + i))));
        c = _mm512_add_epi32(c, bit_sums(_mm512_xor_si512(v, _mm512_loadu_si512(p2 + i))));
        d = _mm512_add_epi32(d, bit_sums(_mm512_xor_si512(v, _mm512_loadu_si512(p3 + i))));
    }
    _mm_storeu_si128((__m128i*)out, fold4(a, b, c, d));
}

struct Single {
    typedef float value;
    static inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
    static inline __m512 part(__mmask16 m, const float* p) { return _mm512_maskz_loadu_ps(m, p); }
};
struct Half {
    typedef u16 value;
    static inline __m512 load(const u16* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
    }
    static inline __m512 part(__mmask16 m, const u16* p) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
    }
};
struct Byte {
    typedef i8 value;
    static inline __m512 load(const i8* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
    }
    static inline __m512 part(__mmask16 m, const i8* p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, p)));
    }
};
template <class T>
static inline float wide_l2(const float* a, const typename T::value* b, u32 n) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    u32 i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512 d0 = _mm512_sub_ps(_mm512_loadu_ps(a + i), T::load(b + i));
        __m512 d1 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 16), T::load(b + i + 16));
        __m512 d2 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 32), T::load(b + i + 32));
        __m512 d3 = _mm512_sub_ps(_mm512_loadu_ps(a + i + 48), T::load(b + i + 48));
        s0 = _mm512_fmadd_ps(d0, d0, s0);
        s1 = _mm512_fmadd_ps(d1, d1, s1);
        s2 = _mm512_fmadd_ps(d2, d2, s2);
        s3 = _mm512_fmadd_ps(d3, d3, s3);
    }
    for (; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, a + i), T::part(m, b + i));
        s0 = _mm512_fmadd_ps(d, d, s0);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}
template <class T>
static inline float wide_dot(const float* a, const typename T::value* b, u32 n, float* xx) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, x0 = s0, x1 = s0;
    u32 i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512 v0 = T::load(b + i), v1 = T::load(b + i + 16);
        s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), v0, s0);
        s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), v1, s1);
        x0 = _mm512_fmadd_ps(v0, v0, x0);
        x1 = _mm512_fmadd_ps(v1, v1, x1);
    }
    for (; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512 v = T::part(m, b + i);
        s0 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, a + i), v, s0);
        x0 = _mm512_fmadd_ps(v, v, x0);
    }
    *xx = _mm512_reduce_add_ps(_mm512_add_ps(x0, x1));
    return _mm512_reduce_add_ps(_mm512_add_ps(s0, s1));
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
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        _mm512_mask_storeu_ps(out + i, m, Half::part(m, a + i));
    }
}
static float l2_i8(const float* a, const i8* b, u32 n) { return wide_l2<Byte>(a, b, n); }
static float dot_i8(const float* a, const i8* b, u32 n, float* xx) {
    return wide_dot<Byte>(a, b, n, xx);
}
static void from_i8(const i8* a, u32 n, float* out) {
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        _mm512_mask_storeu_ps(out + i, m, Byte::part(m, a + i));
    }
}
static u32 encode_row(const float* x, u32 n, float s, float lo, float inv, u8* out) {
    const __m512 vs = _mm512_set1_ps(s), vlo = _mm512_set1_ps(lo), vi = _mm512_set1_ps(inv);
    const __m512 top = _mm512_set1_ps(127.0f), zero = _mm512_setzero_ps();
    const __m512 under = _mm512_set1_ps(-0.5f), over = _mm512_set1_ps(127.5f);
    u32 clipped = 0;
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512 t = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), vs);
        t = _mm512_mul_ps(_mm512_sub_ps(t, vlo), vi);
        clipped += (u32)__builtin_popcount(_mm512_mask_cmp_ps_mask(m, t, under, _CMP_LT_OQ) |
                                           _mm512_mask_cmp_ps_mask(m, t, over, _CMP_GT_OQ));
        t = _mm512_min_ps(_mm512_max_ps(t, zero), top);  // a NaN becomes the second operand
        _mm512_mask_cvtepi32_storeu_epi8(out + i, m, _mm512_cvtps_epi32(t));
    }
    return clipped;
}
static void encode_signed(const float* x, u32 n, float s, u8* out) {
    const __m512 vs = _mm512_set1_ps(s), top = _mm512_set1_ps(127.0f);
    const __m512 bottom = _mm512_set1_ps(-127.0f);
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 m = n - i >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512 t = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), vs);
        __mmask16 number = _mm512_cmp_ps_mask(t, t, _CMP_ORD_Q);
        t = _mm512_min_ps(_mm512_max_ps(_mm512_maskz_mov_ps(number, t), bottom), top);
        _mm512_mask_cvtepi32_storeu_epi8(out + i, m, _mm512_cvtps_epi32(t));
    }
}
