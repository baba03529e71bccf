/* The convolution's trilinear form by fewer products, and its three faces (docs/winograd.md has the derivation).

   On a tile of m outputs under a kernel of r taps, an axis, f = 1 .. m + r - 1,

       F(x, w, delta) = sum_{i,p} delta_i x_{i+p} w_p = sum_f (A x)_f (B w)_f (C delta)_f

   and of two axes with each matrix applied to rows and to columns. Derived by delta, by x and by w:

       y = C^T [(A x) (B w)]        dx = A^T [(B w) (C delta)]        dw = B^T [sum over tiles (A x) (C delta)]

   Of many maps each bracket is, for every f, a product of matrices: over c, over o, over tiles. 4 x 4 outputs of a 3 x 3
   kernel take 36 products in place of 144, 2 x 2 of 5 x 5 take 36 in place of 100.

   delta and w are polynomials; B and C evaluate them at the points 0, +-a, +-b and infinity, and A x pairs x with the
   polynomial that is 1 at one point and 0 at the others. a = 5/8 and b = 3/2 round least (1 and 2: twice as much).
   dx is computed as y of delta with the rotated kernel: so no tiles overlap in what is written; it rounds alike.

   A larger kernel is the sum of kernels of 3 x 3, each slid over x three pixels on: the bracket of y is summed over them
   as over the maps, so that there are C maps for each, and dw is theirs side by side.

   Shapes: x [N, H, W, C], y and delta [N, I, J, O], w and dw of any strides. Scratch: A x [f, K / L, T, L], B w [f,
   O / L, K, L], C^T's argument and C delta [f, O / L, T, L], K = C times the small kernels; T tiles at a time, which
   stay in the cache.
   Sources: Winograd 1980; Lavin and Gray 2016, sec. 4. */
#include <omp.h>
#include "vector.h"

enum { L = 2 * V };  /* maps in a panel */

#define a 0.625
#define b 1.5
#define aa (a * a)
#define bb (b * b)
enum { IMAGE, KERNEL, DELTA };
/* for E = 6 products an axis, and for E = 4, at the points 0, 1, -1 and infinity */
static const float LAGRANGE6[6][6] = {
    {aa * bb, 0, -aa - bb, 0, 1, 0}, {0, -a * bb, -bb, a, 1, 0}, {0, a * bb, -bb, -a, 1, 0},
    {0, -b * aa, -aa, b, 1, 0},      {0, b * aa, -aa, -b, 1, 0}, {0, aa * bb, 0, -aa - bb, 0, 1}};
