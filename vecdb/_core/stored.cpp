// stored.cpp: see stored.h.
#include "stored.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>

namespace vecdb {

static u32 log2_of(u32 n) {
    u32 s = 0;
    while ((1u << s) < n) s++;
    return s;
}

// bases_ counts rows of addresses: its segment is one row per slot >> block shift, so that a
// segment of slots and a segment of addresses have the same number.
Stored::Stored(u32 row_bytes, u32 block_rows)
    : row_bytes_(row_bytes),
      shift_(log2_of(block_rows)),
      flags_(1),
      bases_(std::max<size_t>(1, sizeof(u8*) >> log2_of(block_rows))) {
    // one address per block: 8 >> shift bytes a slot when that is whole, else 1 byte a slot,
    // of which (8 >> shift) would do; the rest of the mapping is never touched
}

void Stored::ensure(u32 n) {
    bases_.ensure(n);
    flags_.ensure(n);
}

const u8** Stored::base_of(u32 block) const {
    u32 slot = block << shift_;
    const u8** table = (const u8**)bases_.table()[slot >> SEG_SHIFT];
    return table + ((slot & SEG_MASK) >> shift_);
}

StoredView Stored::view() const {
    return {(const u8* const* const*)bases_.table(), flags_.table(), shift_, row_bytes_};
}

void Stored::set_flag(u32 slot, u8 on) {
    count_ += on;
    count_ -= __atomic_exchange_n(flags_.row(slot), on, __ATOMIC_RELEASE);
}

bool Stored::has(u32 slot) const {
    return slot < flags_.rows() && __atomic_load_n(flags_.row(slot), __ATOMIC_ACQUIRE);
}

void Stored::attach(u32 block, const u8* data, u32 rows, const u8* present, Epochs& epochs) {
    ensure(std::max(flags_.rows(), (block << shift_) + rows));
    const u8** base = base_of(block);
    attached_.insert(block);
    __atomic_store_n(base, data, __ATOMIC_RELEASE);
    for (u32 i = 0; i < rows; i++)
        set_flag((block << shift_) + i, !present || mask_has(present, rows, i));
    auto it = private_.find(block);
    if (it == private_.end()) return;
    for (u32 i = rows; i < block_rows(); i++)  // what the shorter block lacks
        if ((block << shift_) + i < flags_.rows()) remove((block << shift_) + i);
    epochs.retire(it->second);
    private_.erase(it);
}

u8* Stored::writable(u32 slot, Epochs& epochs, bool unread) {
    u32 block = slot >> shift_, within = slot & (block_rows() - 1);
    ensure(std::max(flags_.rows(), slot + 1));
    auto it = private_.find(block);
    if (it != private_.end() && (unread || !has(slot)))
        return it->second.get() + (size_t)within * row_bytes_;
    // a new copy: also for a slot that has a vector, which a search may be reading
    size_t bytes = (size_t)row_bytes_ << shift_;
    void* p = nullptr;
    if (posix_memalign(&p, 64, bytes)) throw std::bad_alloc();
    std::shared_ptr<u8> copy((u8*)p, free);
    const u8** base = base_of(block);
    for (u32 i = 0; i < block_rows(); i++) {
        u32 s = (block << shift_) + i;
        u8* to = copy.get() + (size_t)i * row_bytes_;
        if (*base && i != within && has(s))
            memcpy(to, *base + (size_t)i * row_bytes_, row_bytes_);
        else
            memset(to, 0, row_bytes_);
    }
    if (it != private_.end()) {
        epochs.retire(it->second);
        it->second = copy;
    } else {
        private_.emplace(block, copy);
    }
    __atomic_store_n(base, (const u8*)copy.get(), __ATOMIC_RELEASE);
    return copy.get() + (size_t)within * row_bytes_;
}

void Stored::drop_private_if_empty(u32 block, Epochs& epochs) {
    auto it = private_.find(block);
    if (it == private_.end()) return;
    for (u32 i = 0; i < block_rows(); i++)
        if (has((block << shift_) + i)) return;
    __atomic_store_n(base_of(block), (const u8*)nullptr, __ATOMIC_RELEASE);
    epochs.retire(it->second);
    private_.erase(it);
}

void Stored::detach_all() {
    for (u32 block : attached_) {
        if (private_.count(block)) continue;
        for (u32 i = 0; i < block_rows(); i++) {
            u32 s = (block << shift_) + i;
            if (s < flags_.rows()) remove(s);
        }
        __atomic_store_n(base_of(block), (const u8*)nullptr, __ATOMIC_RELEASE);
    }
    attached_.clear();
}

std::vector<u32> Stored::private_blocks() const {
    std::vector<u32> blocks;
    for (const auto& p : private_) blocks.push_back(p.first);
    return blocks;
}

}  // namespace vecdb
