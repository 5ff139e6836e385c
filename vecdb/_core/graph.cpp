// graph.cpp: what the graph holds, and how it is loaded. Searches: search.cpp; the redo
// record: record.cpp; the checks: audit.cpp; insertion: writer.cpp.
#include "graph.h"

#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include "pool.h"
#include "writer.h"

namespace vecdb {

static u32 words(u32 R) { return R / 64 + 1; }  // R bits and the one that says they are known

Graph::Graph(const Options& o)
    : stored(o.shape.row_bytes(), o.block_rows),
      base_links((size_t)2 * o.M * 4),
      entry_links((size_t)o.M * 4),
      base_bits((size_t)words(2 * o.M) * 8),
      entry_bits((size_t)words(o.M) * 8),
      base_words(words(2 * o.M)),
      entry_words(words(o.M)),
      opt_(o) {}

Graph::~Graph() {}

Scale Graph::scale() const {
    Graph* self = const_cast<Graph*>(this);
    Epochs::Reader reader(self->epochs);
    CodeSet* c = code_ptr.load(std::memory_order_acquire);
    return c ? c->scale : Scale();
}

LayerView layer_view(Graph& g, u32 layer) {
    return {(u32* const*)g.links(layer).table(), g.width(layer), layer ? ENTRY_SHIFT : 0, nullptr,
            nullptr, 0};
}

static u64 physical_memory() {
    static const u64 bytes = (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE);
    return bytes;
}

// Rows never written hold EMPTY, so that "not in the graph" needs no other mark. Emptying them
// takes their memory at once: a slot number that no machine of this size can serve is refused
// before anything grows, since the system would grant it and end the process later.
void Graph::ensure(u32 n) {
    if ((u64)n * base_links.row_bytes() > physical_memory()) throw std::bad_alloc();
    stored.ensure(n);
    if (codes) codes->ensure(n);
    for (u32 layer = 0; layer < 2; layer++) {
        u32 rows = rows_of(layer, n);
        if (rows <= emptied_[layer]) continue;
        u32 upto = std::max(rows, (u32)std::min<u64>((u64)emptied_[layer] * 5 / 4, MAX_SLOTS));
        upto = (u32)std::min<u64>(((u64)upto + CHUNK_ROWS - 1) / CHUNK_ROWS * CHUNK_ROWS, MAX_SLOTS);
        links(layer).ensure(upto);
        (layer ? entry_bits : base_bits).ensure(upto);
        for (u32 u = emptied_[layer]; u < upto; u++)
            memset(links(layer).row(u), 0xFF, links(layer).row_bytes());
        emptied_[layer] = upto;
    }
}

void Graph::install(std::shared_ptr<CodeSet> made) {
    std::shared_ptr<CodeSet> old = codes;
    codes = std::move(made);
    code_ptr.store(codes.get(), std::memory_order_release);
    epochs.retire(old);
}

void Graph::require_no_changes() const {
    if (writer && writer->dirty())
        throw std::invalid_argument("an open writer holds changes: commit them or roll back");
}

// Candidates that an insertion compares: .64 of ef_construction reaches the recall that other
// graphs need all of it for, because rows are kept full.
u32 Graph::build_width() const {
    return std::max(2 * opt_.M, (u32)((u64)opt_.ef_construction * 64 / 100));
}

void Starts::add(u32 u) {
    u32 at = ENTRY_SCAN;
    while (at && node[at - 1] > u) at--;
    if (at == ENTRY_SCAN || (at && node[at - 1] == u)) return;
    for (u32 j = ENTRY_SCAN - 1; j > at; j--) store_link(node + j, node[j - 1]);
    store_link(node + at, u);
}

void Starts::replace(const u32* others) {
    for (u32 j = 0; j < ENTRY_SCAN; j++) store_link(node + j, others[j]);
}

void Graph::put_link(u32 layer, u32 u, u32 position, u32 link) {
    std::vector<u32>& of = parents[layer];
    if (!of.empty() && link < ALONE && link & PIN) {
        if ((link & ID) >= of.size()) of.resize((link & ID) + 1, NO_SLOT);
        of[link & ID] = u;
    }
    store_link((u32*)links(layer).row(u) + position, link);
}

// Takes a row out of its layer; where it was among the starts, the next one takes its place.
void Graph::empty_row(u32 layer, u32 u) {
    for (u32 j = 0; j < width(layer); j++) store_link((u32*)links(layer).row(u) + j, EMPTY);
    if (u < parents[layer].size()) parents[layer][u] = NO_SLOT;
    if (!layer || std::find(starts.node, starts.node + ENTRY_SCAN, u) == starts.node + ENTRY_SCAN)
        return;
    Starts now;
    u32 n = 0, rows = rows_of(1, n_slots());
    for (u32 v = 0; v < rows && n < ENTRY_SCAN; v++)
        if (load_link((u32*)entry_links.row(v)) != EMPTY) now.node[n++] = v;
    starts.replace(now.node);
}

bool Graph::absent(u32 slot) const {
    return slot >= n_slots() || load_link((const u32*)base_links.row(slot)) == EMPTY;
}

std::vector<u8> Graph::codes_of(u32 first, u32 n) {
    std::lock_guard<std::mutex> hold(write_mutex);
    u32 bytes = opt_.shape.code_bytes();
    std::vector<u8> out((size_t)n * bytes);
    for (u32 i = 0; codes && i < n; i++)
        if (codes->coded(first + i))
            memcpy(out.data() + (size_t)i * bytes, code_of(codes->view(), first + i), bytes);
    return out;
}

// Rows appear in any order: chunks are loaded before or after n_slots is known, holes are filled.
void Graph::appeared(u32 layer, u32 u) {
    if (load_link((u32*)links(layer).row(u)) == EMPTY) return;
    if (layer)
        starts.add(u);
    else if (u < root.load())
        root.store(u, std::memory_order_release);
}

void Graph::attach_block(u32 block, const u8* data, u32 rows, const u8* present) {
    std::lock_guard<std::mutex> hold(write_mutex);
    u64 end = (u64)block * opt_.block_rows + rows;
    if (end > MAX_SLOTS) throw std::invalid_argument("block number out of range");
    ensure((u32)end);
    stored.attach(block, data, rows, present, epochs);
    for (u32 i = 0; codes && present && i < rows; i++)
        if (!mask_has(present, rows, i)) codes->forget(block * opt_.block_rows + i);
    epochs.collect();
}

void Graph::put_vectors(const u32* slots, const u8* vectors, u32 n, bool unread) {
    std::lock_guard<std::mutex> hold(write_mutex);
    u32 top = 0;
    for (u32 i = 0; i < n; i++) {
        if (slots[i] >= MAX_SLOTS) throw std::invalid_argument("slot out of range");
        top = std::max(top, slots[i] + 1);
    }
    ensure(top);
    u32 bytes = stored.row_bytes();
    for (u32 i = 0; i < n; i++) {
        memcpy(stored.writable(slots[i], epochs, unread), vectors + (size_t)i * bytes, bytes);
        stored.publish(slots[i]);
        if (codes) codes->encode(slots[i], vectors + (size_t)i * bytes);
    }
    epochs.collect();
}

void Graph::detach_all() {
    {
        std::lock_guard<std::mutex> hold(write_mutex);
        stored.detach_all();
    }
    epochs.wait_all();
    epochs.collect();
}

void Graph::encode(u32 first, u32 n, u32 threads) {
    std::lock_guard<std::mutex> hold(write_mutex);
    if (!codes) return;
    u32 rows = stored.rows();
    if (first >= rows) return;
    n = std::min(n, rows - first);
    ensure(first + n);
    codes->fill(stored, first, n, threads, true);
}

bool Graph::vector(u32 slot, u8* out) {
    Epochs::Reader reader(epochs);
    const u8* row = stored.row(slot);
    if (row) memcpy(out, row, stored.row_bytes());
    return row != nullptr;
}

std::vector<u32> Graph::private_blocks() {
    std::lock_guard<std::mutex> hold(write_mutex);
    return stored.private_blocks();
}

u32 Graph::n_chunks(u32 layer) const {
    u32 rows = rows_of(layer, n_slots());
    return rows / CHUNK_ROWS + (rows % CHUNK_ROWS != 0);
}

std::vector<u8> Graph::chunk(u32 layer, u32 i) {
    std::lock_guard<std::mutex> hold(write_mutex);
    u32 rows = rows_of(layer, n_slots()), R = width(layer);
    if (layer > 1 || (u64)i * CHUNK_ROWS >= rows) throw std::invalid_argument("no such chunk");
    u32 first = i * CHUNK_ROWS, n = std::min(CHUNK_ROWS, rows - first);
    std::vector<u8> out((size_t)n * R * 4);
    for (u32 r = 0; r < n; r++)
        memcpy(out.data() + (size_t)r * R * 4, links(layer).row(first + r), (size_t)R * 4);
    return out;
}

void Graph::load_chunk(u32 layer, u32 i, const u8* data, size_t bytes) {
    std::lock_guard<std::mutex> hold(write_mutex);
    require_no_changes();
    u32 R = width(layer), current = n_slots(), top = 0;
    size_t row = (size_t)R * 4, n = bytes / row;
    u64 first = (u64)i * CHUNK_ROWS;
    if (layer > 1 || bytes % row || n == 0 || n > CHUNK_ROWS)
        throw std::invalid_argument("link chunk: its length is not 1 to 512 whole rows");
    if (((first + n) << (layer ? ENTRY_SHIFT : 0)) > MAX_SLOTS)
        throw std::invalid_argument("link chunk: its number is out of range");
    u32 shift = layer ? ENTRY_SHIFT : 0;
    for (size_t j = 0; j < n * R; j++) {
        u32 e;
        memcpy(&e, data + j * 4, 4);
        if (e < ALONE) top = std::max(top, (e & ID) + 1);
    }
    u32 rows = rows_of(layer, current);
    if (top > (MAX_SLOTS >> shift)) throw std::invalid_argument("link chunk: a link out of range");
    if (first < rows && top > rows)
        throw std::invalid_argument("link chunk: a link to a slot beyond n_slots");
    u64 slots = (first + n) << shift;
    ensure((u32)std::min<u64>(slots, MAX_SLOTS));
    if (top > rows) max_loaded_ = std::max(max_loaded_, ((top - 1) << shift) + 1);
    for (size_t r = 0; r < n; r++) {
        u32* to = (u32*)links(layer).row((u32)(first + r));
        for (u32 j = 0; j < R; j++) {
            u32 e;
            memcpy(&e, data + (r * R + j) * 4, 4);
            store_link(to + j, e);
        }
        Segments& bits = layer ? entry_bits : base_bits;
        memset(bits.row((u32)(first + r)), 0, bits.row_bytes());
        appeared(layer, (u32)(first + r));
    }
    parents[layer].clear();
    if (writer) writer->rebase();
}

void Graph::set_state(u32 n, Scale s) {
    std::lock_guard<std::mutex> hold(write_mutex);
    require_no_changes();
    if (n < n_slots()) throw std::invalid_argument("n_slots cannot shrink");
    if (n > MAX_SLOTS) throw std::invalid_argument("n_slots out of range");
    if (!(s.step >= 0 && s.step < 1e38f && s.lo > -3e38f && s.lo < 3e38f))
        throw std::invalid_argument("scale out of range");
    if (max_loaded_ > n) throw std::invalid_argument("a loaded chunk links beyond n_slots");
    ensure(n);
    if (s.valid() && (!codes || codes->scale != s)) {
        auto made = std::make_shared<CodeSet>(opt_.shape, opt_.kernels, s);
        made->fill(stored, 0, n, 0, false);
        install(std::move(made));
    } else if (codes) {
        codes->ensure(n);
    }
    max_loaded_ = 0;
    n_slots_.store(n, std::memory_order_release);
    if (writer) writer->rebase();
    epochs.collect();
}

}  // namespace vecdb
