/* The node's key, from a file of 64 hexadecimal digits: on a board it is compiled in. */
#include "native.h"

#include "node/port.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 32

static uint8_t key[KEY_BYTES];
static bool keyed;

/* What is in the file is shown to nobody. */
void native_open_key(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        native_fail("--key %s: cannot be read: %s", path, strerror(errno));
    }
    char text[2 * KEY_BYTES + 4]; /* a line, perhaps as Windows ends it, and a byte that would be too much */
    const size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *end = text + strspn(text, "0123456789abcdefABCDEF");
    const bool ends = strcmp(end, "") == 0 || strcmp(end, "\n") == 0 || strcmp(end, "\r\n") == 0;
    if (!ends || end != text + 2 * KEY_BYTES || strlen(text) != length) {
        native_fail("--key %s: is no key: expected 64 hexadecimal digits and a newline", path);
    }
    for (unsigned i = 0; i < KEY_BYTES; i++) {
        sscanf(text + 2 * i, "%2hhx", &key[i]);
    }
    keyed = true;
}

bool port_key(uint8_t out[KEY_BYTES])
{
    memcpy(out, key, sizeof key);
    return keyed;
}
