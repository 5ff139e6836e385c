# graph.pxi: the graph as readers use it; every buffer is checked before the GIL is released.

cdef tuple found_tuple(const Found& f):
    # read before anything is made that could start a collection of garbage, and with it a search
    cdef vector[uint32_t] found
    found.assign(f.slots, f.slots + f.n)
    distances = PyBytes_FromStringAndSize(<char*>f.distances if f.n else NULL, <Py_ssize_t>f.n * 4)
    cdef list slots = [found[i] for i in range(found.size())]
    return slots, distances, f.n_dist, f.n_hops, f.exhausted


cdef tuple answer_tuple(const Answer& a):
    cdef list slots = [a.slots[i] for i in range(a.slots.size())]
    distances = PyBytes_FromStringAndSize(<char*>a.distances.data(), a.distances.size() * 4)
    return slots, distances, a.n_dist, a.n_hops, a.exhausted


cdef uint32_t count_of(object value, str name) except? 0xFFFFFFFF:
    if not 0 <= value < 0x7FFFFFFF:
        raise ValueError(f"{name}={value}: out of range")
    return <uint32_t>value


cdef void fill_query(Query* q, object k, object ef, object rr, object mask, object n_visible, object budget, object skip) except *:
    q.k = count_of(k, "k")
    q.ef = count_of(ef, "ef")
    q.rr = count_of(rr, "rr")
    q.n_visible = n_visible
    q.budget = budget
    q.skip = skip
    q.mask = NULL
    q.mask_bytes = 0
    if mask is not None:
        q.mask = <const uint8_t*>PyBytes_AS_STRING(<bytes?>mask)
        q.mask_bytes = PyBytes_GET_SIZE(mask)


