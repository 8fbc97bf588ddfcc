/* lm_dims: the sizes and habits of a frozen language model, under the letters of DESIGN.md.
 *
 * Three families: OPT (also its post-LN form, 350m), T5 (also v1.1 and Flan), Llama (1 to 3, Vicuna, TinyLlama,
 * SmolLM2, Mistral, Qwen2). checkpoints/lm_config.c fills this from a config.json and checks every number; the forward
 * passes (opt.c, t5.c, llama.c) trust it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

#define LM_FAMILIES(X) X(OPT, "opt") X(T5, "t5") X(LLAMA, "llama")

typedef enum {
#define X(id, name) LM_##id,
    LM_FAMILIES(X)
#undef X
    LM_FAMILY_COUNT
} LmFamily;

/* LM_HEAD_ASK: the head is lm_head.weight if the file has it, else the word vectors. */
typedef enum { LM_HEAD_TIED, LM_HEAD_OWN, LM_HEAD_ASK } LmHead;

typedef enum { LM_ROPE_PLAIN, LM_ROPE_LINEAR, LM_ROPE_LLAMA3 } LmRopeKind;
typedef struct { LmRopeKind kind; double theta, factor, low, high, original; } LmRope;   /* spec/stage2.md 2b */

enum { LM_ENDS = 8 };

typedef struct {
    LmFamily family;
    int32_t L, M;                       /* layers; T5: of the encoder, of the decoder (else M is 0) */
    int32_t C, E;                       /* hidden width; width of the word vectors, where visual rows enter */
    int32_t H, K, D;                    /* query heads, key heads (H / K query heads share one), head size */
    int32_t F, V;
    int32_t N;                          /* rows a text may have, prefix included; 0: no limit (T5) */
    double eps;
    ActKind act;
    bool gated;                         /* feed-forward: act(x Wg) * (x Wu), else act(x W) */
    bool pre_norm, last_norm;           /* norm in front of what it serves; a norm behind the last layer */
    bool qkv_bias, out_bias, ffn_bias;
    bool scale_head;                    /* T5 with a tied head: its decoder's output times C^-1/2 */
    LmHead head;
    DType held;                         /* of all its matrices in the files: BF16 or F16, or anything else */
    LmRope rope;                        /* Llama */
    int32_t buckets, distance;          /* T5 */
    /* in training: of what joins the stream (T5: everywhere); of attention's weights */
    float dropout, prob_dropout;
    int32_t bos, pad, start;            /* ids; -1: none. start: what T5's decoder begins with */
    int32_t end[LM_ENDS], nends;        /* any of them ends a text; end[0] is the one that is trained on */
} LmDims;

/* Sizes by letter, of what the tables of opt.c, t5.c and llama.c call so: A = H D, B = K D, P = OPT's position rows. */
static inline int32_t lm_positions(const LmDims *d) { return d->family == LM_OPT ? d->N + 2 : 0; }

const char *lm_family_name(LmFamily f);
