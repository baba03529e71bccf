/* The kernel gradient, product by product, of images in channels_last:

       dw[o,c,p,q] = sum_nij x[n,h,k,c] delta[n,i,j,o]        h = s i + d p - top,  k = t j + e q - left

   (lecture 002, eq. 2.4.) It is a product of matrices that need not be built: their numbers lie in the images at regular
   steps. The sums of ROWS rows by PANEL maps o are held in registers; rows are maps c, and taps q, next to each other. A
   step of the sum, over n, i, j, takes PANEL numbers of delta, and one of x for each row. Where each map has a kernel of
   its own ("lanes") a step takes PANEL numbers of x for each row, and the rows are the taps p, q.

   Outputs are taken in rectangles that see the same taps. So taps beside the image are left out, not multiplied by zeros:
   what is no number reaches what sees it. A block of outputs is worked on at a time, since what it reads stays in the
   cache; meanwhile each step asks the memory for a few bytes of what comes next. */
#include <omp.h>
#include "vector.h"

#if defined(__AVX512F__) || defined(__aarch64__)  /* 32 registers */
enum { ROWS = 12 };
#define CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
enum { ROWS = 6 };
#define CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
/* POSITIONS: outputs in a block, about. CHAIN: numbers that are added one after the other, about; a longer chain rounds
   more. SUMS: of so many bytes of dw, about, a thread makes the sums at a time. */
enum { PANEL = 2 * V, POSITIONS = 256, CHAIN = 128, SUMS = 5 << 17 };

/* x, y: the steps from image to image, row to row, pixel to pixel of x and of delta, in numbers. G groups of maps. */
typedef struct { long N, H, W, C, I, J, O, P, Q, G, s, t, d, e, top, left, x[3], y[3]; } Geometry;

/* what comes next in the memory, and how many bytes of it with each step of a sum */
typedef struct { const char *x, *y; long x_step, y_step; } Next;

/* c[m] += sum over three loops of a[m] b: a[m] side by side, c[m] `result` numbers apart, or, of lanes, at a_at[m] and
   c_at[m]; `fresh`: c[m] is the sum */
typedef struct { long count[3], a[3], b[3], result, fresh, a_at[ROWS], c_at[ROWS]; Next *next; } Sum;
INLINE void sum_of(const int M, const int two, const int lanes, const Sum *g, const float *a, const float *b, float *c) {
    v sum[ROWS][2];
    UNROLLED for (int m = 0; m < M; m++) {
        sum[m][0] = sum[m][1] = (v){0};
        __builtin_prefetch(c + (lanes ? g->c_at[m] : m * g->result), 1);
        if (two) __builtin_prefetch(c + (lanes ? g->c_at[m] : m * g->result) + V, 1);
    }
    const long I = g->count[1], J = g->count[2], aj = g->a[2], bj = g->b[2];
    const long ai = g->a[1] - J * aj, bi = g->b[1] - J * bj;  /* from the end of one loop to the next */
    Next next = *g->next;
    for (long n = 0; n < g->count[0]; n++) {
        const float *pa = a + n * g->a[0], *pb = b + n * g->b[0];
        for (long left = I * J, j = J; left > 0; left--) {
            v b0 = load(pb), b1 = two ? load(pb + V) : b0;
            __builtin_prefetch(next.x);
            __builtin_prefetch(next.y);
            UNROLLED for (int m = 0; m < M; m++) {
                const float *p = pa + (lanes ? g->a_at[m] : m);
                sum[m][0] += lanes ? load(p) * b0 : *p * b0;
                if (two) sum[m][1] += lanes ? load(p + V) * b1 : *p * b1;
            }
            const long end = -(--j == 0);  /* no branch: loops may be short, and their ends would be guessed wrong */
            pa += aj + (ai & end), pb += bj + (bi & end), j += J & end;
            next.x += next.x_step, next.y += next.y_step;
        }
    }
    *g->next = next;
    UNROLLED for (int m = 0; m < M; m++) UNROLLED for (int h = 0; h <= two; h++) {
        float *to = c + (lanes ? g->c_at[m] : m * g->result) + h * V;
        if (!g->fresh) sum[m][h] += load(to);
        store(to, sum[m][h]);
    }
}
#define OF_MAPS(M) case M: two ? sum_of(M, 1, 0, g, a, b, c) : sum_of(M, 0, 0, g, a, b, c); break;
#define OF_LANES(M) case M: two ? sum_of(M, 1, 1, g, a, b, c) : sum_of(M, 0, 1, g, a, b, c); break;
static __attribute__((noinline)) void sums(int lanes, long M, int two, const Sum *g, const float *a, const float *b,
                                           float *c) {
    if (lanes) switch (M) { CASES(OF_LANES) }
    else switch (M) { CASES(OF_MAPS) }
}
/* all rows, ROWS of them at a time at most; of lanes `wide` taps in a row of the kernel, which are `q` numbers of x apart,
   its rows `p`, and `over` numbers of the sums */
