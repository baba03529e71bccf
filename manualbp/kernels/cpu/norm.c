/* Batch norm and an activation phi behind it.

   mu = 1/m sum x    var = 1/m sum (x - mu)^2    r = 1 / sqrt(var + eps)    y = phi(s x + t)    s = r w    t = b - mu s
   g = delta phi'(s x + t)    dw = r sum g (x - mu)    db = sum g    dx = s g + c (x - mu) + e
   c = -r^3/m (w sum g (x - mu) + dL/dr)    e = 1/m (dL/dmu - s sum g)        (functional/norm.py)

   x, y, delta, dx [K, C, P]: P numbers of each of C maps lie side by side, K times. In channels_last that is one
   number, K pixels; else K images. A sum is over the m = K P numbers of a map. The others [C].

   Each sum, and y and dx, is one pass over memory, which is what it waits for: numbers are read as they lie, and are
   written past the cache where that is too small for them. A row is the P numbers of a map; or, of one number a map, as
   many pixels as fill some whole vectors. What belongs to a map stands in a table in each place that a row has for it:
   so V times, or once for each pixel of the row. The sums of a block of rows are in float, those of all blocks in
   double. Each thread has a range of rows, and sums of its own. */
#include <math.h>
#include <omp.h>
#include "activation.h"

/* the numbers of a block, about; the numbers that tell about where the mean is; the bytes of y that go past the cache:
   then it is written in 0.8 of the time, and read again in 1.1 (of 8 MB; of 2 MB it is 0.95 and 1.4; Zen 4) */
enum { BLOCK = 16384, SAMPLES = 16, LARGE = 8 << 20 };

/* a row's numbers, all numbers, those of a block of rows; a table's places, those from a vector of the row to the next;
   a map's places, of which the first is its number times `first`, and each is `apart` from the one before */
typedef struct { long row, all, block, table, step, places, first, apart; } sizes;
/* the numbers of thread `me`, the first to the last, and its place among the threads */
typedef struct { long from, to, me, threads; } range;
/* tables */
typedef struct { float *mu, *s, *t, *c, *e; } maps;

static sizes sizes_of(long K, long C, long P) {
    if (P > 1) return (sizes){P, K * C * P, ceil_div(larger(BLOCK, 16 * C * V), P) * P, C * V, 0, V, V, 1};
    long L = 1;
    if (C < 8 * V) while (L * C % V || L * C < 8 * V) L *= 2;
    return (sizes){L * C, K * C, ceil_div(BLOCK, L * C) * L * C, ceil_div(L * C, V) * V, V, L, 1, C};
}
static range range_of(sizes n) {
    long me = omp_get_thread_num(), threads = omp_get_num_threads(), rows = ceil_div(n.all, n.row);
    return (range){rows * me / threads * n.row, smaller(rows * (me + 1) / threads * n.row, n.all), me, threads};
}
/* the bytes of memory that the functions need: five tables of floats; for each thread two, and two of doubles */
long norm_memory(long C, long P, long threads) {
    return sizes_of(0, C, P).table * (5 * 4 + threads * (2 * 4 + 2 * 8));
}
/* tables of zeros: what is never set, and what is behind the last map */
static maps tables_of(sizes n, float *memory) {
    memset(memory, 0, 5 * n.table * sizeof(float));
    return (maps){memory, memory + n.table, memory + 2 * n.table, memory + 3 * n.table, memory + 4 * n.table};
}
static void set(float *table, sizes n, long c, double value) {
    for (long j = 0; j < n.places; j++) table[c * n.first + j * n.apart] = value;
}
static void set_line(maps of, sizes n, long c, const float *w, const float *b, float mu, float r) {
    float s = w ? r * w[c] : r;
    set(of.mu, n, c, mu), set(of.s, n, c, s), set(of.t, n, c, (b ? b[c] : 0) - (double)mu * s);
}
/* where the places of a row are that begins with the k-th number, and those of the next row */
static long place_of(sizes n, long k) { return n.step ? 0 : k / n.row * V % n.table; }
INLINE long next(sizes n, long place) { return n.step || place + V == n.table ? 0 : place + V; }

