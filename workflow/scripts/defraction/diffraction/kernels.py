"""CUDA C++ of the GPU engine, compiled when it is first needed; gpu_laue.py and gpu_planes.py launch it.

Only what CUDA and plain C++ share is used, so that the tests run the same source on a CPU. No kernel adds to memory
that another thread may write: every sum has one owner and a fixed order, so two runs give the same bits.

Phases are counted in turns, of which only the fraction matters. ``ONE_AND_A_HALF`` is so large that the last bit of a
double next to it is 2^-32: the low word of (h + ONE_AND_A_HALF) is the fraction of h as a 32-bit integer, whose sums
and whole multiples are reduced to one turn, exactly, by overflow. |h| has to stay below 2^19 turns.
"""

import math

from defraction.diffraction import sampling
from defraction.diffraction.backend import Backend, Launcher

COMMON = r"""
#define ONE_AND_A_HALF 1572864.0

__device__ __forceinline__ int turn(double shifted)
{
    return __double2loint(shifted);
}

__device__ __forceinline__ float fraction(int turn)  // of a turn, -1/2 to 1/2
{
    return 2.3283064365386963e-10f * (float)turn;
}

__device__ __forceinline__ int multiple(int count, int turn)
{
    return (int)((unsigned)count * (unsigned)turn);
}

// sin(pi t) and cos(pi t) for |t| <= 1/2 by their Taylor series, to 6e-8 and 6e-9
__device__ __forceinline__ float sine(float t)
{
    const float s = t * t;
    return t * fmaf(s, fmaf(s, fmaf(s, fmaf(s, fmaf(s, -0.00737043094571435f, 0.08214588661112823f),
        -0.5992645293207921f), 2.550164039877345f), -5.16771278004997f), 3.141592653589793f);
}

__device__ __forceinline__ float cosine(float t)
{
    const float s = t * t;
    return fmaf(s, fmaf(s, fmaf(s, fmaf(s, fmaf(s, fmaf(s, 0.0019295743094039230f, -0.025806891390014061f),
        0.23533063035889312f), -1.3352627688545893f), 4.058712126416768f), -4.934802200544679f), 1.0f);
}

__device__ __forceinline__ float2 exponential(int turn)  // exp(2 pi i t)
{
    const float t = fraction(turn), s = sine(t), c = cosine(t);
    return make_float2(fmaf(-2.0f * s, s, 1.0f), 2.0f * s * c);
}

__device__ __forceinline__ double inverse_root(double x)  // 1 / sqrt(x): single precision and a Newton step, to 1e-13
{
    const double guess = (double)rsqrtf((float)x);
    return fma(0.5 * guess, fma(-x * guess, guess, 1.0), guess);
}

__device__ __forceinline__ float cubic(const float* __restrict__ values, double node)  // values[1] is at node 0
{
    const int i = (int)node;
    const float u = (float)(node - i), down = (u - 1.0f) * (u - 2.0f), up = (u + 1.0f) * u;
    return (1.0f / 6.0f) * (up * (u - 1.0f) * values[i + 3] - u * down * values[i])
        + 0.5f * ((u + 1.0f) * down * values[i + 1] - up * (u - 2.0f) * values[i + 2]);
}

// |sum_n exp(2 pi i n h)|^2 = (sin(pi N h) / sin(pi h))^2 without the square; h is kept off 0, where both vanish
__device__ __forceinline__ void sharp_sum(int turn, int repeat, float& top, float& bottom)
{
    const int off = turn | 1;
    top *= sine(fraction(multiple(repeat, off)));
    bottom *= sine(fraction(off));
}

// the same, squared, of the smooth beam: tabulated over half a period with 2^LATTICE_BITS intervals
__device__ __forceinline__ float smooth_sum(int turn, const float* __restrict__ table)
{
    const unsigned distance = turn < 0 ? 0u - (unsigned)turn : (unsigned)turn;
    const unsigned shift = 31 - LATTICE_BITS, last = (1u << LATTICE_BITS) - 1u;
    const unsigned found = distance >> shift, node = found < last ? found : last;
    const float part = (float)(distance - (node << shift)) * (1.0f / (float)(1u << shift));
    return fmaf(part, table[node + 1] - table[node], table[node]);
}
"""

