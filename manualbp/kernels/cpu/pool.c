/* Pooling, the maps of a pixel side by side in memory: what a window makes of its pixels, and what a pixel gets back.

   The window (i, j) has its tap (p, q) over the pixel (h, k) = (s i + d p - top, t j + e q - left), if there is one.

     maximum   y[n,i,j,c] = phi(z),  z = max x[n,h,k,c];  byte = p Q + q, the tap where it is
     take      y[n,i,j,c] = x[n,h,k,c] under the tap that the byte tells
     put       dx[n,h,k,c] = sum of delta phi'(z) over the windows whose byte tells the tap over (h, k)
     mean      y[n,i,j,c] = 1/m^2 sum x[n,h,k,c]
     spread    dx[n,h,k,c] = sum of delta/m^2 over the windows that have a tap over (h, k)

   Of equal numbers the first one is the largest, what is no number is larger, and of several such it is the last one,
   as in PyTorch. m^2: a given number, or the taps of the window that are over the padded image, or over the image.
   phi never falls, so it is asked for once a window (fuse/pool.py); phi' is told by y.

   Every number is made by one thread, in one order, and nothing is cleared before. Half precision is summed up in
   float. x and dx [N, H, W, C]; y, delta and byte [N, I, J, C]. Of few maps, less than a vector, a vector holds those
   of several pixels; else the last vector of a pixel begins earlier, so that it is whole. */
#include <math.h>
#include <omp.h>
#include "activation.h"

/* an axis of the image: its pixels, its windows, the taps of a window, and how these stand */
typedef struct { long pixels, windows, taps, stride, pad, dilation; } axis;
typedef struct { long N, C; axis rows, columns; } geometry;
typedef struct { long first, end; } range;

enum { MAXIMUM, TAKE, MEAN, PUT, SPREAD };
enum { OF_TAPS, OF_PIXELS, GIVEN }; /* what m^2 counts */

typedef uint8_t vb __attribute__((vector_size(V), aligned(1), may_alias));

/* the first n of V bytes, as numbers */
INLINE vi load_bytes(const uint8_t *p, long n) {
    vb a = {0};
    if (n == V) a = *(const vb *)p;
    else memcpy(&a, p, n);
    return __builtin_convertvector(__builtin_convertvector(a, vh), vi); /* by steps of 2, which GCC 12 knows */
}
INLINE void store_bytes(uint8_t *p, vi numbers, long n) {
    vb a = __builtin_convertvector(__builtin_convertvector(numbers, vh), vb);
    if (n == V) *(vb *)p = a;
    else memcpy(p, &a, n);
}
INLINE vi all_int(long a) { return (vi){0} + (int32_t)a; }

/* a[lane], of each lane the lowest bits */
INLINE v permuted(v a, vi lane) {
#if defined(__clang__)
    v b = a;
    for (int l = 0; l < V; l++) b[l] = a[lane[l] & (V - 1)];
    return b;
#else
    return __builtin_shuffle(a, lane);
#endif
}

/* delta phi'(z): what is infinite is not subtracted, and where ReLU is 0 so is this, whatever delta is */
INLINE v sloped(long phi, v delta, v y) {
    if (phi == SIGMOID) return (y - y * y) * delta;
    if (phi == TANH) return (1 - y * y) * delta;
    return phi == RELU ? choose(y != 0, delta, (v){0}) : delta;
}

/* the taps of window i that are over the image */
INLINE range taps_of(axis a, long i) {
    long start = a.pad - a.stride * i;
    if (start <= 0 && start + a.pixels > a.dilation * (a.taps - 1)) return (range){0, a.taps};
    return (range){larger(0, ceil_div(start, a.dilation)), smaller(a.taps, ceil_div(a.pixels + start, a.dilation))};
}
/* over how many pixels a window reaches; how many windows may reach over a pixel, and which do: the last of them begins
   there or just before */
INLINE long reach(axis a) { return a.dilation * (a.taps - 1) + 1; }
INLINE long depth(axis a) { return ceil_div(reach(a), a.stride); }
INLINE range windows_over(axis a, long h) {
    long last = (h + a.pad) / a.stride, first = larger(0, last + 1 - depth(a));
    if (h + a.pad - a.stride * first >= reach(a)) first++;
    return (range){first, smaller(last + 1, a.windows)};
}
/* the tap that window i, which reaches over pixel h, has there; -1 for none */
INLINE long tap_over(axis a, long h, long i) {
    long r = h + a.pad - a.stride * i;
    return a.dilation == 1 ? r : r % a.dilation ? -1 : r / a.dilation;
}
/* the taps of window i that count in m^2 */
INLINE long counted(axis a, long how, long i) {
    long start = a.stride * i - a.pad, end = smaller(start + a.taps, a.pixels + a.pad);
    return how == OF_PIXELS ? smaller(end, a.pixels) - larger(start, 0) : end - start;
}

/* y of V maps of a window, of its taps p and q, and which tap it was: the number of the first tap's pixel is `from`, of
   those a row below `down` more, of those to its right `across` more. `some` numbers can be read at each. */
