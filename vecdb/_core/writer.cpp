// writer.cpp: see writer.h. Encoding of the record: record.cpp.
#include "writer.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <stdexcept>

#include "pool.h"

namespace vecdb {

static const u32 SAMPLE_ROWS = 5000;
static const double CLIPPED = .01;    // share of clipped values that asks for a new scale
static const double SAME_STEP = .05;  // a new scale this near the old is not worth new codes

Writer::Writer(Graph& graph, const u8* linkable, size_t bytes)
    : g_(graph), all_linkable_(!linkable), locks_(4096, 0) {
    if (linkable) linkable_.assign(linkable, linkable + bytes);
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    if (g_.writer) throw std::invalid_argument("another writer of this graph is open");
    start();
    g_.writer = this;
}

Writer::~Writer() { rollback(); }

void Writer::rebase() {
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    start();
}

void Writer::start() {
    base_n_ = g_.n_slots();
    n_ = base_n_;
    root_ = g_.root.load();
    starts_ = g_.starts;
    canonical_ = true;
    codes_ = g_.codes;
    for (u32 layer = 0; layer < 2; layer++)
        g_.overlay[layer].begin(rows_of(layer, base_n_), g_.width(layer));
}

void Writer::require_alive() const {
    if (!alive_) throw std::invalid_argument("this writer has ended; begin another");
    if (failed_) throw std::invalid_argument("an insertion failed; roll this writer back");
}

LayerView Writer::layer(u32 which) const {
    LayerView v = layer_view(g_, which);
    g_.overlay[which].view(v);
    return v;
}

Sight Writer::sight() const {
    return {codes_.get(), layer(0), layer(1), n_slots(), root_.load(), starts_.node, true};
}

u32* Writer::own_row(u32 layer, u32 u) {
    u32* published = (u32*)g_.links(layer).row(u);
    if (u >= rows_of(layer, base_n_)) return published;
    u32* row = g_.overlay[layer].own(u, published);
    if (!row) failed_ = out_of_memory_ = true;
    return row;
}

static u32* own_row_of(void* owner, u32 shift, u32 u) {
    return ((Writer*)owner)->own_row(shift ? 1 : 0, u);
}

void Writer::insert(u32 first, const u8* vectors, u32 n, u32 threads) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    if (first < n_slots()) throw std::invalid_argument("insert: the first slot is in use already");
    if (n > MAX_SLOTS - first) throw std::invalid_argument("insert: more slots than a graph has");
    std::vector<u32> slots(n);
    for (u32 i = 0; i < n; i++) slots[i] = first + i;
    add(slots.data(), vectors, n, first + n, threads);
}

void Writer::insert_at(const u32* slots, const u8* vectors, u32 n, u32 threads) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    std::vector<u32> sorted(slots, slots + n);
    std::sort(sorted.begin(), sorted.end());
    for (u32 i = 0; i < n; i++) {
        if (sorted[i] >= MAX_SLOTS) throw std::invalid_argument("insert_at: slot out of range");
        if (i && sorted[i] == sorted[i - 1])
            throw std::invalid_argument("insert_at: a slot is given twice");
        if (sorted[i] < n_slots() && load_link(row_of<true>(layer(0), sorted[i])) != EMPTY)
            throw std::invalid_argument("insert_at: a slot is in the graph already");
    }
    u32 top = n ? std::max(n_slots(), sorted[n - 1] + 1) : n_slots();
    add(slots, vectors, n, top, threads);
}

void Writer::extend_to(u32 n) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    if (n > MAX_SLOTS) throw std::invalid_argument("extend_to: more slots than a graph has");
    if (n <= n_slots()) return;
    g_.ensure(n);
    if (codes_) codes_->ensure(n);
    dirty_ = true;
    last_size_ = 0;
    n_.store(n, std::memory_order_release);
}

u32 Writer::rows() const { return std::min(n_slots(), g_.stored.count()); }

