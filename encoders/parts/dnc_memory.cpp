// The parts of one step of the DNC's memory, and of its gradient, loop by loop: `addressing` and `DNC.parse` in Python.
//
// A row of the batch at a time. What the gradient needs and what is not the links is left on a tape. NORM_FLOOR,
// USAGE_FLOOR, USAGE_RANKS and LINK_FLOOR are those of `addressing`. Follows dnc_links.cpp.

#include <algorithm>
#include <cmath>
#include <numeric>

static const double NORM = NORM_FLOOR, USED = USAGE_FLOOR, LINKED = LINK_FLOOR;

struct Layout {  // where the parts of the interface vector begin; masks and powers may be empty
  int64_t heads, slots, width, keys, key, strengths, add, erase, free, allocate, write, masks, modes, powers, size;
  bool masked, deallocate, sharp;
  Layout(int64_t r, int64_t n, int64_t w, int64_t switches)
      : heads(r), slots(n), width(w), masked(switches & 1), deallocate(switches & 2), sharp(switches & 4) {
    keys = 0, key = r * w, strengths = key + w, add = strengths + r + 1, erase = add + w, free = erase + w;
    allocate = free + r, write = allocate + 1, masks = write + 1, modes = masks + masked * (r + 1) * w;
    powers = modes + 3 * r, size = powers + 2 * r * sharp;
  }
  int64_t tape() const { return (7 + 5 * heads) * slots; }
};

template <typename Real>
struct Tape {  // of one row
  Real *content, *allocation, *before, *order, *likeness, *inverse, *kept;           // [slots], of the write head
  Real *contents, *likenesses, *inverses, *forward, *backward;                       // [heads, slots]
  Tape(Real* at, int64_t r, int64_t n)
      : content(at), allocation(at + n), before(at + 2 * n), order(at + 3 * n), likeness(at + 4 * n),
        inverse(at + 5 * n), kept(at + 6 * n), contents(at + 7 * n), likenesses(at + (7 + r) * n),
        inverses(at + (7 + 2 * r) * n), forward(at + (7 + 3 * r) * n), backward(at + (7 + 4 * r) * n) {}
};

template <typename Real>
static void clear(Real* to, int64_t count) { std::memset(to, 0, sizeof(Real) * count); }

template <typename Real>
static Real dot(const Real* a, const Real* b, int64_t count) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < count; k++) sum += a[k] * b[k];
  return sum;
}

template <typename Real>
static void add_to(Real* __restrict to, Real share, const Real* __restrict from, int64_t count) {
#pragma omp simd
  for (int64_t k = 0; k < count; k++) to[k] += share * from[k];
}

template <typename Real>
static void softmax(const Real* from, Real* to, int64_t count) {
  const Real most = *std::max_element(from, from + count);
  Real sum = 0;
  for (int64_t k = 0; k < count; k++) sum += to[k] = std::exp(from[k] - most);
  for (int64_t k = 0; k < count; k++) to[k] /= sum;
}

template <typename Real>
static Real oneplus(Real x) { return 1 + std::max(x, Real(0)) + std::log1p(std::exp(-std::abs(x))); }

// Each part of the interface vector into its range
template <typename Real>
static void activate(const Layout& at, const Real* x, Real* y) {
  std::copy(x, x + at.size, y);
  for (int64_t k = at.strengths; k < at.add; k++) y[k] = oneplus(x[k]);
  for (int64_t k = at.erase; k < at.modes; k++) y[k] = 1 / (1 + std::exp(-x[k]));
  for (int64_t k = at.modes; k < at.powers; k += 3) softmax(x + k, y + k, 3);
  for (int64_t k = at.powers; k < at.size; k++) y[k] = oneplus(x[k]);
}

// From the gradient by the activated parts to that by the interface vector, in place
template <typename Real>
static void deactivate(const Layout& at, const Real* y, Real* d) {
  for (int64_t k = at.strengths; k < at.add; k++) d[k] *= 1 - std::exp(1 - y[k]);
  for (int64_t k = at.erase; k < at.modes; k++) d[k] *= y[k] * (1 - y[k]);
  for (int64_t k = at.modes; k < at.powers; k += 3) {
    const Real mean = dot(y + k, d + k, 3);
    for (int64_t m = k; m < k + 3; m++) d[m] = y[m] * (d[m] - mean);
  }
  for (int64_t k = at.powers; k < at.size; k++) d[k] *= 1 - std::exp(1 - y[k]);
}

// Weights of the slots by content. `masks` null: all ones, and `inverse` may be there already (`known`).
template <typename Real>
static void look_up(const Real* memory, const Real* key, Real strength, const Real* mask, Real* inverse, bool known,
                    Real* likeness, Real* weights, int64_t slots, int64_t width, Real* scratch) {
  Real *squares = scratch, *scaled = scratch + width, length = NORM;
  for (int64_t k = 0; k < width; k++) {
    squares[k] = mask ? mask[k] * mask[k] : Real(1);
    scaled[k] = key[k] * squares[k];
    length += key[k] * scaled[k];
  }
  const Real scale = 1 / std::sqrt(length);
  for (int64_t i = 0; i < slots; i++) {
    const Real* slot = memory + i * width;
    if (!known) {
      Real sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = 0; k < width; k++) sum += squares[k] * slot[k] * slot[k];
      inverse[i] = 1 / std::sqrt(sum + Real(NORM));
    }
    likeness[i] = dot(slot, scaled, width) * inverse[i] * scale;
    weights[i] = strength * likeness[i];
  }
  softmax(weights, weights, slots);
}

