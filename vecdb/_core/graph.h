// graph.h: one vector field's graph in memory: links, codes, stored vectors, and its searches.
//
// 1. Searches take no lock. They read n_slots first, the codes second, follow no id at or above
//    that n_slots, and hold an epoch for as long as they look.
// 2. Everything else takes write_mutex: one caller at a time.
// 3. What a reader can reach changes in apply() and load_chunk() alone. A writer's new rows,
//    codes and vectors lie in slots that nothing published links to; changed rows are private.
// 4. apply() validates its whole record before it changes anything.
// 5. Every id stored in a published row is below n_slots.
// 6. A slot may be a hole: without vector and code, its row of links empty, and no link leads to
//    it. No walk comes to it, and a scan passes over it.
// 7. In each layer every node is reached from the first: the one with the lowest number, `root`
//    and starts.node[0], the only one to which no pinned link leads.
#pragma once
#include <algorithm>
#include <string>

#include "codes.h"
#include "overlay.h"

namespace vecdb {

class Writer;

struct Found {  // borrowed from the calling thread until its next search
    const u32* slots = nullptr;
    const float* distances = nullptr;
    u32 n = 0;
    u64 n_dist = 0, n_hops = 0;
    bool exhausted = false;
};

struct Query {
    const float* vector = nullptr;
    u32 k = 10, ef = 0, rr = 0;
    const u8* mask = nullptr;
    u64 mask_bytes = 0;
    i64 n_visible = -1;
    u64 budget = 0;
    i64 skip = -1;
};

struct ScanQuery {
    const float* vector = nullptr;
    u32 k = 10;
    const u32* slots = nullptr;  // null: all
    u32 n_slots = 0;
    const u8* mask = nullptr;
    u64 mask_bytes = 0;
    i64 n_visible = -1;
    bool exact = true;
    u32 rr = 0, threads = 1;
};

// What a walk reads: the published state, or a writer's.
struct Sight {
    const CodeSet* codes;
    LayerView base, entry;
    u32 limit, root;
    const u32* starts;
    bool overlay;
};

// The first nodes of the entry layer, ascending, NO_SLOT after the last: where walks begin.
// Readers may look while one is added: they see each of the others, one of them twice at most.
struct Starts {
    u32 node[ENTRY_SCAN];
    Starts() { std::fill(node, node + ENTRY_SCAN, NO_SLOT); }
    void add(u32 u);
    void replace(const u32* others);  // ascending, NO_SLOT after the last
};

struct Answer {  // a Found that is kept
    std::vector<u32> slots;
    std::vector<float> distances;
    u64 n_dist = 0, n_hops = 0;
    bool exhausted = false;
};

class Graph {
  public:
    struct Options {
        Shape shape;
        u32 M, ef_construction, block_rows;
        const Kernels* kernels;
    };
    explicit Graph(const Options& options);
    ~Graph();

    u32 n_slots() const { return n_slots_.load(std::memory_order_acquire); }
    Scale scale() const;
    const Options& options() const { return opt_; }

    // present: one bit a row, null for all; the others are holes.
    void attach_block(u32 block, const u8* data, u32 rows, const u8* present = nullptr);
    // unread: as in Stored::writable.
    void put_vectors(const u32* slots, const u8* vectors, u32 n, bool unread = false);
    void detach_all();
    void encode(u32 first, u32 n, u32 threads);
    bool vector(u32 slot, u8* out);  // copies row_bytes; false: none
    bool has_vector(u32 slot) const { return stored.has(slot); }
    std::vector<u32> private_blocks();

    void apply(const u8* record, size_t n);
    u32 n_chunks(u32 layer) const;
    std::vector<u8> chunk(u32 layer, u32 i);
    void load_chunk(u32 layer, u32 i, const u8* data, size_t n);
    void set_state(u32 n_slots, Scale scale);

    Found search(const Query& q);
    std::vector<Answer> search_many(const Query& like, const float* queries, u32 n, u32 threads);
    Found scan(const ScanQuery& q);
    void distances(const float* query, const u32* slots, u32 n, float* out);
    std::vector<u32> unreachable();
    // condemned: a bit a slot of those that a round is taking out (sweep.cpp, 4).
    std::vector<std::string> check(const u8* condemned = nullptr, u64 bits = 0);
    bool absent(u32 slot) const;  // neither in the graph nor linked to, outside of such a round
    std::vector<u8> codes_of(u32 first, u32 n);  // code_bytes each, zeros where there is none

    // shared with Writer and the other parts; see the invariants
    Found search_in(const Sight& sight, const Query& q);
    std::vector<Answer> search_many_in(const Sight& sight, const Query& like,
                                       const float* queries, u32 n, u32 threads);
    Found scan_in(const Sight& sight, const ScanQuery& q);
    Sight published() const;
    Segments& links(u32 layer) { return layer ? entry_links : base_links; }
    u32 width(u32 layer) const { return layer ? opt_.M : 2 * opt_.M; }
    void ensure(u32 n);  // all arrays, rows emptied
    void install(std::shared_ptr<CodeSet> codes);
    u32 build_width() const;
    void require_no_changes() const;  // of an open writer
    void know_parents();

    std::mutex write_mutex;
    Epochs epochs;
    Stored stored;
    Segments base_links, entry_links;
    Segments base_bits, entry_bits;  // which links are diverse: the writer's memory
    u32 base_words, entry_words;
    std::shared_ptr<CodeSet> codes;  // may be null; readers use code_ptr
    std::atomic<CodeSet*> code_ptr{nullptr};
    std::atomic<u32> n_slots_{0};
    std::atomic<u32> root{EMPTY};  // the lowest slot in the graph
    Starts starts;
    Overlay overlay[2];            // the open writer's, kept for the next
    u64 recent_values = 0, recent_clipped = 0;  // since the scale was last looked at
    u32 alpha = 282;               // 1.1, in 1/256
    Writer* writer = nullptr;      // the one that is open
    std::vector<u32> parents[2];   // which row pins each, once know_parents() was asked

  private:
    void appeared(u32 layer, u32 u);  // row u was written: a place where walks may begin?
    void put_link(u32 layer, u32 u, u32 position, u32 link);
    void empty_row(u32 layer, u32 u);

    Options opt_;
    u32 emptied_[2] = {0, 0};  // rows that hold EMPTY or links, per layer
    u32 max_loaded_ = 0;       // largest id + 1 in chunks loaded beyond n_slots
};

static const u32 CHUNK_ROWS = 512;

// Rows of layer 1 for n slots: every 32nd.
inline u32 rows_of(u32 layer, u32 n) {
    return layer ? (u32)(((u64)n + (1u << ENTRY_SHIFT) - 1) >> ENTRY_SHIFT) : n;
}

// This thread's working memory, large enough for `limit` slots and `cap` pool entries.
Scratch& scratch_for(u32 limit, u32 cap, u32 k, const Shape& shape);
// Views of the published rows.
LayerView layer_view(Graph& g, u32 layer);

}  // namespace vecdb