static const float LAGRANGE4[4][4] = {{-1, 0, 1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};
static const float POINTS6[5] = {0, a, -a, b, -b}, POINTS4[3] = {0, 1, -1};
static const float SCALE6[6] = {1 / (aa * bb), 1 / (2 * aa * (aa - bb)), 1 / (2 * aa * (aa - bb)),
                                1 / (2 * bb * (bb - aa)), 1 / (2 * bb * (bb - aa)), 1};
static const float SCALE4[4] = {-1, 0.5, 0.5, 1};
#undef a
#undef b
#undef aa
#undef bb
/* A, B or C at product f and position k of n */
INLINE float entry(int of, int E, int n, int f, int k) {
    if (of == IMAGE) return E == 6 ? LAGRANGE6[f][k] : LAGRANGE4[f][k];
    float e = f == E - 1 ? k == n - 1 : 1;  /* at infinity the highest coefficient, else the point's k-th power */
    if (f < E - 1) UNROLLED for (int i = 0; i < k; i++) e *= E == 6 ? POINTS6[f] : POINTS4[f];
    return of == KERNEL ? e * (E == 6 ? SCALE6[f] : SCALE4[f]) : e;
}
long triple_entry(long of, long E, long n, long f, long k, float *out) { *out = entry(of, E, n, f, k); return 0; }

/* The rows of a pair of points +-p differ in the sign of the odd positions. */
INLINE int paired(int E, int f) { return f > 0 && f < E - 1; }
INLINE int alone_or_first(int E, int f) { return !paired(E, f) || f % 2; }
INLINE void add(v *sum, int *none, float c, v t) {
    if (c == 0) return;
    *sum = *none ? c * t : *sum + c * t;
    *none = 0;
}
/* out_f = sum_k M_fk in_k */
INLINE void line(int of, int E, int n, v *out, int to, const v *in, int step) {
    UNROLLED for (int f = 0; f < E; f++) if (alone_or_first(E, f)) {
        v even = {0}, odd = {0};
        int no_even = 1, no_odd = 1;
        UNROLLED for (int k = 0; k < n; k++) {
            if (paired(E, f) && k % 2) add(&odd, &no_odd, entry(of, E, n, f, k), in[k * step]);
            else add(&even, &no_even, entry(of, E, n, f, k), in[k * step]);
        }
        if (paired(E, f)) { out[f * to] = even + odd; out[(f + 1) * to] = even - odd; }
        else out[f * to] = even;
    }
}
/* out_k = sum_f M_fk in_f */
INLINE void line_back(int of, int E, int n, v *out, int to, const v *in) {
    v plus[6], minus[6];
    UNROLLED for (int f = 1; f < E - 1; f++) if (f % 2) { plus[f] = in[f] + in[f + 1]; minus[f] = in[f] - in[f + 1]; }
    UNROLLED for (int k = 0; k < n; k++) {
        v sum = {0};
        int none = 1;
        UNROLLED for (int f = 0; f < E; f++) if (alone_or_first(E, f))
            add(&sum, &none, entry(of, E, n, f, k), !paired(E, f) ? in[f] : k % 2 ? minus[f] : plus[f]);
        out[k * to] = sum;
    }
}
/* out [E, E] = M in M^T of in [n, n], the numbers of `out` `step` floats apart; and out [n, n] = M^T in M of in [E, E] */
INLINE void square(int of, int E, int n, const v *in, float *out, long step) {
    v t[36], to[6];
    UNROLLED for (int k = 0; k < n; k++) line(of, E, n, t + k, n, in + k, n);
    UNROLLED for (int f = 0; f < E; f++) {
        line(of, E, n, to, 1, t + f * n, 1);
        UNROLLED for (int h = 0; h < E; h++) store(out + (f * E + h) * step, to[h]);
    }
}
INLINE void square_back(int of, int E, int n, const float *in, long step, v *out) {
    v t[36], from[6];
    UNROLLED for (int f = 0; f < E; f++) {
        UNROLLED for (int h = 0; h < E; h++) from[h] = load(in + (h * E + f) * step);
        line_back(of, E, n, t + f, E, from);
    }
    UNROLLED for (int k = 0; k < n; k++) line_back(of, E, n, out + k * n, 1, t + k * E);
}
/* One instance of each: they are long. */
typedef void Into(const v *in, float *out, long step);
typedef void Back(const float *in, long step, v *out);
#define ONCE static __attribute__((noinline))
#define FORTH(name, of, E, n) ONCE void name(const v *in, float *out, long step) { square(of, E, n, in, out, step); }
#define BACK(name, of, E, n) ONCE void name(const float *in, long step, v *out) { square_back(of, E, n, in, step, out); }
FORTH(image6, IMAGE, 6, 6)
FORTH(image4, IMAGE, 4, 4)
FORTH(kernel6_3, KERNEL, 6, 3)
FORTH(kernel6_5, KERNEL, 6, 5)
FORTH(kernel4_3, KERNEL, 4, 3)
FORTH(delta6_4, DELTA, 6, 4)
FORTH(delta6_2, DELTA, 6, 2)
FORTH(delta4_2, DELTA, 4, 2)
BACK(delta6_4_back, DELTA, 6, 4)
BACK(delta6_2_back, DELTA, 6, 2)
BACK(delta4_2_back, DELTA, 4, 2)
BACK(kernel6_3_back, KERNEL, 6, 3)
BACK(kernel6_5_back, KERNEL, 6, 5)
BACK(kernel4_3_back, KERNEL, 4, 3)
/* m outputs a tile, r taps, E products an axis, F in all; A, B, C, B^T and C^T of both axes */
typedef struct { long m, r, E, F; Into *image, *kernel, *delta; Back *kernel_back, *delta_back; } Form;
static const Form FORMS[] = {
    {4, 3, 6, 36, image6, kernel6_3, delta6_4, kernel6_3_back, delta6_4_back},
    {2, 5, 6, 36, image6, kernel6_5, delta6_2, kernel6_5_back, delta6_2_back},
    {2, 3, 4, 16, image4, kernel4_3, delta4_2, kernel4_3_back, delta4_2_back}};

/* N images of x, H x W pixels of C maps; kernels of P x Q taps, which begin `top` rows and `left` pixels outside; O maps of
   I x J outputs. T tiles at a time of `total`, rows x columns an image. The kernel is the sum of `parts` of r x r taps,
   `across` in a row, which are zero beyond it; each sees `maps` numbers of x a tile, all see K. Panels of these and of O;
   and from f to f + 1 of A x, of C delta, of B w. */
typedef struct {
    long N, H, W, C, P, Q, top, left, I, J, O, T, rows, columns, total, across, parts, maps, K, KL, OL, fx, fy, fw;
    Form f;
} Triple;
/* as a caller has it: the first twelve of these, and the number of the form */
static Triple triple_of(const long *n) {
    Triple g = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], .f = FORMS[n[12]]};
    g.rows = ceil_div(g.I, g.f.m), g.columns = ceil_div(g.J, g.f.m), g.total = g.N * g.rows * g.columns;
    g.across = ceil_div(g.Q, g.f.r), g.parts = ceil_div(g.P, g.f.r) * g.across;
    g.maps = g.parts > 1 ? ceil_div(g.C, V) * V : g.C, g.K = g.parts * g.maps;
    g.KL = ceil_div(g.K, L), g.OL = ceil_div(g.O, L);
    g.fx = g.KL * g.T * L + L, g.fy = g.OL * g.T * L + L, g.fw = g.OL * g.K * L + L;  /* + L: not in one set of a cache */
    return g;
}
/* the n x n pixels of [N, H, W, C] whose first is (h, k) of an image; what is beside it is `outside` */
static void pixels(long kind, long n, const char **p, const void *x, const void *outside, long image, long h, long k, long H,
                   long W, long C) {
    const char *first = (const char *)x + ((image * H + h) * W + k) * C * bytes_of(kind);
    for (long i = 0; i < n; i++) for (long j = 0; j < n; j++) {
        int inside = h + i >= 0 && h + i < H && k + j >= 0 && k + j < W;
        p[i * n + j] = inside ? first + (i * W + j) * C * bytes_of(kind) : outside;
    }
}
/* some maps, from the c-th on, of some pixels; and the sum of their squares */
INLINE v gathered(int kind, long count, const char **p, long c, long maps, v *in) {
    v sum = {0};
    if (maps == V) for (long q = 0; q < count; q++) { in[q] = load_as(kind, p[q], c); sum += in[q] * in[q]; }
    else for (long q = 0; q < count; q++) { in[q] = load_some(kind, p[q], c, maps); sum += in[q] * in[q]; }
    return sum;
}
INLINE void scattered(int kind, long count, const char **p, long c, long maps, const v *out) {
    if (maps == V) for (long q = 0; q < count; q++) store_as(kind, (void *)p[q], c, out[q]);
    else for (long q = 0; q < count; q++) store_some(kind, (void *)p[q], c, out[q], maps);
}
/* A x or C delta, by `transform`, of tiles t0 .. t0 + T, their pixels n x n, every m-th, into [f, K / L, g->T, L]: of x [N, H,
   W, C] under each of `parts` kernels that are summed. The sum of the squares of x. */
