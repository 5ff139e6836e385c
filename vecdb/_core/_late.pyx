# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, autotestdict=False
"""The door to late.cpp: MaxSim over codes and stored vectors. Checks buffers, leaves the GIL, holds no algorithm."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string

cdef extern from "late.h" namespace "vecdb" nogil:
    size_t late_stride(size_t dim)
    void late_encode(const float* x, size_t n, size_t dim, uint32_t metric, uint8_t* codes, float* scales,
                     float* squares)
    cdef cppclass LateQuery:
        LateQuery(const float* vectors, size_t m, size_t dim, uint32_t metric) except +
        LateQuery(const uint8_t* bits, size_t m, size_t bytes) except +
        void by_codes(const uint8_t* codes, const float* scales, const float* squares, const int64_t* starts,
                      const int64_t* rows, size_t n, double* out)
        void exact(const float* x, const int64_t* starts, const int64_t* rows, size_t n, double* out) except +
        void by_bits(const uint8_t* bits, const int64_t* starts, const int64_t* rows, size_t n, double* out)
    string late_isa()
    void late_use(const string& name) except +

METRICS = ("cosine", "l2", "dot", "hamming")
MAX_DIM = 65535


def stride(size_t dim):
    """Bytes of a code."""
    return late_stride(dim)


def isa():
    """What codes are compared with: "vnni", "avx2" or "plain"."""
    return late_isa().decode()


def use(name):
    """Choose that, for tests; "": the best there is."""
    late_use(name.encode())


def encode(const float[:, ::1] x, metric, uint8_t[:, ::1] codes, float[::1] scales, float[::1] squares):
    """Codes of vectors (n, dim) into `codes` (n, stride), `scales` (n,) and, under l2, `squares` (n,)."""
    cdef size_t n = x.shape[0], dim = x.shape[1]
    cdef uint32_t which = METRICS.index(metric)
    cdef bint keep = which == 1
    if not 1 <= dim <= <size_t>MAX_DIM or codes.shape[1] != <Py_ssize_t>late_stride(dim):
        raise ValueError("codes of another dimension")
    if codes.shape[0] != x.shape[0] or scales.shape[0] != x.shape[0]:
        raise ValueError("room for another number of vectors")
    if keep and squares.shape[0] != x.shape[0]:
        raise ValueError("room for another number of squares")
    if n:
        with nogil:
            late_encode(&x[0, 0], n, dim, which, &codes[0, 0], &scales[0], &squares[0] if keep else NULL)


cdef int _check_rows(const int64_t[::1] starts, const int64_t[::1] rows, Py_ssize_t vectors, double[::1] out) except -1:
    cdef Py_ssize_t i, n = starts.shape[0] - 1
    if n < 0 or starts[0] < 0 or starts[n] > vectors:
        raise ValueError("rows beyond the vectors")
    for i in range(n):
        if starts[i] > starts[i + 1]:
            raise ValueError("rows out of order")
    for i in range(rows.shape[0]):
        if rows[i] < 0 or rows[i] >= n:
            raise ValueError("no such row")
    if out.shape[0] != rows.shape[0]:
        raise ValueError("room for another number of scores")
    return 0


cdef class Query:
    """The vectors of a query, packed once: float32 (m, dim), or packed bits uint8 (m, bytes) under hamming."""

    cdef unique_ptr[LateQuery] _query
    cdef readonly size_t m
    cdef readonly size_t dim
    cdef uint32_t _metric

    def __init__(self, vectors, metric):
        cdef const float[:, ::1] numbers
        cdef const uint8_t[:, ::1] bits
        self._metric = METRICS.index(metric)
        if self._metric == 3:
            bits = vectors
            if not bits.shape[0] or not bits.shape[1]:
                raise ValueError("a query of nothing")
            self.m, self.dim = bits.shape[0], bits.shape[1]
            self._query.reset(new LateQuery(&bits[0, 0], self.m, self.dim))
            return
        numbers = vectors
        if not numbers.shape[0] or not 1 <= numbers.shape[1] <= MAX_DIM:
            raise ValueError("a query of nothing, or of too much")
        self.m, self.dim = numbers.shape[0], numbers.shape[1]
        self._query.reset(new LateQuery(&numbers[0, 0], self.m, self.dim, self._metric))

    def by_codes(self, const uint8_t[:, ::1] codes, const float[::1] scales, const float[::1] squares,
                 const int64_t[::1] starts, const int64_t[::1] rows, double[::1] out):
        """Scores by codes of some rows: sums of similarities; under l2 minus the sum of distances."""
        cdef size_t n = rows.shape[0]
        cdef bint keep = self._metric == 1
        _check_rows(starts, rows, codes.shape[0], out)
        if codes.shape[1] != <Py_ssize_t>late_stride(self.dim) or scales.shape[0] != codes.shape[0]:
            raise ValueError("codes of another dimension")
        if (keep and squares.shape[0] != codes.shape[0]) or self._metric == 3:
            raise ValueError("codes of another metric")
        if n and codes.shape[0]:
            with nogil:
                self._query.get().by_codes(&codes[0, 0], &scales[0], &squares[0] if keep else NULL, &starts[0],
                                           &rows[0], n, &out[0])

    def exact(self, vectors, const int64_t[::1] starts, const int64_t[::1] rows, double[::1] out):
        """Scores by vectors, float32 (t, dim); under hamming packed bits, and sums of differing bits."""
        cdef const float[:, ::1] numbers
        cdef const uint8_t[:, ::1] bits
        cdef size_t n = rows.shape[0]
        if self._metric == 3:
            bits = vectors
            _check_rows(starts, rows, bits.shape[0], out)
            if bits.shape[1] != <Py_ssize_t>self.dim:
                raise ValueError("vectors of another dimension")
            if n and bits.shape[0]:
                with nogil:
                    self._query.get().by_bits(&bits[0, 0], &starts[0], &rows[0], n, &out[0])
            return
        numbers = vectors
        _check_rows(starts, rows, numbers.shape[0], out)
        if numbers.shape[1] != <Py_ssize_t>self.dim:
            raise ValueError("vectors of another dimension")
        if n and numbers.shape[0]:
            with nogil:
                self._query.get().exact(&numbers[0, 0], &starts[0], &rows[0], n, &out[0])
