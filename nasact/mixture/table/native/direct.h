// `direct`: K cubics per element, for weights that few elements share. `packed` is (cells, 4, W), with K padded to W.

#pragma once

#include "cells.h"

namespace nasact {

#pragma GCC diagnostic ignored "-Wpsabi"  // for processors without such registers; no caller outside uses them
typedef float Lanes __attribute__((vector_size(32), aligned(32)));

// W floats in registers.
template <int W>
struct Row {
    static constexpr int V = W / 8;
    Lanes v[V];
    static const Row &at(const float *from) { return *reinterpret_cast<const Row *>(from); }
};

template <int W>
inline Row<W> cubics(const float *packed, int32_t cell, float t) {
    const float *c = packed + int64_t(cell) * 4 * W;
    const Row<W> &c0 = Row<W>::at(c), &c1 = Row<W>::at(c + W), &c2 = Row<W>::at(c + 2 * W), &c3 = Row<W>::at(c + 3 * W);
    Row<W> out;
#pragma GCC unroll 8
    for (int j = 0; j < Row<W>::V; ++j) out.v[j] = c0.v[j] + t * (c1.v[j] + t * (c2.v[j] + t * c3.v[j]));
    return out;
}

template <int W>
inline Lanes products(const Row<W> &a, const Row<W> &b) {
    Lanes sum = a.v[0] * b.v[0];
#pragma GCC unroll 8
    for (int j = 1; j < Row<W>::V; ++j) sum += a.v[j] * b.v[j];
    return sum;
}

template <int W>
inline void accumulate(float *sum, float g, const Row<W> &f) {
    Row<W> &to = *reinterpret_cast<Row<W> *>(sum);
#pragma GCC unroll 8
    for (int j = 0; j < Row<W>::V; ++j) to.v[j] += g * f.v[j];
}

inline float total(Lanes v) {
#ifdef NASACT_AVX2
    __m256 whole = reinterpret_cast<__m256 &>(v);
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(whole), _mm256_extractf128_ps(whole, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#else
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
#endif
}

// Up to eight consecutive elements of x: the cell of each, and its position t in the cell.
template <typename T>
struct Eight {
    alignas(32) int32_t cell[8];
    alignas(32) float t[8], keep[8];  // keep: 1 inside the cells, 0 outside
    int64_t outside = 0;

    Eight(const T *x, int n, const Grid &grid) {
#ifdef NASACT_AVX2
        if (n == 8) {
            const Spots s = locate8(load8(x), grid);
            // the packed rows have no cell of zeros; any cell may be read, as `keep` discards the result
            const __m256i some = _mm256_andnot_si256(s.outside, s.cell);
            const __m256 none = _mm256_castsi256_ps(s.outside);
            _mm256_store_si256(reinterpret_cast<__m256i *>(cell), some);
            _mm256_store_ps(t, s.t);
            _mm256_store_ps(keep, _mm256_andnot_ps(none, _mm256_set1_ps(1.f)));
            outside = __builtin_popcount(_mm256_movemask_ps(none));
            return;
        }
#endif
        for (int l = 0; l < n; ++l) {
            const Spot s = locate(widen(x[l]), grid);
            cell[l] = s.inside ? s.cell : 0;
            t[l] = s.t;
            keep[l] = s.inside;
            outside += !s.inside;
        }
    }
};

// Calls `body(at, n, row of each)` for every eight consecutive elements of the rows first .. last of x (outer, rows,
// inner).
template <typename Body>
inline void walk(const Shape &s, int64_t first, int64_t last, Body body) {
    int64_t row_of[8];
    for (int64_t o = 0; o < s.outer; ++o) {
        const int64_t base = o * s.rows * s.inner;
        int64_t row = first, done = 0;
        for (int64_t at = first * s.inner; at < last * s.inner; at += 8) {
            const int n = int(std::min<int64_t>(8, last * s.inner - at));
            for (int l = 0; l < n; ++l) {
                row_of[l] = row - first;
                if (++done == s.inner) { ++row; done = 0; }
            }
            body(base + at, n, row_of);
        }
    }
}

// Weights of the rows first .. last, padded to W with zeros; all zeros if p is null.
template <int W>
struct Weights {
    std::unique_ptr<float[], void (*)(float *)> room;
    explicit Weights(int64_t rows)
        : room(static_cast<float *>(::operator new[](rows * W * 4, std::align_val_t(64))),
               [](float *p) { ::operator delete[](p, std::align_val_t(64)); }) {
        std::fill(room.get(), room.get() + rows * W, 0.f);
    }
    Weights(const float *p, int64_t first, int64_t last, int64_t k) : Weights(last - first) {
        if (!p) return;
        for (int64_t row = first; row < last; ++row) std::copy(p + row * k, p + (row + 1) * k, of(row - first));
    }
    float *of(int64_t row) { return room.get() + row * W; }
    // Copies them to p, unless p is null, that is, not needed.
    void save(float *p, int64_t first, int64_t last, int64_t k) {
        if (!p) return;
        for (int64_t row = first; row < last; ++row) std::copy(of(row - first), of(row - first) + k, p + row * k);
    }
};

template <int W, typename T>
int64_t direct_forward(const T *x, T *y, const Shape &s, int64_t first, int64_t last, const float *p,
                       const float *packed, const Grid &grid) {
    Weights<W> weights(p, first, last, s.k);
    int64_t outside = 0;
    walk(s, first, last, [&](int64_t at, int n, const int64_t *row) {
        const Eight<T> e(x + at, n, grid);
        for (int l = 0; l < n; ++l)
            narrow(total(products(Row<W>::at(weights.of(row[l])), cubics<W>(packed, e.cell[l], e.t[l]))), y[at + l]);
        outside += e.outside;
    });
    return outside;
}

template <int W, typename T>
int64_t direct_backward(const T *x, const T *g, T *dx, const Shape &s, int64_t first, int64_t last, const float *p,
                        float *dp, const float *const *packed, const Grid &grid) {
    Weights<W> weights(p, first, last, s.k), sum(last - first);
    int64_t outside = 0;
    walk(s, first, last, [&](int64_t at, int n, const int64_t *row) {
        const Eight<T> e(x + at, n, grid);
        for (int l = 0; l < n; ++l) {
            const float grad = e.keep[l] != 0.f ? widen(g[at + l]) : 0.f;
            accumulate(sum.of(row[l]), grad, cubics<W>(packed[0], e.cell[l], e.t[l]));
            const Row<W> slope = cubics<W>(packed[1], e.cell[l], e.t[l]);
            narrow(grad * total(products(Row<W>::at(weights.of(row[l])), slope)), dx[at + l]);
        }
        outside += e.outside;
    });
    sum.save(dp, first, last, s.k);
    return outside;
}

template <int W, typename T>
int64_t direct_second(const T *x, const T *g, const T *a, T *dg, T *dx, const Shape &s, int64_t first, int64_t last,
                      const float *p, const float *c, float *dp, const float *const *packed, const Grid &grid) {
    Weights<W> weights(p, first, last, s.k), cotangents(c, first, last, s.k), sum(last - first);
    int64_t outside = 0;
    walk(s, first, last, [&](int64_t at, int n, const int64_t *row) {
        const Eight<T> e(x + at, n, grid);
        for (int l = 0; l < n; ++l) {
            const bool inside = e.keep[l] != 0.f;
            const float grad = inside ? widen(g[at + l]) : 0.f, co = inside ? widen(a[at + l]) : 0.f;
            const Row<W> &w = Row<W>::at(weights.of(row[l])), &cot = Row<W>::at(cotangents.of(row[l]));
            const Row<W> value = cubics<W>(packed[0], e.cell[l], e.t[l]);
            const Row<W> slope = cubics<W>(packed[1], e.cell[l], e.t[l]);
            const Row<W> curve = cubics<W>(packed[2], e.cell[l], e.t[l]);
            narrow(inside ? co * total(products(w, slope)) + total(products(cot, value)) : 0.f, dg[at + l]);
            narrow(grad * (co * total(products(w, curve)) + total(products(cot, slope))), dx[at + l]);
            accumulate(sum.of(row[l]), grad * co, slope);
        }
        outside += e.outside;
    });
    sum.save(dp, first, last, s.k);
    return outside;
}

}  // namespace nasact