INLINE v tiles_into(int kind, Into *transform, long n, const void *x, long H, long W, long C, long top, long left, long parts,
                    const void *zeros, float *out, long t0, long T, long step, const Triple *g) {
    v squares = {0};
    for (long t = 0; t < T; t++) for (long part = 0; part < parts; part++) {
        long image = (t0 + t) / (g->rows * g->columns), i = (t0 + t) / g->columns % g->rows, j = (t0 + t) % g->columns;
        const char *p[36];
        v in[36];
        pixels(kind, n, p, x, zeros, image, i * g->f.m - top + part / g->across * g->f.r,
               j * g->f.m - left + part % g->across * g->f.r, H, W, C);
        for (long c = 0, at = part * g->maps; c < C; c += V, at += V) {
            squares += gathered(kind, n * n, p, c, smaller(V, C - c), in);
            transform(in, out + (at / L * g->T + t) * L + at % L, step);
        }
    }
    return squares;
}
static v image_into(long kind, const void *x, const void *zeros, float *out, long t0, long T, const Triple *g) {
    return EACH_KIND(tiles_into, g->f.image, g->f.E, x, g->H, g->W, g->C, g->top, g->left, g->parts, zeros, out, t0, T,
                     g->fx, g);
}
static v delta_into(long kind, const void *delta, const void *zeros, float *out, long t0, long T, const Triple *g) {
    return EACH_KIND(tiles_into, g->f.delta, g->f.m, delta, g->I, g->J, g->O, 0, 0, 1, zeros, out, t0, T, g->fy, g);
}
/* whether there is a number with which a product of sums might be none where the sum of products is one; NaN, too */
static long beyond(v squares) {
    vi small = squares < all(1e32f);
    long yes = 1;
    for (int k = 0; k < V; k++) yes &= small[k] != 0;
    return !yes;
}

