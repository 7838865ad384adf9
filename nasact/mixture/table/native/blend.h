// `blend`: K rows of cells mixed into one, which is looked up; the adjoint sums g * (1, t, t^2, t^3) into the cells.

#pragma once

#include "cells.h"

namespace nasact {

constexpr int64_t BLOCK = 1 << 15;  // elements whose moments are summed in float before they go to double

// ---- moments: float sums of a block, double sums of all ---------------------------------------------------------

struct Moments {
    int64_t cells, waiting = 0;
    Cells even, odd;
    std::vector<double> total;
    explicit Moments(int64_t n) : cells(n), even(make_cells(n)), odd(make_cells(n)), total(4 * n, 0.0) {}
    void count(int64_t n) {
        waiting += n;
        if (waiting >= BLOCK) flush();
    }
    void flush() {
        float *a = even[0].c, *b = odd[0].c;
        for (int64_t i = 0; i < 4 * cells; ++i) {
            total[i] += double(a[i]) + double(b[i]);
            a[i] = b[i] = 0.f;
        }
        waiting = 0;
    }
    void meet(const float *basis, int64_t k, float *dp) {  // dp (k) = <total, basis_k>
        flush();
        int64_t first = 0, last = 4 * cells;  // most of the cells saw nothing
        while (first < last && total[first] == 0.0) ++first;
        while (last > first && total[last - 1] == 0.0) --last;
        for (int64_t j = 0; j < k; ++j) {
            const float *row = basis + j * 4 * cells;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = first; i < last; ++i) sum += total[i] * double(row[i]);
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
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) out[i] += weight * row[i];
    }
}

#ifdef NASACT_AVX2
inline void add_moments8(Cell *even, Cell *odd, const int32_t *at, __m256 t, __m256 g) {
    __m256 g1 = _mm256_mul_ps(g, t), g2 = _mm256_mul_ps(g1, t), g3 = _mm256_mul_ps(g2, t);
    __m256 a = _mm256_unpacklo_ps(g, g1), b = _mm256_unpackhi_ps(g, g1);
    __m256 d = _mm256_unpacklo_ps(g2, g3), e = _mm256_unpackhi_ps(g2, g3);
    __m256 m[4] = {_mm256_shuffle_ps(a, d, 0x44), _mm256_shuffle_ps(a, d, 0xEE), _mm256_shuffle_ps(b, e, 0x44),
                   _mm256_shuffle_ps(b, e, 0xEE)};
    for (int i = 0; i < 4; ++i) {
        float *p = (i & 1 ? odd : even)[at[i]].c;
        _mm_store_ps(p, _mm_add_ps(_mm_load_ps(p), _mm256_castps256_ps128(m[i])));
    }
    for (int i = 0; i < 4; ++i) {
        float *p = (i & 1 ? odd : even)[at[i + 4]].c;
        _mm_store_ps(p, _mm_add_ps(_mm_load_ps(p), _mm256_extractf128_ps(m[i], 1)));
    }
}
#endif

inline void add_moments(Cell *cells, int32_t at, float t, float g) {
    float *p = cells[at].c;
    p[0] += g;
    p[1] += g * t;
    p[2] += g * t * t;
    p[3] += g * t * t * t;
}

// ---- runs of elements that share one row of weights -------------------------------------------------------------

