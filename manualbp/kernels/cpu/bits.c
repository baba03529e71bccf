/* On which of two straight pieces a number is: a bit a number, bit l of byte b that of the number 8 b + l.

     BETWEEN      low < t < high
     NOT_CLAMPED  the same, and what is no number
     OUTSIDE      all but low <= t <= high, so what is no number, too
     masked       dx = delta where the bit is 1, else a delta; where a is 0 that is 0, whatever delta is

   An end that is no number is none. Half precision is compared as float, but the first and the last compare with the
   ends that it holds: so does PyTorch. The numbers of a tensor are taken as they lie in memory, `count` of them. */
#include <omp.h>
#include "vector.h"

enum { BETWEEN, NOT_CLAMPED, OUTSIDE };
enum { PACK, MASK, SLOPE };
enum { UNIT = V < 8 ? 8 : V, BLOCK = 8192 }; /* numbers of whole bytes, and numbers that a thread takes at a time */

INLINE vi told(long how, v t, float low, float high) {
    if (how == OUTSIDE) return ~((t >= low) & (t <= high));
    vi yes = ~((t <= low) | (t >= high));
    if (how == BETWEEN) yes &= t == t;
    return yes;
}
/* the lanes as bits, and bits as lanes */
INLINE uint32_t packed(vi yes) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)yes, (__m512i)yes);
#elif defined(__AVX__)
    return _mm256_movemask_ps((__m256)yes);
#else
    uint32_t bits = 0;
    for (int l = 0; l < V; l++) bits |= (uint32_t)(yes[l] & 1) << l;
    return bits;
#endif
}
INLINE vi unpacked(uint32_t bits) {
#if defined(__AVX512F__)
    return (vi)_mm512_maskz_set1_epi32(bits, -1);
#else
    vi lanes = {1, 2, 4, 8};
    for (int l = 4; l < V; l++) lanes[l] = 1 << l;
    return (((vi){0} + (int32_t)bits) & lanes) != 0;
#endif
}

/* `some` numbers, a UNIT at most: bits of t; or dx by the bits, or by those that t would have */
INLINE void unit(int kind, int what, long how, float low, float high, const void *t, uint8_t *bits, float a,
                 const void *delta, void *dx, long i, long some) {
    uint32_t mask = 0;
    if (what == MASK) memcpy(&mask, bits + i / 8, ceil_div(some, 8));
    for (long l = 0; l < some; l += V) {
        long n = smaller(V, some - l);
        vi yes = what == MASK ? unpacked(mask >> l) : told(how, load_some(kind, t, i + l, n), low, high);
        if (what == PACK) {
            mask |= packed(yes) << l;
            continue;
        }
        v d = load_some(kind, delta, i + l, n), off = a * d;
        if (a == 0) off = (v){0};
        store_some(kind, dx, i + l, choose(yes, d, off), n);
    }
    mask &= (1ull << some) - 1;
    if (what == PACK) memcpy(bits + i / 8, &mask, ceil_div(some, 8));
}
INLINE void straight(int kind, int what, long how, float low, float high, const void *t, uint8_t *bits, float a,
                     const void *delta, void *dx, long count) {
#pragma omp for
    for (long block = 0; block < count; block += BLOCK) {
        long i = block, end = smaller(block + BLOCK, count);
        for (; i + UNIT <= end; i += UNIT) unit(kind, what, how, low, high, t, bits, a, delta, dx, i, UNIT);
        if (i < end) unit(kind, what, how, low, high, t, bits, a, delta, dx, i, end - i);
    }
}
/* an end as PyTorch compares with it */
static float end_of(long kind, long how, float end) {
    float held = 0;
    if (how == NOT_CLAMPED) return end;
    store_one(kind, &held, 0, end);
    return load_one(kind, &held, 0);
}
/* PACK makes bits of t, MASK dx of delta and bits, SLOPE dx of delta and t */
long bits_straight(long kind, long what, long how, float low, float high, const void *t, uint8_t *bits, float a,
                   const void *delta, void *dx, long count, long threads) {
    low = end_of(kind, how, low), high = end_of(kind, how, high);
#pragma omp parallel num_threads(threads)
    if (what == PACK) EACH_KIND(straight, PACK, how, low, high, t, bits, a, delta, dx, count);
    else if (what == MASK) EACH_KIND(straight, MASK, how, low, high, t, bits, a, delta, dx, count);
    else EACH_KIND(straight, SLOPE, how, low, high, t, bits, a, delta, dx, count);
    return 0;
}