INLINE v of_taps(int kind, int what, const void *x, long from, long down, long across, range p, range q, long Q,
                 long some, vi *byte) {
    v a = {0};
    vi at = *byte;
    if (what == MAXIMUM) a -= INFINITY, at = all_int(p.first * Q + q.first);
    for (long r = p.first; r < p.end; r++)
        for (long c = q.first; c < q.end; c++) {
            v b = load_some(kind, x, from + r * down + c * across, some);
            if (what == MEAN) { a += b; continue; }
            vi tap = all_int(r * Q + c), yes = what == TAKE ? at == tap : (b > a) | (b != b);
            a = choose(yes, b, a);
            if (what == MAXIMUM) at = (tap & yes) | (at & ~yes);
        }
    *byte = at;
    return a;
}
/* all maps of a window. Of few maps a vector reads on, and writes what the next windows will write over, as far as
   there are numbers: `in` from its last tap on, `out` from y on, in this row of windows */
INLINE void of_window(int kind, int what, int few, const void *x, long from, long down, long across, range p, range q,
                      long Q, long C, long in, long out, void *y, uint8_t *byte, long to, float m) {
    for (long l = 0; l < C; l += V) {
        long c = few ? 0 : smaller(l, C - V), some = few ? smaller(V, out) : V;
        vi at = what == TAKE ? load_bytes(byte + to + c, some) : (vi){0};
        v a = of_taps(kind, what, x, from + c, down, across, p, q, Q, few ? smaller(V, in) : V, &at);
        if (what == MAXIMUM) store_bytes(byte + to + c, at, some);
        if (what == MEAN) a /= m;
        store_some(kind, y, to + c, a, some);
    }
}
INLINE void of_windows(int kind, int what, int few, geometry g, const void *x, void *y, uint8_t *byte, long phi,
                       long how, long m) {
    axis rows = g.rows, columns = g.columns;
    long C = g.C, row = columns.pixels * C, line = columns.windows * C, end = g.N * rows.pixels * row;
    long down = rows.dilation * row, across = columns.dilation * C;
#pragma omp for
    for (long ni = 0; ni < g.N * rows.windows; ni++) {
        long i = ni % rows.windows, first = (ni / rows.windows * rows.pixels + rows.stride * i - rows.pad) * row;
        range p = taps_of(rows, i);
        for (long j = 0; j < columns.windows; j++) {
            range q = taps_of(columns, j), two = {0, 2}, three = {0, 3};
            long from = first + (columns.stride * j - columns.pad) * C, to = ni * line + j * C;
            long in = end - from - (p.end - 1) * down - (q.end - 1) * across, out = line - j * C;
            float share = how == GIVEN ? m : counted(rows, how, i) * counted(columns, how, j);
            long P = p.end - p.first, Q = q.end - q.first;
            int whole = what == MAXIMUM && P == rows.taps && Q == columns.taps;
            if (whole && P == 2 && Q == 2)
                of_window(kind, what, few, x, from, down, across, two, two, 2, C, in, out, y, byte, to, share);
            else if (whole && P == 3 && Q == 3)
                of_window(kind, what, few, x, from, down, across, three, three, 3, C, in, out, y, byte, to, share);
            else of_window(kind, what, few, x, from, down, across, p, q, columns.taps, C, in, out, y, byte, to, share);
        }
        for (long l = 0; phi != IDENTITY && l < line; l += V) {
            long some = smaller(V, line - l);
            store_some(kind, y, ni * line + l, activated(phi, load_some(kind, y, ni * line + l, some)), some);
        }
    }
}

/* A row of pixels in parts, each a vector that begins at `to`. R windows one behind the other may have taps over a
   part: `from` is where in a row of windows their numbers begin, -1 if there are none, and `tap` which one it is, or
   how many taps of the row count in m^2. Of few maps each lane tells that, and in its lowest 8 bits which number is
   its own. */
typedef struct { long from, tap; } over;
typedef struct { long R, parts, *to; over *over; vi *lanes; } view;
enum { NONE = -(1 << 30) };

