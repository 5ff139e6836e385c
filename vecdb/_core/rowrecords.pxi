# rowrecords.pxi: records of many new rows at once; layouts are storage/keys.py's and storage/rows.py's.

cdef inline void put_head(uint8_t* to, int kind, const uint8_t* key, Py_ssize_t key_size, Py_ssize_t n) noexcept:
    """The frame of a record whose payload of n bytes follows it already."""
    cdef uint32_t crc = c_crc32c(0, key, key_size)
    crc = c_crc32c(crc, to + FRAME, n)
    to[0] = <uint8_t>kind
    to[1] = 1
    to[2] = to[3] = 0
    put_u32(to + 4, <uint32_t>n)
    put_u32(to + 8, crc)


def seal_parts(int kind, bytes key not None, parts) -> bytes:
    """A framed record whose payload is the parts one after another: `seal` without joining them."""
    cdef Py_buffer view
    cdef Py_ssize_t n = 0, at = FRAME
    cdef uint8_t* to
    cdef list views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
    if not 0 <= kind <= 255:
        raise ValueError(f"kind={kind}: give 0 to 255")
    for part in views:
        n += part.nbytes
    if n > 0x7FFFFFF0:
        raise ValueError("a record is at most 2 GiB")
    record = PyBytes_FromStringAndSize(NULL, FRAME + n)
    to = <uint8_t*>PyBytes_AS_STRING(record)
    for part in views:
        PyObject_GetBuffer(part, &view, PyBUF_SIMPLE)
        memcpy(to + at, view.buf, view.len)
        at += view.len
        PyBuffer_Release(&view)
    put_head(to, kind, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), n)
    return record


def id_records(list keys not None, const int64_t[::1] rids not None) -> list:
    """[(key, record), ...] that lead ids to rids."""
    cdef Py_ssize_t i
    cdef list out = []
    cdef uint8_t* to
    if len(keys) != rids.shape[0]:
        raise ValueError(f"{len(keys)} keys for {rids.shape[0]} rids")
    for i in range(rids.shape[0]):
        key = <bytes?>keys[i]
        record = PyBytes_FromStringAndSize(NULL, FRAME + 4)
        to = <uint8_t*>PyBytes_AS_STRING(record)
        put_u32(to + FRAME, <uint32_t>rids[i])
        put_head(to, 0x20, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), 4)
        out.append((key, record))
    return out


def row_records(uint32_t cid, uint64_t commit, const int64_t[::1] rids not None, list keys not None, list texts not None, list metadata not None, const uint8_t[::1] has not None, list inline not None) -> list:
    """[(key, record), ...] of rows with at most the vector of field 0.

    `keys`: those of the id map; `texts`: bytes or None; `has`: 1 where a row has the vector; `inline`:
    its bytes where it travels in the record, else None.
    """
    cdef Py_ssize_t i, n = rids.shape[0], id_size, text_size, metadata_size, vector_size, size
    cdef uint8_t name[9]
    cdef uint8_t* to
    cdef uint32_t rid
    cdef uint8_t flags
    cdef int j
    cdef list out = []
    if not len(keys) == len(texts) == len(metadata) == has.shape[0] == len(inline) == n:
        raise ValueError("the lists have different lengths")
    name[0] = 0x30
    name[1], name[2], name[3], name[4] = cid >> 24, (cid >> 16) & 255, (cid >> 8) & 255, cid & 255
    for i in range(n):
        key, text, packed, vector = <bytes?>keys[i], texts[i], <bytes?>metadata[i], inline[i]
        id_size = PyBytes_GET_SIZE(key) - 5
        if not 0 < id_size < 0x10000:
            raise ValueError(f"key {i} is no key of the id map")
        text_size = 0 if text is None else PyBytes_GET_SIZE(<bytes?>text)
        metadata_size = PyBytes_GET_SIZE(packed)
        vector_size = 0 if vector is None else PyBytes_GET_SIZE(<bytes?>vector)
        size = 20 + id_size + text_size + metadata_size + vector_size
        if size > 0x7FFFFFF0 - FRAME:
            raise ValueError("a record is at most 2 GiB")
        record = PyBytes_FromStringAndSize(NULL, FRAME + size)
        to = <uint8_t*>PyBytes_AS_STRING(record) + FRAME
        for j in range(8):
            to[j] = (commit >> (8 * j)) & 255
        flags = 0
        if text is not None:
            flags |= 1
        if has[i]:
            flags |= 2
        if vector is not None:
            flags |= 4
        to[8], to[9] = flags, 0
        to[10], to[11] = id_size & 255, id_size >> 8
        put_u32(to + 12, <uint32_t>text_size)
        put_u32(to + 16, <uint32_t>metadata_size)
        to += 20
        memcpy(to, PyBytes_AS_STRING(key) + 5, id_size)
        to += id_size
        if text_size:
            memcpy(to, PyBytes_AS_STRING(text), text_size)
        to += text_size
        if metadata_size:
            memcpy(to, PyBytes_AS_STRING(packed), metadata_size)
        to += metadata_size
        if vector_size:
            memcpy(to, PyBytes_AS_STRING(vector), vector_size)
        rid = <uint32_t>rids[i]
        name[5], name[6], name[7], name[8] = rid >> 24, (rid >> 16) & 255, (rid >> 8) & 255, rid & 255
        put_head(<uint8_t*>PyBytes_AS_STRING(record), 0x30, name, 9, size)
        out.append((PyBytes_FromStringAndSize(<char*>name, 9), record))
    return out
