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

   The direct triple, the kernel gradient of every other shape, is the trivial decomposition: a tile is one output, A x
   the P Q C numbers of its window, C delta is delta. Only how tiles are read and kernels written differs.

   Shapes: x [N, H, W, C], y and delta [N, I, J, O], w and dw of any strides. Scratch: A x [f, K / L, T, L], B w [f,
   O / L, K, L], C^T's argument and C delta [f, O / L, T, L], K = C, of the direct triple P Q C, times the small kernels; T
   tiles at a time, which stay in the cache.
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
/* m outputs a tile, r taps, E products an axis, F in all; A, B, C, B^T and C^T of both axes, or none: the direct triple */
typedef struct { long m, r, E, F; Into *image, *kernel, *delta; Back *kernel_back, *delta_back; } Form;
static const Form FORMS[] = {
    {4, 3, 6, 36, image6, kernel6_3, delta6_4, kernel6_3_back, delta6_4_back},
    {2, 5, 6, 36, image6, kernel6_5, delta6_2, kernel6_5_back, delta6_2_back},
    {2, 3, 4, 16, image4, kernel4_3, delta4_2, kernel4_3_back, delta4_2_back},
    {1, 0, 1, 1, 0, 0, 0, 0, 0}};
enum { DIRECT = 3, TAPS = 128 };

/* images [N, H, W, C] and what slides over them: P x Q taps, s and t pixels on, d and e apart, `top` and `left` outside */
typedef struct { long H, W, C, P, Q, s, t, d, e, top, left; } Slide;
/* T tiles at a time of `total`, rows x columns an image. The kernel is the sum of kernels of p x q taps, `across` in a row
   and `parts` in all, which are zero beyond it; each has `maps` numbers of x a tile, K all of them. Panels; from f to f + 1,
   and between the numbers of one kernel. */
typedef struct { long N; Slide x; long I, J, O, T, rows, columns, total, p, q, across, parts, maps, K, KL, OL, fx, fy, fw, step;
                 Form f; } Triple;
/* as a caller has it: N, then x, then I, J, O, T, and the number of the form */
static Triple triple_of(const long *n) {
    Triple g = {.N = n[0], .x = {n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]}, .I = n[12], .J = n[13],
                .O = n[14], .T = n[15], .f = FORMS[n[16]]};
    g.rows = ceil_div(g.I, g.f.m), g.columns = ceil_div(g.J, g.f.m), g.total = g.N * g.rows * g.columns;
    g.p = g.f.r ? g.f.r : g.x.P, g.q = g.f.r ? g.f.r : g.x.Q, g.across = ceil_div(g.x.Q, g.q);
    g.parts = ceil_div(g.x.P, g.p) * g.across, g.maps = g.parts > 1 ? ceil_div(g.x.C, V) * V : g.x.C;
    g.K = g.f.r ? g.parts * g.maps : g.x.P * g.x.Q * g.x.C, g.KL = ceil_div(g.K, L), g.OL = ceil_div(g.O, L);
    g.fx = g.KL * g.T * L + L, g.fy = g.OL * g.T * L + L, g.fw = g.OL * g.K * L + L;  /* + L: not in one set of a cache */
    g.step = g.f.r ? g.fw : g.x.C * L;
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
/* Squared A x, or C delta, of tiles t0 .. t0 + T, their pixels n x n, every m-th, into [f, K / L, g->T, L]: of x the maps
   under each of the kernels that are summed. */
INLINE v tiles_into(int kind, Into *transform, long n, const Slide *x, long parts, const void *from, const void *zeros,
                    float *out, long t0, long T, long step, const Triple *g) {
    v squares = {0};
    for (long t = 0; t < T; t++) for (long part = 0; part < parts; part++) {
        long image = (t0 + t) / (g->rows * g->columns), i = (t0 + t) / g->columns % g->rows, j = (t0 + t) % g->columns;
        long h = i * g->f.m - x->top + part / g->across * g->p, k = j * g->f.m - x->left + part % g->across * g->q;
        const char *p[36];
        v in[36];
        pixels(kind, n, p, from, zeros, image, h, k, x->H, x->W, x->C);
        for (long c = 0, at = part * g->maps; c < x->C; c += V, at += V) {
            squares += gathered(kind, n * n, p, c, smaller(V, x->C - c), in);
            transform(in, out + (at / L * g->T + t) * L + at % L, step);
        }
    }
    return squares;
}
/* n numbers, or zeros, to the places k .. k + n of each of `count` windows, which are `step` numbers apart in memory */
INLINE v put(int kind, const void *from, long at, long step, float *out, long room, long k, long n, long count) {
    v squares = {0};
    for (long some; n > 0; k += some, at += some, n -= some) {
        float *to = out + k / L * room * L + k % L;
        some = smaller(n, smaller(V, L - k % L));
        for (long t = 0; t < count; t++, to += L) {
            v a = from ? load_some(kind, from, at + t * step, some) : (v){0};
            store_some(FLOAT, to, 0, a, some);
            squares += a * a;
        }
    }
    return squares;
}
/* The windows of the outputs t0 .. t0 + T into [P Q C / L, g->T, L]: of those in a row, one tap after the other, or all
   taps of a row of the kernel at once, if they are neighbours. */
