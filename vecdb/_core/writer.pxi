# writer.pxi: the graph as one transaction sees and changes it.

@cython.no_gc_clear  # what it ends with is its graph's: a collector that breaks cycles may not take that first
cdef class Writer:
    """One transaction on a graph: insertion, its own view, and its redo record."""

    cdef CWriter* writer
    cdef readonly Graph graph

    def __cinit__(self, Graph graph not None, bytes linkable=None):
        cdef const uint8_t* mask = NULL
        cdef size_t size = 0
        if linkable is not None:
            mask, size = <const uint8_t*>PyBytes_AS_STRING(linkable), PyBytes_GET_SIZE(linkable)
        self.graph = graph
        self.writer = new CWriter(graph.graph[0], mask, size)

    def __dealloc__(self):
        del self.writer

    @property
    def n_slots(self):
        return self.writer.n_slots()

    @property
    def changed(self):
        """Whether there is anything to log."""
        return self.writer.dirty()

    @property
    def chunk_rows(self):
        return self.graph.chunk_rows

    @property
    def scale(self):
        cdef shared_ptr[CodeSet] codes = self.writer.codes()
        if codes.get() == NULL:
            return None
        return (codes.get().scale.lo, codes.get().scale.step)

    def insert(self, first_slot, vectors, threads=1):
        """Insert (n, dim) vectors of the stored dtype into consecutive new slots."""
        cdef Py_buffer view
        cdef uint32_t first = count_of(first_slot, "first_slot"), t = count_of(threads, "threads"), n
        PyObject_GetBuffer(vectors, &view, PyBUF_SIMPLE)
        try:
            if view.len % self.graph.row_bytes:
                raise ValueError(f"{view.len} bytes are no whole vectors of {self.graph.row_bytes}")
            n = <uint32_t>(view.len // self.graph.row_bytes)
            with nogil:
                self.writer.insert(first, <const uint8_t*>view.buf, n, t)
        finally:
            PyBuffer_Release(&view)

    def insert_at(self, const uint32_t[::1] slots not None, vectors, threads=1):
        cdef Py_buffer view
        cdef uint32_t t = count_of(threads, "threads")
        PyObject_GetBuffer(vectors, &view, PyBUF_SIMPLE)
        try:
            if view.len != slots.shape[0] * self.graph.row_bytes:
                raise ValueError(f"{view.len} bytes for {slots.shape[0]} vectors")
            if slots.shape[0]:
                with nogil:
                    self.writer.insert_at(&slots[0], <const uint8_t*>view.buf, <uint32_t>slots.shape[0], t)
        finally:
            PyBuffer_Release(&view)

    def adopt(self, vectors, const uint32_t[:, ::1] links not None, threads=1):
        """Fill an empty graph with slots 0 to n - 1 whose links, (n, 2 * M), were made elsewhere.

        0xFFFFFFFF is no link; a link to oneself or a second time is left out. ValueError names the
        first row with a link to no slot, and nothing has changed.
        """
        cdef Py_buffer view
        cdef uint32_t t = count_of(threads, "threads")
        cdef uint32_t n = count_of(links.shape[0], "rows of links")
        if links.shape[1] != 2 * self.graph.M:
            raise ValueError(f"links have {links.shape[1]} places a row, not 2 * M = {2 * self.graph.M}")
        PyObject_GetBuffer(vectors, &view, PyBUF_SIMPLE)
        try:
            if view.len != <Py_ssize_t>n * self.graph.row_bytes:
                raise ValueError(f"{view.len} bytes for {n} vectors of {self.graph.row_bytes}")
            if n:
                with nogil:
                    self.writer.adopt(<const uint8_t*>view.buf, &links[0, 0], n, t)
        finally:
            PyBuffer_Release(&view)

    def extend_to(self, n_slots):
        """Make n_slots at least this; new slots that nothing is inserted into are holes."""
        cdef uint32_t n = count_of(n_slots, "n_slots")
        with nogil:
            self.writer.extend_to(n)

    def condemn(self, bytes mask not None):
        """Say, a bit a slot, which dead slots `sweep` and `vacate` take out of the graph."""
        self.writer.condemn(<const uint8_t*>PyBytes_AS_STRING(mask), PyBytes_GET_SIZE(mask))

    def sweep(self, layer, first, n, threads=1):
        """Take links to condemned slots out of n rows of a layer; how many rows have changed."""
        cdef uint32_t which = count_of(layer, "layer"), a = count_of(first, "first"), b = count_of(n, "n")
        cdef uint32_t t = count_of(threads, "threads"), changed
        with nogil:
            changed = self.writer.sweep(which, a, b, t)
        return changed

    def rehome(self, first, most):
        """Pin what is pinned to condemned slots elsewhere, from `first` on; where to go on."""
        cdef uint32_t a = count_of(first, "first"), b = count_of(most, "most"), next
        with nogil:
            next = self.writer.rehome(a, b)
        return next

    def vacate(self, first, most):
        """Take up to `most` condemned slots out, from `first` on: (slots, where to go on).

        Only after a sweep of all rows of both layers, and `rehome` of all slots; None: once more. ValueError where pinned links are damaged.
        """
        cdef uint32_t a = count_of(first, "first"), b = count_of(most, "most"), next
        cdef vector[uint32_t] vacated
        with nogil:
            next = self.writer.vacate(a, b, vacated)
        return [vacated[i] for i in range(vacated.size())], None if next == 0xFFFFFFFF else next

    def recalibrate(self, threads=1):
        """Take a new scale of the codes if the vectors ask for one; whether that was so."""
        cdef uint32_t t = count_of(threads, "threads")
        cdef cbool other
        with nogil:
            other = self.writer.recalibrate(t)
        return other

    def vector(self, slot):
        return self.graph.vector(slot)

    def search(self, const float[::1] query not None, k, ef, rr, mask=None, n_visible=-1, budget=0, skip=-1):
        cdef Query q
        cdef Found found
        if query.shape[0] != self.graph.dim:
            raise ValueError(f"the query has {query.shape[0]} numbers, not {self.graph.dim}")
        fill_query(&q, k, ef, rr, mask, n_visible, budget, skip)
        q.vector = &query[0]
        with nogil:
            found = self.writer.search(q)
        return found_tuple(found)

    def search_many(self, const float[:, ::1] queries not None, k, ef, rr, mask=None, n_visible=-1, budget=0, threads=0):
        cdef Query q
        cdef vector[Answer] answers
        cdef uint32_t n = <uint32_t>queries.shape[0], t = count_of(threads, "threads")
        if queries.shape[1] != self.graph.dim:
            raise ValueError(f"queries have {queries.shape[1]} numbers, not {self.graph.dim}")
        if not n:
            return []
        fill_query(&q, k, ef, rr, mask, n_visible, budget, -1)
        with nogil:
            answers = self.writer.search_many(q, &queries[0, 0], n, t)
        return [answer_tuple(answers[i]) for i in range(n)]

    def scan(self, const float[::1] query not None, k, slots=None, mask=None, n_visible=-1, exact=True, rr=0, threads=1):
        cdef ScanQuery q
        cdef Found found
        fill_scan(self.graph, &q, query, k, mask, n_visible, exact, rr, threads)
        cdef const uint32_t[::1] chosen
        cdef uint32_t none = 0
        if slots is not None:
            chosen = slots
            q.n_slots = <uint32_t>chosen.shape[0]
            q.slots = &chosen[0] if q.n_slots else &none
        with nogil:
            found = self.writer.scan(q)
        return found_tuple(found)[:2]

    def n_chunks(self, uint32_t layer):
        cdef uint64_t rows = self.writer.n_slots()
        if layer:
            rows = (rows + 31) // 32
        return (rows + 511) // 512

    def changes(self):
        """The redo record of everything inserted."""
        cdef vector[uint8_t] out
        with nogil:
            out = self.writer.changes()
        return PyBytes_FromStringAndSize(<char*>out.data(), out.size())

    def chunk(self, uint32_t layer, uint32_t i):
        cdef vector[uint8_t] out = self.writer.chunk(layer, i)
        return PyBytes_FromStringAndSize(<char*>out.data(), out.size())

    def rollback(self):
        with nogil:
            self.writer.rollback()