// What becomes the first node of a layer is linked first, so that the others find it there: moves
// it to the front of the order; returns how many there are. In an order that ascends it is there.
u32 Writer::leaders(std::vector<u32>& order) const {
    u32 n = 0;
    auto lead = [&](auto at) {
        std::rotate(order.begin() + n, at, at + 1);
        n++;
    };
    auto lowest = std::min_element(order.begin(), order.end());
    if (*lowest < root_.load()) lead(lowest);
    auto entry = [](u32 s) { return s & ((1u << ENTRY_SHIFT) - 1) ? NO_SLOT : s >> ENTRY_SHIFT; };
    auto first = std::min_element(order.begin(), order.end(),
                                  [&](u32 a, u32 b) { return entry(a) < entry(b); });
    if (entry(*first) < starts_.node[0] && !(n && first == order.begin())) lead(first);
    return n;
}

void Writer::begin_change() {
    dirty_ = true;
    failed_ = true;
    last_size_ = 0;
    canonical_ = false;
}

void Writer::add(const u32* slots, const u8* vectors, u32 n, u32 top, u32 threads) {
    if (!n) return;
    begin_change();
    u32 known = root_ == EMPTY ? 0 : rows(), i = 0;
    g_.ensure(top);
    calibrate(vectors, n, threads);
    codes_->ensure(top);
    store(slots, vectors, n, threads);
    if (!all_linkable_) {
        if (linkable_.size() * 8 < top) linkable_.resize((size_t)top / 8 + 1);
        for (u32 i = 0; i < n; i++) linkable_[slots[i] >> 3] |= (u8)(1u << (slots[i] & 7));
    }
    std::vector<u32> order(slots, slots + n);
    u32 leading = leaders(order);
    failed_ = false;
    try {
        for (; i < leading; i++) link(order[i], top);
        for (u32 s : order)
            if (!(s & ((1u << ENTRY_SHIFT) - 1))) starts_.add(s >> ENTRY_SHIFT);
        for (; i < n && known + i < FIRST_ALONE; i++) link(order[i], top);
        parallel(n - i, threads, [&](u32 j) { link(order[i + j], top); });
    } catch (...) {  // no memory to walk with: some rows are linked, others are not
        failed_ = true;
        throw;
    }
    n_.store(top, std::memory_order_release);
    if (failed_) throw std::bad_alloc();
}

void Writer::store(const u32* slots, const u8* vectors, u32 n, u32 threads) {
    size_t bytes = g_.stored.row_bytes();
    for (u32 i = 0; i < n; i++) {
        if (slots[i] < base_n_) reused_.push_back(slots[i]);
        memcpy(g_.stored.writable(slots[i], g_.epochs, true), vectors + i * bytes, bytes);
        g_.stored.publish(slots[i]);
    }
    std::atomic<u64> clipped{0};
    u32 batch = 256;
    parallel((n + batch - 1) / batch, threads, [&](u32 b) {
        u64 sum = 0;
        for (u32 i = b * batch; i < std::min(n, (b + 1) * batch); i++)
            sum += codes_->encode(slots[i], vectors + i * bytes);
        clipped += sum;
    });
    g_.recent_clipped += clipped;
    g_.recent_values += (u64)n * g_.options().shape.dim;
}

// Powers of two below 65,536, of four above: where a growing collection looks at its scale.
static bool crosses(u32 before, u32 after) {
    for (u64 p = 1; p < ((u64)1 << 31); p *= p < 65536 ? 2 : 4)
        if (before <= p && p < after) return true;
    return false;
}

void Writer::calibrate(const u8* vectors, u32 n, u32 threads) {
    const Shape& shape = g_.options().shape;
    u32 before = rows();
    bool have = codes_ && codes_->scale.valid();
    if (shape.dtype == B1) {
        if (!have) rescale(Scale{0, 1}, threads);
        return;
    }
    bool look = !have || crosses(before, before + n);
    if (!look && n >= 32) {
        Sample fresh(shape, g_.options().kernels);
        fresh.add_rows(vectors, n, 256);
        look = fresh.clipped(codes_->scale) > CLIPPED;
    }
    if (!look && g_.recent_values > 64 * (u64)shape.dim)
        look = (double)g_.recent_clipped > CLIPPED * (double)g_.recent_values;
    if (look) rescale_for(vectors, n, threads);
}

