# lookup.pxi: rows by their ids, read from the map of one commit.
#
# 1. Like a search made ready (prepared.pxi): what does not depend on the id is settled when it is
#    made. A call needs no transaction: it sees that its commit is still the file's last, copies
#    what it needs, and sees that it is still so (pages.h, 4). Until then nothing is made that could
#    let another thread run, which might close the file.
# 2. A vector is copied from where the graph has it: its block was verified when it was attached,
#    and to verify it once more for each row would cost a checksum over 128 KiB.
# 3. Whatever is not the ordinary case (another commit, a closed environment, an odd id, a damaged
#    record) is answered None: the caller takes the long way, whose errors have names.
# 4. What is read between the two looks may be overwritten by another process meanwhile: sizes are
#    copied before they are checked, and never read from the map a second time.

from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cdef enum:
    ROW_HEAD = 20       # storage/rows.py has the layout
    MAX_ID_BYTES = 480
    HAS_TEXT = 1
    HAS_VECTOR = 2
    HAS_INLINE = 4
    IS_DEAD = 8
    HAS_SEVERAL = 16


cdef class Lookup:
    """The rows of one collection at one commit.

    `make(id, metadata, text, vector, decode, cid)` makes one.
    """

    cdef Graph graph
    cdef Tree tree
    cdef object __weakref__
    cdef readonly bytes record
    cdef object env, begin, make, decode, dtype
    cdef uint32_t cid
    cdef readonly int held_bytes

    def __init__(
        self, Graph graph not None, Tree tree not None, env, begin,
        bytes record not None, uint32_t cid, make, decode, dtype,
    ):
        """`dtype` goes with the bytes of a vector: make's `vector` is (bytes, dtype) or None."""
        self.graph, self.tree = graph, tree
        self.env, self.begin, self.record = env, begin, record
        self.cid, self.make, self.decode, self.dtype = cid, make, decode, dtype
        self.held_bytes = 0

    def get(self, id):
        """The row of an id with its vector; None: take the long way."""
        cdef uint8_t key[6 + MAX_ID_BYTES]
        cdef uint32_t size = self.key_of(id, key)
        if not size:
            return None
        if self.env.begin is not self.begin or not self.is_last():
            return None
        return self.row(key, size, True)

    def by_key(self, bytes key not None):
        """The row of an id's key, under a transaction of this commit; None: take the long way."""
        if self.tree is None:
            raise ValueError("this lookup was not made")
        return self.row(<const uint8_t*>PyBytes_AS_STRING(key), <uint32_t>PyBytes_GET_SIZE(key), False)

    def rows(self, list rids not None, bint with_vectors):
        """Rows by their rids, under a transaction of this commit; None: take the long way."""
        cdef uint32_t rid
        cdef list found = []
        if self.tree is None:
            raise ValueError("this lookup was not made")
        for item in rids:
            rid = item
            row = self.row_at(rid, with_vectors, False)
            if row is None:
                return None
            found.append(row)
        return found

    def ids(self, const uint32_t[::1] rids not None):
        """Ids of rows, under a transaction of this commit; None: take the long way."""
        cdef vector[uint8_t] keys
        cdef vector[Record] found
        cdef uint32_t i, n = <uint32_t>rids.shape[0]
        cdef list ids = []
        if self.tree is None:
            raise ValueError("this lookup was not made")
        keys.resize(<size_t>9 * n)
        found.resize(n)
        for i in range(n):
            row_key(keys.data() + <size_t>9 * i, self.cid, rids[i])
        self.tree.tree.find_many(keys.data(), 9, n, found.data())
        for i in range(n):
            if found[i].p == NULL or not frame_sound(0x30, keys.data() + <size_t>9 * i, 9, found[i].p, found[i].n):
                return None
            if not row_fits(found[i].p + FRAME, <Py_ssize_t>found[i].n - FRAME):
                return None
            id = id_from(found[i].p + FRAME)
            if id is None:
                return None
            ids.append(id)
        return ids

    cdef bint is_last(self) noexcept:
        """Whether this commit is still the last one of the file."""
        return self.tree.tree.is_newest(
            <const uint8_t*>PyBytes_AS_STRING(self.record), PyBytes_GET_SIZE(self.record)
        )

    cdef uint32_t key_of(self, id, uint8_t* key) except? 0:
        """The key of an id in the id map, and its size; 0: not an ordinary id."""
        cdef Py_ssize_t size = 0
        cdef const char* text
        cdef long long number
        cdef uint64_t bits
        cdef int overflow = 0, i
        key[0] = 0x20
        key[1], key[2] = self.cid >> 24, (self.cid >> 16) & 255
        key[3], key[4] = (self.cid >> 8) & 255, self.cid & 255
        if type(id) is str:
            try:
                text = PyUnicode_AsUTF8AndSize(id, &size)
            except UnicodeEncodeError:
                return 0
            if not 1 <= size <= MAX_ID_BYTES:
                return 0
            key[5] = 2
            memcpy(key + 6, text, size)
            return <uint32_t>(6 + size)
        if type(id) is not int:
            return 0
        number = PyLong_AsLongLongAndOverflow(id, &overflow)
        if overflow:
            return 0
        key[5] = 1
        bits = <uint64_t>number ^ (<uint64_t>1 << 63)
        for i in range(8):
            key[6 + i] = (bits >> (56 - 8 * i)) & 255
        return 14

    cdef object row(self, const uint8_t* key, uint32_t size, bint alone):
        cdef Record entry = self.tree.tree.find(key, size)
        if entry.p == NULL:
            # not there, or not to be found on a damaged page: the engine is asked which
            return None
        if not frame_sound(0x20, key, size, entry.p, entry.n) or entry.n != FRAME + 4:
            return None
        return self.row_at(get_u32(entry.p + FRAME), True, alone)

    cdef object row_at(self, uint32_t rid, bint with_vector, bint alone):
        """`alone`: there is no transaction, so that the commit may have gone meanwhile."""
        cdef uint8_t key[9]
        cdef Record r
        cdef uint8_t p[ROW_HEAD + 1 + MAX_ID_BYTES]
        cdef const char* text
        cdef Py_ssize_t size, id_size, text_size, metadata_size, left
        row_key(key, self.cid, rid)
        r = self.tree.tree.find(key, 9)
        if r.p == NULL or not frame_sound(0x30, key, 9, r.p, r.n):
            return None
        size = <Py_ssize_t>r.n - FRAME
        memcpy(p, r.p + FRAME, min(size, <Py_ssize_t>sizeof(p)))  # 4: what sizes are taken from
        if not row_fits(p, size) or p[8] & (IS_DEAD | HAS_SEVERAL):
            return None
        id_size = p[10] | (<uint32_t>p[11] << 8)
        if id_size > 1 + MAX_ID_BYTES:
            return None
        id = id_from(p)
        if id is None:
            return None
        text_size, metadata_size = get_u32(p + 12), get_u32(p + 16)
        left = size - ROW_HEAD - id_size - text_size - metadata_size
        body = None
        text = <const char*>r.p + FRAME + ROW_HEAD + id_size
        if p[8] & HAS_TEXT:
            try:
                body = PyUnicode_DecodeUTF8(text, text_size, NULL)
            except UnicodeDecodeError:
                return None
        metadata = PyBytes_FromStringAndSize(text + text_size, metadata_size)
        stored = vector = None
        if with_vector and p[8] & HAS_VECTOR:
            if p[8] & HAS_INLINE:
                if left != self.graph.row_bytes:
                    return None
                stored = PyBytes_FromStringAndSize(text + text_size + metadata_size, left)
            else:
                stored = PyBytes_FromStringAndSize(NULL, self.graph.row_bytes)
                if not self.graph.graph.copy_vector(rid, <uint8_t*>PyBytes_AS_STRING(stored)):
                    return None
        if alone and not self.is_last():
            return None
        if stored is not None:
            vector = (stored, self.dtype)
        return self.make(id, metadata, body, vector, self.decode, self.cid)


