# Segments: rows in, immutable postings out.


cdef class SegmentBuilder:
    cdef unique_ptr[CBuilder] of
    cdef readonly tuple columns
    cdef bint broken

    def __init__(self, columns):
        self.columns = tuple(columns)
        if not 1 <= len(self.columns) <= c_max_columns:
            raise ValueError(f"{len(self.columns)} columns; a segment has 1 to {c_max_columns}")
        self.of.reset(new CBuilder())
        for column in self.columns:
            if column is None:
                self.of.get().add_column(NULL)
            else:
                self.of.get().add_column((<Analyzer?>column).of.get())

    @property
    def n_docs(self) -> int:
        return self.of.get().n_docs()

    def add(self, rid, values):
        self.add_many([rid], [[value] for value in values])

    def add_many(self, rids, columns):
        cdef Held numbers_held = hold_numbers(rids, "rids")
        cdef uint64_t n = n_numbers(numbers_held)
        if self.broken:
            raise ValueError("memory ran out in this builder before: begin a new one")
        if len(columns) != len(self.columns):
            raise ValueError(f"{len(columns)} columns of values; the builder has {len(self.columns)}")
        for values in columns:
            if values is not None and len(values) != n:
                raise ValueError(f"{len(values)} values of {n} rows")
        self.of.get().mark()
        try:
            for number, values in enumerate(columns):
                if self.columns[number] is None:
                    self.weights(number, values, n)
                else:
                    self.texts(number, values, n)
            self.of.get().rids(numbers(numbers_held), n)
        except MemoryError:
            self.broken = True
            raise
        except BaseException:
            self.of.get().rollback()
            raise

    cdef int texts(self, uint32_t column, values, uint64_t n) except -1:
        cdef vector[CSpan] spans
        cdef list keep = []
        cdef uint64_t i, done = 0
        cdef CBuilder* of = self.of.get()
        spans.resize(n)
        if values is not None:
            i = 0
            for value in values:
                if value is not None:
                    spans[i] = span_of(value, keep)
                i += 1
        while done < n:
            with nogil:
                done += of.tokenize(column, spans.data() + done, n - done)
            settle(<Analyzer>self.columns[column], of.lexicon(column))
            with nogil:
                of.invert(column)
        return 0

    cdef int weights(self, uint32_t column, values, uint64_t n) except -1:
        cdef CBuilder* of = self.of.get()
        cdef uint8_t term[256]
        cdef Py_ssize_t size
        cdef float weight
        cdef uint64_t i
        if values is None:
            for i in range(n):
                of.end_row(column)
            return 0
        for row in values:
            if row is not None:
                for key, value in row.items():
                    size = write_token(key, term)
                    weight = value
                    if not isfinite(weight):
                        raise ValueError(f"token {key!r} has the weight {value}, which is no finite float32")
                    if weight != 0:
                        of.weight(column, term, <uint32_t>size, weight)
            of.end_row(column)
        return 0

    def touch(self, rid):
        self.touch_many([rid])

    def touch_many(self, rids):
        cdef Held held = hold_numbers(rids, "rids")
        self.of.get().touch(numbers(held), n_numbers(held))

    def finish(self) -> Segment:
        cdef Segment made = Segment.__new__(Segment)
        if self.broken:
            raise ValueError("memory ran out in this builder before: begin a new one")
        with nogil:
            made.of = self.of.get().finish()
        return made