/* c [M, L] (+)= sum over segments s and k of a[s, m, k] b[s, k, :]; `last`: the length of the last one, else L. The sum is
   held in registers as that of the even and that of the odd k: two of half the length round less than one. */
typedef struct { long segments, last, step; int add; } Product;
INLINE void block(const int M, const long am, const long ak, const Product *g, const float *a, const float *b, float *c) {
    v sum[2][M][2];
    UNROLLED for (int m = 0; m < 2 * M; m++) sum[m / M][m % M][0] = sum[m / M][m % M][1] = (v){0};
    for (long s = 0; s < g->segments; s++) {
        const float *pa = a + s * g->step, *pb = b + s * L * L;
        long n = s == g->segments - 1 ? g->last : L;
#define NEXT(chain) { v b0 = load(pb), b1 = load(pb + V); \
        UNROLLED for (int m = 0; m < M; m++) { sum[chain][m][0] += pa[m * am] * b0; sum[chain][m][1] += pa[m * am] * b1; } \
        pa += ak, pb += L; }
        for (long k = n / 4; k > 0; k--) { NEXT(0) NEXT(1) NEXT(0) NEXT(1) }
        for (long k = n % 4; k > 0; k--) NEXT(0)
    }
    UNROLLED for (int m = 0; m < M; m++) UNROLLED for (int h = 0; h < 2; h++) {
        v whole = sum[0][m][h] + sum[1][m][h];
        if (g->add) whole += load(c + m * L + h * V);
        store(c + m * L + h * V, whole);
    }
}
#define CASE(m) case m: block(m, AM, AK, g, a, b, c); break;
#if defined(__AVX512F__)  /* 32 registers */
enum { ROWS = 6 };
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#else
enum { ROWS = 3 };
#define CASES CASE(1) CASE(2) CASE(3)
#endif
#define PRODUCT(name, am, ak) \
    ONCE void name(int M, const Product *g, const float *a, const float *b, float *c) { \
        enum { AM = am, AK = ak }; switch (M) { CASES } }
PRODUCT(over_maps, L, 1)
PRODUCT(over_tiles, 1, L)

/* r x r taps of `count` kernels from w on, whose strides are s: those by the c-th map of x of the part `part`, a kernel a lane.
   Out of them, zeros beyond the kernel; and back. */
