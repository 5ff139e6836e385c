# Views, merges and audits: what is asked of segments.

from libc.stdint cimport uint16_t

cdef extern from "text_search.h" namespace "vecdb::text" nogil:
    uint32_t c_max_prefix "vecdb::text::MAX_PREFIX_TERMS"
    uint32_t c_max_legs "vecdb::text::MAX_LEGS"
    cdef cppclass CLeg "vecdb::text::Leg":
        CLeg() except +
        uint32_t column
        double weight
        uint8_t kind, occur
        uint32_t clause
        string term, also
        const uint32_t* rids
        const uint32_t* tfs
        uint64_t n
    cdef cppclass CQuery "vecdb::text::Query":
        vector[CLeg] legs
        vector[uint8_t] occur
    cdef cppclass CFilter "vecdb::text::Filter":
        cbool slots, plain
        CMask slot_bits
        const uint32_t* plain_rids
        uint64_t n_plain
    cdef cppclass CFetched "vecdb::text::Fetched":
        vector[vector[uint32_t]] numbers
        vector[vector[CSpan]] spans
    cdef struct CScored "vecdb::text::Scored":
        double score
        uint32_t rid
    cdef cppclass CPair "std::pair<std::string, uint64_t>":
        string first
        uint64_t second
    cdef cppclass CView "vecdb::text::View":
        CView() except +
        void add(shared_ptr[CSegment] segment, CMask dead) except +
        void finish(double k1, double b) except +
        uint32_t n_segments()
        cbool holds(uint32_t segment)
        uint64_t n_live()
        void totals(uint32_t column, uint64_t& rows, uint64_t& length)
        vector[uint32_t] needed(const CQuery& query, uint32_t segment) except +
        uint64_t df(uint32_t column, const string& term, const CFetched& fetched) except +
        void search(
            const CQuery& query, uint64_t k, cbool all, cbool exact, const CFilter& filter,
            const CFetched& fetched, vector[CScored]& out
        ) except +
        void match(
            const CQuery& query, const CFilter& filter, const CFetched& fetched, vector[uint32_t]& out
        ) except +
        void score(
            const uint32_t* rids, uint64_t n, const CQuery& query, const CFetched& fetched, double* out
        ) except +
        void prefix_terms(
            uint32_t column, const string& prefix, uint64_t limit, const CFetched& fetched,
            vector[CPair]& out
        ) except +

cdef extern from "text_merge.h" namespace "vecdb::text" nogil:
    cdef cppclass CMerge "vecdb::text::Merge":
        CMerge() except +
        void add(shared_ptr[CSegment] segment, CMask dead) except +
        void begin(cbool keep_gone, const uint8_t* progress, uint64_t size) except +
        cbool run(uint64_t work, uint32_t& input, uint32_t& number) except +
        void give(uint32_t input, const uint8_t* p, uint64_t size) except +
        void again()
        cbool done()
        uint32_t n_chunks()
        uint32_t n_before()
        vector[CMade]& made()
        void account() except +
        CBytes progress() except +
        void written(const uint8_t* p, uint64_t size) except +
        shared_ptr[CSegment] segment() except +

cdef extern from "text_audit.h" namespace "vecdb::text" nogil:
    cdef struct CPosted "vecdb::text::Posted":
        CBytes term
        vector[uint32_t] rids, values
    void read_chunk(
        const CSegment& of, uint32_t number, const uint8_t* p, uint64_t size, CMask dead, CBytes& term,
        uint32_t& last, vector[CPosted]& out
    ) except +

MAX_PREFIX_TERMS = c_max_prefix
SHOULD, MUST, NOT = 0, 1, 2
TERM, PREFIX, LIST = 0, 1, 2


cdef inline string cpp_string(bytes value):
    return string(<const char*>PyBytes_AS_STRING(value), <size_t>PyBytes_GET_SIZE(value))


cdef list masks_of(segments, dead, vector[CMask]* out):
    """The masks, and what holds their buffers."""
    cdef CMask mask
    held = []
    if len(segments) != len(dead):
        raise ValueError(f"{len(dead)} dead masks of {len(segments)} segments")
    for value in dead:
        held.append(mask_of(value, &mask))
        out.push_back(mask)
    return held


