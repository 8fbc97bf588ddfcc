/* names: what the same tensor is called by LAVIS, by Hugging Face and by BERT. Ours are the LAVIS names.
 *
 * Called by weights.c (reading foreign files) and export.c (writing them). Rules are tables of prefixes; nothing is
 * known about shapes or about how many layers there are. Source: spec of the parameters, checked in the tests
 * against the names that both implementations gave the same model. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/*   id                what the file holds */
typedef enum {
    NAMES_LAVIS,            /* LAVIS names */
    NAMES_HF,               /* names of Hugging Face's Blip2ForImageTextRetrieval */
    NAMES_HF_QFORMER,       /* names of Hugging Face's Blip2QFormerModel */
    NAMES_BERT,             /* names of BERT (bert-base-uncased) */
    NAMES_BERT_BARE,        /* names of BERT's encoder alone */
    NAME_FORM_COUNT
} NameForm;

enum { NAME_ROOM = 256 };

/* The LAVIS name of a foreign tensor, and back, into buf[NAME_ROOM]. False when the tensor has no counterpart (a BERT
 * pooler; the LM head in Hugging Face) or does not fit. Old gamma and beta of LayerNorm become weight and bias; written
 * are the new ones. Of NAMES_LAVIS only the tensors of the Q-Former and its heads count; visual_encoder.* does not. */
bool name_to_lavis(NameForm form, const char *name, char *buf);
bool name_from_lavis(NameForm form, const char *lavis, char *buf);

/* Tensors that PyTorch stores twice, because the LM head is tied to the word embeddings. name_alias: the name that
 * an alias stands for, else NULL. */
enum { NAME_ALIASES = 2 };
extern const struct NameAlias { const char *alias, *real; } name_aliases[NAME_ALIASES];
const char *name_alias(const char *lavis);
