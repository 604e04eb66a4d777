// One whole step of the DNC's memory for every row of the batch, and its gradient (see memory_step.py). Follows
// dnc_memory.cpp.

template <typename Real>
struct State {  // of one row
  Real *memory, *usage, *precedence, *write, *links, *read;
  State(void** t, int64_t b, int64_t r, int64_t n, int64_t w)
      : memory(at(t[0], b * n * w)), usage(at(t[1], b * n)), precedence(at(t[2], b * n)), write(at(t[3], b * n)),
        links(at(t[4], b * n * n)), read(at(t[5], b * r * n)) {}
  static Real* at(void* start, int64_t offset) { return start ? static_cast<Real*>(start) + offset : nullptr; }
};

template <typename Real>
static void memory_step(const Layout& at, const Real* vector, const State<Real>& old, const State<Real>& now,
                        Real* vectors, const Tape<Real>& tape, Real* scratch) {
  const int64_t r = at.heads, n = at.slots, w = at.width;
  Real *y = scratch, *rest = scratch + at.size;
  activate(at, vector, y);
  for (int64_t i = 0; i < n; i++) {
    Real kept = 1;
    for (int64_t h = 0; h < r; h++) kept *= 1 - y[at.free + h] * old.read[h * n + i];
    tape.kept[i] = kept;
    now.usage[i] = (old.usage[i] + old.write[i] - old.usage[i] * old.write[i]) * kept;
  }
  look_up(old.memory, y + at.key, y[at.strengths + r], at.masked ? y + at.masks + r * w : nullptr, tape.inverse, false,
          tape.likeness, tape.content, n, w, rest);
  allocate(now.usage, tape, n);
  const Real gate = y[at.write], fresh = y[at.allocate];
  Real written = 0;
  for (int64_t i = 0; i < n; i++) {
    now.write[i] = gate * (tape.content[i] + fresh * (tape.allocation[i] - tape.content[i]));
    written += now.write[i];
  }
  for (int64_t i = 0; i < n; i++) {
    now.precedence[i] = (1 - written) * old.precedence[i] + now.write[i];
    const Real share = now.write[i], holds = at.deallocate ? tape.kept[i] : Real(1);
    const Real *__restrict from = old.memory + i * w, *__restrict erase = y + at.erase, *__restrict add = y + at.add;
    Real* __restrict to = now.memory + i * w;
#pragma omp simd
    for (int64_t k = 0; k < w; k++) to[k] = from[k] * holds * (1 - share * erase[k]) + share * add[k];
  }
  step(old.links, now.write, old.precedence, old.read, now.links, tape.forward, tape.backward, r, n, rest);
  clear(vectors, r * w);
  for (int64_t h = 0; h < r; h++) {
    Real *forward = tape.forward + h * n, *backward = tape.backward + h * n, *inverse = tape.inverses + h * n;
    Real *content = tape.contents + h * n, *read = now.read + h * n;
    if (h && !at.masked) std::copy(tape.inverses, tape.inverses + n, inverse);
    look_up(now.memory, y + at.keys + h * w, y[at.strengths + h], at.masked ? y + at.masks + h * w : nullptr, inverse,
            h && !at.masked, tape.likenesses + h * n, content, n, w, rest);
    if (at.sharp) {
      sharpen(backward, y[at.powers + 2 * h], rest, n);
      sharpen(forward, y[at.powers + 2 * h + 1], rest + n, n);
      backward = rest, forward = rest + n;
    }
    const Real* mode = y + at.modes + 3 * h;
    for (int64_t i = 0; i < n; i++) read[i] = mode[0] * backward[i] + mode[1] * content[i] + mode[2] * forward[i];
    for (int64_t i = 0; i < n; i++) add_to(vectors + h * w, read[i], now.memory + i * w, w);
  }
}