INLINE v through(int kind, int phi, const void *delta, v x, maps of, long i, long place, long some) {
    v d = load_some(kind, delta, i, some);
    return phi == IDENTITY ? d : let_through(phi, d, load(of.s + place) * x + load(of.t + place));
}
/* `some` numbers from the i-th on: g and g (x - mu) are added; without delta g is x - mu itself */
INLINE void add(int kind, int phi, const void *x, const void *delta, maps of, long i, long place, long some, v *sum,
                v *product) {
    v z = load_some(kind, x, i, some), m = z - load_some(FLOAT, of.mu, place, some);
    v g = delta ? through(kind, phi, delta, z, of, i, place, some) : m;
    *sum += g;
    *product += g * m;
}
/* a row's; of one map they are in registers meanwhile */
INLINE void add_row(int kind, int phi, const void *x, const void *delta, maps of, long step, long k, long row, long at,
                    float *sum, float *product) {
    v s = load(sum + at), p = load(product + at);
    for (long i = 0; i < row; i += V, at += step)
        if (step) add(kind, phi, x, delta, of, k + i, at, smaller(V, row - i), (v *)(sum + at), (v *)(product + at));
        else add(kind, phi, x, delta, of, k + i, at, smaller(V, row - i), &s, &p);
    if (!step) store(sum + at, s), store(product + at, p);
}
INLINE void add_range(int kind, int phi, const void *x, const void *delta, maps of, sizes n, range of_rows,
                      double *sums, float *in_block) {
    float *sum = in_block, *product = in_block + n.table;
    for (long b = of_rows.from, place = place_of(n, b); b < of_rows.to; b += n.block) {
        memset(in_block, 0, 2 * n.table * sizeof(float));
        for (long k = b, end = smaller(b + n.block, of_rows.to); k < end; k += n.row, place = next(n, place))
            if (n.step) add_row(kind, phi, x, delta, of, V, k, smaller(n.row, end - k), 0, sum, product);
            else add_row(kind, phi, x, delta, of, 0, k, n.row, place, sum, product);
        for (long i = 0; i < 2 * n.table; i++) sums[i] += in_block[i];
    }
}
/* the sums of all ranges, in the memory behind the tables: a map's are a table apart, the first at its number */
static double *sums_of(int kind, int phi, const void *x, const void *delta, maps of, sizes n, long C, long threads) {
    double *sums = (double *)(of.mu + 5 * n.table);
    float *in_blocks = (float *)(sums + threads * 2 * n.table);
    memset(sums, 0, threads * 2 * n.table * sizeof(double));
#pragma omp parallel num_threads(threads) firstprivate(of, n)
    {
        range mine = range_of(n);
        double *own = sums + mine.me * 2 * n.table;
        float *in_block = in_blocks + mine.me * 2 * n.table;
        EACH_KIND(add_range, phi, x, delta, of, n, mine, own, in_block);
    }
    for (long c = 0; c < C; c++) /* c is at most the first of its places */
        for (long which = 0; which < 2; which++) {
            double sum = 0;
            for (long k = which * n.table; k < threads * 2 * n.table; k += 2 * n.table)
                for (long j = 0; j < n.places; j++) sum += sums[k + c * n.first + j * n.apart];
            sums[which * n.table + c] = sum;
        }
    return sums;
}

/* V numbers past the cache, and whether that can be and pays */
INLINE void store_past(int kind, void *y, long i, v a) {
#if defined(__AVX512F__)
    if (kind == FLOAT) { _mm512_stream_ps((float *)y + i, (__m512)a); return; }
    vh h = kind == BFLOAT16 ? to_bfloat16(a) : to_half(a);
    _mm256_stream_si256((__m256i *)((uint16_t *)y + i), (__m256i)h);
#else
    store_as(kind, y, i, a);
#endif
}
static int goes_past(int kind, const void *y, sizes n) {
    long bytes = bytes_of(kind);
    return n.all * bytes >= LARGE && n.row % V == 0 && n.all % V == 0 && (uintptr_t)y % (V * bytes) == 0;
}
/* y, `some` numbers from the i-th on; with delta dx in its place */
INLINE void map(int kind, int phi, int past, const void *x, const void *delta, maps of, void *y, long i, long place,
                long some) {
    v z = load_some(kind, x, i, some), s = load(of.s + place), a;
    if (delta) a = s * through(kind, phi, delta, z, of, i, place, some)
                 + (load(of.c + place) * (z - load(of.mu + place)) + load(of.e + place));
    else a = activated(phi, s * z + load(of.t + place));
    if (past) store_past(kind, y, i, a);
    else store_some(kind, y, i, a, some);
}
INLINE void map_range(int kind, int phi, const void *x, const void *delta, maps of, sizes n, void *y, range of_rows) {
    int past = goes_past(kind, y, n);
    for (long k = of_rows.from, place = place_of(n, k); k < of_rows.to; k += n.row, place = next(n, place))
        for (long i = 0, at = place, row = smaller(n.row, of_rows.to - k); i < row; i += V, at += n.step)
            map(kind, phi, past, x, delta, of, y, k + i, at, smaller(V, row - i));
#if defined(__AVX512F__)
    if (past) _mm_sfence();
#endif
}
static long map_all(int kind, int phi, const void *x, const void *delta, maps of, sizes n, void *y, long threads) {
#pragma omp parallel num_threads(threads) firstprivate(of, n)
    {
        range mine = range_of(n);
        EACH_KIND(map_range, phi, x, delta, of, n, y, mine);
    }
    return 0;
}

