// What the kernels use of CUDA C++, for a CPU: the threads of a block are fibres that take turns between barriers.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };

static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
using std::max;
using std::min;

static inline int __double2loint(double x)
{
    long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return (int)bits;
}
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }

static dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulator {

// A fibre runs one thread of block after block. The first time it is entered through its context, later by longjmp,
// which makes no system call.
struct Fibre {
    ucontext_t context;
    jmp_buf place;
    bool entered = false, done = false;
};
std::vector<Fibre*> fibres;
Fibre* current;
jmp_buf scheduler;
void (*body)(void*);
void* argument;
bool backwards = false;  // the order in which the threads of a block take turns

void pause()
{
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

void live()
{
    for (;;) {
        body(argument);
        current->done = true;
        pause();
    }
}

void add_fibre()
{
    const size_t size = 1 << 16;
    Fibre* const fibre = new Fibre;
    getcontext(&fibre->context);
    fibre->context.uc_stack.ss_sp = std::malloc(size);
    fibre->context.uc_stack.ss_size = size;
    fibre->context.uc_link = nullptr;
    makecontext(&fibre->context, live, 0);
    fibres.push_back(fibre);
}

void resume(Fibre* fibre)
{
    current = fibre;
    if (_setjmp(scheduler) != 0) return;
    if (fibre->entered) _longjmp(fibre->place, 1);
    fibre->entered = true;
    setcontext(&fibre->context);
}

// Runs a kernel's body for every thread of every block; false if some threads of a block miss a barrier others wait at.
bool run(void (*function)(void*), void* data)
{
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    body = function;
    argument = data;
    while (fibres.size() < threads) add_fibre();
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
                for (unsigned t = 0; t < threads; ++t) fibres[t]->done = false;
                for (unsigned done = 0; done == 0;) {
                    for (unsigned turn = 0; turn < threads; ++turn) {
                        const unsigned t = backwards ? threads - 1 - turn : turn;
                        threadIdx.x = t % blockDim.x;
                        threadIdx.y = t / blockDim.x % blockDim.y;
                        threadIdx.z = t / (blockDim.x * blockDim.y);
                        resume(fibres[t]);
                        done += fibres[t]->done;
                    }
                    if (done != 0 && done != threads) return false;
                }
            }
    return true;
}

template <class... A, size_t... I> bool call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>)
{
    std::tuple<A...> values(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
    using Values = std::pair<void (*)(A...), std::tuple<A...>*>;
    Values bound(kernel, &values);
    return run(
        [](void* data) {
            Values& bound = *static_cast<Values*>(data);
            std::apply(bound.first, *bound.second);
        },
        &bound);
}

template <class... A> bool launch(void (*kernel)(A...), void** arguments, const unsigned* grid, const unsigned* block)
{
    gridDim.x = grid[0], gridDim.y = grid[1], gridDim.z = grid[2];
    blockDim.x = block[0], blockDim.y = block[1], blockDim.z = block[2];
    return call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace emulator

static inline void __syncthreads() { emulator::pause(); }
