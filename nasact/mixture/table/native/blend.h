// `blend`: adds K weighted rows of cells to one, in which elements are looked up; the adjoint sums moments per cell.

#pragma once

#include "cells.h"

namespace nasact {

// ---- moments ----------------------------------------------------------------------------------------------------

struct alignas(32) Moment { double c[4]; };

// Sums of g * (1, t, t^2, t^3) per cell, in double: millions of elements may share a cell, and summing them one by one
// in float has an error of 0.1 %. Neighbouring elements go to different halves, so that no addition waits for another.
struct Moments {
    int64_t cells;
    std::vector<Moment> even, odd;
    explicit Moments(const Grid &grid) : cells(grid.cells), even(grid.room()), odd(grid.room()) {}
    void add(const Moments &other) {
        for (int64_t i = 0; i < cells; ++i)
            for (int j = 0; j < 4; ++j) even[i].c[j] += other.even[i].c[j] + other.odd[i].c[j];
    }
    void meet(const float *basis, int64_t k, float *dp) const {  // dp (k) = <sums, basis_k>
        const double *a = even[0].c, *b = odd[0].c;
        int64_t first = 0, last = 4 * cells;  // most cells got no element
        while (first < last && a[first] == 0.0 && b[first] == 0.0) ++first;
        while (last > first && a[last - 1] == 0.0 && b[last - 1] == 0.0) --last;
        for (int64_t j = 0; j < k; ++j) {
            const float *row = basis + j * 4 * cells;
            double sum = 0.0;
NASACT_OMP(omp simd reduction(+ : sum))
            for (int64_t i = first; i < last; ++i) sum += (a[i] + b[i]) * double(row[i]);
            dp[j] = float(sum);
        }
    }
};

void blend(const float *basis, const float *p, int64_t k, int64_t cells, Cell *to) {
    float *out = to[0].c;
    const int64_t n = 4 * cells;
    std::fill(out, out + n, 0.f);
    for (int64_t j = 0; j < k; ++j) {
        const float weight = p[j], *row = basis + j * n;
NASACT_OMP(omp simd)
        for (int64_t i = 0; i < n; ++i) out[i] += weight * row[i];
    }
}

#ifdef NASACT_AVX2
inline void add_moments8(Moments &moments, const uint32_t *at, __m256 t, __m256 g) {
    char *even = reinterpret_cast<char *>(moments.even.data()), *odd = reinterpret_cast<char *>(moments.odd.data());
    __m256 g1 = _mm256_mul_ps(g, t), g2 = _mm256_mul_ps(g1, t), g3 = _mm256_mul_ps(g2, t);
    __m256 a = _mm256_unpacklo_ps(g, g1), b = _mm256_unpackhi_ps(g, g1);
    __m256 d = _mm256_unpacklo_ps(g2, g3), e = _mm256_unpackhi_ps(g2, g3);
    __m256 m[4] = {_mm256_shuffle_ps(a, d, 0x44), _mm256_shuffle_ps(a, d, 0xEE), _mm256_shuffle_ps(b, e, 0x44),
                   _mm256_shuffle_ps(b, e, 0xEE)};
    auto add = [&](int i, __m128 of) {
        static_assert(sizeof(Moment) == 2 * sizeof(Cell), "`at` counts the bytes of cells");
        double *p = reinterpret_cast<double *>((i & 1 ? odd : even) + 2 * int64_t(at[i]));
        _mm256_store_pd(p, _mm256_add_pd(_mm256_load_pd(p), _mm256_cvtps_pd(of)));
    };
    for (int i = 0; i < 4; ++i) add(i, _mm256_castps256_ps128(m[i]));
    for (int i = 0; i < 4; ++i) add(i + 4, _mm256_extractf128_ps(m[i], 1));
}
#endif

inline void add_moments(Moments &moments, bool odd, const Spot &s, float g) {
    double *p = (odd ? moments.odd : moments.even)[s.cell].c;
    p[0] += g;
    p[1] += g * s.t;
    p[2] += g * s.t * s.t;
    p[3] += g * s.t * s.t * s.t;
}

// ---- runs of elements that share one row of weights -------------------------------------------------------------
// Elements outside fall into the cell of zeros. Its sums are never read, and the caller overwrites their results.

template <typename T>
int64_t run_forward(const T *x, T *y, int64_t n, const Cell *cells, const Grid &grid) {
    int64_t outside = 0, i = 0;
#ifdef NASACT_AVX2
    alignas(32) uint32_t at[8];
    __m256i missed = _mm256_setzero_si256();
    for (; i + 8 <= n; i += 8) {
        Spots s = locate8(load8(x + i), grid);
        offsets8(s.cell, at);
        store8(y + i, cubic8(cells, at, s.t));
        missed = _mm256_add_epi32(missed, s.outside);
    }
    outside = -total8(missed);
#endif
    for (; i < n; ++i) {
        Spot s = locate(widen(x[i]), grid);
        narrow(cubic(cells[s.cell], s.t), y[i]);
        outside += !s.inside;
    }
    return outside;
}

template <typename T>
int64_t run_backward(const T *x, const T *g, T *dx, int64_t n, const Cell *slope, Moments *moments, const Grid &grid) {
    int64_t outside = 0, i = 0;
#ifdef NASACT_AVX2
    alignas(32) uint32_t at[8];
    __m256i missed = _mm256_setzero_si256();
    for (; i + 8 <= n; i += 8) {
        Spots s = locate8(load8(x + i), grid);
        __m256 grad = load8(g + i);
        offsets8(s.cell, at);
        store8(dx + i, _mm256_mul_ps(grad, cubic8(slope, at, s.t)));
        if (moments) add_moments8(*moments, at, s.t, grad);
        missed = _mm256_add_epi32(missed, s.outside);
    }
    outside = -total8(missed);
#endif
    for (; i < n; ++i) {
        Spot s = locate(widen(x[i]), grid);
        float grad = widen(g[i]);
        narrow(grad * cubic(slope[s.cell], s.t), dx[i]);
        if (moments) add_moments(*moments, i & 1, s, grad);
        outside += !s.inside;
    }
    return outside;
}

// Cotangents a of dx = g L1(x, p) and c of dp = A0(x, g): dg = a L1(p) + L0(c), dx = g (a L2(p) + L1(c)), dp = A1(a g).
// Without c (no cotangent of dp) the tables of c are null.
struct Second { const Cell *slope, *curve, *value_c, *slope_c; };

template <typename T>
int64_t run_second(const T *x, const T *g, const T *a, T *dg, T *dx, int64_t n, const Second &cells, Moments *moments,
                   const Grid &grid) {
    int64_t outside = 0, i = 0;
#ifdef NASACT_AVX2
    alignas(32) uint32_t at[8];
    __m256i missed = _mm256_setzero_si256();
    for (; i + 8 <= n; i += 8) {
        Spots s = locate8(load8(x + i), grid);
        __m256 grad = load8(g + i), co = load8(a + i);
        offsets8(s.cell, at);
        __m256 d1 = cubic8(cells.slope, at, s.t), d2 = cubic8(cells.curve, at, s.t);
        __m256 v = _mm256_setzero_ps(), v1 = v;
        if (cells.value_c) v = cubic8(cells.value_c, at, s.t), v1 = cubic8(cells.slope_c, at, s.t);
        store8(dg + i, _mm256_fmadd_ps(co, d1, v));
        store8(dx + i, _mm256_mul_ps(grad, _mm256_fmadd_ps(co, d2, v1)));
        if (moments) add_moments8(*moments, at, s.t, _mm256_mul_ps(grad, co));
        missed = _mm256_add_epi32(missed, s.outside);
    }
    outside = -total8(missed);
#endif
    for (; i < n; ++i) {
        Spot s = locate(widen(x[i]), grid);
        float grad = widen(g[i]), co = widen(a[i]);
        float d1 = cubic(cells.slope[s.cell], s.t), d2 = cubic(cells.curve[s.cell], s.t);
        float v = cells.value_c ? cubic(cells.value_c[s.cell], s.t) : 0.f;
        float v1 = cells.value_c ? cubic(cells.slope_c[s.cell], s.t) : 0.f;
        narrow(co * d1 + v, dg[i]);
        narrow(grad * (co * d2 + v1), dx[i]);
        if (moments) add_moments(*moments, i & 1, s, grad * co);
        outside += !s.inside;
    }
    return outside;
}

}  // namespace nasact
