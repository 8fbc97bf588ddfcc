/* check: cmocka with what it must be preceded by. */
#ifndef QF_CHECK_H
#define QF_CHECK_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
