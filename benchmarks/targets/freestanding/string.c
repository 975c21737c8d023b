#include "string.h"

/* Without this GCC would see memcpy in the loop and call it. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

void *memcpy(void *to, const void *from, size_t count)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    while (count-- > 0) {
        *out++ = *in++;
    }
    return to;
}

void *memset(void *to, int byte, size_t count)
{
    unsigned char *out = to;
    while (count-- > 0) {
        *out++ = (unsigned char)byte;
    }
    return to;
}
