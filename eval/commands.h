/* commands: what a word after `qformer` runs, as far as eval/ holds it (train/commands.h has the others). */
#ifndef QF_EVAL_COMMANDS_H
#define QF_EVAL_COMMANDS_H
#include "configs/options.h"
#include "kernels/base/err.h"

Status cmd_retrieval(const Options *o);
Status cmd_caption(const Options *o);
Status cmd_match(const Options *o);
Status cmd_embed(const Options *o);
Status cmd_classify(const Options *o);
Status cmd_score(const Options *o);
Status cmd_report(const Options *o);

#endif
