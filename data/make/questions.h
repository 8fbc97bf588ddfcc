/* questions: annotations that ask about an image: the forms they come in, to texts of a set (settext.h). Private to
 * annotation_json.c and annotation_table.c.
 *
 *     VQAv2, OK-VQA   {"questions": [{question_id, image_id, question}], "data_subtype"}, then
 *                     {"annotations": [{question_id, answers: [{answer}], answer_type}], "data_subtype"}: two files,
 * in this
 *                     order; the picture is COCO_<data_subtype>_<image_id in 12 digits>.jpg
 *     GQA             {"QID": {imageId, question, answer, types}}; the picture is <imageId>.jpg
 *     LLaVA           {"image", "conversations": [{from, value}]}: every answer, behind the turns before it, when
 *                     extract.questions says so (else a caption, annotation_json.c)
 *     an entry        {"image", "question", "answer" or "answers"}; {"image", "text_input", "text_output"} */
#pragma once
#include "data/format/json.h"
#include "data/make/annotation_store.h"

/* Whole documents, as annotation_json.c's table wants them. */
bool questions_is_asked(const Json *doc);
Status questions_asked(Annotations *a, const Json *doc);
bool questions_is_answered(const Json *doc);
Status questions_answered(Annotations *a, const Json *doc);
bool questions_is_gqa(const Json *doc);
Status questions_gqa(Annotations *a, const Json *doc);

/* An entry that asks something, and its texts; conversations only if columns say so. */
bool questions_in(const Annotations *a, const Json *entry);
Status questions_of(Annotations *a, int64_t image, const Json *entry);

/* A turn of a conversation, {from, value} or {role, content}: whether the model says it, and what is said (NULL:
 * nothing). */
bool questions_turn(const Json *turn, const Json **said);

/* One question with the answer(s) of a table's field: "red", or a list ["red", "crimson"]. */
Status questions_field(Annotations *a, int64_t image, const char *question, const char *answer);
