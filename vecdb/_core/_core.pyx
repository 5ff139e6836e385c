# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, autotestdict=False
"""The door between Python and the C++ core: checks buffers, releases the GIL, holds no algorithm."""

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
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
    cdef enum: HAMMING, B1
    cdef struct Scale:
        float lo
        float step
    cdef cppclass Shape:
        uint32_t dim
        uint32_t metric
        uint32_t dtype
        uint32_t row_bytes()
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
        void attach_block(uint32_t, const uint8_t*, uint32_t, const uint8_t*) except +
        void put_vectors(const uint32_t*, const uint8_t*, uint32_t, cbool) except +
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
        vector[string] check(const uint8_t*, uint64_t) except +
        cbool absent(uint32_t)
        vector[uint8_t] codes_of(uint32_t, uint32_t) except +

cdef extern from "writer.h" namespace "vecdb" nogil:
    cdef cppclass CodeSet:
        Scale scale
    cdef cppclass CWriter "vecdb::Writer":
        CWriter(CGraph&, const uint8_t*, size_t) except +
        void insert(uint32_t, const uint8_t*, uint32_t, uint32_t) except +
        void insert_at(const uint32_t*, const uint8_t*, uint32_t, uint32_t) except +
        void adopt(const uint8_t*, const uint32_t*, uint32_t, uint32_t) except +
        void extend_to(uint32_t) except +
        void condemn(const uint8_t*, size_t) except +
        uint32_t sweep(uint32_t, uint32_t, uint32_t, uint32_t) except +
        uint32_t rehome(uint32_t, uint32_t) except +
        uint32_t vacate(uint32_t, uint32_t, vector[uint32_t]&) except +
        cbool recalibrate(uint32_t) except +
        uint32_t n_slots()
        cbool dirty()
        Found search(const Query&) except +
        vector[Answer] search_many(const Query&, const float*, uint32_t, uint32_t) except +
        Found scan(const ScanQuery&) except +
        vector[uint8_t] changes() except +
        vector[uint8_t] chunk(uint32_t, uint32_t) except +
        void rollback() except +
        shared_ptr[CodeSet] codes()
    uint32_t c_crc32c "vecdb::crc32c"(uint32_t, const void*, size_t)

cdef extern from "veil.h" namespace "vecdb" nogil:
    void c_chacha20 "vecdb::chacha20"(const uint8_t*, const uint8_t*, const uint8_t*, uint8_t*, size_t)

METRICS = {"l2": 0, "cosine": 1, "dot": 2, "hamming": 3}
DTYPES = {"f32": 0, "f16": 1, "i8": 2, "b1": 3}


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


# Top to bottom: what comes later uses what comes before.
include "records.pxi"
include "rowrecords.pxi"
include "bitsets.pxi"
include "graph.pxi"
include "writer.pxi"
include "prepared.pxi"
include "lookup.pxi"
include "veil.pxi"
