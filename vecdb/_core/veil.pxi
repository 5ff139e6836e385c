# --- the search log's mask -----------------------------------------------------------------------


def chacha20(bytes key not None, bytes nonce not None, content) -> bytes:
    """The content XORed with the keystream of a key (32 bytes) and a nonce (12), as RFC 8439 has it."""
    cdef Py_buffer view
    cdef const uint8_t* k = <const uint8_t*>PyBytes_AS_STRING(key)
    cdef const uint8_t* n = <const uint8_t*>PyBytes_AS_STRING(nonce)
    cdef uint8_t* to
    if PyBytes_GET_SIZE(key) != 32 or PyBytes_GET_SIZE(nonce) != 12:
        raise ValueError("a key has 32 bytes, and a nonce 12")
    PyObject_GetBuffer(content, &view, PyBUF_SIMPLE)
    try:
        if <uint64_t>view.len >= <uint64_t>1 << 38:
            raise ValueError("content: a keystream has 256 GiB")
        made = PyBytes_FromStringAndSize(NULL, view.len)
        to = <uint8_t*>PyBytes_AS_STRING(made)
        with nogil:
            c_chacha20(k, n, <const uint8_t*>view.buf, to, <size_t>view.len)
        return made
    finally:
        PyBuffer_Release(&view)