// Adds to the gradients by memory, key, strength and mask; `d` is that by the weights
template <typename Real>
static void look_up_gradient(const Real* memory, const Real* key, Real strength, const Real* mask, const Real* inverse,
                             const Real* likeness, const Real* weights, const Real* d, Real* d_memory, Real* d_key,
                             Real* d_strength, Real* d_mask, int64_t slots, int64_t width, Real* scratch) {
  Real* __restrict squares = scratch;
  Real* __restrict scaled = scratch + width;
  Real* __restrict sums = scratch + 2 * width;  // of memory, by slot
  Real* __restrict lengths = scratch + 3 * width;  // of memory squared
  Real length = NORM, along = 0;
  for (int64_t k = 0; k < width; k++) {
    squares[k] = mask ? mask[k] * mask[k] : Real(1);
    scaled[k] = key[k] * squares[k];
    length += key[k] * scaled[k];
  }
  clear(sums, 2 * width);
  const Real scale = 1 / std::sqrt(length), mean = dot(weights, d, slots);
  for (int64_t i = 0; i < slots; i++) {
    const Real slope = weights[i] * (d[i] - mean);  // by strength * likeness
    *d_strength += slope * likeness[i];
    const Real by_likeness = slope * strength, by_product = by_likeness * inverse[i] * scale;
    const Real by_length = -by_likeness * likeness[i] * inverse[i] * inverse[i];
    along += by_likeness * likeness[i];
    const Real* __restrict slot = memory + i * width;
    Real* __restrict to = d_memory + i * width;
#pragma omp simd
    for (int64_t k = 0; k < width; k++) {
      sums[k] += by_product * slot[k];
      to[k] += by_product * scaled[k] + by_length * squares[k] * slot[k];
    }
    if (mask) {
#pragma omp simd
      for (int64_t k = 0; k < width; k++) lengths[k] += by_length * slot[k] * slot[k];
    }
  }
  const Real shrink = along * scale * scale;
  for (int64_t k = 0; k < width; k++) {
    d_key[k] += squares[k] * (sums[k] - shrink * key[k]);
    if (mask) d_mask[k] += mask[k] * (2 * key[k] * sums[k] + lengths[k] - shrink * key[k] * key[k]);
  }
}

template <typename Real>
static void allocate(const Real* usage, const Tape<Real>& tape, int64_t slots) {
  std::vector<int64_t> order(slots);
  std::vector<Real> rank(slots);
  for (int64_t i = 0; i < slots; i++) rank[i] = std::nearbyint(usage[i] * Real(USAGE_RANKS));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rank[a] < rank[b]; });
  Real product = 1;
  for (int64_t j = 0; j < slots; j++) {
    const int64_t slot = order[j];
    const Real used = Real(USED) + (1 - Real(USED)) * usage[slot];
    tape.order[j] = slot, tape.before[slot] = product, tape.allocation[slot] = (1 - used) * product;
    product *= used;
  }
}

// Adds to the gradient by usage
template <typename Real>
static void allocate_gradient(const Real* usage, const Tape<Real>& tape, const Real* d, Real* d_usage, int64_t slots) {
  Real later = 0;  // sum of d * allocation over the slots behind
  for (int64_t j = slots - 1; j >= 0; j--) {
    const int64_t slot = tape.order[j];
    const Real used = Real(USED) + (1 - Real(USED)) * usage[slot];
    d_usage[slot] += (1 - Real(USED)) * (later / used - d[slot] * tape.before[slot]);
    later += d[slot] * tape.allocation[slot];
  }
}

// Returns the sum that the weights were divided by, before its floor
template <typename Real>
static Real sharpen(const Real* from, Real power, Real* to, int64_t slots) {
  const Real most = std::max(*std::max_element(from, from + slots), Real(LINKED));
  Real sum = 0;
  for (int64_t i = 0; i < slots; i++) sum += to[i] = std::pow(from[i] / most, power);
  const Real divisor = std::max(sum, Real(1e-3));
  for (int64_t i = 0; i < slots; i++) to[i] /= divisor;
  return sum;
}

// `d`, the gradient by the sharpened weights `to` (divided by `sum`), becomes that by the weights `from`; returns that by
// the power
template <typename Real>
static Real sharpen_gradient(const Real* from, Real power, const Real* to, Real sum, Real* d, int64_t slots) {
  const Real most = std::max(*std::max_element(from, from + slots), Real(LINKED));
  const Real mean = sum > Real(1e-3) ? dot(to, d, slots) : Real(0), divisor = std::max(sum, Real(1e-3));
  Real by_power = 0;
  for (int64_t i = 0; i < slots; i++) {
    const Real slope = (d[i] - mean) / divisor, powered = to[i] * divisor;  // (from / most) ** power
    if (from[i] > 0) {
      by_power += slope * powered * std::log(from[i] / most);
      d[i] = slope * power * powered / from[i];
    } else {
      d[i] = power > 1 ? Real(0) : slope / most;
    }
  }
  return by_power;
}
