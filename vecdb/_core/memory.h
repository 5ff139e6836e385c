// memory.h: arrays whose rows never move, and freeing what readers may still look at.
//
// 1. A Segments array grows by segments of 65,536 rows; its table of addresses is allocated
//    once, so a reader needs no lock and sees only segments that were made before the link or
//    count that led it there.
// 2. Large arrays ask for huge pages; small ones forbid them, so that a tiny collection does
//    not hold 2 MB an array.
// 3. Epochs: what is retired is freed when every search that began before has ended.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "abi.h"

namespace vecdb {

class Segments {
  public:
    explicit Segments(size_t row_bytes);
    ~Segments();
    Segments(const Segments&) = delete;
    Segments& operator=(const Segments&) = delete;

    // Makes rows [0, n) addressable, zeroed. Throws std::bad_alloc. One caller at a time.
    void ensure(u32 n);
    u32 rows() const { return rows_.load(std::memory_order_acquire); }
    u8* row(u32 i) const { return table_[i >> SEG_SHIFT] + (size_t)(i & SEG_MASK) * row_bytes_; }
    u8* const* table() const { return table_; }
    size_t row_bytes() const { return row_bytes_; }

  private:
    u8** table_;
    size_t row_bytes_, segment_bytes_;
    std::atomic<u32> rows_{0};
    u32 segments_ = 0;
};

class Epochs {
  public:
    class Reader {
      public:
        explicit Reader(Epochs& e) : e_(e), slot_(e.enter()) {}
        ~Reader() { e_.leave(slot_); }
        Reader(const Reader&) = delete;

      private:
        Epochs& e_;
        std::atomic<u64>* slot_;
    };
    void retire(std::shared_ptr<const void> what);
    void collect();   // frees what no reader can hold; never waits
    void wait_all();  // returns when every search begun before has ended

  private:
    static const u32 SHARDS = 16;
    struct alignas(64) Counter {
        std::atomic<u64> n{0};
    };
    std::atomic<u64>* enter();
    void leave(std::atomic<u64>* c) { c->fetch_sub(1, std::memory_order_release); }
    bool advance();  // mutex held

    Counter count_[2][SHARDS];
    std::atomic<u64> epoch_{2};
    std::mutex mutex_;
    std::vector<std::pair<u64, std::shared_ptr<const void>>> retired_;
};

}  // namespace vecdb
