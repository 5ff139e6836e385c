// check.h: the smallest harness that does: cases by group, checks that count, a seeded generator.
//
// 1. A failed check says where and what, and ends the process with 1.
// 2. A case prints one line: how many checks passed and what it promises.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <string>
#include <vector>

#include "abi.h"

namespace vecdb {

struct Case {
    const char *group, *promise;
    void (*run)();
};
std::vector<Case>& cases();
struct Register {
    Register(const char* group, const char* promise, void (*run)()) {
        cases().push_back({group, promise, run});
    }
};
extern std::atomic<u64> checks;

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define CASE(group, promise)                                                          \
    static void JOIN(case_, __LINE__)();                                              \
    static Register JOIN(register_, __LINE__)(group, promise, JOIN(case_, __LINE__)); \
    static void JOIN(case_, __LINE__)()

#define CHECK(condition, ...)                                            \
    do {                                                                 \
        if (!(condition)) {                                              \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);       \
            printf(__VA_ARGS__);                                         \
            printf("\n");                                                \
            fflush(stdout);                                              \
            _Exit(1);                                                    \
        }                                                                \
        checks.fetch_add(1, std::memory_order_relaxed);                  \
    } while (0)

// splitmix64
struct Random {
    u64 state;
    explicit Random(u64 seed) : state(seed) {}
    u64 next() {
        u64 z = state += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    u32 below(u32 n) { return (u32)(next() % n); }
    float uniform(float lo, float hi) {
        return lo + (hi - lo) * (float)(next() >> 40) / (float)(1 << 24);
    }
};

// A copy of exactly these bytes that ends at a page which nobody may touch, less `off` bytes, so
// that a read beyond the end faults on every instruction set: AddressSanitizer does not see the
// masked loads of AVX-512. Large ones lie on the heap.
template <class T>
struct Exact {
    explicit Exact(const std::vector<T>& values, size_t off = 0) {
        size_t bytes = values.size() * sizeof(T);
        page = bytes + off <= GUARDED ? take_guarded() : nullptr;
        block = page ? page + GUARDED - bytes - off : (char*)malloc(bytes + off);
        start = (T*)(page ? block : block + off);
        if (bytes) memcpy((void*)start, values.data(), bytes);
    }
    ~Exact() {
        if (page)
            guarded().push_back(page);
        else
            free(block);
    }
    Exact(const Exact&) = delete;
    T* start;

  private:
    static const size_t GUARDED = 65536;  // a multiple of any page
    static std::vector<char*>& guarded() {
        static thread_local std::vector<char*> unused;
        return unused;
    }
    static char* take_guarded() {
        if (!guarded().empty()) {
            char* p = guarded().back();
            guarded().pop_back();
            return p;
        }
        void* p = mmap(nullptr, 2 * GUARDED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect((char*)p + GUARDED, GUARDED, PROT_NONE)) abort();
        return (char*)p;
    }
    char *page, *block;
};

}  // namespace vecdb
