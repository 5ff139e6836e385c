// stored.h: where each slot's stored vector lies: in the storage map, or in a private copy.
//
// 1. One base address a block of rows; per slot one flag says whether it has a vector.
// 2. An attached block is borrowed: whoever attached it keeps the bytes valid and unchanged.
// 3. A private copy that is replaced is freed only when no search can still read it.
// 4. Callers hold the graph's write lock for everything but view().
#pragma once
#include <map>
#include <set>

#include "memory.h"

namespace vecdb {

class Stored {
  public:
    Stored(u32 row_bytes, u32 block_rows);

    void ensure(u32 n);
    // present: one bit a row, null for all of them; the others have no vector.
    void attach(u32 block, const u8* data, u32 rows, const u8* present, Epochs& epochs);
    // Address where the slot's bytes may be written; makes its block private. The slot gains
    // its flag with publish(). unread: nobody can be reading the slot, whatever its flag says.
    u8* writable(u32 slot, Epochs& epochs, bool unread = false);
    void publish(u32 slot) { set_flag(slot, 1); }
    void remove(u32 slot) { set_flag(slot, 0); }
    void drop_private_if_empty(u32 block, Epochs& epochs);
    void detach_all();  // forgets every attached block
    bool has(u32 slot) const;
    const u8* row(u32 slot) const { return slot < flags_.rows() ? stored_row(view(), slot) : nullptr; }
    std::vector<u32> private_blocks() const;
    StoredView view() const;
    u32 block_rows() const { return 1u << shift_; }
    u32 row_bytes() const { return row_bytes_; }
    u32 rows() const { return flags_.rows(); }
    u32 count() const { return count_; }  // slots with a vector

  private:
    void set_flag(u32 slot, u8 on);
    const u8** base_of(u32 block) const;

    u32 row_bytes_, shift_, count_ = 0;
    Segments flags_, bases_;  // bases_: one row of addresses a segment of slots
    std::map<u32, std::shared_ptr<u8>> private_;
    std::set<u32> attached_;
};

}  // namespace vecdb
