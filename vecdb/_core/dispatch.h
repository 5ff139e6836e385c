// dispatch.h: which table of hot loops this processor runs; chosen once, at run time.
#pragma once
#include <string>
#include <vector>

#include "abi.h"

namespace vecdb {

std::vector<std::string> available_isas();  // best first; "scalar" is always last
// name null or empty: VECDB_ISA if set, else the best. Throws std::invalid_argument with the list.
const Kernels* kernels_for(const char* name);

}  // namespace vecdb
