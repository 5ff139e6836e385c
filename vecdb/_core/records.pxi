# records.pxi: record frames: sealed when written, verified when read; rows by their rids.

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


def seal(int kind, bytes key not None, payload) -> bytes:
    """A framed record: kind, version, length, checksum over key and payload, payload."""
    cdef Py_buffer view
    cdef uint32_t n, crc
    cdef uint8_t* to
    if not 0 <= kind <= 255:
        raise ValueError(f"kind={kind}: give 0 to 255")
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


def unseal(int kind, bytes key not None, record):
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


def read_rows(get, uint32_t cid, list rids not None) -> tuple:
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
            id = id_from(p + FRAME) if problem is None else None
            if problem is None and id is None:
                problem = "it carries no id"
            if problem is not None:
                raise ValueError(name, problem)
            ids.append(id)
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
    return need <= <uint64_t>n


cdef object id_from(const uint8_t* p):
    """The id of a row that fits; None when its id key spells none."""
    cdef Py_ssize_t size = p[10] | (<uint32_t>p[11] << 8)
    cdef uint64_t number = 0
    cdef int i
    if size > 1 and p[20] == 2:
        try:
            return PyUnicode_DecodeUTF8(<const char*>p + 21, size - 1, NULL)
        except UnicodeDecodeError:
            return None
    if size != 9 or p[20] != 1:
        return None
    for i in range(1, size):
        number = (number << 8) | p[20 + i]
    return <int64_t>(number ^ (<uint64_t>1 << 63))
