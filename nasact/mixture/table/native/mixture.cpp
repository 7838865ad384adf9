// The table kernel of the mixture op: y = sum_k p_k f_k(x), where each f_k is a piecewise cubic. Its cost does not
// depend on K.
//
// A function is a row of cells. A cell holds the 4 coefficients of a cubic in t, where x / step = trunc + t. Cells are
// numbered away from zero, so that t is exact and a knot belongs to the cell beyond it; x = 0 has its own cell:
//     x < 0: zero - 1 + trunc      x == 0: zero      x > 0: zero + 1 + trunc
// Order n of a bank tabulates the n-th derivatives. The op and its adjoint are
//     L_n(x, p) = sum_k p_k f_k^(n)(x)          A_n(x, g)_k = sum_i g_i f_k^(n)(x_i)
// and the derivatives of both can be written with L and A of a higher order (nasact/mixture/table/op.py).
//
// There are two algorithms. `blend` adds the K weighted rows of cells to one row, and looks elements up in it; its
// adjoint sums g * (1, t, t^2, t^3) per cell and then multiplies these moments with the K rows. `direct` evaluates K
// cubics per element, for weights that few elements share. Elements outside the cells, or not finite, are counted; the
// caller computes them.
//
// Built at first use by nasact/mixture/table/build.py. Plain C interface, no state.

#include "blend.h"
#include "direct.h"

namespace nasact {

// ---- threads ----------------------------------------------------------------------------------------------------

// The moments of each thread's part, summed in the order of the parts. Empty if dp is null, that is, not needed.
struct Parts {
    bool wanted;
    const Grid &grid;
    std::vector<std::unique_ptr<Moments>> moments;
    Parts(const float *dp, int count, const Grid &g) : wanted(dp != nullptr), grid(g), moments(count) {}
    Moments *begin(int part) {
        if (wanted) moments[part] = std::make_unique<Moments>(grid);
        return moments[part].get();
    }
    void meet(const float *basis, int64_t k, float *dp) {
        if (!wanted) return;
        for (size_t part = 1; part < moments.size(); ++part) moments[0]->add(*moments[part]);
        moments[0]->meet(basis, k, dp);
    }
};

// Call `body(first, last)` for each group of rows, or `piece(part, first, last)` for each thread's part of a single
// row, and return the sum of the results.
template <typename Body>
int64_t over_rows(const Shape &s, [[maybe_unused]] int threads, int64_t grain, Body body) {
    int64_t outside = 0;
    const int64_t groups = (s.rows + grain - 1) / grain;
NASACT_OMP(omp parallel for num_threads(threads) schedule(static) reduction(+ : outside) if (threads > 1))
    for (int64_t group = 0; group < groups; ++group)
        outside += body(group * grain, std::min(s.rows, (group + 1) * grain));
    return outside;
}

template <typename Piece>
int64_t over_pieces(int64_t n, int threads, Piece piece) {
    int64_t outside = 0;
    const int64_t each = (n / threads + 63) / 64 * 64;
NASACT_OMP(omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : outside) if (threads > 1))
    for (int part = 0; part < threads; ++part) {
        const int64_t first = std::min(n, part * each), last = part + 1 == threads ? n : std::min(n, first + each);
        outside += piece(part, first, last);
    }
    return outside;
}

// Rows per group: few enough that their weights stay in the L1 cache and that every thread gets some.
inline int64_t direct_grain(const Shape &s, int threads) {
    return std::clamp<int64_t>(s.rows / threads, 1, 64);
}

#define NASACT_WIDTHS(CALL)    \
    if (s.k <= 8) return CALL(8);   \
    if (s.k <= 16) return CALL(16); \
    if (s.k <= 32) return CALL(32); \
    return CALL(64);