LAUE = r"""
struct Pattern {
    double x0, y0, step_x, step_y;  // tangents of the first fine sample and from one to the next
    double k, curved;               // 1/A; 1 on the Ewald sphere, 0 on the flat plane
    double origin[3];               // 1/A, subtracted from q
    double a_x[3], a_y[3], a_z[3];  // k times the components of a, b, c; a_z is 0 on the flat plane
    double shift[3];                // ONE_AND_A_HALF - a_z - origin . a
    long long amplitude, rows;      // where the pattern's part begins: samples of F_cell, fine rows
    int nsub_x, nsub_y, ratio_x, ratio_y, fine_x, fine_y, coarse_x, coarse_y;
    int interpolation_x, interpolation_y, response_x, response_y;  // where its weights begin
    int species, species_end;
    int repeat[3];
    int lattice;                    // where its tables of the smooth beam begin
};

struct Atom { double x, y, z, weight; };

struct Species { int first, end, factors, unused; };

#define ATOMS_AT_ONCE 128

// F_cell on the coarse grids, one thread a sample; blockIdx.y the pattern
extern "C" __global__ void __launch_bounds__(128) laue_cell(
    const Pattern* __restrict__ patterns, const Species* __restrict__ species, const Atom* __restrict__ atoms,
    const float* __restrict__ factors, double per_step, float2* __restrict__ amplitude)
{
    __shared__ double batch[ATOMS_AT_ONCE][3];
    __shared__ float weights[ATOMS_AT_ONCE];
    const Pattern& p = patterns[blockIdx.y];
    const int samples = p.coarse_x * p.coarse_y;
    if ((int)(blockIdx.x * blockDim.x) >= samples) return;
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    const int sample = min(index, samples - 1);  // all threads take part in loading atoms
    const int row = sample / p.coarse_x, column = sample - row * p.coarse_x;
    const int lead_x = p.ratio_x > 1 ? TAPS_BEFORE : 0, lead_y = p.ratio_y > 1 ? TAPS_BEFORE : 0;
    const double x = fma((double)(p.ratio_x * (column - lead_x)), p.step_x, p.x0);
    const double y = fma((double)(p.ratio_y * (row - lead_y)), p.step_y, p.y0);
    const double rho = x * x + y * y, c = inverse_root(1.0 + rho);
    const double sag = p.curved * rho * c / (1.0 + 1.0 / c);  // 1 - cos, which does not cancel
    const double qx = p.k * x * c - p.origin[0], qy = p.k * y * c - p.origin[1], qz = -p.k * sag - p.origin[2];
    const double node = (qx * qx + qy * qy + qz * qz) * per_step;
    float2 total = make_float2(0.0f, 0.0f);
    for (int s = p.species; s < p.species_end; ++s) {
        float2 sum = make_float2(0.0f, 0.0f);
        for (int first = species[s].first; first < species[s].end; first += ATOMS_AT_ONCE) {
            const int count = min(ATOMS_AT_ONCE, species[s].end - first);
            __syncthreads();
            for (int i = threadIdx.x; i < count; i += blockDim.x) {
                const Atom atom = atoms[first + i];
                batch[i][0] = atom.x;
                batch[i][1] = atom.y;
                batch[i][2] = atom.z;
                weights[i] = (float)atom.weight;
            }
            __syncthreads();
#pragma unroll 2
            for (int i = 0; i < count; ++i) {
                const double h = fma(qx, batch[i][0], fma(qy, batch[i][1], fma(qz, batch[i][2], ONE_AND_A_HALF)));
                const float2 e = exponential(turn(h));
                sum.x = fmaf(weights[i], e.x, sum.x);
                sum.y = fmaf(weights[i], e.y, sum.y);
            }
        }
        const float f = cubic(factors + species[s].factors, node);
        total.x = fmaf(f, sum.x, total.x);
        total.y = fmaf(f, sum.y, total.y);
    }
    if (index < samples) amplitude[p.amplitude + sample] = total;
}

// |A|^2 cos^3(2 theta) of a sample but for |F_cell|^2; h = q . a, q = k (x c, y c, c - 1) - origin, c = cos(2 theta)
template <bool SMOOTH> __device__ __forceinline__ float laue_weight(
    double square, double a, double b, double c, double shift_a, double shift_b, double shift_c, int repeat_a,
    int repeat_b, int repeat_c, const float* __restrict__ lattice)
{
    const double along = inverse_root(square);
    const int h_a = turn(fma(a, along, shift_a)), h_b = turn(fma(b, along, shift_b));
    const int h_c = turn(fma(c, along, shift_c));
    const float angle = (float)along;
    if (SMOOTH) {
        const int nodes = (1 << LATTICE_BITS) + 1;
        return smooth_sum(h_a, lattice) * smooth_sum(h_b, lattice + nodes) * smooth_sum(h_c, lattice + 2 * nodes)
            * (angle * angle * angle);
    }
    float top = 1.0f, bottom = 1.0f;
    sharp_sum(h_a, repeat_a, top, bottom);
    sharp_sum(h_b, repeat_b, top, bottom);
    sharp_sum(h_c, repeat_c, top, bottom);
    const float amplitude = __fdividef(top, bottom);
    return amplitude * amplitude * (angle * angle * angle);
}

__device__ __forceinline__ void add_tap(float4& f, float weight, const float4& g)
{
    f.x = fmaf(weight, g.x, f.x);
    f.y = fmaf(weight, g.y, f.y);
    f.z = fmaf(weight, g.z, f.z);
    f.w = fmaf(weight, g.w, f.w);
}

// |A|^2 cos^3(2 theta) on ROWS fine rows of ``width`` pixel columns, integrated over those columns; two rows at a time,
// so that they share what belongs to a column. blockIdx: group of rows, group of columns, pattern.
// Shared memory: weights, F_cell on the rows, and their fine samples.
template <bool SMOOTH> __device__ __forceinline__ void laue_rows(
    const Pattern* __restrict__ patterns, const float2* __restrict__ amplitude,
    const float* __restrict__ interpolation, const float* __restrict__ response, const float* __restrict__ lattice,
    int pixels, int pad, int width, int coarse_room, int fine_room, int ratio_room, float* __restrict__ rows,
    float4* shared)
{
    const Pattern& p = patterns[blockIdx.z];
    const int first_row = blockIdx.x * ROWS;
    if (first_row >= p.fine_y) return;
    const int nsub = p.nsub_x, ratio = p.ratio_x, ratio_y = p.ratio_y;
    const int first_pixel = blockIdx.y * width;
    const int columns = min(width, pixels - first_pixel), span = columns + 2 * pad, reach = 2 * pad + 1;
    const int fine = span * nsub, first_fine = first_pixel * nsub;
    const int first_coarse = first_fine / ratio;
    const int coarse = ratio > 1 ? (first_fine + fine - 1) / ratio - first_coarse + TAPS : fine;

    float4* const taps = shared;                                  // (ratio, 3): TAPS weights and two zeros
    float4* const cell = taps + 3 * ratio_room;                   // (coarse): real, imaginary of both rows
    float2* const squared = (float2*)(cell + coarse_room);        // (nsub, span): no two threads on one bank
    float* const weights = (float*)(squared + fine_room);         // (nsub, 2 pad + 1)
    for (int i = threadIdx.x; i < 12 * ratio; i += blockDim.x) {
        const int row = i / 12, tap = i - 12 * row;
        ((float*)taps)[i] = tap < TAPS ? interpolation[p.interpolation_x + TAPS * row + tap] : 0.0f;
    }
    for (int i = threadIdx.x; i < reach * nsub; i += blockDim.x) {
        const int o = i / reach;
        weights[i] = response[p.response_x + (i - o * reach) * nsub + o];
    }

    const double step = p.step_x;
    const double shift_a = p.shift[0], shift_b = p.shift[1], shift_c = p.shift[2];
    const double a_x = p.a_x[0], b_x = p.a_x[1], c_x = p.a_x[2];
    const int repeat_a = p.repeat[0], repeat_b = p.repeat[1], repeat_c = p.repeat[2];

    const int end_row = min(first_row + ROWS, p.fine_y);
    for (int j = first_row; j < end_row; j += 2) {
        for (int i = threadIdx.x; i < 2 * coarse; i += blockDim.x) {
            const int second = i >= coarse, column = second ? i - coarse : i, row = min(j + second, p.fine_y - 1);
            const int block = row / ratio_y;
            const float* const along_y = interpolation + p.interpolation_y + TAPS * (row - block * ratio_y);
            const long long place = p.amplitude + (long long)block * p.coarse_x + first_coarse + column;
            const float2* const source = amplitude + place;
            float2 f = *source;
            if (ratio_y > 1) {
                f.x *= along_y[0];
                f.y *= along_y[0];
#pragma unroll
                for (int tap = 1; tap < TAPS; ++tap) {
                    const float2 g = source[(long long)tap * p.coarse_x];
                    f.x = fmaf(along_y[tap], g.x, f.x);
                    f.y = fmaf(along_y[tap], g.y, f.y);
                }
            }
            ((float2*)cell)[2 * column + second] = f;
        }
        __syncthreads();

        const double y = fma((double)j, p.step_y, p.y0), y_next = y + p.step_y;
        const double square_y = fma(y, y, 1.0), square_step = p.step_y * (y + y_next);
        const double a_0 = fma(y, p.a_y[0], p.a_z[0]), b_0 = fma(y, p.a_y[1], p.a_z[1]);
        const double c_0 = fma(y, p.a_y[2], p.a_z[2]);
        const double a_step = p.step_y * p.a_y[0], b_step = p.step_y * p.a_y[1], c_step = p.step_y * p.a_y[2];
        for (int i = threadIdx.x; i < span; i += blockDim.x) {
            const int place = first_fine + i * nsub;
            int base = place / ratio, offset = place - base * ratio;
            base -= first_coarse;
            double x = fma((double)place, step, p.x0);
            for (int o = 0; o < nsub; ++o) {
                float4 f = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (ratio > 1) {
                    const float4* const w = taps + 3 * offset;
                    const float4* const g = cell + base;
                    const float4 first = w[0], second = w[1];
                    const float2 third = *(const float2*)(w + 2);
                    add_tap(f, first.x, g[0]);
                    add_tap(f, first.y, g[1]);
                    add_tap(f, first.z, g[2]);
                    add_tap(f, first.w, g[3]);
                    add_tap(f, second.x, g[4]);
                    add_tap(f, second.y, g[5]);
                    add_tap(f, second.z, g[6]);
                    add_tap(f, second.w, g[7]);
                    add_tap(f, third.x, g[8]);
                    add_tap(f, third.y, g[9]);
                } else {
                    f = cell[base];
                }
                if (++offset == ratio) {
                    offset = 0;
                    ++base;
                }
                const double square = fma(x, x, square_y);
                const double a = fma(x, a_x, a_0), b = fma(x, b_x, b_0), c = fma(x, c_x, c_0);
                float2 value;
                value.x = fmaf(f.x, f.x, f.y * f.y) * laue_weight<SMOOTH>(square, a, b, c, shift_a, shift_b, shift_c,
                    repeat_a, repeat_b, repeat_c, lattice + p.lattice);
                value.y = fmaf(f.z, f.z, f.w * f.w) * laue_weight<SMOOTH>(square + square_step, a + a_step, b + b_step,
                    c + c_step, shift_a, shift_b, shift_c, repeat_a, repeat_b, repeat_c, lattice + p.lattice);
                squared[o * span + i] = value;
                x += step;
            }
        }
        __syncthreads();

        for (int column = threadIdx.x; column < columns; column += blockDim.x) {
            float2 sum = make_float2(0.0f, 0.0f);
            for (int o = 0; o < nsub; ++o) {
                const float2* const part = squared + o * span + column;
                const float* const weight = weights + o * reach;
#pragma unroll 4
                for (int m = 0; m < reach; ++m) {
                    sum.x = fmaf(weight[m], part[m].x, sum.x);
                    sum.y = fmaf(weight[m], part[m].y, sum.y);
                }
            }
            float* const target = rows + (p.rows + j) * pixels + first_pixel + column;
            target[0] = sum.x;
            if (j + 1 < end_row) target[pixels] = sum.y;
        }
    }
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) laue_rows_sharp(
    const Pattern* __restrict__ patterns, const float2* __restrict__ amplitude,
    const float* __restrict__ interpolation, const float* __restrict__ response, const float* __restrict__ lattice,
    int pixels, int pad, int width, int coarse_room, int fine_room, int ratio_room, float* __restrict__ rows)
{
    extern __shared__ float4 shared_memory[];
    laue_rows<false>(patterns, amplitude, interpolation, response, lattice, pixels, pad, width, coarse_room, fine_room,
        ratio_room, rows, shared_memory);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS, 2) laue_rows_smooth(
    const Pattern* __restrict__ patterns, const float2* __restrict__ amplitude,
    const float* __restrict__ interpolation, const float* __restrict__ response, const float* __restrict__ lattice,
    int pixels, int pad, int width, int coarse_room, int fine_room, int ratio_room, float* __restrict__ rows)
{
    extern __shared__ float4 shared_memory[];
    laue_rows<true>(patterns, amplitude, interpolation, response, lattice, pixels, pad, width, coarse_room, fine_room,
        ratio_room, rows, shared_memory);
}

// fine rows integrated over the pixel rows, one thread a pixel; blockIdx: columns, rows, pattern
extern "C" __global__ void __launch_bounds__(256) laue_pixels(
    const Pattern* __restrict__ patterns, const float* __restrict__ response, const float* __restrict__ rows,
    int pixels, int pad, float* __restrict__ image)
{
    const Pattern& p = patterns[blockIdx.z];
    const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= pixels || row >= pixels) return;
    const float* const weights = response + p.response_y;
    const float* source = rows + (p.rows + (long long)row * p.nsub_y) * pixels + column;
    const int reach = (2 * pad + 1) * p.nsub_y;
    float sum = 0.0f;
#pragma unroll 4
    for (int i = 0; i < reach; ++i, source += pixels) sum = fmaf(weights[i], *source, sum);
    image[((long long)blockIdx.z * pixels + row) * pixels + column] = sum;
}
"""

