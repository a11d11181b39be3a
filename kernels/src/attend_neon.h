/* Attention's products on ARM: a value of four is named by its lane, so that none has to be copied to all lanes.
 * Sums are in the order of every other kernel. */
#ifndef EMRL_ATTEND_NEON_H
#define EMRL_ATTEND_NEON_H

#define ATTEND_ROWS 4

#define TO_ZERO(r) float32x4_t a##r = vdupq_n_f32(0.0f), b##r = a##r, c##r = a##r, d##r = a##r;
#define LANE(r, lane)                                                                                          \
    a##r = vfmaq_laneq_f32(a##r, x.a, by##r, lane);                                                            \
    b##r = vfmaq_laneq_f32(b##r, x.b, by##r, lane);                                                            \
    c##r = vfmaq_laneq_f32(c##r, x.c, by##r, lane);                                                            \
    d##r = vfmaq_laneq_f32(d##r, x.d, by##r, lane);
#define LANE_0(r) LANE(r, 0)
#define LANE_1(r) LANE(r, 1)
#define LANE_2(r) LANE(r, 2)
#define LANE_3(r) LANE(r, 3)
#define FOUR_OF(r) float32x4_t by##r = vld1q_f32(from##r + at);
#define ONE_OF(r) float32x4_t by##r = vdupq_n_f32(from##r[at]);
/* sums of ATTEND_ROWS rows += from[at] * x[at], for `count` vectors x that lie `step` floats apart */
#define ADD_PRODUCTS(first, step, count)                                                                       \
    do {                                                                                                       \
        const float *next = (first);                                                                           \
        size_t at = 0;                                                                                         \
        for (; at + 4 <= (count); at += 4, next += 4 * (step)) {                                               \
            REPEAT_4(FOUR_OF)                                                                                  \
            vf x = vf_load(next);                                                                              \
            REPEAT_4(LANE_0)                                                                                   \
            x = vf_load(next + (step));                                                                        \
            REPEAT_4(LANE_1)                                                                                   \
            x = vf_load(next + 2 * (step));                                                                    \
            REPEAT_4(LANE_2)                                                                                   \
            x = vf_load(next + 3 * (step));                                                                    \
            REPEAT_4(LANE_3)                                                                                   \
        }                                                                                                      \
        for (; at < (count); at++, next += (step)) {                                                           \
            REPEAT_4(ONE_OF)                                                                                   \
            vf x = vf_load(next);                                                                              \
            REPEAT_4(LANE_0)                                                                                   \
        }                                                                                                      \
    } while (0)

#define QUERY(r) const float *from##r = q[r];
#define KEEP(r) vf_store(scores + r * padded, (vf){a##r, b##r, c##r, d##r});

static void score_one(const float *const *q, const float *keys, size_t padded, int width, float *scores)
{
    REPEAT_4(QUERY)
    REPEAT_4(TO_ZERO)
    ADD_PRODUCTS(keys, padded, (size_t)width);
    REPEAT_4(KEEP)
}

#define WEIGHTS_OF(r) const float *from##r = weights + r * padded;
#define KEEP_MIXED(r) vf_store(out + r * EMRL_LANES, vf_mul((vf){a##r, b##r, c##r, d##r}, vf_set(factors[r])));

static void mix_tile(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                     const float *factors, float *out)
{
    REPEAT_4(WEIGHTS_OF)
    REPEAT_4(TO_ZERO)
    ADD_PRODUCTS(values, columns, (size_t)tokens);
    REPEAT_4(KEEP_MIXED)
}

#undef TO_ZERO
#undef KEEP
#undef LANE
#undef LANE_0
#undef LANE_1
#undef LANE_2
#undef LANE_3

#endif
