// overlay.cpp: see overlay.h.
#include "overlay.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>

namespace vecdb {

static const u32 CHUNK = 1u << OV_SHIFT;
static const u32 KEPT = 4;  // chunks kept between transactions

static void free_chunks(u32** table, u32 from, u32 to) {
    for (u32 i = from; table && i < to; i++) {
        free(table[i]);
        table[i] = nullptr;
    }
}

Overlay::~Overlay() {
    free_chunks(rows_, 0, chunks_);
    free_chunks(who_, 0, chunks_);
    free(rows_);
    free(who_);
    free(index_);
}

void Overlay::begin(u32 limit, u32 R) {
    R_ = R;
    limit_ = 0;
    if (limit > capacity_ || !index_) {
        u32 capacity = limit + limit / 2 + CHUNK, chunks = capacity / CHUNK + 2;
        free_chunks(rows_, 0, chunks_);
        free_chunks(who_, 0, chunks_);
        free(rows_);
        free(who_);
        free(index_);
        capacity_ = chunks_ = 0;
        index_ = (u32*)calloc(capacity, 4);
        rows_ = (u32**)calloc(chunks, sizeof(u32*));
        who_ = (u32**)calloc(chunks, sizeof(u32*));
        if (!index_ || !rows_ || !who_) throw std::bad_alloc();
        capacity_ = capacity;
        chunks_ = chunks;
    }
    limit_ = limit;
}

void Overlay::reset() {
    u32 n = used_.load(std::memory_order_acquire);
    for (u32 i = 1; i < n; i++)
        if (who_[i >> OV_SHIFT]) index_[who_[i >> OV_SHIFT][i & (CHUNK - 1)]] = 0;
    free_chunks(rows_, KEPT, chunks_);
    free_chunks(who_, KEPT, chunks_);
    used_.store(1, std::memory_order_release);
}

static u32* chunk_of(u32** table, u32 c, size_t bytes) {
    u32* p = __atomic_load_n(&table[c], __ATOMIC_ACQUIRE);
    if (p) return p;
    u32* made = (u32*)calloc(1, bytes);
    if (!made) return nullptr;
    u32* none = nullptr;
    if (__atomic_compare_exchange_n(&table[c], &none, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return made;
    free(made);
    return none;
}

u32* Overlay::own(u32 u, const u32* published) {
    u32 i = __atomic_load_n(&index_[u], __ATOMIC_ACQUIRE);
    if (i)
        return __atomic_load_n(&rows_[i >> OV_SHIFT], __ATOMIC_RELAXED) +
               (size_t)(i & (CHUNK - 1)) * R_;
    i = used_.fetch_add(1, std::memory_order_acq_rel);
    u32* rows = chunk_of(rows_, i >> OV_SHIFT, (size_t)CHUNK * R_ * 4);
    u32* who = chunk_of(who_, i >> OV_SHIFT, (size_t)CHUNK * 4);
    if (who) who[i & (CHUNK - 1)] = u;
    if (!rows || !who) return nullptr;
    u32* row = rows + (size_t)(i & (CHUNK - 1)) * R_;
    for (u32 j = 0; j < R_; j++) store_link(row + j, load_link(published + j));
    __atomic_store_n(&index_[u], i, __ATOMIC_RELEASE);
    return row;
}

std::vector<u32> Overlay::touched() const {
    std::vector<u32> all;
    u32 n = used_.load(std::memory_order_acquire);
    for (u32 i = 1; i < n; i++) all.push_back(who_[i >> OV_SHIFT][i & (CHUNK - 1)]);
    std::sort(all.begin(), all.end());
    return all;
}

}  // namespace vecdb
