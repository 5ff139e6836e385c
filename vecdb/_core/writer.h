// writer.h: one transaction on a graph: insertion, its own view, and its redo record.
//
// 1. One writer at a time. Until apply() nothing that a reader can reach changes.
// 2. The record is canonical: rows of new slots are sorted before they are encoded, in the
//    arena too, so that the writer's own apply and a follower's give the same bytes.
// 3. Any other change of the graph while the writer holds changes is refused.
// 4. New links lead to slots of `linkable` only, where it is given: not to dead ones.
#pragma once
#include <shared_mutex>
#include <unordered_map>

#include "bytes.h"
#include "graph.h"

namespace vecdb {

static const u32 FIRST_ALONE = 64;  // rows linked one by one before threads join

class Writer {
  public:
    // linkable: a bit a slot of those that new links may lead to; null: all. New slots are.
    explicit Writer(Graph& graph, const u8* linkable = nullptr, size_t bytes = 0);
    ~Writer();
    Writer(const Writer&) = delete;

    void insert(u32 first, const u8* vectors, u32 n, u32 threads);
    void insert_at(const u32* slots, const u8* vectors, u32 n, u32 threads);
    // Slots 0 to n - 1 of an empty graph, with rows of links that were made elsewhere.
    void adopt(const u8* vectors, const u32* links, u32 n, u32 threads);
    void extend_to(u32 n_slots);  // what is new below it and not inserted are holes
    // How condemned slots leave the graph: sweep.cpp. A bit a slot says which they are.
    void condemn(const u8* mask, size_t bytes);
    u32 sweep(u32 layer, u32 first, u32 n, u32 threads);  // how many rows have changed
    u32 rehome(u32 first, u32 most);  // up to about so many nodes; returns where to go on
    // Vacates up to `most` slots from `first` on, and adds them; returns where to go on, or NO_SLOT where
    // rehome() must be asked once more.
    u32 vacate(u32 first, u32 most, std::vector<u32>& vacated);
    bool recalibrate(u32 threads);  // a new scale, if the vectors ask for it
    u32 n_slots() const { return n_.load(std::memory_order_acquire); }
    Found search(const Query& q);
    std::vector<Answer> search_many(const Query& like, const float* queries, u32 n, u32 threads);
    Found scan(const ScanQuery& q);
    std::vector<u8> changes();
    std::vector<u8> chunk(u32 layer, u32 i);
    void rollback();

    // for Graph, which holds write_mutex
    bool dirty() const { return alive_ && dirty_; }
    bool wrote(u32 crc, size_t n) const { return dirty() && n == last_size_ && crc == last_crc_; }
    void finish();  // its record was applied
    void rebase();  // it holds no changes, and the graph has moved on
    std::shared_ptr<CodeSet> codes() const { return codes_; }
    u32* own_row(u32 layer, u32 u);

  private:
    void require_alive() const;
    void begin_change();  // failed until it is done
    void add(const u32* slots, const u8* vectors, u32 n, u32 top, u32 threads);
    void calibrate(const u8* vectors, u32 n, u32 threads);
    bool rescale_for(const u8* vectors, u32 n, u32 threads);
    void rescale(Scale scale, u32 threads);
    void store(const u32* slots, const u8* vectors, u32 n, u32 threads);
    InsertArgs insertion(u32 slot, u32 limit);
    void link(u32 slot, u32 limit);
    void link_entry(u32 slot, u32 limit);
    void attach(u32 slot, u32 limit);
    InsertArgs upkeep(u32 layer, u32 slot);
    bool gone(u32 layer, u32 u) const;
    void changed_links();
    bool vacate_below(u32 s, u32 most, std::vector<u32>& vacated);
    u32 pinned_child(u32 layer, u32 u, u32 but) const;
    void leave(u32 layer, u32 u);
    void take_out(u32 layer, u32 p, u32 u);
    bool left_behind() const;
    u32 rehome_children(u32 layer, u32 u);
    void rehome_one(u32 layer, u32 u, u32 c);
    void unpinned(u32 layer, u32 c, u32 now);
    u32 parent(u32 layer, u32 u) const;
    bool is_below(u32 layer, u32 u, u32 c) const;
    void know_moved();
    u32 leaders(std::vector<u32>& order) const;
    u32 rows() const;  // that have a vector
    void canonicalise();
    void undo();
    void start();
    void end();
    LayerView layer(u32 which) const;
    Sight sight() const;

    Graph& g_;
    std::shared_mutex sight_mutex_;
    bool alive_ = true, dirty_ = false;
    std::atomic<bool> failed_{false};
    u32 base_n_;
    std::atomic<u32> n_, root_;
    Starts starts_;
    bool canonical_ = true;  // nothing was linked since canonicalise()
    std::shared_ptr<CodeSet> codes_;  // the graph's, or one in a new scale
    std::vector<u32> reused_, vacated_;
    std::vector<u8> linkable_, condemned_;
    bool all_linkable_;
    std::unordered_map<u32, u32> moved_[2];  // rows whose pinned link is another's now
    std::atomic<bool> out_of_memory_{false};
    size_t last_size_ = 0;
    u32 last_crc_ = 0;
    std::vector<u8> locks_;
};

}  // namespace vecdb
