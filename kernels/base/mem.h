/* mem: host memory with checked sizes. Every product is tested for overflow before it reaches the allocator, since
 * counts come from files. Failure sets ERR_MEMORY's message and returns NULL. Release with free(). */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

bool mem_mul(size_t a, size_t b, size_t *out);       /* false on overflow */
void *mem_new(size_t count, size_t size);            /* zeroed; count 0 gives a pointer that free() takes */
void *mem_grow(void *old, size_t count, size_t size);/* realloc; on failure `old` stays valid */
/* Room for `more` elements behind the n that *(T **)array holds and that came there by this function alone: the next
 * power of two is allocated, so a list needs no count of its room, and n pushes cost what n assignments do. */
Status mem_room(void *array, size_t n, size_t more, size_t size);
char *mem_strdup(const char *s);
/* Takes `text` over into a list that owns it, and hands it back; NULL (freed) when it is NULL or there is no room. */
char *mem_keep(char ***list, size_t *n, char *text);
/* free() of each: what somebody owns, as a list. */
#define mem_free(...) mem_free_each((void *[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))
void mem_free_each(void *const *list, size_t n);
void mem_free_list(char **list, size_t n);           /* a list that owns its texts, and them; accepts NULL */
char *mem_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* a new string */
