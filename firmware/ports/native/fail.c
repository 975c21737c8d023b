/* Where every part of the port ends when it cannot go on. */
#include "native.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void native_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}