NUFFT = r"""
// A pattern of method nufft: the grid of q' = q_xy + q_z (s, t) on which its amplitude is computed (gpu_planes.py)
struct Grid {
    double step_x, step_y;    // 1/A
    double shear_x, shear_y;  // s, t
    double k, curved;
    double origin[3];         // 1/A; p = q + origin lies on the Ewald sphere through 0
    double moved_x, moved_y;  // what to add to q' of q for q' of p
    double pixels;            // pixels per tangent of the angle
    double deepest, u_scale;  // 1/A; nodes of U_k per 1/A of p_z - deepest
    double phase_z;           // turns per A of z', the middle of q_z
    double first_z, v_scale;  // A; nodes of V_k per A of z' - first_z
    double cell[9];           // rows a, b, c
    int columns, rows;        // of the grid, its origin at (columns / 2, rows / 2)
    int up_x, up_y;           // points of the transform
    int nodes, terms, even;   // of the separation in depth: intervals of its tables, terms, even terms
    int repeat[3];
    int detector, pad;
};

// Atoms sorted by square bins of the (x, y) plane
struct Bins { double x0, y0, per_length; int columns, rows; };

__device__ __forceinline__ double depth(const Grid& g, double qx, double qy)  // p_z on the sphere for q' of p
{
    const double square = qx * qx + qy * qy, b = g.k - g.shear_x * qx - g.shear_y * qy;
    const double a = 1.0 + g.shear_x * g.shear_x + g.shear_y * g.shear_y;
    return -g.curved * square / (b + sqrt(fmax(b * b - a * square, 0.0)));
}

// Four neighbouring nodes of a table and their weights; at its ends the outermost four
struct Cubic { int first; float w0, w1, w2, w3; };

__device__ __forceinline__ Cubic cubic_weights(double node, int intervals)
{
    node = fmin(fmax(node, 0.0), (double)intervals);
    Cubic c;
    c.first = min(max((int)node - 1, 0), intervals - 3);
    const float u = (float)(node - (c.first + 1)), down = (u - 1.0f) * (u - 2.0f), up = (u + 1.0f) * u;
    c.w0 = -u * down / 6.0f;
    c.w1 = (u + 1.0f) * down / 2.0f;
    c.w2 = -up * (u - 2.0f) / 2.0f;
    c.w3 = up * (u - 1.0f) / 6.0f;
    return c;
}

// weight V_k(z') exp(2 pi i phase_z z'), times i for odd V_k, of every atom and of the planes first ... first + count
// - 1, 0 beyond the last; one thread an atom and plane
extern "C" __global__ void __launch_bounds__(256) nufft_strengths(
    const Grid* __restrict__ grid, const Atom* __restrict__ atoms, int atoms_count,
    const float* __restrict__ table, int first, int count, float2* __restrict__ strengths)
{
    const Grid& g = *grid;
    const long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)atoms_count * count) return;
    const int atom = (int)(index / count), plane = first + (int)(index - (long long)atom * count);
    float2 value = make_float2(0.0f, 0.0f);
    if (plane < g.terms) {
        const double z = atoms[atom].z - g.shear_x * atoms[atom].x - g.shear_y * atoms[atom].y;
        const Cubic c = cubic_weights((z - g.first_z) * g.v_scale, g.nodes);
        const float* const v = table + (long long)c.first * g.terms + plane;
        const float weight = (float)atoms[atom].weight
            * (c.w0 * v[0] + c.w1 * v[g.terms] + c.w2 * v[2 * g.terms] + c.w3 * v[3 * g.terms]);
        const float2 e = exponential(turn(fma(g.phase_z, z, ONE_AND_A_HALF)));
        value = plane < g.even ? make_float2(weight * e.x, weight * e.y) : make_float2(-weight * e.y, weight * e.x);
    }
    strengths[index] = value;
}

// exp(beta (sqrt(1 - (2 u / SPREAD)^2) - 1)), u in grid points from the atom (Barnett, Magland & af Klinteberg 2019)
__device__ __forceinline__ float spreading(float u)
{
    const float v = u * (2.0f / SPREAD);
    return expf(SPREAD_BETA * (sqrtf(fmaxf(1.0f - v * v, 0.0f)) - 1.0f));
}

#define SPREAD_ATOMS 64

// Spreads the atoms on a tile of TILE x TILE points of PLANES planes: every point gathers the atoms around it in the
// order in which they are sorted. blockIdx: tiles along x, along y, groups of planes.
extern "C" __global__ void __launch_bounds__(256, 3) nufft_spread(
    const Grid* __restrict__ grid, const Bins* __restrict__ bins, const Atom* __restrict__ atoms,
    const int* __restrict__ bin_start, const float2* __restrict__ strengths, int count, int here,
    float2* __restrict__ planes)
{
    __shared__ int2 place[SPREAD_ATOMS];
    __shared__ float along_x[SPREAD_ATOMS][SPREAD], along_y[SPREAD_ATOMS][SPREAD];
    __shared__ float2 strength[SPREAD_ATOMS][PLANES];
    const Grid& g = *grid;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;  // a warp owns 8 x 4 points: few atoms reach it
    const int left = blockIdx.x * TILE, top = blockIdx.y * TILE;
    const int x = left + 8 * (warp % 2) + lane % 8, y = top + 4 * (warp / 2) + lane / 8;
    float2 sum[PLANES];
#pragma unroll
    for (int k = 0; k < PLANES; ++k) sum[k] = make_float2(0.0f, 0.0f);

    // bins that hold atoms within SPREAD / 2 points of the tile
    const double point_x = 1.0 / (g.step_x * g.up_x), point_y = 1.0 / (g.step_y * g.up_y);
    const double reach = 0.5 * SPREAD + 0.01;
    const double low_x = (left - reach - 0.5 * g.up_x) * point_x, low_y = (top - reach - 0.5 * g.up_y) * point_y;
    const double across = TILE - 1 + 2.0 * reach, high_x = low_x + across * point_x, high_y = low_y + across * point_y;
    const int first_column = max(0, (int)floor((low_x - bins->x0) * bins->per_length));
    const int last_column = min(bins->columns - 1, (int)floor((high_x - bins->x0) * bins->per_length));
    const int first_row = max(0, (int)floor((low_y - bins->y0) * bins->per_length));
    const int last_row = min(bins->rows - 1, (int)floor((high_y - bins->y0) * bins->per_length));
    if (first_column <= last_column) {
        for (int row = first_row; row <= last_row; ++row) {
            const int end = bin_start[row * bins->columns + last_column + 1];
            for (int first = bin_start[row * bins->columns + first_column]; first < end; first += SPREAD_ATOMS) {
                const int batch = min(SPREAD_ATOMS, end - first);
                __syncthreads();
                for (int i = threadIdx.x; i < batch * 2 * SPREAD; i += blockDim.x) {
                    const int atom = i / (2 * SPREAD), part = i - atom * (2 * SPREAD);
                    const bool is_x = part < SPREAD;
                    const int offset = is_x ? part : part - SPREAD;
                    const double at = is_x ? fma(atoms[first + atom].x, g.step_x, 0.5) * g.up_x
                                           : fma(atoms[first + atom].y, g.step_y, 0.5) * g.up_y;
                    const int start = (int)ceil(at - 0.5 * SPREAD);
                    const float value = spreading((float)(start + offset - at));
                    if (is_x) along_x[atom][offset] = value; else along_y[atom][offset] = value;
                    if (part == 0) place[atom].x = start;
                    if (part == SPREAD) place[atom].y = start;
                }
                for (int i = threadIdx.x; i < batch * PLANES; i += blockDim.x) {
                    const int atom = i / PLANES, k = i - atom * PLANES;
                    strength[atom][k] = strengths[(long long)(first + atom) * count + blockIdx.z * PLANES + k];
                }
                __syncthreads();
                for (int atom = 0; atom < batch; ++atom) {
                    const int dx = x - place[atom].x, dy = y - place[atom].y;
                    if ((unsigned)dx < SPREAD && (unsigned)dy < SPREAD) {
                        const float weight = along_x[atom][dx] * along_y[atom][dy];
#pragma unroll
                        for (int k = 0; k < PLANES; ++k) {
                            sum[k].x = fmaf(weight, strength[atom][k].x, sum[k].x);
                            sum[k].y = fmaf(weight, strength[atom][k].y, sum[k].y);
                        }
                    }
                }
            }
        }
    }
#pragma unroll
    for (int k = 0; k < PLANES; ++k)
        if ((int)blockIdx.z * PLANES + k < here)
            planes[((long long)(blockIdx.z * PLANES + k) * g.up_y + y) * g.up_x + x] = sum[k];
}

// amplitude (+)= f sum_k U_k(p_z) P_k, one thread a grid point. The planes first ... first + count - 1 are given; until
// the last of all is among them, the sum is kept in partial, so that it does not depend on how many come at a time.
extern "C" __global__ void __launch_bounds__(256) nufft_combine(
    const Grid* __restrict__ grid, const float2* __restrict__ planes, const float* __restrict__ table, int first,
    int count, const float* __restrict__ factors, int last_node, double per_step, int add,
    float2* partial, float2* amplitude)
{
    const Grid& g = *grid;
    const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= g.columns || row >= g.rows) return;
    const int ix = column - g.columns / 2, iy = row - g.rows / 2;
    const double qx = fma((double)ix, g.step_x, g.moved_x), qy = fma((double)iy, g.step_y, g.moved_y);
    const double pz = depth(g, qx, qy);
    const Cubic c = cubic_weights((pz - g.deepest) * g.u_scale, g.nodes);
    const long long plane = (long long)g.up_x * g.up_y;
    const float2* source = planes + (long long)(iy < 0 ? iy + g.up_y : iy) * g.up_x + (ix < 0 ? ix + g.up_x : ix);
    const float* const u0 = table + (long long)c.first * g.terms + first;
    const float *const u1 = u0 + g.terms, *const u2 = u1 + g.terms, *const u3 = u2 + g.terms;
    const long long index = (long long)row * g.columns + column;
    float2 sum = first > 0 ? partial[index] : make_float2(0.0f, 0.0f);
#pragma unroll 4
    for (int k = 0; k < count; ++k, source += plane) {
        const float weight = c.w0 * u0[k] + c.w1 * u1[k] + c.w2 * u2[k] + c.w3 * u3[k];
        sum.x = fmaf(weight, source->x, sum.x);
        sum.y = fmaf(weight, source->y, sum.y);
    }
    if (first + count < g.terms) {
        partial[index] = sum;
        return;
    }
    const double x = qx - g.shear_x * pz - g.origin[0], y = qy - g.shear_y * pz - g.origin[1], z = pz - g.origin[2];
    const float f = cubic(factors, fmin((x * x + y * y + z * z) * per_step, (double)last_node));
    const float2 before = add ? amplitude[index] : make_float2(0.0f, 0.0f);
    amplitude[index] = make_float2(fmaf(f, sum.x, before.x), fmaf(f, sum.y, before.y));
}

// |A|^2 times the lattice sums and the solid angle of every grid point, and where it lies on the detector [pixels]
extern "C" __global__ void __launch_bounds__(256) nufft_square(
    const Grid* __restrict__ grid, const float2* __restrict__ amplitude, const float* __restrict__ correction_x,
    const float* __restrict__ correction_y, const float* __restrict__ lattice, int smooth, float4* __restrict__ samples)
{
    const Grid& g = *grid;
    const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= g.columns || row >= g.rows) return;
    const long long index = (long long)row * g.columns + column;
    const double qx = fma((double)(column - g.columns / 2), g.step_x, g.moved_x);
    const double qy = fma((double)(row - g.rows / 2), g.step_y, g.moved_y);
    const double pz = depth(g, qx, qy), px = qx - g.shear_x * pz, py = qy - g.shear_y * pz;
    const double along = sqrt(fmax(g.k * g.k - px * px - py * py, 1e-30));
    const double x = px / along, y = py / along, middle = 0.5 * (g.detector - 1);
    const double u = fma(x, g.pixels, middle), v = fma(y, g.pixels, middle);
    float4 sample = make_float4(0.0f, (float)u, (float)v, 0.0f);
    if (u > -g.pad - 1 && v > -g.pad - 1 && u < g.detector + g.pad && v < g.detector + g.pad) {
        const double shrink = 1.0 - g.curved * (g.shear_x * x + g.shear_y * y);
        const double solid_angle = g.step_x * g.step_y / (g.k * along * shrink) * g.pixels * g.pixels;
        const float2 a = amplitude[index];
        const float correct = correction_x[column] * correction_y[row];
        float value = (float)solid_angle * correct * correct * fmaf(a.x, a.x, a.y * a.y);
        const double dx = px - g.origin[0], dy = py - g.origin[1], dz = pz - g.origin[2];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            if (g.repeat[axis] == 1) continue;
            const double* const edge = g.cell + 3 * axis;
            const int h = turn(fma(dx, edge[0], fma(dy, edge[1], fma(dz, edge[2], ONE_AND_A_HALF))));
            if (smooth) {
                value *= smooth_sum(h, lattice + axis * ((1 << LATTICE_BITS) + 1));
            } else {
                float top_part = 1.0f, bottom = 1.0f;
                sharp_sum(h, g.repeat[axis], top_part, bottom);
                const float ratio = __fdividef(top_part, bottom);
                value *= ratio * ratio;
            }
        }
        sample.x = value;
    }
    samples[index] = sample;
}

__device__ __forceinline__ float response_at(const float* __restrict__ response, float distance, int pad)
{
    const float node = fminf(fabsf(distance), pad + 1.0f) * RESPONSE_NODES;
    const int i = (int)node;
    return fmaf(node - i, response[i + 1] - response[i], response[i]);
}

// every pixel gathers the grid points that its response reaches, row by row
extern "C" __global__ void __launch_bounds__(256, 3) nufft_pixels(
    const Grid* __restrict__ grid, const float4* __restrict__ samples, const float* __restrict__ response,
    float* __restrict__ image)
{
    const Grid& g = *grid;
    const int i = blockIdx.x * blockDim.x + threadIdx.x, j = blockIdx.y * blockDim.y + threadIdx.y;
    if (i >= g.detector || j >= g.detector) return;
    // the box of grid points around the pixel's reach, from its corners and the middles of its sides
    const double reach = g.pad + 0.5, middle = 0.5 * (g.detector - 1);
    double low_x = 1e30, high_x = -1e30, low_y = 1e30, high_y = -1e30;
#pragma unroll 1
    for (int corner = 0; corner < 9; ++corner) {
        const double x = (i - middle + (corner % 3 - 1) * reach) / g.pixels;
        const double y = (j - middle + (corner / 3 - 1) * reach) / g.pixels;
        const double c = inverse_root(1.0 + x * x + y * y), pz = g.curved * g.k * (c - 1.0);
        const double qx = (g.k * x * c + g.shear_x * pz - g.moved_x) / g.step_x;
        const double qy = (g.k * y * c + g.shear_y * pz - g.moved_y) / g.step_y;
        low_x = fmin(low_x, qx);
        high_x = fmax(high_x, qx);
        low_y = fmin(low_y, qy);
        high_y = fmax(high_y, qy);
    }
    const int first_column = max(0, (int)floor(low_x) + g.columns / 2);
    const int last_column = min(g.columns - 1, (int)ceil(high_x) + g.columns / 2);
    const int first_row = max(0, (int)floor(low_y) + g.rows / 2);
    const int last_row = min(g.rows - 1, (int)ceil(high_y) + g.rows / 2);
    const float edge = g.pad + 0.5f;
    float total = 0.0f;
    for (int row = first_row; row <= last_row; ++row) {
        const float4* const line = samples + (long long)row * g.columns;
        float sum = 0.0f;
        for (int column = first_column; column <= last_column; ++column) {
            const float4 sample = line[column];
            const float du = sample.y - i, dv = sample.z - j;
            if (fabsf(du) < edge && fabsf(dv) < edge)
                sum = fmaf(sample.x, response_at(response, du, g.pad) * response_at(response, dv, g.pad), sum);
        }
        total += sum;
    }
    image[(long long)j * g.detector + i] = total;
}
"""

