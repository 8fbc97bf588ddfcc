#include "kernels/base/patience.h"

#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

void patience_set(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    /* Begun as an argument of ld.so, the program that would be begun anew is ld.so, without its arguments. */
    if (!getauxval(AT_BASE)) return;
    if (setenv("GOMP_SPINCOUNT", "1000", 1)) return;         /* which also keeps the new start from starting anew */
    /* the OpenMP library has read its environment before main: only a new start is heard */
    execv((const char *)getauxval(AT_EXECFN), argv);
}
