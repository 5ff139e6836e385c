// check.h: the smallest harness that does: cases by group, checks that count, a seeded generator.
//
// 1. A failed check says where and what, and ends the process with 1.
// 2. A case prints one line: how many checks passed and what it promises.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// A heap copy of exactly these bytes at a chosen misalignment: a read beyond them is seen.
template <class T>
struct Exact {
    explicit Exact(const std::vector<T>& values, size_t off = 0) {
        size_t bytes = values.size() * sizeof(T);
        block = malloc(bytes + off ? bytes + off : 1);
        start = (T*)((char*)block + off);
        if (bytes) memcpy((void*)start, values.data(), bytes);
    }
    ~Exact() { free(block); }
    Exact(const Exact&) = delete;
    void* block;
    T* start;
};

}  // namespace vecdb