INLINE v taps(int kind, const Triple *g, const void *w, const long *s, long part, long c, long count, v *in) {
    long r = g->f.r, p0 = part / g->across * r, q0 = part % g->across * r;
    v squares = {0};
    for (long n = 0; n < r * r; n++) {
        in[n] = (v){0};
        for (long o = 0; o < count && p0 + n / r < g->P && q0 + n % r < g->Q; o++)
            in[n][o] = load_one(kind, w, o * s[0] + c * s[1] + (p0 + n / r) * s[2] + (q0 + n % r) * s[3]);
        squares += in[n] * in[n];
    }
    return squares;
}
INLINE void taps_back(int kind, const Triple *g, void *w, const long *s, long part, long c, long count, const v *out) {
    long r = g->f.r, p0 = part / g->across * r, q0 = part % g->across * r;
    for (long o = 0; o < count; o++) for (long n = 0; n < r * r; n++) if (p0 + n / r < g->P && q0 + n % r < g->Q)
        store_one(kind, w, o * s[0] + c * s[1] + (p0 + n / r) * s[2] + (q0 + n % r) * s[3], out[n][o]);
}
/* B w into [f, O / L, K, L], zeros behind the last map; the sum of squares */
static v kernel_into(long kind, const void *w, const long *s, float *out, const Triple *g) {
    v in[25], squares = {0};
#pragma omp for schedule(static)
    for (long q = 0; q < g->OL * g->K; q++) for (long n = 0; n < L; n += V) {
        long o = q / g->K * L + n, k = q % g->K, c = k % g->maps, count = c < g->C ? larger(0, smaller(V, g->O - o)) : 0;
        squares += EACH_KIND(taps, g, (const char *)w + o * s[0] * bytes_of(kind), s, k / g->maps, c, count, in);
        g->f.kernel(in, out + (o / L * g->K + k) * L + n, g->fw);
    }
    return squares;
}

static void correlate(long kind, const void *x, const void *w, const long *s, const void *bias, void *y, float *scratch,
                      const Triple *g, long *odd) {
    long zeros = ceil_div(larger(g->C, g->O), L) * L, F = g->f.F, m = g->f.m, each = F * (g->fx + g->fy) + zeros;
    float *wt = scratch + 2 * zeros, *xt = wt + F * g->fw + omp_get_thread_num() * each, *yt = xt + F * g->fx;
    float *rest = yt + F * g->fy, *shift = scratch + zeros;
#pragma omp single
    for (long o = 0; o < zeros; o++) { scratch[o] = 0; shift[o] = bias && o < g->O ? load_one(kind, bias, o) : 0; }
    v squares = kernel_into(kind, w, s, wt, g);
#pragma omp for schedule(dynamic)
    for (long t0 = 0; t0 < g->total; t0 += g->T) {
        long T = smaller(g->T, g->total - t0);
        squares += image_into(kind, x, scratch, xt, t0, T, g);
        Product p = {g->KL, g->K - (g->KL - 1) * L, g->T * L, 0};
        for (long f = 0; f < F; f++) for (long o = 0; o < g->OL; o++) for (long t = 0; t < T; t += ROWS)
            over_maps(smaller(ROWS, T - t), &p, xt + f * g->fx + t * L, wt + f * g->fw + o * g->K * L,
                      yt + f * g->fy + (o * g->T + t) * L);
        for (long t = 0; t < T; t++) {
            long image = (t0 + t) / (g->rows * g->columns), i = (t0 + t) / g->columns % g->rows, j = (t0 + t) % g->columns;
            const char *to[16];
            pixels(kind, m, to, y, rest, image, i * m, j * m, g->I, g->J, g->O);
            for (long o = 0; o < g->O; o += V) {
                const float *from = yt + (o / L * g->T + t) * L + o % L;
                v out[16];
                g->f.delta_back(from, g->fy, out);
                for (long q = 0; q < m * m; q++) out[q] += load(shift + o);
                long maps = smaller(V, g->O - o);
                EACH_KIND(scattered, m * m, to, o, maps, out);
            }
        }
    }
    if (beyond(squares))
#pragma omp atomic write
        *odd = 1;
}

