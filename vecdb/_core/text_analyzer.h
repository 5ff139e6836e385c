// text_analyzer.h: which terms do words become? Stop words, stems and what is known of them.
//
// 1. A Lexicon belongs to one call or one builder: each word has a number in it, and each word's
//    term, once it is settled, a number too. Hot loops see numbers only.
// 2. The Analyzer is shared by threads: its stop words never change, its memory of stems has a lock
//    and a bound (CACHED words; then it is emptied).
// 3. Stemming is the caller's: `settle` leaves the words that nobody knows, `learn` takes their stems.
#pragma once

#include <mutex>

#include "text_words.h"

namespace vecdb::text {

constexpr u32 ANALYSIS_VERSION = 1;
constexpr u32 CACHED = 65536;
constexpr u32 MAX_TERM = 255;
constexpr u32 STOP = 0xFFFFFFFFu, UNKNOWN = 0xFFFFFFFEu;  // instead of a term's number

inline u64 hash_of(const u8* padded, u32 size) {  // `padded`: readable to the next 8 bytes, zero there
    u64 h = size * 0x9E3779B97F4A7C15u;
    for (u32 i = 0; i < size; i += 8) {
        h = (h ^ get<u64>(padded + i)) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    return h * 0x9E3779B97F4A7C15u >> 16;
}

// Byte strings of at most 255 bytes, numbered in the order in which they came.
class Table {
  public:
    u32 add(const u8* padded, u32 size, bool& is_new);
    u32 add_any(const u8* bytes, u32 size, bool& is_new);  // bytes that have no zeros behind
    u32 find(const u8* padded, u32 size) const;            // NO_DOC: not there
    const u8* bytes(u32 i) const { return arena_.data() + entries_[i].at * 8; }  // zeros behind
    u32 size(u32 i) const { return entries_[i].size; }
    u32 count() const { return (u32)entries_.size(); }
    void clear();
    u64 memory() const { return arena_.capacity() + entries_.capacity() * 8 + slots_.capacity() * 8; }

  private:
    struct Slot {
        u32 hash, entry;  // entry: its number plus 1; 0: free
    };
    struct Entry {
        u32 at;  // in words of 8 bytes
        u32 size;
    };
    void grow();
    bool same(u32 entry, const u8* padded, u32 size) const;
    Bytes arena_;
    std::vector<Entry> entries_;
    std::vector<Slot> slots_;
};

class Analyzer {
  public:
    Analyzer(bool stems, bool diacritics) : stems_(stems), diacritics_(diacritics) {}
    void add_stopword(const u8* text, u64 size);
    bool stems() const { return stems_; }
    bool diacritics() const { return diacritics_; }

  private:
    friend class Lexicon;
    const bool stems_, diacritics_;
    Table stopwords_;
    std::mutex lock_;
    Table words_, stems_of_;      // known words, their stems
    std::vector<u32> stem_of_;    // by number of the word
};

class Lexicon {
  public:
    // The number of a word; a new one is unsettled.
    u32 word(const u8* padded, u32 size, bool plain) {
        bool is_new;
        u32 i = words_.add(padded, size, is_new);
        if (is_new) note(i, plain);
        return i;
    }
    void settle(Analyzer& by);  // all words whose terms are known without asking
    u32 n_missing() const { return (u32)missing_.size(); }
    const u8* missing(u32 i, u32& size) const {
        size = words_.size(missing_[i]);
        return words_.bytes(missing_[i]);
    }
    // Stems of the missing words, in their order, in `sizes` pieces of `bytes`; then none is missing.
    void learn(Analyzer& by, const u8* bytes, const u32* sizes);
    void forget_missing() { missing_.clear(); }  // when stemming failed: they are new again
    u32 term_of(u32 word) const { return term_of_[word]; }
    const Table& terms() const { return terms_; }
    const Table& words() const { return words_; }
    bool unsettled() const { return !new_.empty(); }

  private:
    void note(u32 word, bool plain);
    u32 term(const u8* bytes, u32 size);
    Table words_, terms_;
    std::vector<u32> term_of_;
    std::vector<u8> plain_;
    std::vector<u32> new_, missing_;
};

struct Token {
    u32 word;
    u64 start, end;  // bytes of the text
};

// The words of a text with their places, numbered in `lexicon`.
void tokens_of(const Analyzer& by, const u8* text, u64 size, Lexicon& lexicon, std::vector<Token>& out);
// The same without places: for bulk.
void words_of(const Analyzer& by, const u8* text, u64 size, Lexicon& lexicon, std::vector<u32>& out);
// How often the terms follow each other by these gaps; `terms` are numbers of the lexicon's terms.
u32 count_phrase(const std::vector<u32>& words, const Lexicon& lexicon, const u32* terms, const u32* gaps,
                 u32 n);

}  // namespace vecdb::text
