// text_builder.h: how do rows become a segment?
//
// 1. Rows come in any order and are ranked by rid at the end; postings are then sorted by term with
//    one counting pass, in the order of docs.
// 2. A call's rows are all in or none: `mark` before, `rollback` after an error. Words stay known.
// 3. Memory: 8 bytes a posting, 4 a token of the texts being added (they come by slices).
// Rejected: a growing list for each term. Nine terms of ten have one posting.
#pragma once

#include "text_analyzer.h"
#include "text_segment.h"

namespace vecdb::text {

class Builder {
  public:
    void add_column(Analyzer* analyzer);  // null: sparse
    u32 n_columns() const { return (u32)columns_.size(); }
    Analyzer* analyzer(u32 column) { return columns_[column].analyzer; }
    Lexicon& lexicon(u32 column) { return *columns_[column].lexicon; }
    u32 n_docs() const { return (u32)rids_.size(); }

    void mark();
    void rollback();
    // Takes texts[0 .. n) apart, as many as make a slice; how many those were.
    u64 tokenize(u32 column, const Span* texts, u64 n);
    void invert(u32 column);  // those, once their words are settled
    void weight(u32 column, const u8* term, u32 size, float weight);
    void end_row(u32 column);  // of weights
    void rids(const u32* rids, u64 n);
    void touch(const u32* rids, u64 n);
    std::shared_ptr<Segment> finish();

  private:
    struct Side {
        Analyzer* analyzer = nullptr;
        std::unique_ptr<Lexicon> lexicon;  // text
        Table tokens;                      // sparse
        std::vector<u32> words, word_ends;  // of the slice
        std::vector<u32> terms, values;     // a posting each, by rows
        std::vector<u32> ends, lengths;     // by row: end of its postings; its length
        std::vector<u32> place;             // by term: its latest posting
        u64 marked = 0, marked_rows = 0;
    };
    void room(const Side& side, u64 more) const;
    void write(Segment& into, u32 column, const std::vector<u32>& order, std::vector<Made>& out);
    std::vector<Side> columns_;
    std::vector<u32> rids_, touched_;
    u64 marked_rids_ = 0;
};

}  // namespace vecdb::text