LATTICE_BITS = 15  # the tables of the smooth beam have 2^15 intervals (laue.LATTICE_NODES)
ROWS = 4  # fine rows that a block of laue_rows works on, two at a time
MOST_THREADS = 384  # of a block of laue_rows

SPREAD = 8  # points per axis on which an atom is spread
UPSAMPLING = 1.4  # points of the transform against those of the grid
# Shape of the spreading function for that upsampling (Barnett, Magland & af Klinteberg 2019, doi:10.1137/18M120885X)
SPREAD_BETA = 0.97 * math.pi * SPREAD * (1.0 - 0.5 / UPSAMPLING)
TILE = 16  # points of the transform per block and axis
PLANES = 8  # of the separation in depth that a block spreads at a time
RESPONSE_NODES = 1024  # of the tabulated response, over one pixel

SETTINGS = {
    "TAPS": sampling.TAPS,
    "TAPS_BEFORE": sampling.TAPS // 2 - 1,
    "LATTICE_BITS": LATTICE_BITS,
    "ROWS": ROWS,
    "MOST_THREADS": MOST_THREADS,
    "SPREAD": SPREAD,
    "SPREAD_BETA": f"{SPREAD_BETA:.9f}f",
    "TILE": TILE,
    "PLANES": PLANES,
    "RESPONSE_NODES": RESPONSE_NODES,
}
SOURCE = "".join(f"#define {name} {value}\n" for name, value in SETTINGS.items()) + COMMON + LAUE + NUFFT
KERNELS = (
    "laue_cell", "laue_rows_sharp", "laue_rows_smooth", "laue_pixels",
    "nufft_strengths", "nufft_spread", "nufft_combine", "nufft_square", "nufft_pixels",
)  # fmt: skip
OPTIONS = ("--std=c++17", "--ftz=true")


def launcher(backend: Backend) -> Launcher:
    """Return what starts the kernels on the GPU of ``backend``; ValueError if it has none."""
    return backend.compile(SOURCE, OPTIONS)