// Looks at stored and new vectors, and takes a new scale if that is another than the old.
bool Writer::rescale_for(const u8* vectors, u32 n, u32 threads) {
    const Shape& shape = g_.options().shape;
    u32 before = rows();
    bool have = codes_ && codes_->scale.valid();
    g_.recent_values = g_.recent_clipped = 0;
    Sample sample(shape, g_.options().kernels);
    u32 share = (u32)std::max<u64>(1, (u64)SAMPLE_ROWS * n / ((u64)n + before));
    if (n) sample.add_rows(vectors, n, share);
    if (!n || share < SAMPLE_ROWS)
        sample.add_stored(g_.stored, n_slots(), n ? SAMPLE_ROWS - share : SAMPLE_ROWS,
                          all_linkable_ ? nullptr : linkable_.data(), linkable_.size() * 8);
    if (sample.empty()) return false;
    Scale now = sample.scale();
    if (have) {
        Scale old = codes_->scale;
        bool same = fabs(now.step / old.step - 1) < SAME_STEP && fabs(now.lo - old.lo) < 4 * old.step;
        if (same) return false;
    }
    rescale(now, threads);
    return true;
}

bool Writer::recalibrate(u32 threads) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    if (!codes_ || g_.options().shape.dtype == B1) return false;
    bool other = rescale_for(nullptr, 0, threads);
    if (other) changed_links();
    return other;
}

void Writer::rescale(Scale scale, u32 threads) {
    auto made = std::make_shared<CodeSet>(g_.options().shape, g_.options().kernels, scale);
    made->fill(g_.stored, 0, n_slots(), threads, false);
    codes_ = std::move(made);
}

InsertArgs Writer::insertion(u32 slot, u32 limit) {
    const Graph::Options& o = g_.options();
    InsertArgs a;
    memset(&a, 0, sizeof a);
    a.layer = layer(0);
    a.entry = layer(1);
    a.codes = codes_->view();
    a.metric = o.shape.metric;
    a.slot = slot;
    a.limit = limit;
    a.root = root_.load(std::memory_order_acquire);
    a.starts = starts_.node;
    a.first = slot < a.root ? a.root : EMPTY;
    a.ef = g_.build_width();
    a.alpha = g_.alpha;
    a.mask = all_linkable_ ? nullptr : linkable_.data();
    a.mask_bits = linkable_.size() * 8;
    a.locks = locks_.data();
    a.bits_seg = (u64* const*)g_.base_bits.table();
    a.bits_words = g_.base_words;
    a.owner = this;
    a.own_row = own_row_of;
    a.scratch = &scratch_for(limit, a.ef, 0, o.shape);
    return a;
}

void Writer::link(u32 slot, u32 limit) {
    InsertArgs a = insertion(slot, limit);
    g_.options().kernels->insert(&a);
    if (slot < a.root) root_.store(slot, std::memory_order_release);
    if (!(slot & ((1u << ENTRY_SHIFT) - 1))) link_entry(slot, limit);
}

void Writer::link_entry(u32 slot, u32 limit) {
    InsertArgs a = insertion(slot, limit);
    u32 node = slot >> ENTRY_SHIFT, first = starts_.node[0];
    a.layer = a.entry;
    a.first = node < first && first != NO_SLOT ? first : EMPTY;
    a.ef = std::max(g_.options().M, a.ef / 2);
    a.bits_seg = (u64* const*)g_.entry_bits.table();
    a.bits_words = g_.entry_words;
    g_.options().kernels->insert(&a);
    if (node < first) starts_.add(node);
}

// A node whose links are there already, and which none leads to. Candidates are found from the
// root, along links that hang together: an entry node might itself be without a link to it.
void Writer::attach(u32 slot, u32 limit) {
    static const Starts none;
    InsertArgs a = insertion(slot, limit);
    a.starts = none.node;
    a.mask = nullptr;
    a.keep = load_link(row_of<true>(a.layer, slot)) != ALONE;
    g_.options().kernels->insert(&a);
}

Found Writer::search(const Query& q) {
    std::shared_lock<std::shared_mutex> together(sight_mutex_);
    require_alive();
    Epochs::Reader reader(g_.epochs);
    return g_.search_in(sight(), q);
}

std::vector<Answer> Writer::search_many(const Query& like, const float* queries, u32 n,
                                        u32 threads) {
    std::shared_lock<std::shared_mutex> together(sight_mutex_);
    require_alive();
    Epochs::Reader reader(g_.epochs);
    return g_.search_many_in(sight(), like, queries, n, threads);
}

