// pool.cpp: see pool.h.
#include "pool.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace vecdb {
namespace {

struct Job {
    const std::function<void(u32)>* work;
    u32 n;
    std::atomic<u32> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::condition_variable done;
    u32 active = 0;  // threads inside, under mutex
    bool closed = false;
    std::exception_ptr error;
};

void run(Job& job) {
    for (;;) {
        u32 i = job.next.fetch_add(1, std::memory_order_relaxed);
        if (i >= job.n || job.failed.load(std::memory_order_relaxed)) return;
        try {
            (*job.work)(i);
        } catch (...) {
            std::lock_guard<std::mutex> hold(job.mutex);
            if (!job.error) job.error = std::current_exception();
            job.failed.store(true, std::memory_order_relaxed);
        }
    }
}

struct Pool {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::shared_ptr<Job>> tickets;
    u32 threads = 0;

    void loop() {
        for (;;) {
            std::shared_ptr<Job> job;
            {
                std::unique_lock<std::mutex> hold(mutex);
                wake.wait(hold, [&] { return !tickets.empty(); });
                job = std::move(tickets.front());
                tickets.pop_front();
            }
            {
                std::lock_guard<std::mutex> hold(job->mutex);
                if (job->closed) continue;
                job->active++;
            }
            run(*job);
            std::lock_guard<std::mutex> hold(job->mutex);
            if (--job->active == 0) job->done.notify_all();
        }
    }
    void offer(const std::shared_ptr<Job>& job, u32 helpers) {
        std::lock_guard<std::mutex> hold(mutex);
        for (; threads < helpers; threads++) {
            try {
                std::thread([this] { loop(); }).detach();
            } catch (const std::system_error&) {
                break;  // fewer threads: slower, not wrong
            }
        }
        for (u32 i = 0; i < helpers && i < threads; i++) tickets.push_back(job);
        wake.notify_all();
    }
};

std::atomic<Pool*> the_pool{nullptr};  // never destroyed: its threads outlive static objects
std::atomic<u32> the_default{0};

Pool* pool() {
    Pool* p = the_pool.load(std::memory_order_acquire);
    if (p) return p;
    Pool* made = new Pool();
    if (the_pool.compare_exchange_strong(p, made)) return made;
    delete made;
    return p;
}

}  // namespace

u32 default_threads() {
    u32 n = the_default.load(std::memory_order_relaxed);
    if (n) return n;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (u32)CPU_COUNT(&set);
#endif
    u32 hardware = std::thread::hardware_concurrency();
    return hardware ? hardware : 1;
}

void set_default_threads(u32 n) { the_default.store(n, std::memory_order_relaxed); }

void pool_after_fork() { the_pool.store(nullptr, std::memory_order_release); }

void parallel(u32 n, u32 threads, const std::function<void(u32)>& work) {
    if (!threads) threads = default_threads();
    if (threads > 256) threads = 256;
    if (threads > n) threads = n;
    if (threads <= 1) {
        for (u32 i = 0; i < n; i++) work(i);
        return;
    }
    auto job = std::make_shared<Job>();
    job->work = &work;
    job->n = n;
    pool()->offer(job, threads - 1);
    run(*job);
    std::unique_lock<std::mutex> hold(job->mutex);
    job->closed = true;
    job->done.wait(hold, [&] { return job->active == 0; });
    if (job->error) std::rethrow_exception(job->error);
}

}  // namespace vecdb