static void strips(int lanes, long rows, int two, Sum *g, const float *a, const float *b, float *c, long wide, long p,
                   long q, long over) {
    const long parts = ceil_div(rows, ROWS), J = g->count[2];
    const long chains = larger(1, smaller(J, ceil_div(g->count[0] * g->count[1] * J, CHAIN)));
    for (long part = 0; part < parts; part++) {
        const long m = rows * part / parts, M = rows * (part + 1) / parts - m;
        for (long r = 0; lanes && r < M; r++) {
            g->a_at[r] = (m + r) / wide * p + (m + r) % wide * q;
            g->c_at[r] = (m + r) / wide * over + (m + r) % wide * PANEL;
        }
        for (long k = 0; k < chains; k++) {
            const long j = J * k / chains;
            g->count[2] = J * (k + 1) / chains - j;
            sums(lanes, M, two, g, a + (lanes ? 0 : m) + j * g->a[2], b + j * g->b[2], c + (lanes ? 0 : m * g->result));
        }
        g->count[2] = J;
    }
}

/* outputs from .. to and the taps first .. last that they see */
typedef struct { long from, to, first, last; } Piece;
/* the outputs whose tap p lies in the image */
INLINE Piece outputs(long p, long H, long I, long s, long d, long pad) {
    const long first = pad - d * p, last = H - 1 + first;
    return (Piece){first > 0 ? ceil_div(first, s) : 0, last < 0 ? 0 : smaller(I, last / s + 1), p, p + 1};
}
/* an axis in pieces, one for each tap, or as long ones as see the same taps, which may be none; 2 P + 1 at most */
static Piece *pieces(Piece *end, int by_tap, long H, long I, long P, long s, long d, long pad) {
    for (long p = 0; by_tap && p < P; p++) *end++ = outputs(p, H, I, s, d, pad);
    for (long i = 0, to; !by_tap && i < I; i = to) {
        Piece taps = outputs(i, H, P, d, s, pad);  /* i and p change places */
        if (taps.from >= taps.to) taps.from = taps.to = 0;
        to = P && taps.to - taps.from == P ? outputs(P - 1, H, I, s, d, pad).to : i + 1;
        if (i && end[-1].first == taps.from && end[-1].last == taps.to) end[-1].to = to;
        else *end++ = (Piece){i, to, taps.from, taps.to};
    }
    return end;
}

/* How a call's work is cut. `panels` of maps o, `each` of them for a group of C maps of x and O of the outputs, `size` sums
   a panel; of lanes, and of small groups, `together` of which are taken at once, groups are not the geometry's. Blocks of
   `images` images, or of `rows` rows of outputs, `strips` of them an image. Pieces of both axes; runs: taps q lie side by
   side. Sums for some of the panels, `slices` in all, over some of the blocks, `parts`. Floats: `room` for the sums, which
   of one part are a thread's until they are at their places; x_room, y_room for a copy of a block of x, of delta. */