cdef class View:
    cdef CView of
    cdef list held
    cdef readonly tuple segments
    cdef uint32_t n_columns
    cdef readonly double k1, b

    def __init__(self, segments, dead, double k1=1.2, double b=0.75):
        cdef vector[CMask] masks
        cdef size_t i = 0
        if self.held is not None:
            raise ValueError("a View is made once")
        if not (isfinite(k1) and k1 >= 0 and 0 <= b <= 1):
            raise ValueError(f"k1 {k1}, b {b}: k1 is 0 or more, b from 0 to 1")
        self.k1, self.b = k1, b
        self.segments = tuple(segments)
        self.held = masks_of(self.segments, dead, &masks)
        self.n_columns = self.segments[0].n_columns if self.segments else 0
        for segment in self.segments:
            self.of.add((<Segment?>segment).of, masks[i])
            i += 1
        with nogil:
            self.of.finish(k1, b)

    @property
    def n_live(self) -> int:
        return self.of.n_live()

    cdef uint32_t checked(self, column) except? 0xFFFFFFFF:
        if column < 0 or (self.segments and column >= self.n_columns):
            raise ValueError(f"column {column} of {self.n_columns}")
        return column

    def totals(self, column: int) -> tuple:
        cdef uint64_t rows = 0, length = 0
        self.of.totals(self.checked(column), rows, length)
        return rows, length

    cdef list compile(self, clauses, CQuery* to):
        """The clauses, checked, for C++; returns what must live as long."""
        cdef CLeg leg
        cdef Held rids, tfs
        cdef uint32_t clause = 0
        cdef uint64_t i
        held = []
        for occur, legs in clauses:
            if occur not in (0, 1, 2):
                raise ValueError(f"occur {occur!r} is none of SHOULD, MUST, NOT")
            to.occur.push_back(occur)
            for column, weight, kind, payload in legs:
                leg = CLeg()
                leg.column = self.checked(column)
                leg.weight = weight
                leg.kind = kind
                leg.occur = occur
                leg.clause = clause
                text = not self.segments or self.segments[0].kind(column) == "text"
                if not isfinite(leg.weight) or (text and leg.weight < 0):
                    raise ValueError(f"weight {weight} of column {column}: finite, and not negative in text")
                if kind == 0:
                    leg.term = cpp_string(payload)
                elif kind == 1:
                    if isinstance(payload, tuple):
                        payload, also = payload
                        leg.also = cpp_string(also)
                    leg.term = cpp_string(payload)
                elif kind == 2:
                    rids, tfs = hold_numbers(payload[0], "rids"), hold_numbers(payload[1], "tfs")
                    leg.rids, leg.tfs, leg.n = numbers(rids), numbers(tfs), n_numbers(rids)
                    if leg.n != n_numbers(tfs):
                        raise ValueError(f"{n_numbers(tfs)} tfs of {leg.n} rids")
                    for i in range(1, leg.n):
                        if leg.rids[i] <= leg.rids[i - 1]:
                            raise ValueError("a LIST leg's rids must be ascending")
                    held += [rids, tfs]
                else:
                    raise ValueError(f"kind {kind!r} is none of TERM, PREFIX, LIST")
                if kind and not text:
                    raise ValueError(f"column {column} is sparse: its legs are TERM")
                if leg.term.size() > c_max_term:  # no term is so long, and none is this
                    leg.term = cpp_string(b"\x00")
                if leg.also.size() > c_max_term:
                    leg.also = cpp_string(b"\x00")
                if kind == 0 and leg.term.empty():
                    raise ValueError("an empty term")
                to.legs.push_back(leg)
                if to.legs.size() > c_max_legs:
                    raise ValueError(f"more than {c_max_legs} legs in one query")
            clause += 1
        return held

    cdef list fetch(self, const CQuery& query, load, CFetched* to):
        """The chunks that the query may need, one call of `load` a segment."""
        cdef uint32_t segment
        cdef CSpan span
        cdef Held one
        cdef vector[uint32_t] wanted
        cdef vector[CSpan] spans
        held = []
        to.numbers.resize(self.of.n_segments())
        to.spans.resize(self.of.n_segments())
        for segment in range(self.of.n_segments()):
            if self.of.holds(segment):
                continue
            wanted = self.of.needed(query, segment)
            if wanted.empty():
                continue
            if load is None:
                raise ValueError(f"segment {segment} does not hold its chunks: pass load")
            asked = list(wanted)
            given = load(segment, asked)
            if len(given) != len(asked):
                raise ValueError(f"load gave {len(given)} chunks of {len(asked)}")
            spans.clear()
            for chunk in given:
                one = hold_bytes(chunk)
                held.append(one)
                span.p = <const uint8_t*>one.view.buf
                span.n = <uint64_t>one.view.len
                spans.push_back(span)
            to.numbers[segment] = wanted
            to.spans[segment] = spans
        return held

    cdef list filtered(self, slots, plain, CFilter* to):
        cdef Held bits, rids
        held = []
        to.slots = slots is not None
        to.plain = plain is not None
        if slots is not None:
            bits = mask_of(slots, &to.slot_bits)
            held.append(bits)
        if plain is not None:
            rids = hold_numbers(plain, "plain")
            to.plain_rids, to.n_plain = numbers(rids), n_numbers(rids)
            held.append(rids)
        return held

    def df(self, column: int, bytes term not None, load=None) -> int:
        cdef CQuery query
        cdef CFetched fetched
        cdef uint64_t count
        cdef string name = cpp_string(term)
        cdef uint32_t at = self.checked(column)
        held = self.compile([(0, [(column, 1.0, 0, term)])], &query)
        held += self.fetch(query, load, &fetched)
        if not self.segments:
            return 0
        with nogil:
            count = self.of.df(at, name, fetched)
        return count

    def search(self, clauses, k, load=None, slots=None, plain=None, exact=False) -> tuple:
        cdef CQuery query
        cdef CFetched fetched
        cdef CFilter filter
        cdef vector[CScored] found
        cdef uint64_t limit = 1
        cdef cbool all = k is None, unpruned = exact
        cdef uint64_t i
        if k is not None:
            if k < 1:
                raise ValueError(f"k is {k}; it is 1 or more, or None for all")
            limit = min(k, 1 << 62)
        held = self.compile(clauses, &query)
        held += self.fetch(query, load, &fetched)
        held += self.filtered(slots, plain, &filter)
        with nogil:
            self.of.search(query, limit, all, unpruned, filter, fetched, found)
        rids = PyBytes_FromStringAndSize(NULL, found.size() * 4)
        scores = PyBytes_FromStringAndSize(NULL, found.size() * 8)
        cdef uint32_t* to_rids = <uint32_t*>PyBytes_AS_STRING(rids)
        cdef double* to_scores = <double*>PyBytes_AS_STRING(scores)
        for i in range(found.size()):
            to_rids[i] = found[i].rid
            to_scores[i] = found[i].score
        return rids, scores

    cdef vector[uint32_t] matching(self, clauses, load, slots, plain) except *:
        cdef CQuery query
        cdef CFetched fetched
        cdef CFilter filter
        cdef vector[uint32_t] found
        held = self.compile(clauses, &query)
        held += self.fetch(query, load, &fetched)
        held += self.filtered(slots, plain, &filter)
        with nogil:
            self.of.match(query, filter, fetched, found)
        return found

    def match(self, clauses, load=None, slots=None, plain=None) -> bytes:
        return numbers_of(self.matching(clauses, load, slots, plain))

    def count(self, clauses, load=None, slots=None, plain=None) -> int:
        return self.matching(clauses, load, slots, plain).size()

    def score(self, rids, clauses, load=None) -> bytes:
        cdef CQuery query
        cdef CFetched fetched
        cdef Held which = hold_numbers(rids, "rids")
        cdef uint64_t n = n_numbers(which)
        cdef const uint32_t* rows = numbers(which)
        held = self.compile(clauses, &query)
        held += self.fetch(query, load, &fetched)
        out = PyBytes_FromStringAndSize(NULL, n * 8)
        cdef double* to = <double*>PyBytes_AS_STRING(out)
        with nogil:
            self.of.score(rows, n, query, fetched, to)
        return out

    def prefix_terms(self, column: int, bytes prefix not None, limit=1024, load=None) -> list:
        cdef CQuery query
        cdef CFetched fetched
        cdef vector[CPair] found
        cdef string name = cpp_string(prefix)
        cdef uint64_t most = limit
        cdef uint32_t at = self.checked(column)
        if len(prefix) > c_max_term:
            return []
        held = self.compile([(0, [(column, 1.0, 1, prefix)])], &query)
        held += self.fetch(query, load, &fetched)
        with nogil:
            self.of.prefix_terms(at, name, most, fetched, found)
        return [(<bytes>found[i].first, found[i].second) for i in range(found.size())]


