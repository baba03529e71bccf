/* Vectors of V floats, as wide as the compiler's target has them, and what they are loaded from and stored to.

   float32, bfloat16 and float16 are stored; float32 is computed in. `kind` is a literal wherever a loop uses it. */
#ifndef VECTOR_H
#define VECTOR_H
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { V = 16 };
#elif defined(__AVX__)
enum { V = 8 };
#else
enum { V = 4 };
#endif

typedef float v __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * V), aligned(2), may_alias));

enum { FLOAT, BFLOAT16, HALF };
/* f of the literal that `kind` is, and of more */
#define EACH_KIND(f, ...) (kind == FLOAT ? f(FLOAT, __VA_ARGS__) \
                           : kind == BFLOAT16 ? f(BFLOAT16, __VA_ARGS__) : f(HALF, __VA_ARGS__))
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 32")

INLINE long smaller(long a, long b) { return a < b ? a : b; }
INLINE long larger(long a, long b) { return a > b ? a : b; }
INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }
INLINE long bytes_of(int kind) { return kind == FLOAT ? 4 : 2; }

INLINE v load(const float *p) { return *(const v *)p; }
INLINE void store(float *p, v a) { *(v *)p = a; }
INLINE v all(float a) { return a - (v){0}; }

/* Number l of row i to number i of row l: the two exchange one bit of their numbers at a time. */
INLINE void transposed(v *rows) {
#if defined(__clang__)
    for (int i = 0; i < V; i++) for (int l = 0; l < i; l++) {
        float a = rows[i][l];
        rows[i][l] = rows[l][i], rows[l][i] = a;
    }
#else
    UNROLLED for (int h = V / 2; h; h /= 2) UNROLLED for (int i = 0; i < V; i++) if (!(i & h)) {
        vi low = {0}, high = {0};
        UNROLLED for (int l = 0; l < V; l++) low[l] = l & h ? V + l - h : l, high[l] = l & h ? V + l : l + h;
        v a = __builtin_shuffle(rows[i], rows[i + h], low);
        rows[i + h] = __builtin_shuffle(rows[i], rows[i + h], high), rows[i] = a;
    }
#endif
}

/* where the mask (-1 or 0 a lane) says so a, else b */
INLINE v choose(vi yes, v a, v b) { return (v)(((vi)a & yes) | ((vi)b & ~yes)); }

INLINE v from_bfloat16(vh a) { return (v)(__builtin_convertvector(a, vu) << 16); }
/* to the nearest, of two the even one; what is no number stays none */
INLINE vh to_bfloat16(v a) {
    vu u = (vu)a, rounded = u + 0x7fff + (u >> 16 & 1);
    return __builtin_convertvector((vu)choose(a == a, (v)rounded, (v)(u | 0x400000)) >> 16, vh);
}
#if defined(__AVX512F__)
INLINE v from_half(vh a) { return (v)_mm512_cvtph_ps((__m256i)a); }
INLINE vh to_half(v a) { return (vh)_mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__F16C__)
INLINE v from_half(vh a) { return (v)_mm256_cvtph_ps((__m128i)a); }
INLINE vh to_half(v a) { return (vh)_mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT); }
#else
typedef _Float16 vf __attribute__((vector_size(2 * V), aligned(2), may_alias));
INLINE v from_half(vh a) { return __builtin_convertvector((vf)a, v); }
INLINE vh to_half(v a) { return (vh)__builtin_convertvector(a, vf); }
#endif

/* V numbers from the i-th on */
INLINE v load_as(int kind, const void *p, long i) {
    if (kind == FLOAT) return load((const float *)p + i);
    vh a = *(const vh *)((const uint16_t *)p + i);
    return kind == BFLOAT16 ? from_bfloat16(a) : from_half(a);
}
INLINE void store_as(int kind, void *p, long i, v a) {
    if (kind == FLOAT) store((float *)p + i, a);
    else *(vh *)((uint16_t *)p + i) = kind == BFLOAT16 ? to_bfloat16(a) : to_half(a);
}
/* the first n of V numbers, n <= V; zeros are loaded for the others, which are not read, and not written */
INLINE v load_some(int kind, const void *p, long i, long n) {
    if (n == V) return load_as(kind, p, i);
#if defined(__AVX512F__)
    if (kind == FLOAT) return (v)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), (const float *)p + i);
#endif
    v whole = {0};
    memcpy(&whole, (const char *)p + i * bytes_of(kind), n * bytes_of(kind));
    return load_as(kind, &whole, 0);
}
INLINE void store_some(int kind, void *p, long i, v a, long n) {
    if (n == V) { store_as(kind, p, i, a); return; }
#if defined(__AVX512F__)
    if (kind == FLOAT) { _mm512_mask_storeu_ps((float *)p + i, (__mmask16)((1u << n) - 1), (__m512)a); return; }
#endif
    v whole;
    store_as(kind, &whole, 0, a);
    memcpy((char *)p + i * bytes_of(kind), &whole, n * bytes_of(kind));
}
/* one number */
INLINE float load_one(int kind, const void *p, long i) {
    if (kind == FLOAT) return ((const float *)p)[i];
    vh a = {((const uint16_t *)p)[i]};
    return (kind == BFLOAT16 ? from_bfloat16(a) : from_half(a))[0];
}
INLINE void store_one(int kind, void *p, long i, float a) {
    if (kind == FLOAT) ((float *)p)[i] = a;
    else ((uint16_t *)p)[i] = (kind == BFLOAT16 ? to_bfloat16(all(a)) : to_half(all(a)))[0];
}
#endif
