# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, autotestdict=False
"""The door between Python and full text in C++: checks values and buffers, calls stemmers, releases the
lock, holds no algorithm. `_text.pyi` says what everything means."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

cdef extern from "text_analyzer.h" namespace "vecdb::text" nogil:
    const char* c_unicode "vecdb::text::UNICODE_VERSION"
    uint32_t c_analysis "vecdb::text::ANALYSIS_VERSION"
    uint32_t c_max_term "vecdb::text::MAX_TERM"
    cdef enum: STOP
    cdef cppclass CTable "vecdb::text::Table":
        uint32_t find(const uint8_t* padded, uint32_t size)
        uint32_t size(uint32_t)
        const uint8_t* bytes(uint32_t)
    cdef cppclass CAnalyzer "vecdb::text::Analyzer":
        CAnalyzer(cbool stems, cbool diacritics) except +
        void add_stopword(const uint8_t* text, uint64_t size) except +
    cdef cppclass CLexicon "vecdb::text::Lexicon":
        CLexicon() except +
        void settle(CAnalyzer& by) except +
        uint32_t n_missing()
        const uint8_t* missing(uint32_t i, uint32_t& size)
        void learn(CAnalyzer& by, const uint8_t* bytes, const uint32_t* sizes) except +
        uint32_t term_of(uint32_t word)
        const CTable& terms()
        const CTable& words()
    cdef struct CToken "vecdb::text::Token":
        uint32_t word
        uint64_t start, end
    void tokens_of(
        const CAnalyzer& by, const uint8_t* text, uint64_t size, CLexicon& lexicon, vector[CToken]& out
    ) except +
    void words_of(
        const CAnalyzer& by, const uint8_t* text, uint64_t size, CLexicon& lexicon, vector[uint32_t]& out
    ) except +
    uint32_t count_phrase(
        const vector[uint32_t]& words, const CLexicon& lexicon, const uint32_t* terms, const uint32_t* gaps,
        uint32_t n,
    )

cdef extern from "text_segment.h" namespace "vecdb::text" nogil:
    uint32_t c_format "vecdb::text::FORMAT_VERSION"
    uint32_t c_max_chunk "vecdb::text::MAX_CHUNK"
    uint32_t c_max_columns "vecdb::text::MAX_COLUMNS"
    cdef enum: TEXT "vecdb::text::TEXT"
    ctypedef vector[uint8_t] CBytes "vecdb::text::Bytes"
    cdef struct CSpan "vecdb::text::Span":
        const uint8_t* p
        uint64_t n
    cdef struct CMask "vecdb::text::Mask":
        const uint8_t* p
        uint64_t n
    cdef struct CColumn "vecdb::text::Column":
        uint8_t kind
        vector[uint32_t] lengths
    cdef struct CKey "vecdb::text::Key":
        uint8_t column
        CBytes term
        uint32_t doc
    cdef cppclass CSegment "vecdb::text::Segment":
        vector[uint32_t] rids, gone
        vector[CColumn] columns
        vector[CKey] keys
        uint64_t postings_bytes
        cbool holds
        vector[CBytes] chunks
        uint32_t n_docs()
        uint64_t memory()
        uint32_t doc_of(uint32_t rid)
        void totals(uint32_t column, CMask dead, uint64_t& rows, uint64_t& length)
        uint64_t n_live(CMask dead)
        CBytes header() except +
        @staticmethod
        shared_ptr[CSegment] open(const uint8_t* p, uint64_t size) except +
    cdef struct CMade "vecdb::text::Made":
        CBytes bytes
        CKey key

cdef extern from "text_builder.h" namespace "vecdb::text" nogil:
    cdef cppclass CBuilder "vecdb::text::Builder":
        CBuilder() except +
        void add_column(CAnalyzer* analyzer) except +
        CAnalyzer* analyzer(uint32_t column)
        CLexicon& lexicon(uint32_t column)
        uint32_t n_docs()
        void mark()
        void rollback()
        uint64_t tokenize(uint32_t column, const CSpan* texts, uint64_t n) except +
        void invert(uint32_t column) except +
        void weight(uint32_t column, const uint8_t* term, uint32_t size, float weight) except +
        void end_row(uint32_t column) except +
        void rids(const uint32_t* rids, uint64_t n) except +
        void touch(const uint32_t* rids, uint64_t n) except +
        shared_ptr[CSegment] finish() except +

UNICODE_VERSION = c_unicode.decode()
ANALYSIS_VERSION = c_analysis
FORMAT_VERSION = c_format
MAX_CHUNK = c_max_chunk
MAX_TERM = c_max_term


# --- values from Python -------------------------------------------------------------------------

cdef class Held:
    """A buffer, held until this object goes."""

    cdef Py_buffer view
    cdef bint held

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef Held hold_bytes(value):
    cdef Held held = Held()
    PyObject_GetBuffer(value, &held.view, PyBUF_SIMPLE | PyBUF_C_CONTIGUOUS)
    held.held = True
    return held


cdef Held hold_numbers(value, str name):
    """A buffer of uint32; bytes count as one."""
    cdef Held held = Held()
    if isinstance(value, (list, tuple)):
        import array
        value = array.array("I", value)
    PyObject_GetBuffer(value, &held.view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
    held.held = True
    kind = b"B" if held.view.format == NULL else held.view.format
    raw = kind in (b"B", b"c", b"b") and held.view.len % 4 == 0
    if not raw and not (held.view.itemsize == 4 and kind.strip(b"@=<") in (b"I", b"L")):
        raise ValueError(f"{name} must be uint32, not {kind.decode()} of {held.view.itemsize} bytes")
    return held


cdef inline const uint32_t* numbers(Held held):
    return <const uint32_t*>held.view.buf


cdef inline uint64_t n_numbers(Held held):
    return <uint64_t>held.view.len // 4


cdef CSpan span_of(value, list keep) except *:
    """UTF-8 of a str or bytes-like; what must live on for it goes into `keep`."""
    cdef CSpan span
    cdef Py_ssize_t size
    cdef const char* p
    if isinstance(value, str):
        try:
            p = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:  # a lone surrogate splits words, and is one character
            value = value.encode("utf-8", "replace")
            p = PyBytes_AS_STRING(value)
            size = PyBytes_GET_SIZE(value)
    elif isinstance(value, bytes):
        p = PyBytes_AS_STRING(value)
        size = PyBytes_GET_SIZE(value)
    elif PyObject_CheckBuffer(value):
        value = bytes(value)
        p = PyBytes_AS_STRING(value)
        size = PyBytes_GET_SIZE(value)
    else:
        raise TypeError(f"a text must be str or UTF-8 bytes, not {type(value).__name__}")
    keep.append(value)
    span.p = <const uint8_t*>p
    span.n = <uint64_t>size
    return span


cdef bytes raw(const void* p, size_t size):
    return PyBytes_FromStringAndSize(<const char*>p, <Py_ssize_t>size)


cdef bytes numbers_of(const vector[uint32_t]& values):
    return raw(values.data(), values.size() * 4)


cdef bytes plain(const CBytes& value):
    return raw(value.data(), value.size())


cdef Py_ssize_t write_token(value, uint8_t* to) except -1:
    """A sparse token as a term: its size; `to` has room for 256 bytes."""
    cdef Py_ssize_t size
    cdef const char* p
    cdef uint64_t number
    cdef int i
    if isinstance(value, str):
        p = PyUnicode_AsUTF8AndSize(value, &size)
        if size > 254:
            raise ValueError(f"a token of {size} bytes; the most is 254 bytes of UTF-8")
        to[0] = 2
        memcpy(to + 1, p, size)
        return size + 1
    if isinstance(value, float):
        raise TypeError("a token must be a str or an int, not float")
    try:
        number = <uint64_t><int64_t>value.__index__() ^ <uint64_t>1 << 63
    except OverflowError:
        raise ValueError(f"token {value} is out of the range of 64 bits") from None
    except AttributeError:
        raise TypeError(f"a token must be a str or an int, not {type(value).__name__}") from None
    to[0] = 1
    for i in range(8):
        to[1 + i] = <uint8_t>(number >> (56 - 8 * i))
    return 9


def token(value) -> bytes:
    cdef uint8_t to[256]
    cdef Py_ssize_t size = write_token(value, to)
    return raw(to, size)


def untoken(bytes term not None):
    if len(term) == 9 and term[0] == 1:
        return int.from_bytes(term[1:], "big") - (1 << 63)
    if len(term) and term[0] == 2:
        return term[1:].decode()
    raise ValueError(f"{term!r} is no sparse token's term")


# --- analysis -----------------------------------------------------------------------------------

cdef class Analyzer:
    cdef unique_ptr[CAnalyzer] of
    cdef readonly object stem
    cdef readonly frozenset stopwords
    cdef readonly bint diacritics

    def __init__(self, stem=None, stopwords=(), diacritics=True):
        cdef CSpan span
        self.stem = stem
        self.stopwords = frozenset(stopwords)
        self.diacritics = diacritics
        made = new CAnalyzer(stem is not None, diacritics)
        self.of.reset(made)
        for word in self.stopwords:
            keep = []
            span = span_of(word, keep)
            made.add_stopword(span.p, span.n)

    def terms(self, text) -> list:
        return [(term, place) for term, _, _, place in self.taken(text, True, False)]

    def spans(self, str text not None) -> list:
        return self.taken(text, True, True)

    def words(self, str text not None) -> list:
        return self.taken(text, False, True)

    def fold(self, str word not None) -> bytes:
        found = self.taken(word, False, False)
        return found[0][0] if len(found) == 1 else b""

    cdef list taken(self, text, bint stemmed, bint places):
        cdef list keep = [], out = []
        cdef CSpan span = span_of(text, keep)
        cdef CLexicon lexicon
        cdef vector[CToken] tokens
        cdef uint64_t at = 0, chars = 0, start
        cdef uint32_t i, number
        with nogil:
            tokens_of(self.of.get()[0], span.p, span.n, lexicon, tokens)
        if stemmed:
            settle(self, lexicon)
        for i in range(<uint32_t>tokens.size()):
            number = tokens[i].word
            if stemmed:
                number = lexicon.term_of(number)
                if number == STOP:
                    continue
                term = raw(lexicon.terms().bytes(number), lexicon.terms().size(number))
            else:
                term = raw(lexicon.words().bytes(number), lexicon.words().size(number))
            if not places:
                out.append((term, 0, 0, i))
                continue
            if tokens[i].start < at:  # bigrams overlap
                at = chars = 0
            start = chars + count_chars(span.p + at, tokens[i].start - at)
            chars = start
            at = tokens[i].start
            out.append((term, start, start + count_chars(span.p + at, tokens[i].end - at), i))
        return out

    def phrase_count(self, text, terms, gaps) -> int:
        return int.from_bytes(self.phrase_counts([text], terms, gaps), "little")

    def phrase_counts(self, texts, terms, gaps) -> bytes:
        cdef list keep = []
        cdef vector[CSpan] spans
        cdef vector[vector[uint32_t]] words
        cdef CLexicon lexicon
        cdef vector[uint32_t] wanted, distances, counts
        cdef uint64_t i, n
        cdef CSpan nothing
        nothing.p = NULL
        nothing.n = 0
        if len(terms) != len(gaps) + 1:
            raise ValueError(f"{len(terms)} terms have {len(terms) - 1} gaps between them, not {len(gaps)}")
        for gap in gaps:
            if not 1 <= gap < 1 << 31:
                raise ValueError(f"a gap of {gap}; the next position is 1 away")
            distances.push_back(gap)
        texts = list(texts)
        for text in texts:
            spans.push_back(nothing if text is None else span_of(text, keep))
        n = spans.size()
        words.resize(n)
        with nogil:
            for i in range(n):
                words_of(self.of.get()[0], spans[i].p, spans[i].n, lexicon, words[i])
        settle(self, lexicon)
        counts.resize(n)
        for term in terms:
            wanted.push_back(find_term(lexicon, term))
        with nogil:
            for i in range(n):
                counts[i] = count_phrase(words[i], lexicon, wanted.data(), distances.data(), <uint32_t>wanted.size())
        return numbers_of(counts)


cdef uint32_t find_term(const CLexicon& lexicon, bytes term) except? 0xFFFFFFFE:
    cdef uint8_t padded[264]
    cdef Py_ssize_t i
    for i in range(264):
        padded[i] = 0
    if len(term) > 255:
        return <uint32_t>0xFFFFFFFE  # no term is so long
    memcpy(padded, PyBytes_AS_STRING(term), len(term))
    i = lexicon.terms().find(padded, <uint32_t>len(term))
    return <uint32_t>0xFFFFFFFD if <uint32_t>i == <uint32_t>0xFFFFFFFF else <uint32_t>i


cdef uint64_t count_chars(const uint8_t* p, uint64_t size) noexcept nogil:
    """Characters as a str has them; a byte that is no UTF-8 cannot come from one."""
    cdef uint64_t i, n = 0
    for i in range(size):
        n += (p[i] & 0xC0) != 0x80
    return n


cdef int settle(Analyzer by, CLexicon& lexicon) except -1:
    """Gives each new word its term; asks the stemmer for those that nobody knows."""
    cdef uint32_t i, n, size = 0
    cdef const uint8_t* p
    cdef vector[uint32_t] sizes
    with nogil:
        lexicon.settle(by.of.get()[0])
    n = lexicon.n_missing()
    if not n:
        return 0
    words = []
    for i in range(n):
        p = lexicon.missing(i, size)
        words.append(raw(p, size).decode())
    stems = by.stem(words)
    if len(stems) != n:
        raise ValueError(f"the stemmer gave {len(stems)} stems of {n} words")
    encoded = [stem.encode() for stem in stems]
    for one in encoded:
        sizes.push_back(<uint32_t>len(one))
    joined = b"".join(encoded)
    p = <const uint8_t*>PyBytes_AS_STRING(joined)
    with nogil:
        lexicon.learn(by.of.get()[0], p, sizes.data())
    return 0


include "text_segments.pxi"
include "text_views.pxi"