// From the gradients by the new state and the read vectors to those by the old state and the interface vector
template <typename Real>
static void memory_gradient(const Layout& at, const Real* vector, const State<Real>& old, const State<Real>& now,
                            const Tape<Real>& tape, const State<Real>& d_now, const Real* d_vectors, Real* d,
                            const State<Real>& d_old, Real* scratch) {
  const int64_t r = at.heads, n = at.slots, w = at.width;
  Real *y = scratch, *d_memory = y + at.size, *d_write = d_memory + n * w, *d_usage = d_write + n;
  Real *d_kept = d_usage + n, *d_part = d_kept + n, *d_forward = d_part + n, *d_backward = d_forward + r * n;
  Real* rest = d_backward + r * n;
  activate(at, vector, y);
  clear(d, at.size), clear(d_kept, n), clear(d_old.memory, n * w);
  if (d_now.memory) std::copy(d_now.memory, d_now.memory + n * w, d_memory);
  else clear(d_memory, n * w);
  for (int64_t h = 0; h < r; h++) {  // reading
    const Real *mode = y + at.modes + 3 * h, *read = now.read + h * n, *content = tape.contents + h * n;
    Real *by_forward = d_forward + h * n, *by_backward = d_backward + h * n, *d_mode = d + at.modes + 3 * h;
    for (int64_t i = 0; i < n; i++) {
      d_part[i] = d_now.read[h * n + i] + dot(d_vectors + h * w, now.memory + i * w, w);
      add_to(d_memory + i * w, read[i], d_vectors + h * w, w);
    }
    const Real *backward = tape.backward + h * n, *forward = tape.forward + h * n, *powers = y + at.powers + 2 * h;
    Real sums[2];
    if (at.sharp) {
      sums[0] = sharpen(backward, powers[0], rest, n), sums[1] = sharpen(forward, powers[1], rest + n, n);
      backward = rest, forward = rest + n;
    }
    d_mode[0] = dot(d_part, backward, n), d_mode[1] = dot(d_part, content, n), d_mode[2] = dot(d_part, forward, n);
    for (int64_t i = 0; i < n; i++) {
      by_backward[i] = mode[0] * d_part[i], by_forward[i] = mode[2] * d_part[i];
      d_part[i] *= mode[1];
    }
    if (at.sharp) {
      d[at.powers + 2 * h] = sharpen_gradient(tape.backward + h * n, powers[0], backward, sums[0], by_backward, n);
      d[at.powers + 2 * h + 1] = sharpen_gradient(tape.forward + h * n, powers[1], forward, sums[1], by_forward, n);
    }
    look_up_gradient(now.memory, y + at.keys + h * w, y[at.strengths + h], at.masked ? y + at.masks + h * w : nullptr,
                     tape.inverses + h * n, tape.likenesses + h * n, content, d_part, d_memory, d + at.keys + h * w,
                     d + at.strengths + h, d + at.masks + h * w, n, w, rest);
  }
  gradient(old.links, now.write, old.precedence, old.read, d_now.links, d_forward, d_backward, d_old.links, d_write,
           d_old.precedence, d_old.read, r, n, rest);
  Real written = 0;
  for (int64_t i = 0; i < n; i++) written += now.write[i];
  const Real by_written = dot(d_now.precedence, old.precedence, n);
  for (int64_t i = 0; i < n; i++) {
    d_old.precedence[i] += (1 - written) * d_now.precedence[i];
    d_write[i] += d_now.precedence[i] - by_written + d_now.write[i];
  }
  for (int64_t i = 0; i < n; i++) {  // writing to the memory
    const Real share = now.write[i], holds = at.deallocate ? tape.kept[i] : Real(1);
    const Real *__restrict from = old.memory + i * w, *__restrict slope = d_memory + i * w;
    const Real *__restrict erase = y + at.erase, *__restrict add = y + at.add;
    Real *__restrict to = d_old.memory + i * w, *__restrict d_erase = d + at.erase, *__restrict d_add = d + at.add;
    Real by_share = 0, by_holds = 0;
#pragma omp simd reduction(+ : by_share, by_holds)
    for (int64_t k = 0; k < w; k++) {
      const Real was = from[k] * holds, passes = slope[k] * (1 - share * erase[k]);
      by_share += slope[k] * (add[k] - erase[k] * was);
      by_holds += passes * from[k];
      to[k] += passes * holds;
      d_erase[k] -= slope[k] * share * was;
      d_add[k] += slope[k] * share;
    }
    d_write[i] += by_share;
    if (at.deallocate) d_kept[i] += by_holds;
  }
  const Real gate = y[at.write], fresh = y[at.allocate];  // where to write
  for (int64_t i = 0; i < n; i++) {
    const Real difference = tape.allocation[i] - tape.content[i];
    d[at.write] += d_write[i] * (tape.content[i] + fresh * difference);
    d[at.allocate] += d_write[i] * gate * difference;
    d_part[i] = d_write[i] * gate * (1 - fresh);
    d_write[i] *= gate * fresh;
    d_usage[i] = d_now.usage[i];
  }
  allocate_gradient(now.usage, tape, d_write, d_usage, n);
  look_up_gradient(old.memory, y + at.key, y[at.strengths + r], at.masked ? y + at.masks + r * w : nullptr,
                   tape.inverse, tape.likeness, tape.content, d_part, d_old.memory, d + at.key, d + at.strengths + r,
                   d + at.masks + r * w, n, w, rest);
  for (int64_t i = 0; i < n; i++) {  // usage, and what was freed
    d_old.usage[i] = d_usage[i] * tape.kept[i] * (1 - old.write[i]);
    d_old.write[i] = d_usage[i] * tape.kept[i] * (1 - old.usage[i]);
    d_kept[i] += d_usage[i] * (old.usage[i] + old.write[i] - old.usage[i] * old.write[i]);
    for (int64_t h = 0; h < r; h++) {
      Real others = d_kept[i];
      for (int64_t g = 0; g < r; g++)
        if (g != h) others *= 1 - y[at.free + g] * old.read[g * n + i];
      d[at.free + h] -= others * old.read[h * n + i];
      d_old.read[h * n + i] -= others * y[at.free + h];
    }
  }
  deactivate(at, y, d);
}

// t: vector, old state (6), new state (6), vectors, tape; then for the gradient those by the new state (6) and by the
// vectors, and the results: by the vector and by the old state (6)
template <typename Real>
static void all_rows(void** t, const Layout& at, int64_t rows, int64_t threads, bool forward) {
  const int64_t r = at.heads, n = at.slots, w = at.width;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> scratch(at.size + n * w + (10 + 2 * r) * n + 4 * w + 3 * r);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < rows; b++) {
      auto of = [&](int k, int64_t size) { return State<Real>::at(t[k], b * size); };
      auto state = [&](int k) { return State<Real>(t + k, b, r, n, w); };
      const Tape<Real> tape(of(14, at.tape()), r, n);
      if (forward) memory_step(at, of(0, at.size), state(1), state(7), of(13, r * w), tape, scratch.data());
      else
        memory_gradient(at, of(0, at.size), state(1), state(7), tape, state(15), of(21, r * w), of(22, at.size),
                        state(23), scratch.data());
    }
  }
}

extern "C" void dnc_step(void** tensors, int64_t rows, int64_t heads, int64_t slots, int64_t width, int64_t switches,
                         int64_t threads, int64_t bytes, int64_t forward) {
  const Layout at(heads, slots, width, switches);
  if (bytes == 4) all_rows<float>(tensors, at, rows, threads, forward);
  else all_rows<double>(tensors, at, rows, threads, forward);
}
