/* chat: see chat.h. */
#include "data/text/chat.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

static const ChatForm forms[] = {
    {"chatml", "<|im_start|>system\n%s<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n",
     "<|im_end|>\n",
     NULL, "<|im_start|>"},
    {"llama3", "<|start_header_id|>system<|end_header_id|>\n\n%s<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n",
     "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", NULL, "<|start_header_id|>"},
    {"zephyr", "<|system|>\n%s</s>\n", "<|user|>\n", "</s>\n<|assistant|>\n", "</s>\n", NULL, "<|user|>"},
    {"llama2", "<<SYS>>\n%s\n<</SYS>>\n\n", "[INST] ", " [/INST]", " </s><s>", NULL, "[INST]"},
    {"vicuna", "%s ", "USER: ", " ASSISTANT:", "</s>",
     "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
     "and polite answers to the user's questions.", "USER:"},
    {"alpaca", "%s\n\n", "### Instruction:\n", "\n\n### Response:\n", "\n\n",
     "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
     "### Instruction"},
};
enum { FORMS = sizeof forms / sizeof *forms };

const ChatForm *chat_find(const char *name) {
    for (int k = 0; k < FORMS; k++)
        if (!strcmp(forms[k].name, name)) return &forms[k];
    return NULL;
}


const char *chat_of_template(const char *jinja) {
    for (int k = 0; k < FORMS; k++)
        if (strstr(jinja, forms[k].mark)) return forms[k].name;
    return "";
}

/* The system's text where the %s is. Llama-2's stands inside the first question's brackets. */
static char *with_system(const ChatForm *f, const char *system) {
    const char *at = strstr(f->system, "%s");
    return mem_format("%.*s%s%s", (int)(at - f->system), f->system, system, at + 2);
}

char *chat_prompt(const ChatForm *f, const char *system, const char *question) {
    char *head = system && *system ? with_system(f, system) : mem_strdup(""), *text = NULL;
    bool inside = !strcmp(f->name, "llama2"); /* its template has the system's text within the first turn */
    if (head) text = mem_format("%s%s%s%s%s", inside ? "" : head, f->prefix, inside ? head : "", question, f->suffix);
    free(head);
    return text;
}

char *chat_turn(const ChatForm *f, const char *so_far, const char *question) {
    return mem_format("%s%s%s%s%s", so_far, f->between, f->prefix, question, f->suffix);
}
