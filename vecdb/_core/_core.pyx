# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, autotestdict=False
"""The door between Python and the C++ core: checks buffers, releases the GIL, holds no algorithm."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

cdef extern from "dispatch.h" namespace "vecdb" nogil:
    cdef struct Kernels:
        const char* name
    vector[string] c_available "vecdb::available_isas"() except +
    const Kernels* kernels_for(const char* name) except +

cdef extern from "pool.h" namespace "vecdb" nogil:
    void set_default_threads(uint32_t n)
    void pool_after_fork()

cdef extern from "graph.h" namespace "vecdb" nogil:
    cdef struct Scale:
        float lo
        float step
    cdef struct Shape:
        uint32_t dim
        uint32_t metric
        uint32_t dtype
    cdef cppclass Found:
        const uint32_t* slots
        const float* distances
        uint32_t n
        uint64_t n_dist
        uint64_t n_hops
        cbool exhausted
    cdef cppclass Query:
        const float* vector
        uint32_t k, ef, rr
        const uint8_t* mask
        uint64_t mask_bytes
        int64_t n_visible
        uint64_t budget
        int64_t skip
    cdef cppclass ScanQuery:
        const float* vector
        uint32_t k
        const uint32_t* slots
        uint32_t n_slots
        const uint8_t* mask
        uint64_t mask_bytes
        int64_t n_visible
        cbool exact
        uint32_t rr, threads
    cdef cppclass Answer:
        vector[uint32_t] slots
        vector[float] distances
        uint64_t n_dist, n_hops
        cbool exhausted
    cdef struct Options "vecdb::Graph::Options":
        Shape shape
        uint32_t M, ef_construction, block_rows
        const Kernels* kernels
    cdef cppclass CGraph "vecdb::Graph":
        CGraph(const Options&) except +
        uint32_t n_slots()
        Scale scale()
        void attach_block(uint32_t, const uint8_t*, uint32_t) except +
        void put_vectors(const uint32_t*, const uint8_t*, uint32_t) except +
        void detach_all() except +
        void encode(uint32_t, uint32_t, uint32_t) except +
        cbool copy_vector "vector"(uint32_t, uint8_t*)
        cbool has_vector(uint32_t)
        vector[uint32_t] private_blocks() except +
        void apply(const uint8_t*, size_t) except +
        uint32_t n_chunks(uint32_t)
        vector[uint8_t] chunk(uint32_t, uint32_t) except +
        void load_chunk(uint32_t, uint32_t, const uint8_t*, size_t) except +
        void set_state(uint32_t, Scale) except +
        Found search(const Query&) except +
        vector[Answer] search_many(const Query&, const float*, uint32_t, uint32_t) except +
        Found scan(const ScanQuery&) except +
        void distances(const float*, const uint32_t*, uint32_t, float*) except +
        vector[uint32_t] unreachable() except +
        vector[string] check() except +

cdef extern from "writer.h" namespace "vecdb" nogil:
    cdef cppclass CodeSet:
        Scale scale
    cdef cppclass CWriter "vecdb::Writer":
        CWriter(CGraph&) except +
        void insert(uint32_t, const uint8_t*, uint32_t, uint32_t) except +
        void insert_at(const uint32_t*, const uint8_t*, uint32_t, uint32_t) except +
        uint32_t n_slots()
        Found search(const Query&) except +
        vector[Answer] search_many(const Query&, const float*, uint32_t, uint32_t) except +
        Found scan(const ScanQuery&) except +
        vector[uint8_t] changes() except +
        vector[uint8_t] chunk(uint32_t, uint32_t) except +
        void rollback() except +
        shared_ptr[CodeSet] codes()
    uint32_t c_crc32c "vecdb::crc32c"(uint32_t, const void*, size_t)

METRICS = {"l2": 0, "cosine": 1, "dot": 2}
DTYPES = {"f32": 0, "f16": 1}


# --- processors, threads -------------------------------------------------------------------------


def isa() -> str:
    """The instruction set in use; VECDB_ISA forces one."""
    return kernels_for(NULL).name.decode()


def available_isas() -> list:
    """What this processor can run, best first."""
    return [name.decode() for name in c_available()]


def set_threads(int n) -> None:
    """Threads of the pool; 0: one per processor."""
    set_default_threads(<uint32_t>max(0, n))


def after_fork() -> None:
    """Forget the parent's threads."""
    pool_after_fork()


# --- frames --------------------------------------------------------------------------------------

cdef enum:
    FRAME = 12


def crc32c(data, value=0) -> int:
    """CRC32C of a buffer, continuing `value`."""
    cdef Py_buffer view
    cdef uint32_t start = <uint32_t>(value & 0xFFFFFFFF)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return c_crc32c(start, view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)


