// text_words.h: which words does a text have? UTF-8 to folded words, without memory of its own.
//
// 1. A word is a run of letters, digits and marks; an apostrophe between letters joins, characters
//    of class JOINER do not show, everything else splits. Bytes that are no UTF-8 split.
// 2. Characters of class CJK are words of two, overlapping: a run of one is that one.
// 3. A mark that follows no character of a word is no word; in a run of CJK it only composes.
// 4. A word of more than MAX_WORD bytes is its first characters within CUT bytes, and a hash of all.
// 5. One pass, and what is handed out is at most MAX_WORD bytes with 8 zero bytes behind.
// Rejected: dictionaries for Chinese, Japanese, Thai. They are larger than everything else here, and
// bigrams with phrases find the same rows.
#pragma once

#include "text_bits.h"
#include "unicode_tables.h"

namespace vecdb::text {

enum Class : u8 { SPLIT, LETTER, DIGIT, MARK, CJK, JOINER };

constexpr u32 MAX_WORD = 64, CUT = 48;

inline u8 class_of(u32 c) { return c < 0x110000 ? CLASS_OF[CLASS_PAGE[c >> 8]][c & 255] : (u8)SPLIT; }
inline u32 fold_of(u32 c) { return c + (u32)FOLD_OF[FOLD_PAGE[c >> 8]][c & 255]; }
inline u32 bare_of(u32 c) { return c + (u32)BARE_OF[BARE_PAGE[c >> 8]][c & 255]; }

// What a character and a mark make together; 0: nothing.
u32 composed(u32 first, u32 mark);

// One character; its size, 1 and NO_CHAR for a byte that begins none.
constexpr u32 NO_CHAR = 0xFFFFFFFFu;
inline u32 read_char(const u8* p, const u8* end, u32& c) {
    u32 a = *p;
    if (a < 0x80) return c = a, 1;
    auto more = [&](u32 i) { return (u32)(p[i] & 0x3F); };
    auto follows = [&](u32 n) {
        if ((u64)(end - p) <= n) return false;
        for (u32 i = 1; i <= n; ++i)
            if ((p[i] & 0xC0) != 0x80) return false;
        return true;
    };
    if (a >= 0xC2 && a < 0xE0 && follows(1)) return c = (a & 31) << 6 | more(1), 2;
    if (a >= 0xE0 && a < 0xF0 && follows(2)) {
        c = (a & 15) << 12 | more(1) << 6 | more(2);
        if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) return 3;
    }
    if (a >= 0xF0 && a < 0xF5 && follows(3)) {
        c = (a & 7) << 18 | more(1) << 12 | more(2) << 6 | more(3);
        if (c >= 0x10000 && c < 0x110000) return 4;
    }
    return c = NO_CHAR, 1;
}

inline u32 write_char(u8* p, u32 c) {
    if (c < 0x80) return p[0] = (u8)c, 1;
    if (c < 0x800) return p[0] = (u8)(0xC0 | c >> 6), p[1] = (u8)(0x80 | (c & 63)), 2;
    if (c < 0x10000) {
        p[0] = (u8)(0xE0 | c >> 12), p[1] = (u8)(0x80 | (c >> 6 & 63)), p[2] = (u8)(0x80 | (c & 63));
        return 3;
    }
    p[0] = (u8)(0xF0 | c >> 18), p[1] = (u8)(0x80 | (c >> 12 & 63));
    p[2] = (u8)(0x80 | (c >> 6 & 63)), p[3] = (u8)(0x80 | (c & 63));
    return 4;
}

// A word as it grows: its first bytes, and a hash of those that went before the last character.
class Growing {
  public:
    void clear() { size_ = 0, last_ = NO_CHAR, hash_ = 0xCBF29CE484222325u, long_ = false; }
    bool empty() const { return last_ == NO_CHAR; }
    void add(u32 c) {
        settle();
        last_ = c;
    }
    // A mark: composes with the last character where it can; false where it cannot.
    bool compose(u32 mark) {
        u32 whole = last_ == NO_CHAR ? 0 : composed(last_, mark);
        if (whole) last_ = whole;
        return whole != 0;
    }
    // The word, with 8 zero bytes behind; whether it was short enough to be all of it.
    bool finish() {
        settle();
        if (long_) {
            size_ = CUT;
            while ((bytes_[size_] & 0xC0) == 0x80) --size_;
            for (u32 i = 0; i < 16; ++i)
                bytes_[size_++] = (u8) "0123456789abcdef"[hash_ >> (60 - 4 * i) & 15];
        }
        memset(bytes_ + size_, 0, SLACK);
        return !long_;
    }
    const u8* bytes() const { return bytes_; }
    u32 size() const { return size_; }

