/* What is flashed. */
#include <elf.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nrf52_chip.h"
#include "wire.h"

static uint8_t *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        wire_fail("%s cannot be read", path);
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *contents = malloc(*bytes + 1);
    if (contents == NULL || fread(contents, 1, *bytes, file) != *bytes) {
        wire_fail("%s cannot be read", path);
    }
    fclose(file);
    return contents;
}

uint32_t image_load(const char *path, memories chip)
{
    size_t bytes;
    uint64_t taken = 0;
    uint8_t *file = read_file(path, &bytes);
    const Elf32_Ehdr *elf = (const void *)file;
    if (bytes < sizeof *elf || memcmp(elf->e_ident, ELFMAG "\1\1", 6) != 0 || elf->e_machine != EM_ARM ||
        elf->e_phentsize != sizeof(Elf32_Phdr) || elf->e_phoff > bytes ||
        elf->e_phnum * sizeof(Elf32_Phdr) > bytes - elf->e_phoff) {
        wire_fail("%s is no ELF file for ARM", path);
    }
    const Elf32_Phdr *part = (const void *)(file + elf->e_phoff);
    for (const Elf32_Phdr *end = part + elf->e_phnum; part < end; part++) {
        if (part->p_type != PT_LOAD || part->p_memsz == 0) {
            continue;
        }
        if (part->p_filesz > 0 &&
            (part->p_offset > bytes || part->p_filesz > bytes - part->p_offset || part->p_paddr > chip.flash_bytes ||
             part->p_filesz > chip.flash_bytes - part->p_paddr)) {
            wire_fail("%s: %u bytes for 0x%08x are not within the chip's flash", path, part->p_filesz, part->p_paddr);
        }
        if (part->p_filesz > 0) {
            memcpy(chip.flash + part->p_paddr, file + part->p_offset, part->p_filesz);
        }
        if (part->p_vaddr >= RAM) {
            const uint64_t end_at = (uint64_t)part->p_vaddr - RAM + part->p_memsz;
            taken = end_at > taken ? end_at : taken;
        }
    }
    free(file);
    if (taken > chip.ram_bytes) {
        wire_fail("%s: %llu bytes of RAM; the chip has %u", path, (unsigned long long)taken, chip.ram_bytes);
    }
    return (uint32_t)taken;
}
