# prepared.pxi: a search made ready for one commit, so that a call costs little more than its walk.
#
# 1. Everything that does not depend on the query is settled when it is made: graph, width, mask,
#    the tree of that commit. A call begins a read transaction, sees by the meta record's bytes
#    whether it is that commit, walks, reads the rows straight from the map, and ends it.
# 2. Whatever is not the ordinary case (another commit, a closed or renewed environment, an odd
#    query, a walk that comes up short, a damaged record) is answered None: the caller takes the
#    long way, which knows all of it and names what is wrong.

cdef extern from "pages.h" namespace "vecdb" nogil:
    cdef cppclass Record:
        const uint8_t* p
        uint64_t n
    cdef cppclass CTree "vecdb::Tree":
        CTree()
        cbool locate(const uint8_t*, uint32_t, uint64_t, const uint8_t*)
        cbool is_newest(const uint8_t*, uint64_t)
        Record find(const uint8_t*, uint32_t)
        void find_many(const uint8_t*, uint32_t, uint32_t, Record*)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)

cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(1, &t)  # CLOCK_MONOTONIC
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef class Tree:
    """The records of one commit, read from the map; valid under a transaction of that commit."""

    cdef CTree tree

    def __init__(self, uint64_t base, page_bytes, file_bytes, last):
        """`last`: the engine's own buffer of the last record; ValueError when it is not found."""
        cdef Py_buffer view
        cdef uint32_t page = count_of(page_bytes, "page_bytes")
        cdef uint64_t size = file_bytes
        cdef cbool found = False
        if page < 256 or page & (page - 1):
            raise ValueError(f"page_bytes={page_bytes}: give a power of two")
        PyObject_GetBuffer(last, &view, PyBUF_SIMPLE)
        try:
            found = self.tree.locate(<const uint8_t*>base, page, size, <const uint8_t*>view.buf)
        finally:
            PyBuffer_Release(&view)
        if not found:
            raise ValueError("the tree of this record is not in the map")

    def get(self, bytes key not None):
        """A copy of a record, None where there is none."""
        cdef Record r = self.tree.find(<const uint8_t*>PyBytes_AS_STRING(key), <uint32_t>PyBytes_GET_SIZE(key))
        if r.p == NULL:
            return None
        return PyBytes_FromStringAndSize(<const char*>r.p, <Py_ssize_t>r.n)

    def rows(self, uint32_t cid, const uint32_t[::1] rids not None):
        """(ids, payloads) of rows; None when any of them is not as it should be."""
        if not rids.shape[0]:
            return [], []
        return rows_from_tree(&self.tree, cid, &rids[0], <uint32_t>rids.shape[0])


cdef tuple rows_from_tree(CTree* tree, uint32_t cid, const uint32_t* rids, uint32_t n):
    """(ids, payloads) of rows; None when any of them is not as it should be."""
    cdef vector[uint8_t] keys
    cdef vector[Record] found
    cdef uint8_t* key
    cdef uint32_t i, rid
    cdef const uint8_t* p
    keys.resize(<size_t>9 * n)
    found.resize(n)
    for i in range(n):
        key = keys.data() + <size_t>9 * i
        rid = rids[i]
        key[0] = 0x30
        key[1], key[2], key[3], key[4] = cid >> 24, (cid >> 16) & 255, (cid >> 8) & 255, cid & 255
        key[5], key[6], key[7], key[8] = rid >> 24, (rid >> 16) & 255, (rid >> 8) & 255, rid & 255
    tree.find_many(keys.data(), 9, n, found.data())
    ids, payloads = [], []
    for i in range(n):
        p = found[i].p
        if p == NULL or not frame_sound(0x30, keys.data() + <size_t>9 * i, 9, p, found[i].n):
            return None
        if not row_fits(p + FRAME, <Py_ssize_t>found[i].n - FRAME):
            return None
        id = id_from(p + FRAME)
        if id is None:
            return None
        ids.append(id)
        payloads.append(PyBytes_FromStringAndSize(<const char*>p + FRAME, <Py_ssize_t>found[i].n - FRAME))
    return ids, payloads


cdef inline bint frame_sound(int kind, const uint8_t* key, Py_ssize_t key_size, const uint8_t* record, uint64_t size) noexcept:
    cdef uint32_t crc
    if size < FRAME or record[0] != kind or record[1] != 1 or record[2] or record[3]:
        return False
    if get_u32(record + 4) != size - FRAME:
        return False
    crc = c_crc32c(0, key, key_size)
    return c_crc32c(crc, record + FRAME, size - FRAME) == get_u32(record + 8)


