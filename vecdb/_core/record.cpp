// record.cpp: the redo record of one commit: what Writer::changes() writes and Graph::apply()
// copies. Layout in README.md. Two invariants:
//
// 1. decode() checks every count, position and id before apply() changes anything; the memory
//    that it leads to is bounded by the record's own length.
// 2. Applying writes links with release stores, after the codes they lead to.
// 3. Entries are absolute: a record may be replayed onto chunks that contain it already, as long
//    as all later ones follow. That is how an image whose chunks have different ages is loaded.
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "writer.h"

namespace vecdb {
namespace {

const u8 VERSION = 2;  // 1 knows no vacated slots
enum Tag : u32 { LINK = 0, PINNED = 1, NOTHING = 2, LONELY = 3 };

struct Out {
    std::vector<u8> bytes;
    void number(u64 v) {
        for (; v >= 128; v >>= 7) bytes.push_back((u8)(v | 128));
        bytes.push_back((u8)v);
    }
    void real(float f) {
        u32 b;
        memcpy(&b, &f, 4);
        for (int i = 0; i < 4; i++) bytes.push_back((u8)(b >> (8 * i)));
    }
};

struct In {
    const u8 *p, *end;
    [[noreturn]] static void bad(const char* what) {
        throw std::invalid_argument(std::string("redo record: ") + what);
    }
    u64 number() {
        u64 v = 0;
        for (u32 shift = 0; shift < 64; shift += 7) {
            if (p == end) bad("it ends too early");
            u8 b = *p++;
            v |= (u64)(b & 127) << shift;
            if (b < 128) return v;
        }
        bad("a number is too long");
    }
    u32 below(u64 bound, const char* what) {
        u64 v = number();
        if (v >= bound) bad(what);
        return (u32)v;
    }
    float real() {
        if (end - p < 4) bad("it ends too early");
        u32 b = (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
        p += 4;
        float f;
        memcpy(&f, &b, 4);
        return f;
    }
};

// A link relative to the first new row: fresh links, the common case, take one byte or two.
u64 pack(u32 entry, u32 base) {
    if (entry == EMPTY) return NOTHING;
    if (entry == ALONE) return LONELY;
    i64 d = (i64)(entry & ID) - (i64)base;
    u64 zigzag = d < 0 ? ((u64)(-d) << 1) - 1 : (u64)d << 1;
    return zigzag << 2 | (entry & PIN ? PINNED : LINK);
}
u32 unpack(u64 v, u32 base, u32 rows, u32 self) {
    u32 tag = v & 3;
    if (tag == NOTHING || tag == LONELY) {
        if (v >> 2) In::bad("an empty link with a value");
        return tag == NOTHING ? EMPTY : ALONE;
    }
    u64 zigzag = v >> 2;
    i64 d = zigzag & 1 ? -(i64)((zigzag >> 1) + 1) : (i64)(zigzag >> 1);
    i64 id = (i64)base + d;
    if (id < 0 || id >= (i64)rows || id == (i64)self) In::bad("a link out of range");
    return (u32)id | (tag == PINNED ? PIN : 0);
}

struct Head {
    u32 base, n;
    Scale scale;
    std::vector<u32> reused, vacated;
};

void write_slots(Out& out, std::vector<u32>& slots) {
    std::sort(slots.begin(), slots.end());
    out.number(slots.size());
    u32 at = 0;
    for (u32 s : slots) {
        out.number(s - at);
        at = s + 1;
    }
}

std::vector<u32> read_slots(In& in, size_t size, u32 base) {
    std::vector<u32> slots;
    u64 at = 0;
    for (u32 left = in.below(size, "too many slots in a list"); left; left--) {
        at += in.number();
        if (at >= base) In::bad("a listed slot out of range");
        slots.push_back((u32)at);
        at++;
    }
    return slots;
}

// Walks the record: entry(layer, row, position, value) for changed links, fresh(layer, row,
// links, count) for each row of a new slot that is in the graph.
template <class Entry, class Fresh>
Head decode(const u8* data, size_t size, const u32* width, Entry entry, Fresh fresh) {
    In in = {data, data + size};
    u64 version = in.number();
    if (version < 1 || version > VERSION) In::bad("unknown version");
    Head h;
    h.base = in.below((u64)MAX_SLOTS + 1, "n_slots out of range");
    h.n = in.below((u64)MAX_SLOTS + 1, "n_slots out of range");
    if (h.n < h.base || h.n - h.base > size) In::bad("n_slots out of range");
    h.scale.lo = in.real();
    h.scale.step = in.real();
    if (!(h.scale.step >= 0 && h.scale.step < 1e38f && h.scale.lo > -3e38f && h.scale.lo < 3e38f))
        In::bad("scale out of range");
    h.reused = read_slots(in, size, h.base);
    if (version > 1) h.vacated = read_slots(in, size, h.base);
    for (u32 layer = 0; layer < 2; layer++) {
        u32 old_rows = rows_of(layer, h.base), rows = rows_of(layer, h.n), R = width[layer];
        u64 row = 0;
        for (u32 left = in.below(size, "too many rows"); left; left--) {
            row += in.number();
            if (row >= old_rows) In::bad("a row out of range");
            u64 position = 0;
            for (u32 m = in.below((u64)R + 1, "too many links in a row"); m; m--) {
                position += in.number();
                if (position >= R) In::bad("a position out of range");
                entry(layer, (u32)row, (u32)position,
                      unpack(in.number(), old_rows, rows, (u32)row));
                position++;
            }
            row++;
        }
        u32 links[MAX_ROW];
        for (u32 u = old_rows; u < rows; u++) {
            u32 count = in.below((u64)R + 2, "too many links in a row");
            if (!count) continue;  // a hole
            if (!h.scale.valid()) In::bad("new rows without a scale");
            u64 id = 0;
            for (u32 j = 0; j + 1 < count; j++) {
                u64 v = in.number();
                id += v >> 1;
                if (id >= rows || id == u || (j && !(v >> 1))) In::bad("a link out of range");
                links[j] = (u32)id | (v & 1 ? PIN : 0);
            }
            fresh(layer, u, links, count - 1);
        }
    }
    if (in.p != in.end) In::bad("bytes after its end");
    return h;
}

}  // namespace

std::vector<u8> Writer::changes() {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    canonicalise();
    Out out;
    out.number(VERSION);
    out.number(base_n_);
    out.number(n_slots());
    Scale scale = codes_ ? codes_->scale : Scale();
    out.real(scale.lo);
    out.real(scale.step);
    write_slots(out, reused_);
    write_slots(out, vacated_);
    for (u32 layer = 0; layer < 2; layer++) {
        u32 R = g_.width(layer), old_rows = rows_of(layer, base_n_);
        LayerView v = this->layer(layer);
        Out body;
        u32 rows = 0, next = 0;
        for (u32 u : g_.overlay[layer].touched()) {
            const u32 *now = row_of<true>(v, u), *was = row_of<false>(v, u);
            u32 differ = 0;
            for (u32 j = 0; j < R; j++) differ += now[j] != was[j];
            if (!differ || now[0] == EMPTY) continue;  // the list of vacated slots says it
            body.number(u - next);
            body.number(differ);
            u32 position = 0;
            for (u32 j = 0; j < R; j++) {
                if (now[j] == was[j]) continue;
                body.number(j - position);
                body.number(pack(now[j], old_rows));
                position = j + 1;
            }
            next = u + 1;
            rows++;
        }
        out.number(rows);
        out.bytes.insert(out.bytes.end(), body.bytes.begin(), body.bytes.end());
        for (u32 u = old_rows; u < rows_of(layer, n_slots()); u++) {
            const u32* row = row_of<false>(v, u);
            u32 count = 0, id = 0;
            while (count < R && row[count] < ALONE) count++;
            out.number(row[0] == EMPTY ? 0 : count + 1);
            for (u32 j = 0; j < count; j++) {
                out.number((u64)((row[j] & ID) - id) << 1 | (row[j] & PIN ? 1 : 0));
                id = row[j] & ID;
            }
        }
    }
    last_size_ = out.bytes.size();
    last_crc_ = crc32c(0, out.bytes.data(), out.bytes.size());
    return std::move(out.bytes);
}

void Graph::apply(const u8* record, size_t size) {
    std::lock_guard<std::mutex> hold(write_mutex);
    bool own = writer && writer->wrote(crc32c(0, record, size), size);
    if (!own) require_no_changes();
    u32 R[2] = {width(0), width(1)};
    Head h = decode(record, size, R, [](u32, u32, u32, u32) {},
                    [](u32, u32, const u32*, u32) {});
    u32 current = n_slots();
    if (h.base > current || (h.base < current && (own || h.n > current)))
        throw std::invalid_argument("redo record: it follows " + std::to_string(h.base) +
                                    " slots, the graph has " + std::to_string(current));
    bool replay = h.base < current;  // onto an image that is newer: links alone, see 3
    ensure(h.n);
    if (replay) {
        // the state that the image was loaded with has the scale of the last commit
    } else if (h.scale.valid() && (!codes || codes->scale != h.scale)) {
        std::shared_ptr<CodeSet> made;
        if (own && writer->codes() && writer->codes()->scale == h.scale)
            made = writer->codes();
        else
            made = std::make_shared<CodeSet>(opt_.shape, opt_.kernels, h.scale);
        made->fill(stored, 0, h.n, 0, false);
        install(std::move(made));
    } else if (codes) {
        if (!own)
            for (u32 s : h.reused) codes->fill(stored, s, 1, 1, true);
        codes->fill(stored, h.base, h.n - h.base, h.n - h.base < 1024 ? 1 : 0, false);
    }
    auto forget = [&](u32 layer, u32 u) {
        Segments& bits = layer ? entry_bits : base_bits;
        if (!own) memset(bits.row(u), 0, bits.row_bytes());
    };
    decode(
        record, size, R,
        [&](u32 layer, u32 u, u32 position, u32 value) {
            put_link(layer, u, position, value);
            forget(layer, u);
            appeared(layer, u);
        },
        [&](u32 layer, u32 u, const u32* ids, u32 n) {
            for (u32 j = 0; j < n; j++) put_link(layer, u, j, ids[j]);
            for (u32 j = n; j < R[layer]; j++) put_link(layer, u, j, n || j ? EMPTY : ALONE);
            forget(layer, u);
            appeared(layer, u);
        });
    for (u32 s : h.vacated) {
        if (!(s & ((1u << ENTRY_SHIFT) - 1))) empty_row(1, s >> ENTRY_SHIFT);
        empty_row(0, s);
        forget(0, s);
    }
    if (!replay) n_slots_.store(h.n, std::memory_order_release);
    if (own)
        writer->finish();
    else if (writer)
        writer->rebase();
    epochs.collect();
}

}  // namespace vecdb
