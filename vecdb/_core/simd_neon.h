// simd_neon.h: kernels for 64-bit ARM: plain (every processor), and with the dot product of
// ARMv8.2 where the unit defines VECDB_DOTPROD (servers since 2018, every Apple processor).
//
// 1. Seven-bit codes make |a - b| fit a signed byte, so one dot-product instruction squares and
//    adds it. Without that instruction two products are added in 16 bits: at most 32,258 (squares
//    and positive products), at least -32,512, so nothing overflows.
// 2. Tails shorter than a register are computed value by value: no byte outside is read.
// 3. Fused multiply-add is asked for by name; the build forbids the compiler to fuse by itself,
//    so that codes are the same on every processor.
// Rejected: int8 matrix multiply (i8mm): its 2x2 tiles need two queries; a walk has one.

static inline uint32x4_t square_add(uint32x4_t acc, uint8x16_t a, uint8x16_t b) {
    uint8x16_t d = vabdq_u8(a, b);
#ifdef VECDB_DOTPROD
    return vdotq_u32(acc, d, d);
#else
    uint16x8_t two = vmull_u8(vget_low_u8(d), vget_low_u8(d));
    return vpadalq_u16(acc, vmlal_u8(two, vget_high_u8(d), vget_high_u8(d)));
#endif
}
static inline int32x4_t dot_add(int32x4_t acc, int8x16_t a, int8x16_t b) {
#ifdef VECDB_DOTPROD
    return vdotq_s32(acc, a, b);
#else
    int16x8_t two = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    return vpadalq_s16(acc, vmlal_s8(two, vget_high_s8(a), vget_high_s8(b)));
#endif
}
static inline int8x16_t signs(const u8* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }

static u32 code_l2(const u8* a, const u8* b, u32 n) {
    uint32x4_t s = vdupq_n_u32(0), t = s;
    for (u32 i = 0; i < n; i += 32) {
        s = square_add(s, vld1q_u8(a + i), vld1q_u8(b + i));
        t = square_add(t, vld1q_u8(a + i + 16), vld1q_u8(b + i + 16));
    }
    return vaddvq_u32(vaddq_u32(s, t));
}
static i32 code_dot(const u8* a, const u8* b, u32 n) {
    int32x4_t s = vdupq_n_s32(0), t = s;
    for (u32 i = 0; i < n; i += 32) {
        s = dot_add(s, signs(a + i), signs(b + i));
        t = dot_add(t, signs(a + i + 16), signs(b + i + 16));
    }
    return vaddvq_s32(vaddq_s32(s, t));
}
static inline void code_l2x4(const u8* q, const u8* const* p, u32 n, u32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    uint32x4_t a = vdupq_n_u32(0), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 16) {
        uint8x16_t v = vld1q_u8(q + i);
        a = square_add(a, v, vld1q_u8(p0 + i));
        b = square_add(b, v, vld1q_u8(p1 + i));
        c = square_add(c, v, vld1q_u8(p2 + i));
        d = square_add(d, v, vld1q_u8(p3 + i));
    }
    vst1q_u32(out, vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d)));
}
static inline void code_dotx4(const u8* q, const u8* const* p, u32 n, i32* out) {
    const u8 *p0 = p[0], *p1 = p[1], *p2 = p[2], *p3 = p[3];
    int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
    for (u32 i = 0; i < n; i += 16) {
        int8x16_t v = signs(q + i);
        a = dot_add(a, signs(p0 + i), v);
        b = dot_add(b, signs(p1 + i), v);
        c = dot_add(c, signs(p2 + i), v);
        d = dot_add(d, signs(p3 + i), v);
    }
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
}

static inline uint16x8_t bits_add(uint16x8_t acc, uint8x16_t a, uint8x16_t b) {
    return vpadalq_u8(acc, vcntq_u8(veorq_u8(a, b)));
}
// Sums fit 16 bits: 8 KiB, the longest row, are 512 steps of 16 at most.
static u32 bits(const u8* a, const u8* b, u32 n) {
    uint16x8_t s = vdupq_n_u16(0);
    u32 i = 0, tail = 0;
    for (; i + 16 <= n; i += 16) s = bits_add(s, vld1q_u8(a + i), vld1q_u8(b + i));
    for (; i < n; i++) tail += (u32)__builtin_popcount((u32)(a[i] ^ b[i]));
    return vaddlvq_u16(s) + tail;
}
static inline void bitsx4(const u8* q, const u8* const* p, u32 n, u32* out) {
    uint16x8_t s[4] = {vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0), vdupq_n_u16(0)};
    for (u32 i = 0; i < n; i += 16) {
        uint8x16_t v = vld1q_u8(q + i);
        for (int t = 0; t < 4; t++) s[t] = bits_add(s[t], v, vld1q_u8(p[t] + i));
    }
    for (int t = 0; t < 4; t++) out[t] = vaddlvq_u16(s[t]);
}

