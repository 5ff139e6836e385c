// pool.h: a small thread pool: parallel loops over an index, nothing else.
//
// 1. Threads are made when first needed and live as long as the process; nothing starts at
//    import. The caller works too, so a loop always makes progress.
// 2. After a fork the child forgets the pool (its threads do not exist there) and makes anew.
#pragma once
#include <functional>

#include "abi.h"

namespace vecdb {

// Calls work(i) for every i in [0, n), each once, on up to `threads` threads (0: the default).
// The first exception is rethrown here, after all threads have stopped.
void parallel(u32 n, u32 threads, const std::function<void(u32)>& work);
u32 default_threads();
void set_default_threads(u32 n);  // 0: as many as processors
void pool_after_fork();

}  // namespace vecdb
