// flat.inl: what needs no graph: encoding, exact distances, code distances, and the table.
// Included last by every instruction-set unit.

static void encode(EncodeArgs* a) {
    size_t row = bytes_of_row(a->dim, a->dtype);
    float inv = 1.0f / a->step;
    u64 clipped = 0;
    for (u32 i = 0; i < a->n; i++) {
        const u8* src = (const u8*)a->vectors + i * row;
        u8* out = a->out + (size_t)i * a->stride;
        if (a->dtype == B1) {  // the code is the row
            __builtin_memcpy(out, src, row);
            __builtin_memset(out + row, 0, a->stride - row);
            continue;
        }
        const float* x = (const float*)src;
        if (a->dtype == F16) {
            from_f16((const u16*)src, a->dim, a->tmp);
            x = a->tmp;
        } else if (a->dtype == I8) {
            from_i8((const i8*)src, a->dim, a->tmp);
            x = a->tmp;
        }
        float scale = 1.0f, xx;
        if (a->metric == COSINE) {
            dot_f32(x, x, a->dim, &xx);
            scale = xx > 0 ? 1.0f / __builtin_sqrtf(xx) : 1.0f;
        }
        clipped += encode_row(x, a->dim, scale, a->lo, inv, out);
        __builtin_memset(out + a->dim, a->metric == DOT ? 64 : 0, a->stride - a->dim);
    }
    a->clipped = clipped;
}

static void exact(const float* q, u32 dim, u32 metric, u32 dtype, const u8* const* rows, u32 n,
                  float* out) {
    u8 packed[(MAX_DIM + 7) / 8];
    if (metric == HAMMING) pack_bits(q, dim, packed);
    ExactQuery e = exact_query(q, dim, metric, dtype, packed);
    u32 bytes = bytes_of_row(dim, dtype), ahead = bytes < 1024 ? bytes : 1024;
    for (u32 i = 0; i < n; i++) {
        if (i + 2 < n && rows[i + 2]) prefetch_bytes(rows[i + 2], ahead);
        out[i] = rows[i] ? exact_distance(e, rows[i]) : __builtin_nanf("");
    }
}

static void query_code(const float* q, u32 dim, u32 metric, float lo, float step, u8* out,
                       float* tmp, u32 stride) {
    CodesView c = {nullptr, stride, lo, step};
    make_query(q, dim, metric, c, out, tmp);
}

static void code_keys(const CodesView* c, u32 metric, const u8* qcode, const u32* slots, u32 n,
                      u32* out) {
    for (u32 i = 0; i < n; i += MAX_ROW) {
        u32 m = n - i < MAX_ROW ? n - i : MAX_ROW;
        QueryCode q = {qcode, 0};
        auto give = [&](u32 j, u32 d) { out[i + j] = d; };
        if (metric == DOT)
            each_key<PRODUCTS>(*c, 0, q, slots + i, m, give);
        else if (metric == HAMMING)
            each_key<BITS>(*c, 0, q, slots + i, m, give);
        else
            each_key<SQUARES>(*c, 0, q, slots + i, m, give);
    }
}

#define VECDB_TABLE(NAME)                                                                   \
    {NAME,   search,    insert,  mend,     hold,   nearest_first, encode,  exact,  query_code, \
     code_keys, code_l2, code_dot, l2_f32, dot_f32, l2_f16,        dot_f16, from_f16, l2_i8,     \
     dot_i8, from_i8,   bits}
