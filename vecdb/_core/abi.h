// abi.h: what crosses between the instruction-set translation units and the rest of the core.
//
// 1. Only plain structs, plain pointers and C types: a translation unit compiled for AVX-512
//    that emitted a std:: function with external linkage could be the copy that the linker
//    keeps, and the library would then crash on an older processor.
// 2. Helpers here are `static inline` for the same reason: every unit keeps its own copy.
// 3. A searcher never follows an id at or above SearchArgs::limit; every array covers limit.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace vecdb {

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int32_t i32;
typedef int64_t i64;

enum Metric : u32 { L2 = 0, COSINE = 1, DOT = 2, HAMMING = 3 };
enum Dtype : u32 { F32 = 0, F16 = 1, I8 = 2, B1 = 3 };

// A link entry is a slot; its top bit marks the one link that keeps the slot reachable.
static const u32 EMPTY = 0xFFFFFFFFu;  // no link here or further on; a row of it: not in the graph
static const u32 ALONE = 0xFFFFFFFEu;  // first entry of a row that is in the graph without a link
static const u32 PIN = 0x80000000u;
static const u32 ID = 0x7FFFFFFFu;
static const u32 MAX_SLOTS = 0x7FFFFFFEu;
static const u32 NO_SLOT = 0xFFFFFFFFu;

static const u32 SEG_SHIFT = 16;  // arrays grow by segments of 65,536 rows that never move
static const u32 SEG_MASK = 0xFFFFu;
static const u32 ENTRY_SHIFT = 5;   // every 32nd slot is also a node of the entry layer
static const u32 ENTRY_SCAN = 32;   // entry nodes compared before the walk of that layer: the first
static const u32 MAX_ROW = 512;     // links a row, at most (M = 256)
static const u32 MAX_DIM = 65535;
static const u32 OV_SHIFT = 10;     // overlay rows are kept in chunks of 1,024

struct CodesView {
    u8* const* seg;
    u32 stride;  // bytes a code, a multiple of 64
    float lo, step;
};

struct LayerView {
    u32* const* seg;
    u32 R;
    u32 shift;  // node u of this layer is slot u << shift
    // The writer's overlay: index[u] != 0 names a private row that stands for u's.
    const u32* ov_index;
    u32* const* ov_rows;
    u32 ov_limit;
};

struct StoredView {
    const u8* const* const* seg;  // per segment: base address of each block
    u8* const* flags;             // per slot: 1 when it has a vector
    u32 block_shift;
    u32 row_bytes;
};

// Working memory of one thread. visited is all zero between calls.
struct Scratch {
    u64* visited;
    u32* touched;
    u32 n_touched;
    u64* pool;    // pool_cap + 1 keys: distance << 32 | expanded << 31 | id
    u64* result;  // matches of a masked walk, pool_cap + 1 keys
    u64* keys;    // candidates of an insertion
    u8* qcode;
    u8* tmpcode;
    float* qvec;
    u32* out_slots;
    float* out_dist;
    u32 pool_cap;
};

struct SearchArgs {
    const float* query;
    u32 dim, metric, dtype;
    CodesView codes;
    LayerView base, entry;
    StoredView stored;
    u32 limit;      // slots that may be walked through
    u32 n_visible;  // slots below it may be results
    const u8* mask;
    u64 mask_bits;
    u32 k, ef, rr;
    u64 budget;  // most distances; 0: no bound
    u32 skip;    // a slot that is no result; NO_SLOT: none
    u32 root;    // where to start without an entry node; EMPTY: the graph is empty
    const u32* starts;  // ENTRY_SCAN nodes of the entry layer to begin at, or NO_SLOT
    u32 overlay;
    Scratch* scratch;
    u32 n_out;
    u64 n_dist, n_hops;
    u32 exhausted;
};

struct InsertArgs {
    LayerView layer, entry;
    CodesView codes;
    u32 metric;
    u32 slot;   // the slot to link
    u32 limit;  // slots that may be walked through
    u32 root;
    const u32* starts;
    u32 first;  // the layer's first node until now, where this one comes before it; else EMPTY
    u32 keep;   // the slot's own row is right already
    const u8* mask;  // slots that new links may lead to; null: all
    u64 mask_bits;
    u32 ef;
    u32 alpha;  // in 1/256: c is rejected when alpha * d(s, c) <= d(q, c) for a kept s
    u8* locks;  // 4,096 spin locks
    u64* const* bits_seg;  // per row: which links are diverse, and whether that is known
    u32 bits_words;
    void* owner;
    u32* (*own_row)(void* owner, u32 shift, u32 u);  // a row that may be written; called locked
    Scratch* scratch;
};

