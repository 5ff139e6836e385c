// main.cpp: runs the cases of one group, or all but the planted faults.
#include "check.h"

namespace vecdb {
std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}
std::atomic<u64> checks{0};
}  // namespace vecdb

int main(int argc, char** argv) {
    using namespace vecdb;
    std::string wanted = argc > 1 ? argv[1] : "";
    int ran = 0;
    for (const Case& c : cases()) {
        bool planted = !strncmp(c.group, "planted", 7);
        if (wanted.empty() ? planted : wanted != c.group) continue;
        checks = 0;
        c.run();
        printf("%-10s %9llu checks: %s\n", c.group, (unsigned long long)checks.load(), c.promise);
        fflush(stdout);
        ran++;
    }
    if (!ran) printf("no such group: %s\n", wanted.c_str());
    return ran ? 0 : 2;
}