typedef struct {
    const Geometry *g;
    int kind, lanes, runs;
    long together, G, C, O, each, panels, size, images, rows, strips, blocks, slices, parts, room, x_room, y_room;
    Piece *down, *down_end, *across, *across_end;
} Plan;
static Plan plan_of(const Geometry *g, int kind, long threads) {
    Plan m = {.g = g, .kind = kind, .lanes = g->G > 1 && g->G == g->C && g->G == g->O};
    m.together = m.lanes ? 1 : larger(1, V * g->G / g->O);
    while (g->G % m.together) m.together--;
    m.G = m.lanes ? 1 : g->G / m.together, m.C = m.lanes ? 1 : g->C / m.G, m.O = g->O / m.G;
    m.runs = m.lanes || (g->e == 1 && m.G == 1 && m.C < 32);
    m.each = ceil_div(m.O, PANEL), m.panels = m.G * m.each, m.size = g->P * g->Q * m.C * PANEL;
    m.images = larger(1, POSITIONS / larger(1, g->I * g->J));
    m.rows = ceil_div(g->I, larger(1, ceil_div(g->I * g->J, POSITIONS)));
    m.strips = ceil_div(g->I, larger(1, m.rows)), m.blocks = m.strips * ceil_div(g->N, m.images);
    const long all = m.panels * m.size, some = larger(1, smaller(ceil_div(4 * all, SUMS), m.panels / 4));
    m.slices = m.blocks < 2 ? m.panels : some, m.parts = larger(1, smaller(ceil_div(threads, m.slices), m.blocks));
    m.room = m.parts > 1 ? m.parts * all : threads * ceil_div(m.panels, m.slices) * m.size;
    const long seen = larger(0, smaller(g->H, (m.rows - 1) * g->s + g->d * (g->P - 1) + 1));
    m.x_room = m.images * seen * g->W * g->C + PANEL, m.y_room = m.images * m.rows * g->J * g->O + PANEL;
    return m;
}
/* a panel's maps of the outputs, and the first map of x that they see */
typedef struct { long first, width, channel; } Panel;
INLINE Panel panel(const Plan *m, long k) {
    const long group = k / m->each, o = k % m->each * PANEL, first = group * m->O + o;
    return (Panel){first, smaller(PANEL, m->O - o), m->lanes ? first : group * m->C};
}
/* a panel's sums, [p, q, c, o], to their places in dw, [o, p, q, c]; what stands between groups that are taken together is
   left out */
INLINE void places(int kind, const Plan *m, const float *from, void *dw, long k) {
    const Geometry *g = m->g;
    const Panel o = panel(m, k);
    const long C = g->C / g->G, O = g->O / g->G;
    for (long tap = 0; tap < g->P * g->Q; tap++, from += m->C * PANEL)
        for (long c = 0; c < C; c += V) for (long l = 0; l < o.width; l += V) {
            const long maps = smaller(V, C - c), at = ((o.first + l) * g->P * g->Q + tap) * C + c, next = g->P * g->Q * C;
            const float *here = from + c * PANEL + l;
            v rows[V];
            for (long i = 0; m->together > 1 && i < V; i++) for (long j = 0; j < maps; j++)
                rows[i][j] = here[(o.first + l + i) / O % m->together * C * PANEL + j * PANEL + i];
            for (long i = 0; m->together == 1 && i < V; i++) rows[i] = i < maps ? load(here + i * PANEL) : (v){0};
            if (m->together == 1) transposed(rows);
            for (long i = 0; i < smaller(V, o.width - l); i++) store_some(kind, dw, at + i * next, rows[i], maps);
        }
}
/* rows h .. of some images in float32, and the steps from image to image, row to row, pixel to pixel */
typedef struct { const float *at; long step[3]; } Image;
/* of N images from n on the rows h .. h1: where they lie; or a copy, of what is no float32 or, where vectors reach beyond
   the maps (ragged), of the end of the tensor */