// Stored rows may be unaligned, hence bytes and memcpy.
struct Single {
    typedef float value;
    static inline float32x4_t load(const float* p) {
        return vreinterpretq_f32_u8(vld1q_u8((const u8*)p));
    }
    static inline float one(const float* p) {
        float f;
        __builtin_memcpy(&f, p, 4);
        return f;
    }
};
struct Half {
    typedef u16 value;
    static inline float32x4_t load(const u16* p) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const u8*)p)));
    }
    static inline float one(const u16* p) {
        u16 h;
        __builtin_memcpy(&h, p, 2);
        return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
    }
};
struct Byte {
    typedef i8 value;
    static inline float32x4_t load(const i8* p) {
        u32 four;
        __builtin_memcpy(&four, p, 4);
        int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
    }
    static inline float one(const i8* p) { return (float)*p; }
};
template <class T>
static inline float wide_l2(const float* a, const typename T::value* b, u32 n) {
    float32x4_t s0 = vdupq_n_f32(0), s1 = s0, s2 = s0, s3 = s0;
    u32 i = 0;
    for (; i + 16 <= n; i += 16) {
        float32x4_t d0 = vsubq_f32(Single::load(a + i), T::load(b + i));
        float32x4_t d1 = vsubq_f32(Single::load(a + i + 4), T::load(b + i + 4));
        float32x4_t d2 = vsubq_f32(Single::load(a + i + 8), T::load(b + i + 8));
        float32x4_t d3 = vsubq_f32(Single::load(a + i + 12), T::load(b + i + 12));
        s0 = vfmaq_f32(s0, d0, d0);
        s1 = vfmaq_f32(s1, d1, d1);
        s2 = vfmaq_f32(s2, d2, d2);
        s3 = vfmaq_f32(s3, d3, d3);
    }
    for (; i + 4 <= n; i += 4) {
        float32x4_t d = vsubq_f32(Single::load(a + i), T::load(b + i));
        s0 = vfmaq_f32(s0, d, d);
    }
    float tail = 0;
    for (; i < n; i++) {
        float d = Single::one(a + i) - T::one(b + i);
        tail += d * d;
    }
    return vaddvq_f32(vaddq_f32(vaddq_f32(s0, s1), vaddq_f32(s2, s3))) + tail;
}
template <class T>
static inline float wide_dot(const float* a, const typename T::value* b, u32 n, float* xx) {
    float32x4_t s0 = vdupq_n_f32(0), s1 = s0, x0 = s0, x1 = s0;
    u32 i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t v0 = T::load(b + i), v1 = T::load(b + i + 4);
        s0 = vfmaq_f32(s0, Single::load(a + i), v0);
        s1 = vfmaq_f32(s1, Single::load(a + i + 4), v1);
        x0 = vfmaq_f32(x0, v0, v0);
        x1 = vfmaq_f32(x1, v1, v1);
    }
    float tail = 0, tail_xx = 0;
    for (; i < n; i++) {
        float v = T::one(b + i);
        tail += Single::one(a + i) * v;
        tail_xx += v * v;
    }
    *xx = vaddvq_f32(vaddq_f32(x0, x1)) + tail_xx;
    return vaddvq_f32(vaddq_f32(s0, s1)) + tail;
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
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, Half::load(a + i));
    for (; i < n; i++) out[i] = Half::one(a + i);
}
static float l2_i8(const float* a, const i8* b, u32 n) { return wide_l2<Byte>(a, b, n); }
static float dot_i8(const float* a, const i8* b, u32 n, float* xx) {
    return wide_dot<Byte>(a, b, n, xx);
}
static void from_i8(const i8* a, u32 n, float* out) {
    u32 i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, Byte::load(a + i));
    for (; i < n; i++) out[i] = Byte::one(a + i);
}
static inline void store8(u8* out, float32x4_t t, float32x4_t u) {  // eight rounded values
    int16x8_t v = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(t)), vmovn_s32(vcvtnq_s32_f32(u)));
    vst1_u8(out, vreinterpret_u8_s8(vmovn_s16(v)));
}
static u32 encode_row(const float* x, u32 n, float s, float lo, float inv, u8* out) {
    const float32x4_t vs = vdupq_n_f32(s), vlo = vdupq_n_f32(lo), vi = vdupq_n_f32(inv);
    const float32x4_t zero = vdupq_n_f32(0), top = vdupq_n_f32(127.0f);
    const float32x4_t under = vdupq_n_f32(-0.5f), over = vdupq_n_f32(127.5f);
    uint32x4_t bad = vdupq_n_u32(0);
    u32 clipped = 0, i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t t[2];
        for (int j = 0; j < 2; j++) {
            t[j] = vmulq_f32(Single::load(x + i + 4 * j), vs);
            t[j] = vmulq_f32(vsubq_f32(t[j], vlo), vi);
            bad = vsubq_u32(bad, vorrq_u32(vcltq_f32(t[j], under), vcgtq_f32(t[j], over)));
            t[j] = vminnmq_f32(vmaxnmq_f32(t[j], zero), top);  // the number wins over a NaN
        }
        store8(out + i, t[0], t[1]);
    }
    for (; i < n; i++) {
        float t = (Single::one(x + i) * s - lo) * inv;
        clipped += (t < -0.5f) | (t > 127.5f);
        t = t > 0.0f ? t : 0.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)__builtin_rintf(t);
    }
    return clipped + vaddvq_u32(bad);
}
static void encode_signed(const float* x, u32 n, float s, u8* out) {
    const float32x4_t vs = vdupq_n_f32(s), top = vdupq_n_f32(127.0f);
    const float32x4_t bottom = vdupq_n_f32(-127.0f);
    u32 i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t t[2];
        for (int j = 0; j < 2; j++) {
            t[j] = vmulq_f32(Single::load(x + i + 4 * j), vs);
            uint32x4_t number = vceqq_f32(t[j], t[j]);
            t[j] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(t[j]), number));
            t[j] = vminq_f32(vmaxq_f32(t[j], bottom), top);
        }
        store8(out + i, t[0], t[1]);
    }
    for (; i < n; i++) {
        float t = Single::one(x + i) * s;
        t = t == t ? t : 0.0f;
        t = t > -127.0f ? t : -127.0f;
        t = t < 127.0f ? t : 127.0f;
        out[i] = (u8)(int8_t)__builtin_rintf(t);
    }
}