cdef class Prepared:
    """One kind of search at one commit; `answer` runs it for a query."""

    cdef Graph graph
    cdef Tree tree
    cdef bytes record, meta_key, mask
    cdef object env, begin, hits, source, slots
    cdef Query query
    cdef ScanQuery scan
    cdef uint32_t cid, least, offset
    cdef float radius
    cdef bint scans, no_zero, bits

    def __init__(
        self, Graph graph not None, Tree tree not None, env, begin, bytes meta_key not None,
        bytes record not None, uint32_t cid, hits, source, k, least, ef=0, rr=0, mask=None,
        n_visible=-1, budget=0, scans=False, slots=None, exact=True, no_zero=False,
        bits=False, offset=0, float radius=float("inf"),
    ):
        """`hits(ids, distances, payloads, figures, source)` makes the answer.

        Of the k nearest, those within `radius` (a float32, inclusive) less the first `offset`.
        `least` is asked of what was found before that.
        """
        cdef const uint32_t[::1] chosen
        self.graph, self.tree = graph, tree
        self.env, self.begin, self.meta_key, self.record = env, begin, meta_key, record
        self.cid, self.hits, self.source = cid, hits, source
        self.least = count_of(least, "least")
        self.offset = count_of(offset, "offset")
        if radius != radius:
            raise ValueError("radius=nan: give a number")
        self.radius = radius
        self.scans = scans
        self.no_zero = no_zero
        self.bits = bits
        self.mask = mask  # kept alive: the query points into it
        fill_query(&self.query, k, ef, rr, mask, n_visible, budget, -1)
        self.scan.k, self.scan.rr, self.scan.threads = self.query.k, self.query.rr, 1
        self.scan.mask, self.scan.mask_bytes = self.query.mask, self.query.mask_bytes
        self.scan.n_visible, self.scan.exact = self.query.n_visible, exact
        self.scan.slots = NULL
        self.scan.n_slots = 0
        if slots is not None:
            self.slots = chosen = slots
            if not chosen.shape[0]:
                raise ValueError("slots: give at least one")
            self.scan.slots = &chosen[0]
            self.scan.n_slots = <uint32_t>chosen.shape[0]

    @property
    def held_bytes(self):
        """Bytes of the mask and slots that it keeps alive."""
        cdef Py_ssize_t held = self.scan.n_slots * 4
        if self.mask is not None:
            held += PyBytes_GET_SIZE(self.mask)
        return held

    def answer(self, query):
        """The hits of a float32 vector (d,), or None: take the long way."""
        cdef Py_buffer view
        cdef Found found
        cdef Query walk
        cdef ScanQuery scan
        cdef uint64_t computed
        cdef uint32_t skipped, n
        cdef int64_t start = now_ns(), searched, searching
        if PyObject_CheckBuffer(query) == 0:
            return None
        begin = self.env.begin
        if begin is not self.begin:
            return None
        try:
            PyObject_GetBuffer(query, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (BufferError, ValueError):
            return None
        try:
            if view.ndim != 1 or view.itemsize != 4 or view.shape[0] != self.graph.dim:
                return None
            if view.format == NULL or view.format[0] != c'f' or view.format[1] != 0:
                return None
            if not usable(<const float*>view.buf, view.shape[0], self.no_zero):
                return None
            if self.bits and not only_bits(<const float*>view.buf, view.shape[0]):
                return None
            try:
                txn = begin(None, None, False, True)
            except Exception:
                return None
            try:
                if self.env.begin is not begin or not self.is_commit(txn):
                    return None
                searching = now_ns()
                if self.scans:
                    scan = self.scan
                    scan.vector = <const float*>view.buf
                    with nogil:
                        found = self.graph.graph.scan(scan)
                else:
                    walk = self.query
                    walk.vector = <const float*>view.buf
                    with nogil:
                        found = self.graph.graph.search(walk)
                searched = now_ns()
                if found.exhausted or found.n < self.least:
                    return None
                # `found` is borrowed until this thread's next search: nothing that could start
                # one (a collection of garbage) comes before it has been read
                n = found.n
                while n and found.distances[n - 1] > self.radius:
                    n -= 1
                skipped = min(self.offset, n)
                n -= skipped
                distances = PyBytes_FromStringAndSize(<char*>(found.distances + skipped) if n else NULL, <Py_ssize_t>n * 4)
                computed = found.n_dist
                rows = rows_from_tree(&self.tree.tree, self.cid, found.slots + skipped, n)
                if rows is None:
                    return None
            finally:
                txn.abort()
        finally:
            PyBuffer_Release(&view)
        figures = (computed, searched - searching, now_ns() - start)
        return self.hits(rows[0], distances, rows[1], figures, self.source)

    cdef bint is_commit(self, txn) except -1:
        cdef Py_buffer view
        cdef bint same
        try:
            record = txn.get(self.meta_key)
        except Exception:  # closed meanwhile
            return False
        if record is None:
            return False
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        same = view.len == PyBytes_GET_SIZE(self.record) and not memcmp(
            view.buf, PyBytes_AS_STRING(self.record), view.len
        )
        PyBuffer_Release(&view)
        return same


cdef inline bint only_bits(const float* x, Py_ssize_t n) noexcept:
    """Is every number 0 or 1?"""
    cdef Py_ssize_t i
    for i in range(n):
        if x[i] != 0 and x[i] != 1:
            return False
    return True


cdef inline bint usable(const float* x, Py_ssize_t n, bint no_zero) noexcept:
    """Is every number finite, and the square of the length too (and not zero)?"""
    cdef float sums[16]
    cdef float total = 0
    cdef Py_ssize_t i, j
    for j in range(16):
        sums[j] = 0
    for i in range(0, n - 15, 16):
        for j in range(16):
            sums[j] += x[i + j] * x[i + j]
    for i in range(n - n % 16, n):
        total += x[i] * x[i]
    for j in range(16):
        total += sums[j]
    return total - total == 0 and not (no_zero and total == 0)