def read_ids(entries, bytes prefix not None, chosen, Py_ssize_t count) -> list:
    """The first `count` rids of entries of the id map, (key, record) each, that are in `chosen`.

    Ends at a key with another prefix; chosen None: all. ValueError carries (key, problem).
    """
    cdef Py_buffer key, record
    cdef list found = []
    cdef Py_ssize_t size = PyBytes_GET_SIZE(prefix)
    cdef bint ours
    for name, value in entries:
        PyObject_GetBuffer(name, &key, PyBUF_SIMPLE)
        try:
            ours = key.len > size and not memcmp(key.buf, PyBytes_AS_STRING(prefix), size)
            if not ours:
                break
            PyObject_GetBuffer(value, &record, PyBUF_SIMPLE)
            try:
                problem = frame_problem(
                    0x20, <const uint8_t*>key.buf, key.len, <const uint8_t*>record.buf, record.len
                )
                if problem is None and record.len != FRAME + 4:
                    problem = "an id entry must hold four bytes"
                if problem is not None:
                    raise ValueError(bytes(name), problem)
                rid = get_u32(<const uint8_t*>record.buf + FRAME)
            finally:
                PyBuffer_Release(&record)
        finally:
            PyBuffer_Release(&key)
        if chosen is None or rid in chosen:
            found.append(rid)
            if len(found) >= count:
                break
    return found


cdef inline void row_key(uint8_t* key, uint32_t cid, uint32_t rid) noexcept:
    key[0] = 0x30
    key[1], key[2], key[3], key[4] = cid >> 24, (cid >> 16) & 255, (cid >> 8) & 255, cid & 255
    key[5], key[6], key[7], key[8] = rid >> 24, (rid >> 16) & 255, (rid >> 8) & 255, rid & 255