cdef class Segment:
    cdef shared_ptr[CSegment] of

    @staticmethod
    def open(header, chunks=None) -> Segment:
        cdef Held held = hold_bytes(header)
        cdef Held chunk
        cdef Segment made = Segment.__new__(Segment)
        cdef CBytes one
        with nogil:
            made.of = CSegment.open(<const uint8_t*>held.view.buf, <uint64_t>held.view.len)
        if chunks is not None:
            if len(chunks) != made.n_chunks:
                raise ValueError(f"{len(chunks)} chunks of {made.n_chunks}")
            for value in chunks:
                chunk = hold_bytes(value)
                one.assign(<const uint8_t*>chunk.view.buf, <const uint8_t*>chunk.view.buf + chunk.view.len)
                made.of.get().chunks.push_back(one)
            made.of.get().holds = True
        return made

    @property
    def n_docs(self) -> int:
        return self.of.get().n_docs()

    @property
    def n_chunks(self) -> int:
        return self.of.get().keys.size()

    @property
    def n_columns(self) -> int:
        return self.of.get().columns.size()

    @property
    def nbytes(self) -> int:
        return self.of.get().memory()

    @property
    def holds_chunks(self) -> bool:
        return self.of.get().holds

    @property
    def postings_bytes(self) -> int:
        return self.of.get().postings_bytes

    def kind(self, column: int) -> str:
        return "text" if self.of.get().columns[self.checked(column)].kind == TEXT else "sparse"

    cdef uint32_t checked(self, column) except? 0xFFFFFFFF:
        if not 0 <= column < self.n_columns:
            raise ValueError(f"column {column} of {self.n_columns}")
        return column

    def header(self) -> bytes:
        cdef CBytes made
        with nogil:
            made = self.of.get().header()
        return plain(made)

    def chunks(self) -> list:
        cdef CSegment* of = self.of.get()
        if not of.holds:
            raise ValueError("the segment does not hold its chunks")
        return [plain(of.chunks[i]) for i in range(of.chunks.size())]

    def first_key(self, chunk: int) -> tuple:
        if not 0 <= chunk < self.n_chunks:
            raise ValueError(f"chunk {chunk} of {self.n_chunks}")
        cdef CKey* key = &self.of.get().keys[<size_t>chunk]
        return key.column, plain(key.term), key.doc

    def rids(self) -> bytes:
        return numbers_of(self.of.get().rids)

    def gone(self) -> bytes:
        return numbers_of(self.of.get().gone)

    def touched(self) -> bytes:
        cdef CSegment* of = self.of.get()
        cdef vector[uint32_t] both
        both.resize(of.rids.size() + of.gone.size())
        merge_numbers(of.rids, of.gone, both)
        return numbers_of(both)

    def lengths(self, column: int) -> bytes:
        return numbers_of(self.of.get().columns[self.checked(column)].lengths)

    def bury(self, rids, dead=None) -> bytes:
        cdef Held held = hold_numbers(rids, "rids")
        cdef CSegment* of = self.of.get()
        cdef uint64_t size = (<uint64_t>of.n_docs() + 7) // 8
        out = bytearray(size)
        cdef uint8_t* to
        cdef uint64_t i, n = n_numbers(held)
        cdef uint32_t doc
        cdef const uint32_t* p = numbers(held)
        cdef cbool some = False
        if dead:
            out[:min(size, len(dead))] = dead[:size]
            some = any(dead)
        cdef Held target = hold_bytes(out)
        to = <uint8_t*>target.view.buf
        with nogil:
            for i in range(n):
                doc = of.doc_of(p[i])
                if doc != <uint32_t>0xFFFFFFFF:
                    to[doc >> 3] |= <uint8_t>(1 << (doc & 7))
                    some = True
        return bytes(out) if some else b""

    def totals(self, column: int, dead=None) -> tuple:
        cdef CMask mask
        cdef Held held = mask_of(dead, &mask)
        cdef uint64_t rows = 0, length = 0
        self.of.get().totals(self.checked(column), mask, rows, length)
        return rows, length

    def n_live(self, dead=None) -> int:
        cdef CMask mask
        cdef Held held = mask_of(dead, &mask)
        return self.of.get().n_live(mask)

    def postings(self, load=None, dead=None):
        return postings(self, load, dead)


cdef Held mask_of(value, CMask* mask):
    cdef Held held
    mask.p = NULL
    mask.n = 0
    if value is None:
        return None
    held = hold_bytes(value)
    mask.p = <const uint8_t*>held.view.buf
    mask.n = <uint64_t>held.view.len
    return held


cdef void merge_numbers(
    const vector[uint32_t]& a, const vector[uint32_t]& b, vector[uint32_t]& out
) noexcept nogil:
    cdef size_t i = 0, j = 0, at
    for at in range(out.size()):
        if j == b.size() or (i < a.size() and a[i] < b[j]):
            out[at] = a[i]
            i += 1
        else:
            out[at] = b[j]
            j += 1