/* Sums over tiles: each thread has its own tiles and sums, or all share the products of T tiles at a time. */
static void kernel_gradient(long kind, const void *x, const void *delta, void *dw, const long *s, float *scratch,
                            const Triple *g, long own, long *odd) {
    long zeros = ceil_div(larger(g->C, g->O), L) * L, F = g->f.F, each = F * (g->fx + g->fy + g->fw);
    long threads = omp_get_num_threads(), me = omp_get_thread_num(), products = F * g->OL * g->KL;
    long first = own ? g->total * me / threads : 0, end = own ? g->total * (me + 1) / threads : g->total;
    long share = own ? 0 : me, shares = own ? 1 : threads, sums = own ? threads : 1;
    float *xt = scratch + zeros + (own ? me : 0) * each, *dt = xt + F * g->fx, *wt = dt + F * g->fy;
    v squares = {0};
#pragma omp single
    memset(scratch, 0, zeros * 4);
    if (first == end) memset(wt, 0, F * g->fw * 4);
    for (long t0 = first; t0 < end; t0 += g->T) {
        long T = smaller(g->T, end - t0), t = T * share / shares, n = T * (share + 1) / shares - t;
        squares += image_into(kind, x, scratch, xt + t * L, t0 + t, n, g);
        squares += delta_into(kind, delta, scratch, dt + t * L, t0 + t, n, g);
        if (!own) {
#pragma omp barrier
        }
        Product p = {1, T, 0, t0 > first};
        for (long q = products * share / shares; q < products * (share + 1) / shares; q++) {
            long f = q / (g->OL * g->KL), o = q / g->KL % g->OL, c = q % g->KL;
            long rows = smaller(L, g->K - c * L), blocks = ceil_div(rows, ROWS);
            for (long b = 0; b < blocks; b++) {
                long k = rows * b / blocks;
                over_tiles(rows * (b + 1) / blocks - k, &p, xt + f * g->fx + c * g->T * L + k,
                           dt + f * g->fy + o * g->T * L, wt + f * g->fw + (o * g->K + c * L + k) * L);
            }
        }
        if (!own) {
#pragma omp barrier
        }
    }
    if (beyond(squares))
#pragma omp atomic write
        *odd = 1;
#pragma omp barrier
#pragma omp for schedule(static)
    for (long q = 0; q < g->OL * g->parts * g->C; q++) for (long n = 0; n < L && q / (g->parts * g->C) * L + n < g->O; n += V) {
        long o = q / (g->parts * g->C) * L + n, part = q / g->C % g->parts, c = q % g->C;
        float *sum = scratch + zeros + F * (g->fx + g->fy) + (o / L * g->K + part * g->maps + c) * L + n;
        v out[25];
        for (long t = 1; t < sums; t++) for (long f = 0; f < F; f++)
            store(sum + f * g->fw, load(sum + f * g->fw) + load(sum + t * each + f * g->fw));
        g->f.kernel_back(sum, g->fw, out);
        EACH_KIND(taps_back, g, (char *)dw + o * s[0] * bytes_of(kind), s, part, c, smaller(V, g->O - o), out);
    }
}
/* how many sums the kernel gradient takes, and how many floats of scratch the two */
long triple_sums(const long *numbers) { Triple g = triple_of(numbers); return g.f.F * g.K * g.O; }
long triple_room(long gradient, const long *numbers, long threads) {
    Triple g = triple_of(numbers);
    long each = g.f.F * (g.fx + g.fy), zeros = ceil_div(larger(g.C, g.O), L) * L;
    return 2 * zeros + (gradient ? threads * (each + g.f.F * g.fw) : g.f.F * g.fw + threads * (each + zeros));
}
/* y = correlate(x, w) + bias; w [O, C, P, Q] of the strides s. 1: there are numbers with which this is not what it is */
long triple_correlate(long kind, const void *x, const void *w, const long *s, const void *bias, void *y, float *scratch,
                      const long *numbers, long threads) {
    Triple g = triple_of(numbers);
    long odd = 0;
#pragma omp parallel num_threads(threads)
    correlate(kind, x, w, s, bias, y, scratch, &g, &odd);
    return odd;
}
/* dw = kernel_gradient(x, delta), of the strides s */
long triple_kernel_gradient(long kind, const void *x, const void *delta, void *dw, const long *s, float *scratch,
                            const long *numbers, long own, long threads) {
    Triple g = triple_of(numbers);
    long odd = 0;
#pragma omp parallel num_threads(threads)
    kernel_gradient(kind, x, delta, dw, s, scratch, &g, own, &odd);
    return odd;
}
