// text_analyzer.cpp: see text_analyzer.h and text_words.h.
#include "text_analyzer.h"

#include <algorithm>

namespace vecdb::text {

template <size_t... W>
static constexpr Unpack unpack_for(size_t i, std::index_sequence<W...>) {
    constexpr Unpack all[] = {unpack_block<W>...};
    return all[i];
}
#define U(i) unpack_for(i, std::make_index_sequence<33>{})
const Unpack UNPACK[33] = {U(0),  U(1),  U(2),  U(3),  U(4),  U(5),  U(6),  U(7),  U(8),  U(9),  U(10),
                           U(11), U(12), U(13), U(14), U(15), U(16), U(17), U(18), U(19), U(20), U(21),
                           U(22), U(23), U(24), U(25), U(26), U(27), U(28), U(29), U(30), U(31), U(32)};
#undef U

u32 composed(u32 first, u32 mark) {
    const Pair* end = PAIRS + sizeof PAIRS / sizeof *PAIRS;
    const Pair* at = std::lower_bound(PAIRS, end, first, [&](const Pair& pair, u32 c) {
        return pair.first != c ? pair.first < c : pair.mark < mark;
    });
    return at != end && at->first == first && at->mark == mark ? at->whole : 0;
}

bool Table::same(u32 entry, const u8* padded, u32 size) const {
    if (entries_[entry].size != size) return false;
    const u8* mine = bytes(entry);
    for (u32 i = 0; i < size; i += 8)
        if (get<u64>(mine + i) != get<u64>(padded + i)) return false;
    return true;
}

u32 Table::find(const u8* padded, u32 size) const {
    if (slots_.empty()) return NO_DOC;
    u32 mask = (u32)slots_.size() - 1, hash = (u32)hash_of(padded, size);
    for (u32 at = hash & mask; slots_[at].entry; at = (at + 1) & mask)
        if (slots_[at].hash == hash && same(slots_[at].entry - 1, padded, size)) return slots_[at].entry - 1;
    return NO_DOC;
}

u32 Table::add(const u8* padded, u32 size, bool& is_new) {
    if ((entries_.size() + 1) * 2 > slots_.size()) grow();
    u32 mask = (u32)slots_.size() - 1, hash = (u32)hash_of(padded, size), at = hash & mask;
    for (; slots_[at].entry; at = (at + 1) & mask) {
        if (slots_[at].hash != hash || !same(slots_[at].entry - 1, padded, size)) continue;
        is_new = false;
        return slots_[at].entry - 1;
    }
    is_new = true;
    u32 begin = (u32)(arena_.size() / 8), words = (size + 7) / 8;
    if (arena_.size() / 8 + words >= NO_DOC || entries_.size() >= UNKNOWN - 1)
        throw std::invalid_argument("more than 4,294,967,000 different terms in one segment");
    entries_.reserve(entries_.size() + 1 > entries_.capacity() ? entries_.size() * 2 + 16 : 0);
    arena_.resize(arena_.size() + words * 8);
    memcpy(arena_.data() + (u64)begin * 8, padded, (size_t)words * 8);
    entries_.push_back({begin, size});
    slots_[at] = {hash, (u32)entries_.size()};
    return (u32)entries_.size() - 1;
}

u32 Table::add_any(const u8* bytes, u32 size, bool& is_new) {
    u8 padded[MAX_TERM + 1 + SLACK] = {};
    if (size) memcpy(padded, bytes, size);
    return add(padded, size, is_new);
}

void Table::grow() {
    std::vector<Slot> larger(slots_.empty() ? 64 : slots_.size() * 2, Slot{0, 0});
    u32 mask = (u32)larger.size() - 1;
    for (const Slot& slot : slots_) {
        if (!slot.entry) continue;
        u32 at = slot.hash & mask;
        while (larger[at].entry) at = (at + 1) & mask;
        larger[at] = slot;
    }
    slots_.swap(larger);
}

void Table::clear() {
    arena_ = {};
    entries_ = {};
    slots_ = {};
}

void Analyzer::add_stopword(const u8* text, u64 size) {
    Words(text, size, diacritics_).each([&](const u8* word, u32 n, bool, u64, u64) {
        bool is_new;
        stopwords_.add(word, n, is_new);
    });
}

void Lexicon::note(u32 word, bool plain) {
    term_of_.push_back(UNKNOWN);
    plain_.push_back(plain);
    new_.push_back(word);
}

u32 Lexicon::term(const u8* bytes, u32 size) {
    bool is_new;
    return terms_.add_any(bytes, size, is_new);
}

void Lexicon::settle(Analyzer& by) {
    missing_.clear();
    std::vector<u32> ask;
    for (u32 word : new_) {
        const u8* bytes = words_.bytes(word);
        u32 size = words_.size(word);
        if (plain_[word] && by.stopwords_.find(bytes, size) != NO_DOC)
            term_of_[word] = STOP;
        else if (!plain_[word] || !by.stems_)
            term_of_[word] = term(bytes, size);
        else
            ask.push_back(word);
    }
    if (!ask.empty()) {
        std::lock_guard<std::mutex> hold(by.lock_);
        for (u32 word : ask) {
            u32 known = by.words_.find(words_.bytes(word), words_.size(word));
            if (known == NO_DOC) {
                missing_.push_back(word);
                continue;
            }
            u32 stem = by.stem_of_[known];
            term_of_[word] = term(by.stems_of_.bytes(stem), by.stems_of_.size(stem));
        }
    }
    new_ = missing_;
}

void Lexicon::learn(Analyzer& by, const u8* bytes, const u32* sizes) {
    std::lock_guard<std::mutex> hold(by.lock_);
    for (u32 word : missing_) {
        const u8* stem = bytes;
        u32 size = *sizes++;
        bytes += size;
        if (size == 0 || size > MAX_WORD) stem = words_.bytes(word), size = words_.size(word);
        term_of_[word] = term(stem, size);
        if (by.words_.count() >= CACHED) {
            by.words_.clear();
            by.stems_of_.clear();
            by.stem_of_ = {};
        }
        bool is_new;
        u32 of = by.stems_of_.add_any(stem, size, is_new);
        by.stem_of_.reserve(by.stem_of_.size() + 1 > by.stem_of_.capacity() ? by.stem_of_.size() * 2 + 16 : 0);
        by.words_.add(words_.bytes(word), words_.size(word), is_new);
        if (is_new) by.stem_of_.push_back(of);
    }
    missing_.clear();
    new_.clear();
}

void tokens_of(const Analyzer& by, const u8* text, u64 size, Lexicon& lexicon, std::vector<Token>& out) {
    Words(text, size, by.diacritics()).each([&](const u8* word, u32 n, bool plain, u64 start, u64 end) {
        out.push_back({lexicon.word(word, n, plain), start, end});
    });
}

void words_of(const Analyzer& by, const u8* text, u64 size, Lexicon& lexicon, std::vector<u32>& out) {
    Words(text, size, by.diacritics()).each([&](const u8* word, u32 n, bool plain, u64, u64) {
        out.push_back(lexicon.word(word, n, plain));
    });
}

u32 count_phrase(const std::vector<u32>& words, const Lexicon& lexicon, const u32* terms, const u32* gaps,
                 u32 n) {
    u64 span = 0;
    for (u32 i = 0; i + 1 < n; ++i) span += gaps[i];
    u32 count = 0;
    for (u64 at = 0; at + span < words.size(); ++at) {
        if (lexicon.term_of(words[at]) != terms[0]) continue;
        u64 place = at;
        u32 i = 1;
        while (i < n && lexicon.term_of(words[place + gaps[i - 1]]) == terms[i]) place += gaps[i - 1], ++i;
        count += i == n;
    }
    return count;
}

}  // namespace vecdb::text