template <typename T>
int64_t run_forward(const T *x, T *y, int64_t n, const Cell *cells, const Grid &grid) {
    int64_t outside = 0, i = 0;
#ifdef NASACT_AVX2
    alignas(32) int32_t at[8];
    for (; i + 8 <= n; i += 8) {
        Spots s = locate8(load8(x + i), grid);
        _mm256_store_si256(reinterpret_cast<__m256i *>(at), s.cell);
        store8(y + i, cubic8(cells, at, s.t));
        outside += 8 - __builtin_popcount(_mm256_movemask_ps(s.inside));
    }
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
    int64_t outside = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t stop = std::min(n, start + BLOCK);
        int64_t i = start;
#ifdef NASACT_AVX2
        alignas(32) int32_t at[8];
        for (; i + 8 <= stop; i += 8) {
            Spots s = locate8(load8(x + i), grid);
            __m256 grad = _mm256_and_ps(load8(g + i), s.inside);
            _mm256_store_si256(reinterpret_cast<__m256i *>(at), s.cell);
            store8(dx + i, _mm256_mul_ps(grad, cubic8(slope, at, s.t)));
            if (moments) add_moments8(moments->even.get(), moments->odd.get(), at, s.t, grad);
            outside += 8 - __builtin_popcount(_mm256_movemask_ps(s.inside));
        }
#endif
        for (; i < stop; ++i) {
            Spot s = locate(widen(x[i]), grid);
            float grad = s.inside ? widen(g[i]) : 0.f;
            narrow(grad * cubic(slope[s.cell], s.t), dx[i]);
            if (moments) add_moments((i & 1 ? moments->odd : moments->even).get(), s.cell, s.t, grad);
            outside += !s.inside;
        }
        if (moments) moments->count(stop - start);
    }
    return outside;
}

// Cotangents a of dx = g L1(x, p) and c of dp = A0(x, g): dg = a L1(p) + L0(c), dx = g (a L2(p) + L1(c)), dp = A1(a g).
// Without c (nobody asked for dp) the tables of c are null.
struct Second { const Cell *slope, *curve, *value_c, *slope_c; };

template <typename T>
int64_t run_second(const T *x, const T *g, const T *a, T *dg, T *dx, int64_t n, const Second &cells, Moments *moments,
                   const Grid &grid) {
    int64_t outside = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t stop = std::min(n, start + BLOCK);
        int64_t i = start;
#ifdef NASACT_AVX2
        alignas(32) int32_t at[8];
        for (; i + 8 <= stop; i += 8) {
            Spots s = locate8(load8(x + i), grid);
            __m256 grad = _mm256_and_ps(load8(g + i), s.inside), co = _mm256_and_ps(load8(a + i), s.inside);
            _mm256_store_si256(reinterpret_cast<__m256i *>(at), s.cell);
            __m256 d1 = cubic8(cells.slope, at, s.t), d2 = cubic8(cells.curve, at, s.t);
            __m256 v = _mm256_setzero_ps(), v1 = v;
            if (cells.value_c) v = cubic8(cells.value_c, at, s.t), v1 = cubic8(cells.slope_c, at, s.t);
            store8(dg + i, _mm256_and_ps(_mm256_fmadd_ps(co, d1, v), s.inside));
            store8(dx + i, _mm256_mul_ps(grad, _mm256_fmadd_ps(co, d2, v1)));
            if (moments) add_moments8(moments->even.get(), moments->odd.get(), at, s.t, _mm256_mul_ps(grad, co));
            outside += 8 - __builtin_popcount(_mm256_movemask_ps(s.inside));
        }
#endif
        for (; i < stop; ++i) {
            Spot s = locate(widen(x[i]), grid);
            float grad = s.inside ? widen(g[i]) : 0.f, co = s.inside ? widen(a[i]) : 0.f;
            float d1 = cubic(cells.slope[s.cell], s.t), d2 = cubic(cells.curve[s.cell], s.t);
            float v = cells.value_c ? cubic(cells.value_c[s.cell], s.t) : 0.f;
            float v1 = cells.value_c ? cubic(cells.slope_c[s.cell], s.t) : 0.f;
            narrow(s.inside ? co * d1 + v : 0.f, dg[i]);
            narrow(grad * (co * d2 + v1), dx[i]);
            if (moments) add_moments((i & 1 ? moments->odd : moments->even).get(), s.cell, s.t, grad * co);
            outside += !s.inside;
        }
        if (moments) moments->count(stop - start);
    }
    return outside;
}

}  // namespace nasact
