/* speech: what a language model is given and shall say about a picture, as ids: prompt and target, cut to their
 * lengths, and where what is learned begins.
 *
 *     opt       </s>, pieces of "prompt target\n", cut on the right to max_prompt. Targets: all behind </s> and the
 *               prompt; without a prompt </s> too, as LAVIS counts it
 *     llama     begin (if the tokenizer adds one), pieces of "prompt target", end; cut on the right to max_prompt.
 *               Targets: all behind begin and prompt
 *     t5        prompt </s> to the encoder, target </s> from the decoder, each cut on the right, keeping </s>
 *     instruct  InstructBLIP: prompt and target cut into pieces by themselves; the prompt on the left to max_prompt,
 *               its begin (T5: end) kept; the target on the right to max_target, where Llama loses its end and T5
 *               keeps it
 *
 * Between prompt and target stands a blank, unless the prompt is empty or ends in white space. Without a target: what
 * generation begins with. Sources: LAVIS, blip2_opt, blip2_t5, blip2_vicuna_instruct; spec/stage2.md 2, 2b, 3, 11a. */
#pragma once
#include "data/text/tokenizer.h"
#include "kernels/model/lm_dims.h"

typedef struct {
    LmFamily family;
    bool instruct;
    const Tokenizer *t;
    int32_t end;                        /* what ends a target; opt: the id of the newline */
    int32_t max_prompt, max_target;     /* ids; opt and llama: max_prompt holds for the whole text */
} Speech;

/* The usual: 32 ids (instruct: 128 and 256), end from the model's ids; opt: the newline's piece. ERR_FORMAT when the
 * tokenizer has none. */
Status speech_open(Speech *s, const LmDims *d, const Tokenizer *t, bool instruct);

/* Appends to ids; *target of them are the prompt. target_text NULL: the prompt alone, ready for generation. */
Status speech_ids(const Speech *s, const char *prompt, const char *target_text, TokenIds *ids, int32_t *target);