Found Writer::scan(const ScanQuery& q) {
    std::shared_lock<std::shared_mutex> together(sight_mutex_);
    require_alive();
    Epochs::Reader reader(g_.epochs);
    return g_.scan_in(sight(), q);
}

// Sorts the links of new rows by id and their bits with them.
void Writer::canonicalise() {
    if (canonical_) return;
    canonical_ = true;
    for (u32 layer = 0; layer < 2; layer++) {
        u32 R = g_.width(layer), words = layer ? g_.entry_words : g_.base_words;
        std::vector<u64> order(R);
        std::vector<u64> was(words);
        for (u32 u = rows_of(layer, base_n_); u < rows_of(layer, n_slots()); u++) {
            u32* row = (u32*)g_.links(layer).row(u);
            u64* bits = (u64*)(layer ? g_.entry_bits : g_.base_bits).row(u);
            u32 n = 0;
            for (; n < R && row[n] < ALONE; n++)
                order[n] = (u64)(row[n] & ID) << 32 | (row[n] & PIN) | n;
            std::sort(order.begin(), order.begin() + n);
            std::copy(bits, bits + words, was.begin());
            for (u32 j = 0; j < n; j++) {
                u32 from = (u32)order[j] & ID;
                row[j] = (u32)(order[j] >> 32) | ((u32)order[j] & PIN);
                u64 bit = (u64)1 << (j & 63);
                bool on = was[from >> 6] >> (from & 63) & 1;
                bits[j >> 6] = on ? bits[j >> 6] | bit : bits[j >> 6] & ~bit;
            }
        }
    }
}

std::vector<u8> Writer::chunk(u32 layer, u32 i) {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    require_alive();
    u32 rows = rows_of(layer, n_slots()), R = g_.width(layer);
    if (layer > 1 || (u64)i * CHUNK_ROWS >= rows) throw std::invalid_argument("no such chunk");
    canonicalise();
    u32 first = i * CHUNK_ROWS, n = std::min(CHUNK_ROWS, rows - first);
    std::vector<u8> out((size_t)n * R * 4);
    LayerView v = this->layer(layer);
    for (u32 r = 0; r < n; r++)
        memcpy(out.data() + (size_t)r * R * 4, row_of<true>(v, first + r), (size_t)R * 4);
    return out;
}

void Writer::finish() {
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    end();
}

void Writer::end() {
    for (u32 layer = 0; layer < 2; layer++) g_.overlay[layer].reset();
    alive_ = dirty_ = false;
    g_.writer = nullptr;
    codes_.reset();
}

void Writer::undo() {
    u32 top = std::max(n_slots(), base_n_);
    // an insertion that failed half-way may have gone beyond n_
    if (failed_) top = std::max(top, g_.stored.rows());
    for (u32 layer = 0; layer < 2; layer++) {
        Segments& links = g_.links(layer);
        Segments& bits = layer ? g_.entry_bits : g_.base_bits;
        for (u32 u : g_.overlay[layer].touched()) memset(bits.row(u), 0, bits.row_bytes());
        u32 upto = std::min(rows_of(layer, top), links.rows());
        for (u32 u = rows_of(layer, base_n_); u < upto; u++) {
            if (load_link((u32*)links.row(u)) == EMPTY) continue;
            memset(links.row(u), 0xFF, links.row_bytes());
            memset(bits.row(u), 0, bits.row_bytes());
        }
    }
    // nothing is allocated for a slot: after a lack of memory `top` may be any number
    auto drop = [&](u32 s) {
        if (!g_.stored.has(s)) return;
        g_.stored.remove(s);
        if (g_.codes && s < g_.codes->rows()) g_.codes->forget(s);
    };
    for (u32 s : reused_) drop(s);
    for (u32 s = base_n_; s < top; s++) drop(s);
    for (u32 block : g_.stored.private_blocks()) g_.stored.drop_private_if_empty(block, g_.epochs);
}

void Writer::rollback() {
    std::lock_guard<std::mutex> hold(g_.write_mutex);
    std::unique_lock<std::shared_mutex> alone(sight_mutex_);
    if (!alive_) return;
    if (dirty_) undo();
    end();
    g_.epochs.collect();
}

}  // namespace vecdb