/* y = phi(s x + t); t may be missing */
long norm_affine(long kind, long phi, const void *x, long K, long C, long P, const float *s, const float *t, void *y,
                 void *memory, long threads) {
    sizes n = sizes_of(K, C, P);
    maps of = tables_of(n, memory);
    for (long c = 0; c < C; c++) set(of.s, n, c, s[c]), set(of.t, n, c, t ? t[c] : 0);
    return map_all(kind, phi, x, 0, of, n, y, threads);
}
/* y, mu and r; and the part `momentum` of the running mean and variance, which has 1/(m - 1), anew; w, b and these may
   be missing. The sums are of x - p and of its square: p, the mean of some numbers, is near mu. */
long norm_forward(long kind, long phi, const void *x, long K, long C, long P, float eps, float momentum, const float *w,
                  const float *b, float *running_mean, float *running_var, void *y, float *mu, float *r, void *memory,
                  long threads) {
    sizes n = sizes_of(K, C, P);
    maps of = tables_of(n, memory);
    double m = (double)K * P;
    long samples = smaller(SAMPLES, K * P);
    memset(mu, 0, C * sizeof *mu);
    for (long j = 0; j < samples; j++) {
        long at = K * P * j / samples, first = at / P * C * P + at % P;
        for (long c = 0; c < C; c++) mu[c] += load_one(kind, x, first + c * P) / samples;
    }
    for (long c = 0; c < C; c++) set(of.mu, n, c, mu[c] = isfinite(mu[c]) ? mu[c] : 0);
    double *sums = sums_of(kind, IDENTITY, x, 0, of, n, C, threads);
    for (long c = 0; c < C; c++) {
        double d = sums[c] / m, of_square = sums[n.table + c] / m - d * d, var = of_square < 0 ? 0 : of_square;
        mu[c] += d;
        r[c] = 1 / sqrt(var + eps);
        set_line(of, n, c, w, b, mu[c], r[c]);
        if (running_mean) running_mean[c] = momentum * mu[c] + (1 - momentum) * running_mean[c];
        if (running_var) running_var[c] = momentum * (var * m / (m - 1)) + (1 - momentum) * running_var[c];
    }
    return map_all(kind, phi, x, 0, of, n, y, threads);
}
/* dx, dw, db; w, b, dL/dmu, dL/dr and dx may be missing */
long norm_backward(long kind, long phi, const void *x, const void *delta, long K, long C, long P, const float *w,
                   const float *b, const float *mu, const float *r, const float *by_mu, const float *by_r, void *dx,
                   float *dw, float *db, void *memory, long threads) {
    sizes n = sizes_of(K, C, P);
    maps of = tables_of(n, memory);
    double m = (double)K * P;
    for (long c = 0; c < C; c++) set_line(of, n, c, w, b, mu[c], r[c]);
    double *sums = sums_of(kind, phi, x, delta, of, n, C, threads);
    for (long c = 0; c < C; c++) {
        double g = sums[c], product = sums[n.table + c], d = r[c], a = w ? w[c] : 1;
        dw[c] = d * product;
        db[c] = g;
        set(of.c, n, c, -d * d * d / m * (a * product + (by_r ? by_r[c] : 0)));
        set(of.e, n, c, ((by_mu ? by_mu[c] : 0) - d * a * g) / m);
    }
    return dx ? map_all(kind, phi, x, delta, of, n, dx, threads) : 0;
}
