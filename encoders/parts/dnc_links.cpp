// A step of the DNC's links, and its gradient: dnc_memory.cpp calls both, a row of the batch at a time.
//
// A row's links (256 kB at 256 slots) stay in the second-level cache, and four heads are read at a time, so that a number
// of the links is loaded once for all of them.

#include <cstdint>
#include <cstring>
#include <vector>

// Of some heads: sums[h] = numbers . from[h], and to[h] += numbers * shares[h]
template <typename Real, int heads>
static inline void spread(const Real* __restrict numbers, const Real* __restrict from, Real* __restrict to,
                          const Real* shares, Real* sums, int64_t slots) {
  Real a = 0, b = 0, c = 0, d = 0;
  const Real s0 = shares[0], s1 = heads > 1 ? shares[1] : 0, s2 = heads > 2 ? shares[2] : 0,
             s3 = heads > 3 ? shares[3] : 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t j = 0; j < slots; j++) {
    const Real x = numbers[j];
    a += x * from[j], to[j] += x * s0;
    if (heads > 1) b += x * from[slots + j], to[slots + j] += x * s1;
    if (heads > 2) c += x * from[2 * slots + j], to[2 * slots + j] += x * s2;
    if (heads > 3) d += x * from[3 * slots + j], to[3 * slots + j] += x * s3;
  }
  sums[0] = a;
  if (heads > 1) sums[1] = b;
  if (heads > 2) sums[2] = c;
  if (heads > 3) sums[3] = d;
}

// numbers += slopes[h] * from[h] + shares[h] * back[h], of some heads
template <typename Real, int heads>
static inline void gather(Real* __restrict numbers, const Real* __restrict from, const Real* __restrict back,
                          const Real* slopes, const Real* shares, int64_t slots) {
  Real u[heads], v[heads];
  for (int h = 0; h < heads; h++) u[h] = slopes[h], v[h] = shares[h];
#pragma omp simd
  for (int64_t j = 0; j < slots; j++) {
    Real x = numbers[j];
    x += u[0] * from[j] + v[0] * back[j];
    if (heads > 1) x += u[heads > 1] * from[slots + j] + v[heads > 1] * back[slots + j];
    if (heads > 2) x += u[heads > 2 ? 2 : 0] * from[2 * slots + j] + v[heads > 2 ? 2 : 0] * back[2 * slots + j];
    if (heads > 3) x += u[heads > 3 ? 3 : 0] * from[3 * slots + j] + v[heads > 3 ? 3 : 0] * back[3 * slots + j];
    numbers[j] = x;
  }
}

template <typename Real>
static void spread_all(const Real* numbers, const Real* from, Real* to, const Real* shares, Real* sums, int64_t heads,
                       int64_t n) {
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) spread<Real, 4>(numbers, from + h * n, to + h * n, shares + h, sums + h, n);
  if (heads - h == 3) spread<Real, 3>(numbers, from + h * n, to + h * n, shares + h, sums + h, n);
  if (heads - h == 2) spread<Real, 2>(numbers, from + h * n, to + h * n, shares + h, sums + h, n);
  if (heads - h == 1) spread<Real, 1>(numbers, from + h * n, to + h * n, shares + h, sums + h, n);
}

template <typename Real>
static void gather_all(Real* numbers, const Real* from, const Real* back, const Real* slopes, const Real* shares,
                       int64_t heads, int64_t n) {
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) gather<Real, 4>(numbers, from + h * n, back + h * n, slopes + h, shares + h, n);
  if (heads - h == 3) gather<Real, 3>(numbers, from + h * n, back + h * n, slopes + h, shares + h, n);
  if (heads - h == 2) gather<Real, 2>(numbers, from + h * n, back + h * n, slopes + h, shares + h, n);
  if (heads - h == 1) gather<Real, 1>(numbers, from + h * n, back + h * n, slopes + h, shares + h, n);
}

template <typename Real>
static void step(const Real* links, const Real* write, const Real* precedence, const Real* read, Real* next,
                 Real* forward, Real* backward, int64_t heads, int64_t slots, Real* scratch) {
  Real *shares = scratch, *sums = scratch + heads;
  std::memset(backward, 0, sizeof(Real) * heads * slots);
  for (int64_t i = 0; i < slots; i++) {
    const Real* __restrict old = links + i * slots;
    Real* __restrict now = next + i * slots;
    const Real written = write[i], rest = 1 - write[i];
#pragma omp simd
    for (int64_t j = 0; j < slots; j++) now[j] = (rest - write[j]) * old[j] + written * precedence[j];
    now[i] = 0;
    for (int64_t h = 0; h < heads; h++) shares[h] = read[h * slots + i];
    spread_all(now, read, backward, shares, sums, heads, slots);
    for (int64_t h = 0; h < heads; h++) forward[h * slots + i] = sums[h];
  }
}

template <typename Real>
static void gradient(const Real* links, const Real* write, const Real* precedence, const Real* read, const Real* d_next,
                     const Real* d_forward, const Real* d_backward, Real* d_links, Real* d_write, Real* d_precedence,
                     Real* d_read, int64_t heads, int64_t slots, Real* scratch) {
  Real *shares = scratch, *sums = scratch + heads, *slopes = scratch + 2 * heads;
  Real* __restrict total = scratch + 3 * heads;  // of the loss by one row of the new links
  Real* __restrict now = total + slots;  // that row, computed again
  Real* __restrict down = now + slots;  // sums over rows of total * links
  std::memset(down, 0, sizeof(Real) * slots);
  std::memset(d_precedence, 0, sizeof(Real) * slots);
  std::memset(d_read, 0, sizeof(Real) * heads * slots);
  for (int64_t i = 0; i < slots; i++) {
    const Real* __restrict old = links + i * slots;
    const Real written = write[i], rest = 1 - write[i];
    if (d_next) std::memcpy(total, d_next + i * slots, sizeof(Real) * slots);
    else std::memset(total, 0, sizeof(Real) * slots);
    for (int64_t h = 0; h < heads; h++) slopes[h] = d_forward[h * slots + i], shares[h] = read[h * slots + i];
    gather_all(total, read, d_backward, slopes, shares, heads, slots);
    total[i] = 0;
    Real across = 0, gained = 0;
#pragma omp simd reduction(+ : across, gained)
    for (int64_t j = 0; j < slots; j++) {
      const Real product = total[j] * old[j];
      now[j] = (rest - write[j]) * old[j] + written * precedence[j];
      down[j] += product;
      across += product;
      gained += total[j] * precedence[j];
      d_precedence[j] += written * total[j];
    }
    now[i] = 0;
    d_write[i] = gained - across;
    if (d_links) {
      Real* __restrict out = d_links + i * slots;
#pragma omp simd
      for (int64_t j = 0; j < slots; j++) out[j] = (rest - write[j]) * total[j];
    }
    spread_all(now, d_backward, d_read, slopes, sums, heads, slots);
    for (int64_t h = 0; h < heads; h++) d_read[h * slots + i] += sums[h];
  }
  for (int64_t j = 0; j < slots; j++) d_write[j] -= down[j];
}