INLINE v windows_into(int kind, const Slide *x, const void *from, float *out, long t0, long T, const Triple *g) {
    const long C = x->C, together = x->e == 1 ? x->Q : 1, room = g->T;
    v squares = {0};
    for (long t = 0, J; t < T; t += J, out += J * L) {
        long image = (t0 + t) / (g->rows * g->columns), i = (t0 + t) / g->columns % g->rows, j0 = (t0 + t) % g->columns;
        J = smaller(T - t, g->columns - j0);
        for (long p = 0; p < x->P; p++) for (long q = 0; q < x->Q; q += together) {
            long h = i * x->s - x->top + p * x->d, left = x->left - x->e * q, to = (p * x->Q + q) * C, n = together * C;
            long row = (image * x->H + h) * x->W - left, right = x->W + left - together;
            if (h < 0 || h >= x->H) { put(kind, 0, 0, 0, out, room, to, n, J); continue; }
            /* of the outputs j0 + a .. j0 + b the taps are all over the image */
            long a = smaller(J, larger(0, ceil_div(larger(0, left), x->t) - j0));
            long b = larger(a, smaller(J, right < 0 ? 0 : right / x->t + 1 - j0));
            squares += put(kind, from, (row + (j0 + a) * x->t) * C, x->t * C, out + a * L, room, to, n, b - a);
            for (long j = a ? 0 : b; j < J; j = j + 1 == a ? b : j + 1) {
                long k = (j0 + j) * x->t - left, q0 = smaller(together, larger(0, -k));
                long q1 = larger(q0, smaller(together, x->W - k));
                put(kind, 0, 0, 0, out + j * L, room, to, q0 * C, 1);
                squares += put(kind, from, (row + left + k + q0) * C, 0, out + j * L, room, to + q0 * C, (q1 - q0) * C, 1);
                put(kind, 0, 0, 0, out + j * L, room, to + q1 * C, (together - q1) * C, 1);
            }
        }
    }
    return squares;
}
static v image_into(long kind, const void *x, const void *zeros, float *out, long t0, long T, const Triple *g) {
    if (!g->f.image) return EACH_KIND(windows_into, &g->x, x, out, t0, T, g);
    return EACH_KIND(tiles_into, g->f.image, g->f.E, &g->x, g->parts, x, zeros, out, t0, T, g->fx, g);
}
static v delta_into(long kind, const void *delta, const void *zeros, float *out, long t0, long T, const Triple *g) {
    const Slide of = {g->I, g->J, g->O, 1, 1, 1, 1, 1, 1, 0, 0};
    if (!g->f.delta) return EACH_KIND(windows_into, &of, delta, out, t0, T, g);
    return EACH_KIND(tiles_into, g->f.delta, g->f.m, &of, 1, delta, zeros, out, t0, T, g->fy, g);
}
/* Whether there is a number with which a product of sums might be none where the sum of products is one; NaN, too. Where
   windows are as they are, it matters only whether one is none: it would be multiplied by the zeros of the padding. */
