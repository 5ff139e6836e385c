# bitsets.pxi: sets of slots as plain bytes, one bit each.

cdef bytes blank_mask(uint64_t n_bits):
    if n_bits > <uint64_t>1 << 32:
        raise ValueError(f"n_bits={n_bits}: a slot has 32 bits")
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


def mask_of(const uint32_t[::1] slots not None, uint64_t n_bits) -> bytes:
    """The bit set of slots below n_bits, in whole words of 64 bits."""
    out = blank_mask(n_bits)
    set_bits(<uint8_t*>PyBytes_AS_STRING(out), n_bits, slots, True)
    return out


def mask_update(
    bytes mask not None, uint64_t n_bits, const uint32_t[::1] set_slots not None,
    const uint32_t[::1] clear_slots not None,
) -> bytes:
    """A copy of a mask for n_bits, with slots set, then others cleared."""
    out = blank_mask(n_bits)
    cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(out)
    memcpy(to, PyBytes_AS_STRING(mask), min(PyBytes_GET_SIZE(mask), PyBytes_GET_SIZE(out)))
    set_bits(to, n_bits, set_slots, True)
    set_bits(to, n_bits, clear_slots, False)
    return out


def mask_count(bytes mask not None) -> int:
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


def mask_to_slots(bytes mask not None, uint64_t n_bits) -> bytes:
    """The slots below n_bits whose bit is set, ascending, as uint32 bytes."""
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(mask)
    cdef uint64_t top = min(n_bits, <uint64_t>PyBytes_GET_SIZE(mask) * 8), s
    cdef vector[uint32_t] found
    for s in range(top):
        if p[s >> 3] >> (s & 7) & 1:
            found.push_back(<uint32_t>s)
    return PyBytes_FromStringAndSize(<char*>found.data(), found.size() * 4)