template <typename T>
int64_t forward(const T *x, T *y, const Shape &s, const float *p, const float *basis, const float *packed,
                const Grid &grid, int threads, bool few) {
    if (few) {
#define CALL(W)                                                                                    \
    over_rows(s, threads, direct_grain(s, threads), [&](int64_t first, int64_t last) {                         \
        return direct_forward<W>(x, y, s, first, last, p, packed, grid);                           \
    })
        NASACT_WIDTHS(CALL)
#undef CALL
    }
    if (s.rows == 1) {
        Cells cells = make_cells(grid.room());
        blend(basis, p, s.k, grid.cells, cells.get());
        return over_pieces(s.per_row(), threads, [&](int, int64_t first, int64_t last) {
            return run_forward(x + first, y + first, last - first, cells.get(), grid);
        });
    }
    return over_rows(s, threads, 1, [&](int64_t row, int64_t) {
        Cells cells = make_cells(grid.room());
        blend(basis, p + row * s.k, s.k, grid.cells, cells.get());
        int64_t outside = 0;
        for (int64_t o = 0; o < s.outer; ++o) {
            const int64_t at = (o * s.rows + row) * s.inner;
            outside += run_forward(x + at, y + at, s.inner, cells.get(), grid);
        }
        return outside;
    });
}

template <typename T>
int64_t backward(const T *x, const T *g, T *dx, const Shape &s, const float *p, float *dp, const float *const *basis,
                 const float *const *packed, const Grid &grid, int threads, bool few) {
    if (few) {
#define CALL(W)                                                                                           \
    over_rows(s, threads, direct_grain(s, threads), [&](int64_t first, int64_t last) {                                \
        return direct_backward<W>(x, g, dx, s, first, last, p, dp, packed, grid);                         \
    })
        NASACT_WIDTHS(CALL)
#undef CALL
    }
    if (s.rows == 1) {
        Cells slope = make_cells(grid.room());
        blend(basis[1], p, s.k, grid.cells, slope.get());
        Parts parts(dp, threads, grid);
        int64_t outside = over_pieces(s.per_row(), threads, [&](int part, int64_t first, int64_t last) {
            Moments *moments = parts.begin(part);
            return run_backward(x + first, g + first, dx + first, last - first, slope.get(), moments, grid);
        });
        parts.meet(basis[0], s.k, dp);
        return outside;
    }
    return over_rows(s, threads, 1, [&](int64_t row, int64_t) {
        Cells slope = make_cells(grid.room());
        Parts parts(dp, 1, grid);
        Moments *moments = parts.begin(0);
        blend(basis[1], p + row * s.k, s.k, grid.cells, slope.get());
        int64_t outside = 0;
        for (int64_t o = 0; o < s.outer; ++o) {
            const int64_t at = (o * s.rows + row) * s.inner;
            outside += run_backward(x + at, g + at, dx + at, s.inner, slope.get(), moments, grid);
        }
        parts.meet(basis[0], s.k, dp + row * s.k);
        return outside;
    });
}

template <typename T>
int64_t second(const T *x, const T *g, const T *a, T *dg, T *dx, const Shape &s, const float *p, const float *c, float *dp,
               const float *const *basis, const float *const *packed, const Grid &grid, int threads, bool few) {
    if (few) {
#define CALL(W)                                                                                                    \
    over_rows(s, threads, direct_grain(s, threads), [&](int64_t first, int64_t last) {                                         \
        return direct_second<W>(x, g, a, dg, dx, s, first, last, p, c, dp, packed, grid);                          \
    })
        NASACT_WIDTHS(CALL)
#undef CALL
    }
    const int64_t n = grid.room();
    auto blended = [&](int64_t row, Cells &room) {
        blend(basis[1], p + row * s.k, s.k, grid.cells, room.get());
        blend(basis[2], p + row * s.k, s.k, grid.cells, room.get() + n);
        if (!c) return Second{room.get(), room.get() + n, nullptr, nullptr};
        blend(basis[0], c + row * s.k, s.k, grid.cells, room.get() + 2 * n);
        blend(basis[1], c + row * s.k, s.k, grid.cells, room.get() + 3 * n);
        return Second{room.get(), room.get() + n, room.get() + 2 * n, room.get() + 3 * n};
    };
    if (s.rows == 1) {
        Cells room = make_cells(4 * n);
        const Second cells = blended(0, room);
        Parts parts(dp, threads, grid);
        int64_t outside = over_pieces(s.per_row(), threads, [&](int part, int64_t first, int64_t last) {
            Moments *moments = parts.begin(part);
            return run_second(x + first, g + first, a + first, dg + first, dx + first, last - first, cells, moments, grid);
        });
        parts.meet(basis[1], s.k, dp);
        return outside;
    }
    return over_rows(s, threads, 1, [&](int64_t row, int64_t) {
        Cells room = make_cells(4 * n);
        const Second cells = blended(row, room);
        Parts parts(dp, 1, grid);
        Moments *moments = parts.begin(0);
        int64_t outside = 0;
        for (int64_t o = 0; o < s.outer; ++o) {
            const int64_t at = (o * s.rows + row) * s.inner;
            outside += run_second(x + at, g + at, a + at, dg + at, dx + at, s.inner, cells, moments, grid);
        }
        parts.meet(basis[1], s.k, dp + row * s.k);
        return outside;
    });
}

}  // namespace nasact