// A row of the layer in `insert` (its slot's) that loses the links to condemned slots.
struct MendArgs {
    InsertArgs insert;
    const u8* condemned;
    u64 condemned_bits;
    u32 child;  // a row of the layer to which the pinned link goes as well; EMPTY: none
    u32 changed;  // out: whether the row is another now
};

struct EncodeArgs {
    const void* vectors;  // n contiguous rows
    u32 n, dim, metric, dtype;
    float lo, step;
    u8* out;  // n codes of `stride` bytes
    u32 stride;
    float* tmp;   // dim floats
    u64 clipped;  // out: values outside of the scale
};

struct Kernels {
    const char* name;
    void (*search)(SearchArgs*);
    void (*insert)(InsertArgs*);
    // upkeep of links: mend.inl
    void (*mend)(MendArgs*);
    u32 (*hold)(InsertArgs*, u32 parent, u32 child);  // pins child to parent; 0: no room
    void (*nearest_first)(InsertArgs*, u32 node, u32* rows, u32 n);
    void (*encode)(EncodeArgs*);
    // distances of the API between the query and n stored rows
    void (*exact)(const float* q, u32 dim, u32 metric, u32 dtype, const u8* const* rows, u32 n,
                  float* out);
    // ordered keys (smaller is nearer) between a query and the codes of n slots
    void (*query_code)(const float* q, u32 dim, u32 metric, float lo, float step, u8* out,
                       float* tmp, u32 stride);
    void (*code_keys)(const CodesView*, u32 metric, const u8* qcode, const u32* slots, u32 n,
                      u32* out);
    // single kernels, for tests
    u32 (*code_l2)(const u8* a, const u8* b, u32 n);
    i32 (*code_dot)(const u8* a, const u8* b, u32 n);  // b signed
    float (*l2_f32)(const float* a, const float* b, u32 n);
    float (*dot_f32)(const float* a, const float* b, u32 n, float* xx);  // xx: b . b
    float (*l2_f16)(const float* a, const u16* b, u32 n);
    float (*dot_f16)(const float* a, const u16* b, u32 n, float* xx);
    void (*from_f16)(const u16* a, u32 n, float* out);
    float (*l2_i8)(const float* a, const i8* b, u32 n);
    float (*dot_i8)(const float* a, const i8* b, u32 n, float* xx);
    void (*from_i8)(const i8* a, u32 n, float* out);
    u32 (*bits)(const u8* a, const u8* b, u32 n);  // that differ, of n bytes
};

// Bytes of a stored vector.
static inline u32 bytes_of_row(u32 dim, u32 dtype) {
    return dtype == F32 ? dim * 4 : dtype == F16 ? dim * 2 : dtype == I8 ? dim : (dim + 7) / 8;
}

static inline u32 load_link(const u32* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void store_link(u32* p, u32 v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static inline u8* code_of(const CodesView& c, u32 slot) {
    return c.seg[slot >> SEG_SHIFT] + (size_t)(slot & SEG_MASK) * c.stride;
}

template <bool OV>
static inline u32* row_of(const LayerView& l, u32 u) {
    if (OV && u < l.ov_limit) {
        u32 i = __atomic_load_n(&l.ov_index[u], __ATOMIC_ACQUIRE);
        if (i)
            return __atomic_load_n(&l.ov_rows[i >> OV_SHIFT], __ATOMIC_RELAXED) +
                   (size_t)(i & ((1u << OV_SHIFT) - 1)) * l.R;
    }
    return l.seg[u >> SEG_SHIFT] + (size_t)(u & SEG_MASK) * l.R;
}

static inline const u8* stored_row(const StoredView& s, u32 slot) {
    if (!__atomic_load_n(&s.flags[slot >> SEG_SHIFT][slot & SEG_MASK], __ATOMIC_ACQUIRE))
        return nullptr;
    const u8* base = __atomic_load_n(
        &s.seg[slot >> SEG_SHIFT][(slot & SEG_MASK) >> s.block_shift], __ATOMIC_ACQUIRE);
    if (!base) return nullptr;
    return base + (size_t)(slot & ((1u << s.block_shift) - 1)) * s.row_bytes;
}

static inline bool mask_has(const u8* mask, u64 bits, u32 slot) {
    return slot < bits && (mask[slot >> 3] >> (slot & 7) & 1);
}

}  // namespace vecdb
