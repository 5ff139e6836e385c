// text_merge.h: how do several segments become one, a slice at a time?
//
// 1. The output's docs are settled at the start: the rows alive by the masks, ranked by rid. Each
//    input has a table from its docs to those.
// 2. Keys are gone through in order; lists of the same key are merged by doc. The machine stops where
//    it needs an input's next chunk (`next`), which is copied, or where its work is done.
// 3. Where it stands is a key: the first posting that is not in a finished chunk. A chunk's bytes
//    follow from what comes after its first key (text_segment.h, 2), so going on from there, anywhere,
//    gives the same bytes.
// Rejected: the unfinished chunk in the progress. It would be 32 KB in every commit.
#pragma once

#include "text_segment.h"

namespace vecdb::text {

class Merge {
  public:
    void add(std::shared_ptr<Segment> segment, Mask dead);
    void begin(bool keep_gone, const u8* progress, u64 size);
    // Goes on until `work` is done or a chunk is needed: true, then `input` and `number` say which.
    bool run(u64 work, u32& input, u32& number);
    void give(u32 input, const u8* p, u64 size);
    void again() { worked_ = 0, moved_ = false; }  // a new slice of work begins

    bool done() const { return done_; }
    u32 n_chunks() const { return first_ + (u32)keys_.size(); }
    u32 n_before() const { return first_; }
    std::vector<Made>& made() { return made_; }  // chunks of this slice; the caller takes their bytes
    void account();  // those were taken
    Bytes progress() const;
    void written(const u8* p, u64 size);  // the chunks before, in order, each once
    std::shared_ptr<Segment> segment();   // without chunks

  private:
    struct Input {
        std::shared_ptr<Segment> segment;
        Mask dead;
        std::vector<u32> to;  // its docs in the output
        u32 next = 0;         // chunk
        Bytes bytes;
        Chunk chunk;
        u32 entry = 0, entries = 0;
        std::vector<Block> blocks;
        size_t block = 0;
        u32 last = NO_DOC, at = 0, n = 0;
        u32 docs[BLOCK], values[BLOCK];
        bool here = false;  // has the term that is being merged
    };
    void settle_docs(bool keep_gone);
    void seek(u8 column, const Bytes& term);
    bool before_start(const Input& in, const Entry& entry) const;
    bool pick(u32& input, u32& number);  // true: a chunk is needed
    bool fill(u32& input, u32& number);
    bool refill(Input& in, bool& needs);
    bool enough(u64 work) const;
    void hand_over(u32 n);

    std::vector<Input> inputs_;
    std::shared_ptr<Segment> out_;
    std::vector<Made> made_;
    std::unique_ptr<ChunkWriter> writer_;
    std::vector<Key> keys_, before_;
    u64 bytes_ = 0, worked_ = 0, print_ = 0;
    u32 first_ = 0;
    bool begun_ = false, filling_ = false, done_ = false;
    u32 from_doc_ = 0, upto_ = 0;  // docs below are written already; so far in this list
    bool skip_term_ = false, seeking_ = false, moved_ = false;
    u8 column_ = 0;
    int open_column_ = -1;
    Bytes term_;
    u32 pending_[BLOCK], pending_values_[BLOCK], n_pending_ = 0;
};

}  // namespace vecdb::text