using namespace nasact;

// ---- the interface: every function returns the number of elements outside the cells -----------------------------

extern "C" {

struct NasactTable {
    int64_t k, zero, cells;
    float scale, low, high;
    const float *basis[3];   // order 0, 1, 2: (k, cells, 4)
    const float *packed[3];  // the same as (cells, 4, k padded to 8, 16, 32 or 64)

    Grid grid() const { return {scale, low, high, zero, cells}; }
    // For one row, adding K tables, and multiplying the moments with them, costs about as much as one element per cell.
    bool direct(const Shape &s) const { return s.per_row() < cells && k <= 64; }
};

int64_t nasact_forward(const NasactTable *table, int64_t outer, int64_t rows, int64_t inner, int threads, int bf16,
                       const void *x, const float *p, void *y) {
    const Shape s{outer, rows, inner, table->k};
    const auto run = [&](auto *in, auto *out) {
        return forward(in, out, s, p, table->basis[0], table->packed[0], table->grid(), threads, table->direct(s));
    };
    if (bf16) return run(static_cast<const Bf16 *>(x), static_cast<Bf16 *>(y));
    return run(static_cast<const float *>(x), static_cast<float *>(y));
}

int64_t nasact_backward(const NasactTable *table, int64_t outer, int64_t rows, int64_t inner, int threads, int bf16,
                        const void *x, const void *g, const float *p, void *dx, float *dp) {
    const Shape s{outer, rows, inner, table->k};
    const auto run = [&](auto *in, auto *grad, auto *out) {
        return backward(in, grad, out, s, p, dp, table->basis, table->packed, table->grid(), threads, table->direct(s));
    };
    if (bf16) return run(static_cast<const Bf16 *>(x), static_cast<const Bf16 *>(g), static_cast<Bf16 *>(dx));
    return run(static_cast<const float *>(x), static_cast<const float *>(g), static_cast<float *>(dx));
}

int64_t nasact_second(const NasactTable *table, int64_t outer, int64_t rows, int64_t inner, int threads, int bf16,
                      const void *x, const void *g, const void *a, const float *p, const float *c, void *dg, void *dx,
                      float *dp) {
    const Shape s{outer, rows, inner, table->k};
    const auto run = [&](auto *in, auto *grad, auto *co, auto *to_g, auto *to_x) {
        return second(in, grad, co, to_g, to_x, s, p, c, dp, table->basis, table->packed, table->grid(), threads,
                      table->direct(s));
    };
    if (bf16)
        return run(static_cast<const Bf16 *>(x), static_cast<const Bf16 *>(g), static_cast<const Bf16 *>(a),
                   static_cast<Bf16 *>(dg), static_cast<Bf16 *>(dx));
    return run(static_cast<const float *>(x), static_cast<const float *>(g), static_cast<const float *>(a),
               static_cast<float *>(dg), static_cast<float *>(dx));
}
}
