// Drawing bits: sigmoid, a random number and the comparison in one pass (see bits.py).
//
// Philox4x32-7 (Salmon et al. 2011, SC, section 3.3; seven rounds pass all of BigCrush): random numbers are a function of
// a key and of where they stand, so that they come sixteen at a time and do not depend on the number of threads.

#pragma GCC optimize("no-trapping-math")  // or comparisons would keep the loops from being vectorised
#include <algorithm>
#include <cstdint>
#include <cstring>

static inline void philox(uint32_t place, uint32_t place_high, uint32_t k0, uint32_t k1, uint32_t* r0, uint32_t* r1,
                          uint32_t* r2, uint32_t* r3) {
  uint32_t c0 = place, c1 = place_high, c2 = 0, c3 = 0;
  for (int round = 0; round < 7; round++) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0, n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c0 = n0, c1 = uint32_t(p1), c2 = n2, c3 = uint32_t(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  *r0 = c0, *r1 = c1, *r2 = c2, *r3 = c3;
}

// 1 / (1 + exp(-a)), right to 2e-7; the polynomial has the coefficients of Cephes' expf (Moshier 1992)
static inline float sigmoid(float a) {
  float x = std::min(std::max(-a, -87.0f), 87.0f);
  const float scaled = x * 1.44269504f;
  const int32_t whole = int32_t(scaled + (scaled < 0 ? -0.5f : 0.5f));
  const float n = float(whole);
  x = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.9875691500e-4f;
  e = e * x + 1.3981999507e-3f;
  e = e * x + 8.3334519073e-3f;
  e = e * x + 4.1665795894e-2f;
  e = e * x + 1.6666665459e-1f;
  e = e * x + 5.0000001201e-1f;
  e = e * x * x + x + 1.0f;
  const int32_t power = (whole + 127) << 23;
  float factor;
  std::memcpy(&factor, &power, sizeof factor);
  return 1.0f / (1.0f + e * factor);
}

extern "C" void saccade_bits(const float* a, float* mean, float* bits, int64_t n, uint64_t key) {
  constexpr int64_t kBlock = 1024;
  const int64_t quarter = (n + 3) / 4;
  const uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
#pragma omp parallel for schedule(static) if (n > 8192)
  for (int64_t begin = 0; begin < quarter; begin += kBlock) {
    alignas(64) uint32_t draws[4][kBlock];
    const int64_t count = std::min(kBlock, quarter - begin);
#pragma omp simd
    for (int64_t j = 0; j < count; j++) {
      const uint64_t place = uint64_t(begin + j);
      philox(uint32_t(place), uint32_t(place >> 32), k0, k1, &draws[0][j], &draws[1][j], &draws[2][j], &draws[3][j]);
    }
    for (int64_t q = 0; q < 4; q++) {
      const int64_t first = q * quarter + begin, most = std::min(count, n - first);
      const float* __restrict from = a + first;
      float *__restrict to = bits + first, *__restrict middle = mean + first;
      const uint32_t* __restrict draw = draws[q];
#pragma omp simd
      for (int64_t j = 0; j < most; j++) {
        const float p = sigmoid(from[j]);
        middle[j] = p;
        to[j] = float(int32_t(draw[j] >> 8)) * 5.9604644775390625e-8f < p ? 1.0f : 0.0f;
      }
    }
  }
}