static Image image(int kind, int ragged, const void *x, const long *step, long n, long N, long all_N, long h, long h1,
                   long all_H, long W, long C, float *copy) {
    if (kind == FLOAT && !(ragged && n + N == all_N && h1 == all_H))
        return (Image){(const float *)x + n * step[0] + h * step[1], {step[0], step[1], step[2]}};
    const long H = larger(0, h1 - h), run = step[2] == C ? W * C : C;
    for (long m = 0; m < N; m++) for (long l = 0; l < H; l++) for (long k = 0; k < W * C; k += run)
        for (long c = 0, at = (n + m) * step[0] + (h + l) * step[1] + k / C * step[2]; c < run; c += V)
            store(copy + (m * H + l) * W * C + k + c, load_some(kind, x, at + c, smaller(V, run - c)));
    return (Image){copy, {H * W * C, W * C, C}};
}
/* what the outputs of a block add to the sums of the panels from .. to */
static void block(const Plan *m, const void *from_x, const void *delta, long which, long from, long to, float *sums,
                  float *copy) {
    const Geometry *g = m->g;
    const long n = which / m->strips * m->images, N = smaller(m->images, g->N - n);
    const long i0 = which % m->strips * m->rows, i1 = smaller(g->I, i0 + m->rows);
    const long h0 = larger(0, i0 * g->s - g->top), h1 = smaller(g->H, (i1 - 1) * g->s + g->d * (g->P - 1) - g->top + 1);
    const Image x = image(m->kind, m->lanes && g->C % V, from_x, g->x, n, N, g->N, h0, h1, g->H, g->W, g->C, copy);
    const Image y = image(m->kind, m->O % V != 0, delta, g->y, n, N, g->N, i0, i1, g->I, g->J, g->O, copy + m->x_room);
    const long steps = larger(1, N * (i1 - i0) * g->J * (to - from) * (m->size / PANEL) / ROWS);
    const int more = which + 1 < m->blocks;  /* behind the last one there may be no memory, which takes long to find out */
    const long x_bytes = more * 4 * (m->strips > 1 ? m->rows * g->s * g->x[1] : m->images * g->x[0]);
    const long y_bytes = more * 4 * (m->strips > 1 ? m->rows * g->y[1] : m->images * g->y[0]);
    Next next = {(const char *)x.at + x_bytes, (const char *)y.at + y_bytes, ceil_div(x_bytes, steps),
                 ceil_div(y_bytes, steps)};
    const long ps = g->d * x.step[1], qs = g->e * x.step[2], of_x[3] = {x.step[0], g->s * x.step[1], g->t * x.step[2]};
    for (long k = from; k < to; k++) for (Piece *r = m->down; r < m->down_end; r++)
        for (Piece *c = m->across; c < m->across_end; c++) {
            const Panel o = panel(m, k);
            const long i = larger(r->from, i0), I = smaller(r->to, i1) - i, j = c->from, J = c->to - j;
            const long p = r->first, P = r->last - p, q = c->first, Q = c->last - q;
            if (I <= 0 || J <= 0 || P <= 0 || Q <= 0) continue;
            const float *a = x.at + (g->s * i + g->d * p - g->top - h0) * x.step[1] +
                             (g->t * j + g->e * q - g->left) * x.step[2] + o.channel;
            const float *b = y.at + (i - i0) * y.step[1] + j * y.step[2] + o.first;
            const long extent[3] = {N, I, J}, far = N > larger(I, J) ? 0 : I > J ? 1 : 2;  /* the axis of the most outputs */
            const long near = !far, mid = 3 - near - far;
            Sum sum = {.count = {extent[near], extent[mid], extent[far]}, .a = {of_x[near], of_x[mid], of_x[far]},
                       .b = {y.step[near], y.step[mid], y.step[far]}, .result = PANEL, .next = &next};
            strips(m->lanes, m->lanes ? P * Q : Q * m->C, o.width > V, &sum, a, b,
                   sums + (k - from) * m->size + (p * g->Q + q) * m->C * PANEL, Q, ps, qs, g->Q * PANEL);
        }
}
/* Where there are a few outputs and whole vectors of maps c, these are the PANEL, the rows are maps o from .. to, and the
   sums are written to their places: then it is the writing that takes the time. */