static view view_of(const geometry *g) {
    long row = g->columns.pixels;
    return (view){depth(g->columns), g->C < V ? ceil_div(row * g->C, V) : row * ceil_div(g->C, V), 0, 0, 0};
}
/* the bytes that the functions of pixels need */
long pool_memory(const geometry *g) {
    view w = view_of(g);
    return w.parts * (w.R * ((g->C < V) * sizeof(vi) + sizeof(over)) + sizeof(long));
}
static view look(void *scratch, const geometry *g, int what, long how) {
    axis a = g->columns;
    view w = view_of(g);
    w.lanes = scratch;
    w.over = (over *)(w.lanes + (g->C < V) * w.parts * w.R);
    w.to = (long *)(w.over + w.parts * w.R);
    long C = g->C, per = ceil_div(C, V), lanes = C < V ? V : 1, number[V], tap[V];
    for (long l = 0; l < w.parts; l++) {
        w.to[l] = C < V ? larger(0, smaller(l * V, a.pixels * C - V)) : l / per * C + smaller(l % per * V, C - V);
        for (long r = l * w.R; r < (l + 1) * w.R; r++) {
            w.over[r] = (over){-1, 0};
            for (long x = 0; x < lanes; x++) {
                long k = (w.to[l] + x) / C, j = (k + a.pad) / a.stride + 1 + r - (l + 1) * w.R;
                range near = windows_over(a, k);
                number[x] = j * C + (w.to[l] + x) % C;
                tap[x] = k < a.pixels && near.first <= j && j < near.end ? tap_over(a, k, j) : -1;
                if (tap[x] < 0) continue;
                if (what == SPREAD) tap[x] = how == GIVEN ? 1 : counted(a, how, j);
                w.over[r] = (over){w.over[r].from < 0 ? number[x] : smaller(w.over[r].from, number[x]), tap[x]};
            }
            for (long x = 0; C < V && x < V; x++)
                w.lanes[r][x] = tap[x] < 0 ? NONE : tap[x] << 8 | (number[x] - w.over[r].from);
        }
    }
    return w;
}
/* a row of pixels after the other; `apart`: no pixel is in two windows */
INLINE void of_pixels(int kind, int what, int few, int apart, geometry g, view w, const void *delta,
                      const uint8_t *byte, const void *y, void *dx, long phi, long how, long m) {
    axis rows = g.rows, columns = g.columns;
    long row = columns.pixels * g.C, line = columns.windows * g.C, end = g.N * rows.windows * line;
#pragma omp for
    for (long nh = 0; nh < g.N * rows.pixels; nh++) {
        long n = nh / rows.pixels, h = nh % rows.pixels;
        range near = windows_over(rows, h);
        for (long l = 0; l < w.parts; l++) {
            v sum = {0};
            for (long i = near.first; i < near.end; i++) {
                long p = tap_over(rows, h, i);
                float share = how == GIVEN ? m : counted(rows, how, i);
                if (p < 0) continue;
                for (long r = l * w.R; r < (l + 1) * w.R; r++) {
                    if (w.over[r].from < 0) continue;
                    long from = (n * rows.windows + i) * line + w.over[r].from, some = few ? smaller(V, end - from) : V;
                    vi lane = few ? w.lanes[r] : (vi){0}, tap = few ? lane >> 8 : all_int(w.over[r].tap);
                    v a = load_some(kind, delta, from, some);
                    if (what == PUT && phi != IDENTITY) a = sloped(phi, a, load_some(kind, y, from, some));
                    if (few) a = permuted(a, lane);
                    if (what == PUT) {
                        vi b = load_bytes(byte + from, some);
                        if (few) b = (vi)permuted((v)b, lane);
                        sum += (v)((vi)a & (b == tap + (int32_t)(p * columns.taps)));
                    } else {
                        a /= __builtin_convertvector(tap, v) * share;
                        sum += few ? (v)((vi)a & (lane >= 0)) : a;
                    }
                    if (apart) break;
                }
                if (apart) break;
            }
            store_some(kind, dx, nh * row + w.to[l], sum, few ? smaller(V, row) : V);
        }
    }
}

/* f(kind, what, few, ...) of literals */
#define OF_ALL(f, what, ...) (g->C < V ? EACH_KIND(f, what, 1, __VA_ARGS__) : EACH_KIND(f, what, 0, __VA_ARGS__))

/* MAXIMUM makes y and byte of x, TAKE y of x and byte, MEAN y of x */
long pool_windows(long kind, long what, const geometry *g, const void *x, void *y, uint8_t *byte, long phi, long how,
                  long m, long threads) {
#pragma omp parallel num_threads(threads)
    if (what == MAXIMUM) OF_ALL(of_windows, MAXIMUM, *g, x, y, byte, phi, how, m);
    else if (what == TAKE) OF_ALL(of_windows, TAKE, *g, x, y, byte, phi, how, m);
    else OF_ALL(of_windows, MEAN, *g, x, y, byte, phi, how, m);
    return 0;
}
/* PUT makes dx of delta and byte, and of y unless phi is the identity; SPREAD makes it of delta */
long pool_pixels(long kind, long what, const geometry *g, void *dx, const void *delta, const uint8_t *byte,
                 const void *y, long phi, long how, long m, void *scratch, long threads) {
    view w = look(scratch, g, what, how);
    int apart = w.R == 1 && depth(g->rows) == 1;
#pragma omp parallel num_threads(threads)
    if (what == PUT && apart) OF_ALL(of_pixels, PUT, 1, *g, w, delta, byte, y, dx, phi, how, m);
    else if (what == PUT) OF_ALL(of_pixels, PUT, 0, *g, w, delta, byte, y, dx, phi, how, m);
    else OF_ALL(of_pixels, SPREAD, 0, *g, w, delta, byte, y, dx, phi, how, m);
    return 0;
}