cdef class Merge:
    cdef CMerge of
    cdef list held
    cdef bytes made
    cdef readonly tuple segments

    def __init__(self, segments, dead, keep_gone=True, progress=None):
        cdef vector[CMask] masks
        cdef Held from_
        cdef const uint8_t* p = NULL
        cdef uint64_t size = 0
        cdef size_t i = 0
        cdef cbool keep = keep_gone
        if self.held is not None:
            raise ValueError("a Merge is made once")
        self.segments = tuple(segments)
        self.held = masks_of(self.segments, dead, &masks)
        for segment in self.segments:
            self.of.add((<Segment?>segment).of, masks[i])
            i += 1
        if progress is not None:
            from_ = hold_bytes(progress)
            p = <const uint8_t*>from_.view.buf
            size = <uint64_t>from_.view.len
        with nogil:
            self.of.begin(keep, p, size)

    @property
    def done(self) -> bool:
        return self.of.done()

    @property
    def n_chunks(self) -> int:
        return self.of.n_chunks()

    @property
    def progress(self) -> bytes:
        return plain(self.of.progress())

    def step(self, load=None, uint64_t work=200_000) -> list:
        cdef uint32_t input = 0, number = 0
        cdef cbool needs
        cdef Held chunk
        cdef CSegment* segment
        cdef size_t i
        self.of.again()
        while True:
            with nogil:
                needs = self.of.run(work, input, number)
            if not needs:
                break
            segment = (<Segment>self.segments[input]).of.get()
            if segment.holds:
                self.of.give(input, segment.chunks[number].data(), segment.chunks[number].size())
                continue
            if load is None:
                raise ValueError(f"segment {input} does not hold its chunks: pass load")
            chunk = hold_bytes(load(input, [number])[0])
            self.of.give(input, <const uint8_t*>chunk.view.buf, <uint64_t>chunk.view.len)
        out = [plain(self.of.made()[i].bytes) for i in range(self.of.made().size())]
        self.of.account()
        return out

    def header(self, written=None) -> bytes:
        cdef uint32_t first, n = self.of.n_before()
        cdef Held chunk
        if self.made is not None:
            return self.made
        if not self.of.done():
            raise ValueError("the merge is not done")
        if n and written is None:
            raise ValueError(f"the {n} chunks before were written elsewhere: pass written")
        for first in range(0, n, 64):
            asked = list(range(first, min(first + 64, n)))
            given = written(asked)
            if len(given) != len(asked):
                raise ValueError(f"written gave {len(given)} chunks of {len(asked)}")
            for one in given:
                chunk = hold_bytes(one)
                self.of.written(<const uint8_t*>chunk.view.buf, <uint64_t>chunk.view.len)
        self.made = plain(self.of.segment().get().header())
        return self.made


