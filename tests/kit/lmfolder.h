/* lmfolder: a tiny language model's folder, as Hugging Face publishes them, with random weights: for tests of what
 * speaks to one. In the folder of folder.h; its tokenizer is the small one like Llama-2's of tests/golden. */
#ifndef QF_TEST_LMFOLDER_H
#define QF_TEST_LMFOLDER_H

void lmfolder_make(const char *name);

#endif
