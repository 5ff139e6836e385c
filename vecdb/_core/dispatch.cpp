// dispatch.cpp: see dispatch.h. A table may be named only where its unit was compiled.
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include <stdexcept>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace vecdb {

namespace scalar {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
namespace dotprod {
extern const Kernels kernels;
}
#endif

static std::vector<const Kernels*> usable() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        found.push_back(&avx512::kernels);
    if (avx2) found.push_back(&avx2::kernels);
#elif defined(__aarch64__)
#if defined(__linux__)
    bool dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
    bool dot = true;  // every Apple processor that runs macOS has it
#else
    bool dot = false;  // no way to ask
#endif
    if (dot) found.push_back(&dotprod::kernels);
    found.push_back(&neon::kernels);
#endif
    found.push_back(&scalar::kernels);
    return found;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Kernels* k : usable()) names.push_back(k->name);
    return names;
}

const Kernels* kernels_for(const char* name) {
    std::string source = "isa";
    if (!name || !*name) {
        name = getenv("VECDB_ISA");
        source = "VECDB_ISA";
    }
    std::vector<const Kernels*> tables = usable();
    if (!name || !*name) return tables[0];
    std::string list;
    for (const Kernels* k : tables) {
        if (!strcmp(k->name, name)) return k;
        list += (list.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument(source + ": \"" + name +
                                "\" is not available on this processor; choose one of: " + list);
}

}  // namespace vecdb
