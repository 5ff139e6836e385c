// memory.cpp: see memory.h.
#include "memory.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <new>

namespace vecdb {

static const size_t HUGE_PAGE = (size_t)2 << 20;
static const u32 TABLE = (MAX_SLOTS >> SEG_SHIFT) + 1;

Segments::Segments(size_t row_bytes) : row_bytes_(row_bytes) {
    segment_bytes_ = (row_bytes << SEG_SHIFT) + HUGE_PAGE - 1;
    segment_bytes_ -= segment_bytes_ % HUGE_PAGE;
    table_ = (u8**)calloc(TABLE, sizeof(u8*));  // zero pages: only what is used is paid for
    if (!table_) throw std::bad_alloc();
}

Segments::~Segments() {
    for (u32 i = 0; i < segments_; i++) munmap(table_[i], segment_bytes_);
    free(table_);
}

static u8* map_aligned(size_t bytes) {
    size_t whole = bytes + HUGE_PAGE;
    void* p = mmap(nullptr, whole, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    u8* start = (u8*)p;
    size_t head = (HUGE_PAGE - (size_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (head) munmap(start, head);
    if (HUGE_PAGE - head) munmap(start + head + bytes, HUGE_PAGE - head);
    return start + head;
}

void Segments::ensure(u32 n) {
    u32 had = rows();
    if (n <= had) return;
    if (n > MAX_SLOTS) throw std::bad_alloc();
    u32 need = ((n - 1) >> SEG_SHIFT) + 1;
    [[maybe_unused]] bool small = (u64)had * row_bytes_ < HUGE_PAGE;
    u32 before = segments_;
    for (; segments_ < need; segments_++) {
        try {
            table_[segments_] = map_aligned(segment_bytes_);
        } catch (...) {  // what is refused keeps no memory; no row of it was published
            while (segments_ > before) munmap(table_[--segments_], segment_bytes_);
            throw;
        }
#ifdef MADV_NOHUGEPAGE
        madvise(table_[segments_], segment_bytes_, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
#endif
    }
#ifdef MADV_HUGEPAGE
    if (small && (u64)n * row_bytes_ >= HUGE_PAGE)
        for (u32 i = 0; i < segments_; i++) madvise(table_[i], segment_bytes_, MADV_HUGEPAGE);
#endif
    rows_.store(n, std::memory_order_release);
}

std::atomic<u64>* Epochs::enter() {
    static std::atomic<u32> next{0};
    static thread_local u32 shard = next.fetch_add(1, std::memory_order_relaxed) % SHARDS;
    for (;;) {
        u64 e = epoch_.load(std::memory_order_seq_cst);
        std::atomic<u64>* c = &count_[e & 1][shard].n;
        c->fetch_add(1, std::memory_order_seq_cst);
        if (epoch_.load(std::memory_order_seq_cst) == e) return c;
        c->fetch_sub(1, std::memory_order_release);
    }
}

bool Epochs::advance() {
    u64 e = epoch_.load(std::memory_order_seq_cst);
    for (u32 i = 0; i < SHARDS; i++)
        if (count_[(e + 1) & 1][i].n.load(std::memory_order_seq_cst)) return false;
    epoch_.store(e + 1, std::memory_order_seq_cst);
    return true;
}

void Epochs::retire(std::shared_ptr<const void> what) {
    if (!what) return;
    std::lock_guard<std::mutex> hold(mutex_);
    retired_.emplace_back(epoch_.load(std::memory_order_seq_cst), std::move(what));
}

void Epochs::collect() {
    std::vector<std::shared_ptr<const void>> dead;  // destroyed after the lock is released
    std::lock_guard<std::mutex> hold(mutex_);
    if (retired_.empty()) return;
    if (advance()) advance();
    u64 e = epoch_.load(std::memory_order_seq_cst);
    size_t kept = 0;
    for (auto& r : retired_) {
        if (r.first + 2 <= e)
            dead.push_back(std::move(r.second));
        else
            retired_[kept++] = std::move(r);
    }
    retired_.resize(kept);
}

void Epochs::wait_all() {
    for (int step = 0; step < 2;) {
        {
            std::lock_guard<std::mutex> hold(mutex_);
            if (advance()) {
                step++;
                continue;
            }
        }
        sched_yield();
    }
}

}  // namespace vecdb
