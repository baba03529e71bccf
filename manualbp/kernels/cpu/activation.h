/* Activations phi(z) and their slopes, V numbers at a time; what is no number stays none.

   exp x = 2^n (1 + m), m = exp r - 1, r = x - n ln 2, |r| <= ln 2 / 2: m is as exact as x where x is small.
   Of u <= 0 it is e, and sigmoid(-|u|) = e q with q = 1 / (1 + e), its slope e q^2: no difference of equals.
   Phi(-|z|), of the normal distribution, is its density times a polynomial in t = 1 / (1 + 0.225 |z|), to 1.3e-6. */
#ifndef ACTIVATION_H
#define ACTIVATION_H
#include "vector.h"

enum { IDENTITY, RELU, SIGMOID, TANH, SILU, GELU_TANH, GELU };
typedef struct { v power, m; } exponential;
typedef struct { v value, slope; } function;

INLINE v size_of(v x) { return (v)((vi)x & INT32_MAX); }
INLINE exponential exponential_of(v x) { /* -87 <= x < 88.7 */
    v shifted = x * 1.44269504f + 12582912, n = shifted - 12582912; /* rounded: 1.5 2^23 has no fraction */
    v r = x - n * 0.693145752f - n * 1.42860677e-6f, m = all(1.0f / 5040);
    m = m * r + 1.0f / 720, m = m * r + 1.0f / 120, m = m * r + 1.0f / 24, m = m * r + 1.0f / 6, m = m * r + 0.5f;
    return (exponential){(v)(((vu)shifted + 127) << 23), m * r * r + r};
}
INLINE v falling(v x) { /* exp x, x <= 0 */
    exponential e = exponential_of(choose(x < -87, all(-87), x));
    return choose(x < -87, (v){0}, e.power * (1 + e.m));
}
INLINE function sigmoid(v u) {
    v e = falling(-size_of(u)), q = 1 / (1 + e);
    return (function){choose(u < 0, e * q, q), e * q * q};
}
INLINE function hyperbolic_tangent(v x) { /* w / (w + 2), w = exp 2|x| - 1: from 10 on it is 1 */
    exponential e = exponential_of(2 * choose(size_of(x) > 10, all(10), size_of(x)));
    v w = e.power * e.m + (e.power - 1), y = (v)((vi)(w / (w + 2)) | ((vi)x & INT32_MIN));
    return (function){y, 1 - y * y};
}
INLINE function gate(v z, float a, float b) { /* z sigmoid(u), u = a z + b z^3 */
    function s = sigmoid(z * (a + b * z * z));
    return (function){z * s.value, s.value + z * (a + 3 * b * z * z) * s.slope};
}
INLINE function gelu(v z) { /* z Phi(z) */
    v density = 0.398942280f * falling(-0.5f * z * z), t = 1 / (1 + 0.225f * size_of(z)), p = all(-0.220662763f);
    p = p * t + 0.888160359f, p = p * t - 0.949544003f, p = p * t + 0.958574549f, p = p * t - 0.171036795f;
    p = p * t + 0.311419074f, p = p * t + 0.210500197f, p = p * t + 0.225903413f;
    v tail = density * (p * t), below = choose(z < 0, tail, 1 - tail);
    return (function){z * below, below + z * density};
}
INLINE function function_of(int phi, v z) {
    if (phi == SIGMOID) return sigmoid(z);
    if (phi == TANH) return hyperbolic_tangent(z);
    if (phi == SILU) return gate(z, 1, 0);
    if (phi == GELU_TANH) return gate(z, 1.59576912f, 0.0713548163f);
    return gelu(z);
}
INLINE v activated(int phi, v z) {
    if (phi == IDENTITY) return z;
    return phi == RELU ? choose(z < 0, (v){0}, z) : function_of(phi, z).value;
}
/* delta phi'(z); where ReLU is 0 so is this, whatever delta is */
INLINE v let_through(int phi, v delta, v z) {
    if (phi == IDENTITY) return delta;
    if (phi == RELU) return choose(z <= 0, (v){0}, delta);
    return delta * function_of(phi, z).slope;
}
#endif