  private:
    void settle() {  // FNV-1a of all bytes, in order; 64 of them are kept
        if (last_ == NO_CHAR) return;
        u8 c[4];
        u32 n = write_char(c, last_);
        for (u32 i = 0; i < n; ++i) hash_ = (hash_ ^ c[i]) * 0x100000001B3u;
        if (!long_ && size_ + n <= MAX_WORD) {
            memcpy(bytes_ + size_, c, n);
            size_ += n;
        } else {
            long_ = true;
        }
        last_ = NO_CHAR;
    }
    u8 bytes_[MAX_WORD + 2 * SLACK];
    u32 size_ = 0, last_ = NO_CHAR;
    u64 hash_ = 0;
    bool long_ = false;
};

// Calls sink(bytes, size, plain, start, end) for each word; start and end are places in the text,
// `plain` says that it may be stemmed.
class Words {
  public:
    Words(const u8* text, u64 size, bool diacritics) : text_(text), size_(size), keep_(diacritics) {}

    template <class Sink>
    void each(Sink&& sink) {
        u64 at = 0;
        while (at < size_) {
            u8 c = text_[at];
            if (c < 0x80) {
                if (CLASS_OF[0][c] == SPLIT) {
                    ++at;
                    continue;
                }
                at = ascii(at, sink);
                continue;
            }
            u32 code;
            u32 n = read_char(text_ + at, text_ + size_, code);
            u8 kind = class_of(code);
            if (kind == LETTER || kind == DIGIT)
                at = word(at, sink);
            else if (kind == CJK)
                at = grams(at, sink);
            else
                at += n;
        }
    }

  private:
    // A word of ASCII alone; what is more goes to `word`.
    template <class Sink>
    u64 ascii(u64 start, Sink&& sink) {
        u8 to[MAX_WORD + 2 * SLACK];
        u64 at = start;
        u32 n = 0;
        for (;; ++at, ++n) {
            u8 c = at < size_ ? text_[at] : (u8)' ';
            if (c >= 0x80 || n == MAX_WORD) return word(start, sink);
            u8 kind = CLASS_OF[0][c];
            if (kind == SPLIT) {
                if (c != '\'' || n == 0 || CLASS_OF[0][to[n - 1]] != LETTER) break;
                u8 next = at + 1 < size_ ? text_[at + 1] : (u8)' ';
                if (next >= 0x80) return word(start, sink);
                if (CLASS_OF[0][next] != LETTER) break;
            }
            to[n] = (u8)(c | ((u32)(c - 'A') < 26u) << 5);
        }
        memset(to + n, 0, SLACK);
        sink(to, n, true, start, at);
        return at;
    }

    template <class Sink>
    u64 word(u64 start, Sink&& sink) {
        u64 at = start, end = start;
        bool letter = false;
        word_.clear();
        while (at < size_) {
            u32 c;
            u32 n = read_char(text_ + at, text_ + size_, c);
            u8 kind = class_of(c);
            if (kind == LETTER || kind == DIGIT) {
                c = fold_of(c);
                word_.add(keep_ ? c : bare_of(c));
                letter = kind == LETTER;
            } else if (kind == MARK) {
                c = fold_of(c);
                if (!keep_) c = bare_of(c);
                if (c && !word_.compose(c)) word_.add(c);
            } else if (kind == SPLIT && (c == '\'' || c == 0x2019) && letter && letter_at(at + n)) {
                word_.add('\'');
                letter = false;
            } else if (kind != JOINER) {
                break;
            }
            at += n;
            if (kind != JOINER) end = at;
        }
        bool whole = word_.finish();
        sink(word_.bytes(), word_.size(), whole, start, end);
        return at;
    }

    bool letter_at(u64 at) const {
        u32 c;
        if (at >= size_) return false;
        read_char(text_ + at, text_ + size_, c);
        return class_of(c) == LETTER;
    }

    struct Char {
        u32 c;
        u64 start, end;
    };

    template <class Sink>
    u64 grams(u64 start, Sink&& sink) {
        Char before{}, last{};
        u32 count = 0;
        u64 at = start;
        while (at < size_) {
            u32 c;
            u32 n = read_char(text_ + at, text_ + size_, c);
            u8 kind = class_of(c);
            if (kind == CJK) {
                if (count >= 2) gram(before, last, sink);
                before = last;
                last = {fold_of(c), at, at + n};
                ++count;
            } else if (kind == MARK) {
                u32 whole = composed(last.c, fold_of(c));
                if (whole) last.c = whole;
                last.end = at + n;
            } else if (kind != JOINER) {
                break;
            }
            at += n;
        }
        if (count >= 2)
            gram(before, last, sink);
        else
            gram({0, last.start, last.start}, last, sink);
        return at;
    }

    template <class Sink>
    void gram(const Char& a, const Char& b, Sink&& sink) {
        u8 to[8 + SLACK] = {};
        u32 n = a.c ? write_char(to, a.c) : 0;
        n += write_char(to + n, b.c);
        memset(to + n, 0, SLACK);
        sink(to, n, false, a.start, b.end);
    }

    const u8* text_;
    u64 size_;
    bool keep_;
    Growing word_;
};

}  // namespace vecdb::text