cdef class Graph:
    """One vector field's graph in memory; see graph.h for what may be called when."""

    cdef CGraph* graph
    cdef readonly int dim
    cdef readonly int M
    cdef readonly int row_bytes
    cdef readonly int block_rows
    cdef readonly int chunk_rows
    cdef object __weakref__

    def __cinit__(self, int dim, str metric, str dtype="f32", int M=16, int ef_construction=200, int block_rows=64, isa=None):
        cdef Options options
        if not 1 <= dim <= 65535:
            raise ValueError(f"dim={dim}: give 1 to 65,535")
        if not 2 <= M <= 256:
            raise ValueError(f"M={M}: give 2 to 256")
        if not 1 <= ef_construction <= 100000:
            raise ValueError(f"ef_construction={ef_construction}: give 1 to 100,000")
        if block_rows < 1 or block_rows & (block_rows - 1) or block_rows > 65536:
            raise ValueError(f"block_rows={block_rows}: give a power of two up to 65,536")
        options.shape.dim = dim
        options.shape.metric = METRICS[metric]
        options.shape.dtype = DTYPES[dtype]
        if (options.shape.metric == HAMMING) != (options.shape.dtype == B1):
            raise ValueError(f"metric {metric}, dtype {dtype}: 'hamming' and 'b1' go together only")
        options.M = M
        options.ef_construction = ef_construction
        options.block_rows = block_rows
        name = b"" if isa is None else isa.encode()
        options.kernels = kernels_for(<const char*>name)
        self.dim = dim
        self.M = M
        self.row_bytes = options.shape.row_bytes()
        self.block_rows = block_rows
        self.chunk_rows = 512
        self.graph = new CGraph(options)

    def __dealloc__(self):
        del self.graph

    @property
    def n_slots(self):
        return self.graph.n_slots()

    @property
    def scale(self):
        cdef Scale s = self.graph.scale()
        return (s.lo, s.step) if s.step > 0 else None

    def attach_block(self, uint32_t block, buffer, Py_ssize_t offset, bytes present=None):
        """Serve a block's vectors from the caller's memory, which stays valid and unchanged.

        `present`: one bit a row, the lowest first; the others are holes, whatever their bytes.
        """
        cdef Py_buffer view
        cdef Py_ssize_t need = <Py_ssize_t>self.block_rows * self.row_bytes
        cdef const uint8_t* bits = NULL
        if present is not None:
            if PyBytes_GET_SIZE(present) != (self.block_rows + 7) // 8:
                raise ValueError(
                    f"block {block}: present has {len(present)} bytes, {(self.block_rows + 7) // 8} needed"
                )
            bits = <const uint8_t*>PyBytes_AS_STRING(present)
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if offset < 0 or view.len - offset < need:
                raise ValueError(f"block {block}: {view.len - offset} bytes, {need} needed")
            with nogil:
                self.graph.attach_block(block, <const uint8_t*>view.buf + offset, <uint32_t>self.block_rows, bits)
        finally:
            PyBuffer_Release(&view)

    def put_vectors(self, const uint32_t[::1] slots not None, vectors, cbool unread=False):
        """Keep private copies of vectors of the stored dtype, and their codes.

        `unread`: no search can be looking at these slots, although they may have had vectors.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(vectors, &view, PyBUF_SIMPLE)
        try:
            if view.len != slots.shape[0] * self.row_bytes:
                raise ValueError(f"{view.len} bytes for {slots.shape[0]} vectors of {self.row_bytes}")
            if slots.shape[0]:
                with nogil:
                    self.graph.put_vectors(&slots[0], <const uint8_t*>view.buf, <uint32_t>slots.shape[0], unread)
        finally:
            PyBuffer_Release(&view)

    def detach_all(self):
        with nogil:
            self.graph.detach_all()

    def encode(self, first, n, threads=1):
        """Make the codes of stored vectors in [first, first + n)."""
        cdef uint32_t a = count_of(first, "first"), b = count_of(n, "n"), t = count_of(threads, "threads")
        with nogil:
            self.graph.encode(a, b, t)

    def vector(self, slot):
        """A stored vector's bytes; KeyError where there is none."""
        cdef uint32_t s = count_of(slot, "slot")
        out = PyBytes_FromStringAndSize(NULL, self.row_bytes)
        if not self.graph.copy_vector(s, <uint8_t*>PyBytes_AS_STRING(out)):
            raise KeyError(slot)
        return out

    def has_vector(self, slot):
        return bool(self.graph.has_vector(count_of(slot, "slot")))

    def private_blocks(self):
        return list(self.graph.private_blocks())

    def apply(self, record):
        """Apply a redo record; ValueError, with nothing applied, when it is malformed."""
        cdef Py_buffer view
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                self.graph.apply(<const uint8_t*>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def n_chunks(self, uint32_t layer):
        return self.graph.n_chunks(layer)

    def chunk(self, uint32_t layer, uint32_t i):
        cdef vector[uint8_t] out = self.graph.chunk(layer, i)
        return PyBytes_FromStringAndSize(<char*>out.data(), out.size())

    def load_chunk(self, uint32_t layer, uint32_t i, buffer):
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            self.graph.load_chunk(layer, i, <const uint8_t*>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def set_state(self, n_slots, float lo, float step):
        cdef Scale s
        cdef uint32_t n = count_of(n_slots, "n_slots")
        s.lo = lo
        s.step = step
        with nogil:
            self.graph.set_state(n, s)

    def search(self, const float[::1] query not None, k, ef, rr, mask=None, n_visible=-1, budget=0, skip=-1):
        """Walk: (slots, float32 distances as bytes, distances computed, hops, exhausted)."""
        cdef Query q
        cdef Found found
        if query.shape[0] != self.dim:
            raise ValueError(f"the query has {query.shape[0]} numbers, not {self.dim}")
        fill_query(&q, k, ef, rr, mask, n_visible, budget, skip)
        q.vector = &query[0]
        with nogil:
            found = self.graph.search(q)
        return found_tuple(found)

    def search_many(self, const float[:, ::1] queries not None, k, ef, rr, mask=None, n_visible=-1, budget=0, threads=0):
        cdef Query q
        cdef vector[Answer] answers
        cdef uint32_t n = <uint32_t>queries.shape[0], t = count_of(threads, "threads")
        if queries.shape[1] != self.dim:
            raise ValueError(f"queries have {queries.shape[1]} numbers, not {self.dim}")
        if not n:
            return []
        fill_query(&q, k, ef, rr, mask, n_visible, budget, -1)
        with nogil:
            answers = self.graph.search_many(q, &queries[0, 0], n, t)
        return [answer_tuple(answers[i]) for i in range(n)]

    def scan(self, const float[::1] query not None, k, slots=None, mask=None, n_visible=-1, exact=True, rr=0, threads=1):
        """Rank all of the slots: (slots, float32 distances as bytes)."""
        cdef ScanQuery q
        cdef Found found
        fill_scan(self, &q, query, k, mask, n_visible, exact, rr, threads)
        cdef const uint32_t[::1] chosen
        cdef uint32_t none = 0
        if slots is not None:
            chosen = slots
            q.n_slots = <uint32_t>chosen.shape[0]
            q.slots = &chosen[0] if q.n_slots else &none
        with nogil:
            found = self.graph.scan(q)
        return found_tuple(found)[:2]

    def distances(self, const float[::1] query not None, const uint32_t[::1] slots not None):
        """Exact distances of slots as float32 bytes; NaN where there is no vector."""
        if query.shape[0] != self.dim:
            raise ValueError(f"the query has {query.shape[0]} numbers, not {self.dim}")
        out = PyBytes_FromStringAndSize(NULL, slots.shape[0] * 4)
        if slots.shape[0]:
            self.graph.distances(&query[0], &slots[0], <uint32_t>slots.shape[0], <float*>PyBytes_AS_STRING(out))
        return out

    def unreachable(self):
        return list(self.graph.unreachable())

    def check(self, bytes condemned=None):
        """What is wrong with the links. `condemned`: the slots that a round is taking out."""
        cdef const uint8_t* mask = NULL
        cdef uint64_t bits = 0
        if condemned is not None:
            mask, bits = <const uint8_t*>PyBytes_AS_STRING(condemned), <uint64_t>PyBytes_GET_SIZE(condemned) * 8
        return [problem.decode() for problem in self.graph.check(mask, bits)]

    def absent(self, const uint32_t[::1] slots not None):
        """For each slot a byte: 1 where it is not in the graph."""
        out = PyBytes_FromStringAndSize(NULL, slots.shape[0])
        cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(out)
        cdef Py_ssize_t i
        with nogil:
            for i in range(slots.shape[0]):
                to[i] = self.graph.absent(slots[i])
        return out

    def codes(self, first, n):
        """The codes of n slots, one after another; zeros where there is none."""
        cdef vector[uint8_t] out = self.graph.codes_of(count_of(first, "first"), count_of(n, "n"))
        return PyBytes_FromStringAndSize(<char*>out.data(), out.size())

    def begin(self, bytes linkable=None):
        """A writer; one at a time. `linkable`: a bit a slot of those that new links may lead to."""
        return Writer(self, linkable)


cdef void fill_scan(Graph graph, ScanQuery* q, const float[::1] query, object k, object mask, object n_visible, object exact, object rr, object threads) except *:
    if query.shape[0] != graph.dim:
        raise ValueError(f"the query has {query.shape[0]} numbers, not {graph.dim}")
    q.vector = &query[0]
    q.k = count_of(k, "k")
    q.rr = count_of(rr, "rr")
    q.threads = count_of(threads, "threads")
    q.exact = exact
    q.n_visible = n_visible
    q.slots = NULL
    q.n_slots = 0
    q.mask = NULL
    q.mask_bytes = 0
    if mask is not None:
        q.mask = <const uint8_t*>PyBytes_AS_STRING(<bytes?>mask)
        q.mask_bytes = PyBytes_GET_SIZE(mask)