static int few_outputs(const Plan *m) {
    const Geometry *g = m->g;
    return m->kind == FLOAT && g->G == 1 && g->C % V == 0 && g->N * g->I * g->J <= CHAIN;
}
static void at_once(const Plan *m, const float *x, const float *delta, float *dw, long from, long to) {
    const Geometry *g = m->g;
    Next next = {(const char *)x, (const char *)delta, 0, 0};
    for (long tap = 0; tap < g->P * g->Q; tap++) {
        const long p = tap / g->Q, q = tap % g->Q, row = g->P * g->Q * g->C;
        const Piece r = outputs(p, g->H, g->I, g->s, g->d, g->top), c = outputs(q, g->W, g->J, g->t, g->e, g->left);
        const long at = (g->s * r.from + g->d * p - g->top) * g->x[1] + (g->t * c.from + g->e * q - g->left) * g->x[2];
        Sum sum = {.count = {g->N, r.to - r.from, c.to - c.from}, .a = {g->y[0], g->y[1], g->y[2]}, .result = row,
                   .b = {g->x[0], g->s * g->x[1], g->t * g->x[2]}, .fresh = 1, .next = &next};
        float *here = dw + from * row + tap * g->C;
        if (r.to <= r.from || c.to <= c.from) for (long o = from; o < to; o++) memset(here + (o - from) * row, 0, g->C * 4);
        else for (long l = 0; l < g->C; l += PANEL)
            strips(0, to - from, l + V < g->C, &sum, delta + r.from * g->y[1] + c.from * g->y[2] + from, x + at + l, here + l,
                   1, 0, 0, 0);
    }
}
/* floats of scratch memory */
long direct_room(long kind, const Geometry *g, long threads) {
    const Plan m = plan_of(g, kind, threads);
    return 16 * (g->P + g->Q + 1) + m.room + threads * (m.x_room + m.y_room);
}
/* A task makes the sums of some panels over a part of the blocks; then the parts are added. */
long direct_kernel_gradient(long kind, const void *x, const void *delta, void *dw, float *scratch, const Geometry *g,
                            long threads) {
    Plan m = plan_of(g, kind, threads);
    m.down = (Piece *)scratch, m.down_end = pieces(m.down, !m.lanes, g->H, g->I, g->P, g->s, g->d, g->top);
    m.across = m.down + 2 * g->P + 1;
    m.across_end = pieces(m.across, !m.runs, g->W, g->J, g->Q, g->t, g->e, g->left);
    const long all = m.panels * m.size;
    float *sums = scratch + 16 * (g->P + g->Q + 1), *copies = sums + m.room;
#pragma omp parallel num_threads(threads)
    if (few_outputs(&m)) {
        const long me = omp_get_thread_num(), all_of_us = omp_get_num_threads();
        at_once(&m, x, delta, dw, g->O * me / all_of_us, g->O * (me + 1) / all_of_us);
    } else {
#pragma omp for schedule(static)
        for (long task = 0; task < m.parts * m.slices; task++) {
            const long part = task / m.slices, slice = task % m.slices;
            const long k0 = m.panels * slice / m.slices, k1 = m.panels * (slice + 1) / m.slices;
            float *own = sums + (m.parts > 1 ? part * all + k0 * m.size
                                 : omp_get_thread_num() * ceil_div(m.panels, m.slices) * m.size);
            memset(own, 0, (k1 - k0) * m.size * 4);
            for (long b = m.blocks * part / m.parts; b < m.blocks * (part + 1) / m.parts; b++)
                block(&m, x, delta, b, k0, k1, own, copies + omp_get_thread_num() * (m.x_room + m.y_room));
            for (long k = k0; m.parts == 1 && k < k1; k++) EACH_KIND(places, &m, own + (k - k0) * m.size, dw, k);
        }
#pragma omp for schedule(static)
        for (long k = 0; k < (m.parts > 1 ? m.panels : 0); k++) {
            for (long part = 1; part < m.parts; part++) for (long l = k * m.size; l < (k + 1) * m.size; l++)
                sums[l] += sums[part * all + l];
            EACH_KIND(places, &m, sums + k * m.size, dw, k);
        }
    }
    return 0;
}
