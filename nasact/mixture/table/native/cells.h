// Elements and cells: the cell of x and the value of its cubic, for one element and for eight.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>
#if defined(__AVX2__) && defined(__FMA__) && !defined(NASACT_PORTABLE)
#include <immintrin.h>
#define NASACT_AVX2
#endif

#ifdef _OPENMP
#define NASACT_OMP(...) _Pragma(#__VA_ARGS__)
#else
#define NASACT_OMP(...)
#endif

namespace nasact {

struct Grid {
    float scale;        // knots per unit of x
    float low, high;    // x * scale must lie strictly between them, unless x is 0
    int64_t zero;       // index of the cell of x == 0
    int64_t cells;      // followed by one more cell, all zeros, for the elements outside

    int64_t room() const { return cells + 1; }
};

struct Shape {          // x is (outer, rows, inner), contiguous; weights are (rows, k)
    int64_t outer, rows, inner, k;
    int64_t per_row() const { return outer * inner; }
};

struct alignas(16) Cell { float c[4]; };

using Cells = std::unique_ptr<Cell[], void (*)(Cell *)>;
Cells make_cells(int64_t n) {
    auto *p = static_cast<Cell *>(::operator new[](n * sizeof(Cell), std::align_val_t(64)));
    std::memset(p, 0, n * sizeof(Cell));
    return Cells(p, [](Cell *q) { ::operator delete[](q, std::align_val_t(64)); });
}

// ---- element types ----------------------------------------------------------------------------------------------

struct Bf16 { uint16_t bits; };

inline float widen(float v) { return v; }
inline float widen(Bf16 v) {
    uint32_t u = uint32_t(v.bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
inline void narrow(float v, float &to) { to = v; }
inline void narrow(float v, Bf16 &to) {
    uint32_t u;
    std::memcpy(&u, &v, 4);
    to.bits = (v != v) ? 0x7FC0 : uint16_t((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

// ---- one element ------------------------------------------------------------------------------------------------

struct Spot { int32_t cell; float t; bool inside; };

inline Spot locate(float x, const Grid &grid) {
    float u = x * grid.scale;
    if (!(u > grid.low && u < grid.high) && x != 0.f) return {int32_t(grid.cells), 0.f, false};
    int32_t whole = int32_t(u);
    return {int32_t(grid.zero) + whole + (x > 0.f) - (x < 0.f), u - float(whole), true};
}

inline float cubic(const Cell &cell, float t) {
    return cell.c[0] + t * (cell.c[1] + t * (cell.c[2] + t * cell.c[3]));
}

// ---- eight elements ---------------------------------------------------------------------------------------------

#ifdef NASACT_AVX2
struct Spots { __m256i cell; __m256 t; __m256i outside; };

inline __m256 load8(const float *p) { return _mm256_loadu_ps(p); }
inline __m256 load8(const Bf16 *p) {
    __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
inline void store8(float *p, __m256 v) { _mm256_storeu_ps(p, v); }
inline void store8(Bf16 *p, __m256 v) {
    __m256i u = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7FC0), nan);
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), packed);
}

// `outside` is -1 in the lanes of elements outside, whose cell is that of zeros; t is 0 there.
inline Spots locate8(__m256 x, const Grid &grid) {
    __m256 u = _mm256_mul_ps(x, _mm256_set1_ps(grid.scale));
    __m256i whole = _mm256_cvttps_epi32(u);  // INT_MIN for infinity, NaN and what does not fit an integer
    __m256 t = _mm256_sub_ps(u, _mm256_cvtepi32_ps(whole));
    // x + 0 is never -0, so the sign of its bits is the sign of x, and 0 at zero
    __m256i sign = _mm256_castps_si256(_mm256_add_ps(x, _mm256_setzero_ps()));
    __m256i step = _mm256_sign_epi32(_mm256_set1_epi32(1), sign);
    __m256i cell = _mm256_add_epi32(_mm256_add_epi32(whole, step), _mm256_set1_epi32(int(grid.zero)));
    __m256i last = _mm256_set1_epi32(int(grid.cells));
    cell = _mm256_min_epu32(cell, last);  // below the first cell it is negative: a large unsigned number
    __m256i outside = _mm256_cmpeq_epi32(cell, last);
    return {cell, _mm256_andnot_ps(_mm256_castsi256_ps(outside), t), outside};
}

inline int64_t total8(__m256i lanes) {
    alignas(32) int32_t each[8];
    _mm256_store_si256(reinterpret_cast<__m256i *>(each), lanes);
    int64_t sum = 0;
    for (int32_t lane : each) sum += lane;
    return sum;
}

// The offsets of the cells, in bytes.
inline void offsets8(__m256i cell, uint32_t *at) {
    _mm256_store_si256(reinterpret_cast<__m256i *>(at), _mm256_slli_epi32(cell, 4));
}

// The four coefficients of eight cells, as one vector per coefficient: a 4 x 8 transpose.
inline void fetch8(const Cell *cells, const uint32_t *at, __m256 c[4]) {
    const char *base = reinterpret_cast<const char *>(cells);
    auto four = [&](int i) { return _mm_load_ps(reinterpret_cast<const float *>(base + at[i])); };
    auto pair = [&](int i) { return _mm256_insertf128_ps(_mm256_castps128_ps256(four(i)), four(i + 4), 1); };
    __m256 r0 = pair(0), r1 = pair(1), r2 = pair(2), r3 = pair(3);
    __m256 a = _mm256_unpacklo_ps(r0, r1), b = _mm256_unpackhi_ps(r0, r1);
    __m256 d = _mm256_unpacklo_ps(r2, r3), e = _mm256_unpackhi_ps(r2, r3);
    c[0] = _mm256_shuffle_ps(a, d, 0x44);
    c[1] = _mm256_shuffle_ps(a, d, 0xEE);
    c[2] = _mm256_shuffle_ps(b, e, 0x44);
    c[3] = _mm256_shuffle_ps(b, e, 0xEE);
}

inline __m256 cubic8(const Cell *cells, const uint32_t *at, __m256 t) {
    __m256 c[4];
    fetch8(cells, at, c);
    return _mm256_fmadd_ps(t, _mm256_fmadd_ps(t, _mm256_fmadd_ps(t, c[3], c[2]), c[1]), c[0]);
}
#endif

}  // namespace nasact
