/* SPDX-License-Identifier: MIT
 *
 * What a debugger is told of the library's own structures; tools/gdb/ reads it.
 *
 * A release library has no debug information, and its symbols may be stripped. So each file that
 * owns a structure or a table describes what a debugger needs of it: rows of constants in sections
 * of their own, which live as long as the code does.
 *     cairn_layout   where members are, how large they are, what constants are worth. Read-only.
 *     cairn_tables   where the tables are. These are addresses, which the loader relocates.
 * Sections and no symbols: `strip` takes the symbols of a program that is linked with the archive,
 * and never a section that is loaded. Nobody reads them at run time; they are 6 KiB of the file,
 * whose pages nobody touches but for the tables' half a KiB.
 *
 * The reader takes offsets and sizes from here. Who changes what a described member means, or what
 * leads from one structure to another, raises CRN_DESCRIBED_VERSION, here and in the script.
 */
#ifndef CRN_DESCRIBED_H
#define CRN_DESCRIBED_H

#include <stddef.h>
#include <stdint.h>

enum { CRN_DESCRIBED_VERSION = 1 };

/* Sixteen bytes divide a row: a gap between the rows of two files is zeros. */
enum { CRN_DESCRIBED_NAME_BYTES = 40 };
struct crn_described {
    char name[CRN_DESCRIBED_NAME_BYTES]; /* "crn_block.type", or a constant's */
    uint32_t value;                      /* the member's offset, or the constant */
    uint32_t bytes;                      /* of the member; 0: a constant */
};
struct crn_described_table {
    char name[CRN_DESCRIBED_NAME_BYTES];
    const volatile void *address;
};
_Static_assert(sizeof(struct crn_described) == 48, "a row is 48 bytes");
_Static_assert(sizeof(struct crn_described_table) <= 48, "and so is a table's, where words are");

/* Linkers that drop what nobody refers to keep these. */
#if defined(__has_attribute)
#if __has_attribute(retain)
#define CRN_RETAINED retain,
#endif
#endif
#ifndef CRN_RETAINED
#define CRN_RETAINED
#endif
#define CRN_DESCRIBED_AS(name)                                                                     \
    static const struct crn_described name[]                                                       \
        __attribute__((CRN_RETAINED used, section("cairn_layout"), aligned(16)))
#define CRN_TABLES_AS(name)                                                                        \
    static const struct crn_described_table name[]                                                 \
        __attribute__((CRN_RETAINED used, section("cairn_tables"), aligned(16)))

#define CRN_MEMBER(Type, member)                                                                   \
    { #Type "." #member, offsetof(struct Type, member), sizeof(((struct Type *)0)->member) }
#define CRN_SIZE(Type)                                                                             \
    { #Type, sizeof(struct Type), 0 }
#define CRN_NUMBER(name)                                                                           \
    { #name, (uint32_t)(name), 0 }
#define CRN_TABLE(name)                                                                            \
    { #name, &name }

#endif
