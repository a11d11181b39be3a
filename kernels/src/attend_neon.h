/* Attention's products on ARM: a value of four is named by its lane, so that none has to be copied to all lanes.
 * Sums are in the order of every other kernel. */
#ifndef EMRL_ATTEND_NEON_H
#define EMRL_ATTEND_NEON_H

#define ATTEND_ROWS 12

/* Four queries, whose values lie side by side in by##n, and eight keys. */
#define FOUR_QUERIES(n, r0, r1, r2, r3)                                                                        \
    SCORE(r0, n, 0)                                                                                            \
    SCORE(r1, n, 1)                                                                                            \
    SCORE(r2, n, 2)                                                                                            \
    SCORE(r3, n, 3)
#define SCORE(r, n, lane)                                                                                      \
    a##r = vfmaq_laneq_f32(a##r, x, by##n, lane);                                                              \
    b##r = vfmaq_laneq_f32(b##r, y, by##n, lane);
#define TO_ZERO(r) float32x4_t a##r = vdupq_n_f32(0.0f), b##r = a##r;
#define KEEP(r)                                                                                                \
    vst1q_f32(scores + r * padded, a##r);                                                                      \
    vst1q_f32(scores + r * padded + 4, b##r);

static void score_half(const float *q, const float *keys, size_t padded, int width, float *scores)
{
    REPEAT_12(TO_ZERO)
    for (int j = 0; j < width; j++, q += ATTEND_ROWS, keys += padded) {
        float32x4x3_t all = vld1q_f32_x3(q);
        float32x4x2_t eight = vld1q_f32_x2(keys);
        float32x4_t by0 = all.val[0], by1 = all.val[1], by2 = all.val[2], x = eight.val[0], y = eight.val[1];
        FOUR_QUERIES(0, 0, 1, 2, 3)
        FOUR_QUERIES(1, 4, 5, 6, 7)
        FOUR_QUERIES(2, 8, 9, 10, 11)
    }
    REPEAT_12(KEEP)
}

static void score_one(const float *q, const float *keys, size_t padded, int width, float *scores)
{
    score_half(q, keys, padded, width, scores);
    score_half(q, keys + 8, padded, width, scores + 8);
}

#undef TO_ZERO
#undef KEEP
#undef SCORE

#define TO_ZERO(r) float32x4_t a##r = vdupq_n_f32(0.0f), b##r = a##r, c##r = a##r, d##r = a##r;
#define FROM(r) const float *from##r = weights + r * padded;
#define FOUR_OF(r) float32x4_t by##r = vld1q_f32(from##r + t);
#define ONE_OF(r) float32x4_t by##r = vdupq_n_f32(from##r[t]);
#define ADD(sum, part, lane)                                                                                   \
    x = vld1q_f32(values + part);                                                                              \
    sum##0 = vfmaq_laneq_f32(sum##0, x, by0, lane);                                                            \
    sum##1 = vfmaq_laneq_f32(sum##1, x, by1, lane);                                                            \
    sum##2 = vfmaq_laneq_f32(sum##2, x, by2, lane);                                                            \
    sum##3 = vfmaq_laneq_f32(sum##3, x, by3, lane);                                                            \
    sum##4 = vfmaq_laneq_f32(sum##4, x, by4, lane);                                                            \
    sum##5 = vfmaq_laneq_f32(sum##5, x, by5, lane);
#define ADD_VALUE(lane)                                                                                        \
    ADD(a, 0, lane)                                                                                            \
    ADD(b, 4, lane)                                                                                            \
    ADD(c, 8, lane)                                                                                            \
    ADD(d, 12, lane)                                                                                           \
    values += columns;
#define KEEP(r) vf_store(out + r * EMRL_LANES, vf_mul((vf){a##r, b##r, c##r, d##r}, vf_set(factors[r])));

/* Six rows and sixteen columns. */
static void mix_six(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                    const float *factors, float *out)
{
    int t = 0;
    REPEAT_6(FROM)
    REPEAT_6(TO_ZERO)
    for (; t + 4 <= tokens; t += 4) {
        float32x4_t x;
        REPEAT_6(FOUR_OF)
        ADD_VALUE(0)
        ADD_VALUE(1)
        ADD_VALUE(2)
        ADD_VALUE(3)
    }
    for (; t < tokens; t++) {
        float32x4_t x;
        REPEAT_6(ONE_OF)
        ADD_VALUE(0)
    }
    REPEAT_6(KEEP)
}

static void mix_one(const float *weights, size_t padded, const float *values, size_t columns, int tokens,
                    const float *factors, float *out)
{
    mix_six(weights, padded, values, columns, tokens, factors, out);
    mix_six(weights + 6 * padded, padded, values, columns, tokens, factors + 6, out + 6 * EMRL_LANES);
}

#undef TO_ZERO
#undef KEEP
#undef ADD

#endif
