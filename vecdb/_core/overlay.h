// overlay.h: a writer's private copies of rows that readers can reach.
//
// 1. index[u] names u's private row, 0 none; rows lie in chunks that never move.
// 2. Kept by the graph between transactions, so that a small one allocates nothing.
// 3. own() is called with u's row locked; different rows concurrently.
#pragma once
#include <atomic>
#include <vector>

#include "abi.h"

namespace vecdb {

class Overlay {
  public:
    Overlay() = default;
    ~Overlay();
    Overlay(const Overlay&) = delete;

    void begin(u32 limit, u32 R);  // throws std::bad_alloc
    void reset();
    // The private row of u < limit, made from `published` when there is none. Null: no memory.
    u32* own(u32 u, const u32* published);
    u32 size() const { return used_.load(std::memory_order_acquire) - 1; }
    std::vector<u32> touched() const;  // ascending
    void view(LayerView& v) const {
        v.ov_index = index_;
        v.ov_rows = rows_;
        v.ov_limit = limit_;
    }

  private:
    u32* index_ = nullptr;
    u32** rows_ = nullptr;  // chunks of 1,024 rows
    u32** who_ = nullptr;   // whose they are
    u32 limit_ = 0, capacity_ = 0, chunks_ = 0, R_ = 0;
    std::atomic<u32> used_{1};
};

}  // namespace vecdb