def merge(segments, dead, load=None, keep_gone=True) -> Segment:
    work = Merge(segments, dead, keep_gone)
    chunks = []
    while not work.done:
        chunks += work.step(load, 1 << 40)
    return Segment.open(work.header(), chunks)


def postings(Segment segment not None, load=None, dead=None):
    """See Segment.postings."""
    open_list = None
    for number in range(segment.n_chunks):
        column = segment.of.get().keys[<size_t>number].column
        for term, rids, values in lists_of(segment, number, load, dead):
            if open_list is not None and open_list[:2] == [column, term]:
                open_list[2] += rids
                open_list[3] += values
                continue
            if open_list is not None:
                yield tuple(open_list)
            open_list = [column, term, rids, values]
    if open_list is not None:
        yield tuple(open_list)


cdef list lists_of(Segment segment, size_t number, load, dead):
    cdef CSegment* of = segment.of.get()
    cdef vector[CPosted] found
    cdef CBytes term
    cdef uint32_t last = <uint32_t>0xFFFFFFFF
    cdef CMask mask
    cdef Held held = mask_of(dead, &mask), chunk
    cdef const uint8_t* p
    cdef uint64_t size
    if of.holds:
        p, size = of.chunks[number].data(), of.chunks[number].size()
    else:
        if load is None:
            raise ValueError("the segment does not hold its chunks: pass load")
        chunk = hold_bytes(load(0, [number])[0])
        p, size = <const uint8_t*>chunk.view.buf, <uint64_t>chunk.view.len
    with nogil:
        read_chunk(of[0], <uint32_t>number, p, size, mask, term, last, found)
    return [
        (plain(found[i].term), numbers_of(found[i].rids), numbers_of(found[i].values))
        for i in range(found.size())
    ]