def seal(int kind, bytes key, payload) -> bytes:
    """A framed record: kind, version, length, checksum over key and payload, payload."""
    cdef Py_buffer view
    cdef uint32_t n, crc
    cdef uint8_t* to
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if view.len > 0x7FFFFFF0:
            raise ValueError("a record is at most 2 GiB")
        n = <uint32_t>view.len
        out = PyBytes_FromStringAndSize(NULL, FRAME + view.len)
        to = <uint8_t*>PyBytes_AS_STRING(out)
        crc = c_crc32c(0, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        crc = c_crc32c(crc, view.buf, n)
        to[0] = <uint8_t>kind
        to[1] = 1
        to[2] = to[3] = 0
        put_u32(to + 4, n)
        put_u32(to + 8, crc)
        memcpy(to + FRAME, view.buf, n)
        return out
    finally:
        PyBuffer_Release(&view)


cdef inline void put_u32(uint8_t* to, uint32_t v) noexcept:
    to[0] = v & 255
    to[1] = (v >> 8) & 255
    to[2] = (v >> 16) & 255
    to[3] = v >> 24


cdef inline uint32_t get_u32(const uint8_t* p) noexcept:
    return p[0] | (<uint32_t>p[1] << 8) | (<uint32_t>p[2] << 16) | (<uint32_t>p[3] << 24)


cdef str frame_problem(int kind, const uint8_t* key, Py_ssize_t key_size, const uint8_t* record, Py_ssize_t size):
    cdef uint32_t crc
    if size < FRAME:
        return f"{size} bytes are too few for a record"
    if record[0] != kind:
        return f"kind {record[0]:#04x} where {kind:#04x} belongs"
    if record[1] != 1 or record[2] or record[3]:
        return f"version {record[1]} of the record is unknown"
    if get_u32(record + 4) != <uint64_t>(size - FRAME):
        return f"{size - FRAME} bytes where its length says {get_u32(record + 4)}"
    crc = c_crc32c(0, key, key_size)
    crc = c_crc32c(crc, record + FRAME, size - FRAME)
    if crc != get_u32(record + 8):
        return "its checksum is wrong"
    return None


def unseal(int kind, bytes key, record):
    """The payload of a framed record, a view of it; ValueError says what is wrong with it."""
    cdef Py_buffer view
    PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
    try:
        problem = frame_problem(
            kind, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
            <const uint8_t*>view.buf, view.len,
        )
    finally:
        PyBuffer_Release(&view)
    if problem is not None:
        raise ValueError(problem)
    return memoryview(record)[FRAME:]


def read_rows(get, uint32_t cid, list rids) -> tuple:
    """(ids, payloads) of rows, through a transaction's `get`; ValueError carries (key, problem).

    The layouts are those of storage/keys.py and storage/rows.py; this loop is here because every
    search runs it.
    """
    cdef Py_buffer view
    cdef uint8_t key[9]
    cdef uint32_t rid
    cdef const uint8_t* p
    cdef list ids = [], payloads = []
    key[0] = 0x30
    key[1], key[2], key[3], key[4] = cid >> 24, (cid >> 16) & 255, (cid >> 8) & 255, cid & 255
    for item in rids:
        rid = item
        key[5], key[6], key[7], key[8] = rid >> 24, (rid >> 16) & 255, (rid >> 8) & 255, rid & 255
        name = PyBytes_FromStringAndSize(<char*>key, 9)
        record = get(name)
        if record is None:
            raise ValueError(name, "the row's record is missing")
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            p = <const uint8_t*>view.buf
            problem = frame_problem(0x30, key, 9, p, view.len)
            if problem is None and not row_fits(p + FRAME, view.len - FRAME):
                problem = "its parts do not fit"
            if problem is not None:
                raise ValueError(name, problem)
            ids.append(id_from(p + FRAME))
            payloads.append(PyBytes_FromStringAndSize(<char*>p + FRAME, view.len - FRAME))
        finally:
            PyBuffer_Release(&view)
    return ids, payloads


cdef inline bint row_fits(const uint8_t* p, Py_ssize_t n) noexcept:
    cdef uint64_t need
    if n < 20:
        return False
    need = 20 + (p[10] | (<uint32_t>p[11] << 8))
    need += get_u32(p + 12)
    need += get_u32(p + 16)
    return need <= <uint64_t>n and (p[10] | p[11]) != 0


cdef object id_from(const uint8_t* p):
    cdef Py_ssize_t size = p[10] | (<uint32_t>p[11] << 8)
    cdef uint64_t number = 0
    cdef int i
    if p[20] == 2:
        return PyUnicode_DecodeUTF8(<const char*>p + 21, size - 1, NULL)
    for i in range(1, size):
        number = (number << 8) | p[20 + i]
    return <int64_t>(number ^ (<uint64_t>1 << 63))


# --- bit sets ------------------------------------------------------------------------------------


cdef bytes blank_mask(uint64_t n_bits):
    cdef Py_ssize_t size = <Py_ssize_t>((n_bits + 63) // 64 * 8)
    out = PyBytes_FromStringAndSize(NULL, size)
    memset(PyBytes_AS_STRING(out), 0, size)
    return out


cdef void set_bits(uint8_t* mask, uint64_t n_bits, const uint32_t[::1] slots, bint on) except *:
    cdef Py_ssize_t i
    cdef uint32_t s
    for i in range(slots.shape[0]):
        s = slots[i]
        if s >= n_bits:
            raise ValueError(f"slot {s} is not below {n_bits}")
        if on:
            mask[s >> 3] |= <uint8_t>(1 << (s & 7))
        else:
            mask[s >> 3] &= <uint8_t>~(1 << (s & 7))


def mask_of(const uint32_t[::1] slots, uint64_t n_bits) -> bytes:
    """The bit set of slots below n_bits, in whole words of 64 bits."""
    out = blank_mask(n_bits)
    set_bits(<uint8_t*>PyBytes_AS_STRING(out), n_bits, slots, True)
    return out


def mask_update(bytes mask, uint64_t n_bits, const uint32_t[::1] set_slots, const uint32_t[::1] clear_slots) -> bytes:
    """A copy of a mask for n_bits, with slots set, then others cleared."""
    out = blank_mask(n_bits)
    cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(out)
    memcpy(to, PyBytes_AS_STRING(mask), min(PyBytes_GET_SIZE(mask), PyBytes_GET_SIZE(out)))
    set_bits(to, n_bits, set_slots, True)
    set_bits(to, n_bits, clear_slots, False)
    return out


def mask_count(bytes mask) -> int:
    """How many bits are set."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(mask)
    cdef uint64_t word, total = 0
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(mask) // 8):
        memcpy(&word, p + 8 * i, 8)
        total += popcount(word)
    return total


cdef inline uint64_t popcount(uint64_t x) noexcept:
    x = x - ((x >> 1) & 0x5555555555555555u)
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u)
    return (((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u) >> 56


def mask_to_slots(bytes mask, uint64_t n_bits) -> bytes:
    """The slots below n_bits whose bit is set, ascending, as uint32 bytes."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(mask)
    cdef uint64_t top = min(n_bits, <uint64_t>PyBytes_GET_SIZE(mask) * 8), s
    cdef vector[uint32_t] found
    for s in range(top):
        if p[s >> 3] >> (s & 7) & 1:
            found.push_back(<uint32_t>s)
    return PyBytes_FromStringAndSize(<char*>found.data(), found.size() * 4)


# --- the graph -----------------------------------------------------------------------------------


cdef tuple found_tuple(const Found& f):
    cdef list slots = [0] * f.n
    cdef uint32_t i
    for i in range(f.n):
        slots[i] = f.slots[i]
    distances = PyBytes_FromStringAndSize(<char*>f.distances if f.n else NULL, <Py_ssize_t>f.n * 4)
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
    cdef readonly int row_bytes
    cdef readonly int block_rows
    cdef readonly int chunk_rows
    cdef dict kept
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
        options.M = M
        options.ef_construction = ef_construction
        options.block_rows = block_rows
        name = b"" if isa is None else isa.encode()
        options.kernels = kernels_for(<const char*>name)
        self.dim = dim
        self.row_bytes = dim * (4 if dtype == "f32" else 2)
        self.block_rows = block_rows
        self.chunk_rows = 512
        self.kept = {}
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

    def attach_block(self, uint32_t block, buffer, Py_ssize_t offset):
        """Serve a block's vectors from the caller's memory, which stays valid and unchanged."""
        cdef Py_buffer view
        cdef Py_ssize_t need = <Py_ssize_t>self.block_rows * self.row_bytes
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if offset < 0 or view.len - offset < need:
                raise ValueError(f"block {block}: {view.len - offset} bytes, {need} needed")
            with nogil:
                self.graph.attach_block(block, <const uint8_t*>view.buf + offset, <uint32_t>self.block_rows)
        finally:
            PyBuffer_Release(&view)

    def put_vectors(self, const uint32_t[::1] slots, vectors):
        """Keep private copies of vectors of the stored dtype, and their codes."""
        cdef Py_buffer view
        PyObject_GetBuffer(vectors, &view, PyBUF_SIMPLE)
        try:
            if view.len != slots.shape[0] * self.row_bytes:
                raise ValueError(f"{view.len} bytes for {slots.shape[0]} vectors of {self.row_bytes}")
            if slots.shape[0]:
                with nogil:
                    self.graph.put_vectors(&slots[0], <const uint8_t*>view.buf, <uint32_t>slots.shape[0])
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

    def check(self):
        return [problem.decode() for problem in self.graph.check()]

    def begin(self):
        """A writer; one at a time."""
        return Writer(self)


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


cdef class Writer:
    """One transaction on a graph: insertion, its own view, and its redo record."""

    cdef CWriter* writer
    cdef readonly Graph graph

    def __cinit__(self, Graph graph not None):
        self.graph = graph
        self.writer = new CWriter(graph.graph[0])

    def __dealloc__(self):
        del self.writer

    @property
    def n_slots(self):
        return self.writer.n_slots()

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

    def insert_at(self, const uint32_t[::1] slots, vectors, threads=1):
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