static long beyond(v squares, const Triple *g) {
    if (!g->f.image && !g->x.top && !g->x.left) return 0;
    vi small = squares < all(g->f.image ? 1e32f : 3e38f);
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

/* The numbers by the c-th map of p x q taps, the part `part` of `count` kernels from w on, whose strides are s: a kernel a
   lane. Out of them, zeros beyond the kernel; and back. */
INLINE v taps(int kind, const Triple *g, const void *w, const long *s, long part, long c, long count, float (*in)[V]) {
    long p0 = part / g->across * g->p, q0 = part % g->across * g->q, P = smaller(g->p, g->x.P - p0);
    long Q = smaller(g->q, g->x.Q - q0);
    v squares = {0};
    if (count < V || P < g->p || Q < g->q) memset(in, 0, g->p * g->q * sizeof *in);
    for (long o = 0; o < count; o++) for (long p = 0; p < P; p++) for (long q = 0; q < Q; q++)
        in[p * g->q + q][o] = load_one(kind, w, o * s[0] + c * s[1] + (p0 + p) * s[2] + (q0 + q) * s[3]);
    for (long p = 0; p < g->p * g->q; p++) squares += load(in[p]) * load(in[p]);
    return squares;
}
INLINE void taps_back(int kind, const Triple *g, void *w, const long *s, long part, long c, long count, float (*out)[V]) {
    long p0 = part / g->across * g->p, q0 = part % g->across * g->q, P = smaller(g->p, g->x.P - p0);
    long Q = smaller(g->q, g->x.Q - q0);
    for (long o = 0; o < count; o++) for (long p = 0; p < P; p++) for (long q = 0; q < Q; q++)
        store_one(kind, w, o * s[0] + c * s[1] + (p0 + p) * s[2] + (q0 + q) * s[3], out[p * g->q + q][o]);
}
/* B w into [f, O / L, K, L], zeros behind the last map; the sum of squares */
static v kernel_into(long kind, const void *w, const long *s, float *out, const Triple *g) {
    float in[TAPS][V];
    v squares = {0};
    const long each = g->parts * g->maps;
#pragma omp for schedule(static)
    for (long q = 0; q < g->OL * each; q++) for (long n = 0; n < L; n += V) {
        long o = q / each * L + n, k = q % each, c = k % g->maps, count = c < g->x.C ? larger(0, smaller(V, g->O - o)) : 0;
        float *to = out + (o / L * g->K + k) * L + n;
        squares += EACH_KIND(taps, g, (const char *)w + o * s[0] * bytes_of(kind), s, k / g->maps, c, count, in);
        g->f.kernel((const v *)in, to, g->fw);
    }
    return squares;
}

static void correlate(long kind, const void *x, const void *w, const long *s, const void *bias, void *y, float *scratch,
                      const Triple *g, long *odd) {
    long zeros = ceil_div(larger(g->x.C, g->O), L) * L, F = g->f.F, m = g->f.m, each = F * (g->fx + g->fy) + zeros;
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
    if (beyond(squares, g))
#pragma omp atomic write
        *odd = 1;
}

/* The sums of all windows at once, o by o, to their places in dw [O, P, Q, C], of those that are `mine` */
static void sums_at_once(long kind, const float *xt, const float *dt, void *dw, const Triple *g, long mine, long end) {
    Product p = {1, g->total, 0, 0};
    float sum[ROWS * L];
    for (; mine < end; mine++) {
        long o = mine / g->KL, c = mine % g->KL, rows = smaller(L, g->O - o * L);
        for (long k = 0, M; k < rows; k += M) {
            M = smaller(ROWS, rows - k);
            over_tiles(M, &p, dt + o * g->T * L + k, xt + c * g->T * L, sum);
            for (long m = 0; m < M; m++) for (long n = 0; n < L && c * L + n < g->K; n += V) {
                long at = (o * L + k + m) * g->K + c * L + n, some = smaller(V, g->K - c * L - n);
                EACH_KIND(store_some, dw, at, load(sum + m * L + n), some);
            }
        }
    }
}
/* Sums over tiles. OWN: each thread has its own tiles and sums; SHARED: all share the products of T tiles at a time;
   AT_ONCE: of these there are no more. */
enum { SHARED, OWN, AT_ONCE };
static void kernel_gradient(long kind, const void *x, const void *delta, void *dw, const long *s, float *scratch,
                            const Triple *g, long how, long *odd) {
    long own = how == OWN, zeros = ceil_div(larger(g->x.C, g->O), L) * L, F = g->f.F, each = F * (g->fx + g->fy + g->fw);
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
        if (how == AT_ONCE) {
            sums_at_once(kind, xt, dt, dw, g, products * me / threads, products * (me + 1) / threads);
            break;
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
    if (beyond(squares, g))
#pragma omp atomic write
        *odd = 1;
    if (how == AT_ONCE) return;
#pragma omp barrier
#pragma omp for schedule(static)
    for (long q = 0; q < g->OL * g->parts * g->x.C; q++) for (long n = 0; n < L && q / (g->parts * g->x.C) * L + n < g->O; n += V) {
        long o = q / (g->parts * g->x.C) * L + n, part = q / g->x.C % g->parts, c = q % g->x.C, R = g->f.r ? F : g->p * g->q;
        float out[TAPS][V], *sum = scratch + zeros + F * (g->fx + g->fy) + (o / L * g->K + part * g->maps + c) * L + n;
        for (long t = 1; t < sums; t++) for (long r = 0; r < R; r++)
            store(sum + r * g->step, load(sum + r * g->step) + load(sum + t * each + r * g->step));
        if (g->f.kernel_back) g->f.kernel_back(sum, g->fw, (v *)out);
        else for (long r = 0; r < R; r++) store(out[r], load(sum + r * g->step));
        EACH_KIND(taps_back, g, (char *)dw + o * s[0] * bytes_of(kind), s, part, c, smaller(V, g->O - o), out);
    }
}
/* how many sums the kernel gradient takes, and how many floats of scratch the two */
long triple_sums(const long *numbers) { Triple g = triple_of(numbers); return g.f.F * g.K * g.O; }
long triple_room(long gradient, const long *numbers, long threads) {
    Triple g = triple_of(numbers);
    long each = g.f.F * (g.fx + g.fy), zeros = ceil_div(larger(g.x.C, g.O), L) * L;
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
                            const long *numbers, long how, long threads) {
    Triple g = triple_of(numbers);
    long odd = 0;
#pragma omp parallel num_threads(threads)
    kernel_gradient(kind, x, delta, dw, s, scratch, &g, how, &odd);
    return odd;
}

/* The kernel gradient where each map has a kernel of its own: V maps of some rows at a time, tap by tap, the sum over a
   row's outputs in registers; taps over the padding are left out. sums: [tasks, P Q, V] */
INLINE v row_of_maps(int kind, const void *x, long at, long step, const void *delta, long of, long C, long count, long maps) {
    v sum = {0}, other = {0};
    for (; count > 1; count -= 2, at += 2 * step, of += 2 * C) {
        sum += load_some(kind, x, at, maps) * load_some(kind, delta, of, maps);
        other += load_some(kind, x, at + step, maps) * load_some(kind, delta, of + C, maps);
    }
    if (count > 0) sum += load_some(kind, x, at, maps) * load_some(kind, delta, of, maps);
    return sum + other;
}
INLINE void rows_of_maps(int kind, const Slide *x, const Triple *g, const void *from, const void *delta, long first, long end,
                         long c, float (*sums)[V]) {
    long maps = smaller(V, x->C - c), step = x->t * x->C;
    for (long ni = first; ni < end; ni++) for (long p = 0; p < x->P; p++) {
        long h = ni % g->I * x->s - x->top + p * x->d, row = (ni / g->I * x->H + h) * x->W;
        if (h >= 0 && h < x->H) for (long q = 0; q < x->Q; q++) {
            long before = x->left - x->e * q, j = before > 0 ? ceil_div(before, x->t) : 0;
            long J = x->W - 1 + before < 0 ? 0 : smaller(g->J, (x->W - 1 + before) / x->t + 1);
            long at = (row + j * x->t - before) * x->C + c, of = (ni * g->J + j) * x->C + c;
            v sum = maps == V ? row_of_maps(kind, from, at, step, delta, of, x->C, J - j, V)
                              : row_of_maps(kind, from, at, step, delta, of, x->C, J - j, maps);
            store(sums[p * x->Q + q], load(sums[p * x->Q + q]) + sum);
        }
    }
}
static long parts_of(const Triple *g, long threads) {
    return larger(1, smaller(g->N * g->I, 2 * ceil_div(threads, ceil_div(g->x.C, V))));
}
long depthwise_room(const long *numbers, long threads) {
    Triple g = triple_of(numbers);
    return 4 * ceil_div(g.x.C, V) * parts_of(&g, threads) * g.x.P * g.x.Q * V;
}
long depthwise_kernel_gradient(long kind, const void *x, const void *delta, void *dw, long sc, long sp, long sq, float *scratch,
                               const long *numbers, long threads) {
    Triple g = triple_of(numbers);
    long parts = parts_of(&g, threads), panels = ceil_div(g.x.C, V), taps = g.x.P * g.x.Q, rows = g.N * g.I;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long task = 0; task < panels * parts; task++) {
            long part = task % parts, c = task / parts * V, first = rows * part / parts, end = rows * (part + 1) / parts;
            float (*sums)[V] = (float (*)[V])(scratch + task * taps * V);
            memset(sums, 0, taps * V * 4);
            EACH_KIND(rows_of_maps, &g.x, &g, x, delta, first, end, c, sums);
        }
#pragma omp for schedule(static)
        for (long c = 0; c < g.x.C; c++) for (long tap = 0; tap < taps; tap++) {
            float sum = 0;
            for (long part = 0; part < parts; part++) sum += scratch[((c / V * parts + part) * taps + tap) * V + c % V];
            store_one(kind, dw, c * sc + tap / g.x.Q * sp + tap % g.x.Q * sq, sum);
        }
    }
    return 0;
}
