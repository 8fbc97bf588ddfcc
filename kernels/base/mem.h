/* mem: host memory with checked sizes. Every product is tested for overflow before it reaches the allocator, since
 * counts come from files. Failure sets ERR_MEMORY's message and returns NULL. Release with free(). */
#ifndef QF_MEM_H
#define QF_MEM_H
#include <stdbool.h>
#include <stddef.h>

bool mem_mul(size_t a, size_t b, size_t *out);       /* false on overflow */
void *mem_new(size_t count, size_t size);            /* zeroed; count 0 gives a pointer that free() takes */
void *mem_grow(void *old, size_t count, size_t size);/* realloc; on failure `old` stays valid */
char *mem_strdup(const char *s);
char *mem_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* a new string */

#endif
