/* commands: what a word after `qformer` runs, as far as train/ holds it. eval/commands.h has the others, qformer.c the
 * table.
 *
 * A command reads its options, speaks on stdout, and returns a status; qformer.c turns it into the exit code. */
#ifndef QF_TRAIN_COMMANDS_H
#define QF_TRAIN_COMMANDS_H
#include "configs/options.h"
#include "kernels/base/err.h"

Status cmd_init(const Options *o);         /* cmd_model.c */
Status cmd_inspect(const Options *o);
Status cmd_export(const Options *o);
Status cmd_pretrain(const Options *o);
Status cmd_finetune(const Options *o);
Status cmd_doctor(const Options *o);
Status cmd_plan(const Options *o);         /* cmd_plan.c */
Status cmd_synth(const Options *o);        /* cmd_data.c */
Status cmd_extract(const Options *o);
Status cmd_import(const Options *o);
Status cmd_vocab(const Options *o);
Status cmd_verify(const Options *o);       /* cmd_set.c */
Status cmd_repack(const Options *o);

#endif
