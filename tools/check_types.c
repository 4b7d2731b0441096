/* SPDX-License-Identifier: MIT
 *
 * cairn check-types FILE: what a program's types forget to declare, from its debug information
 * (DWARF, read by elfutils' libdw).
 *
 * CAIRN_TYPE(T, ...) leaves a static array cairn_fields_of_T with an offset and a kind for each
 * field in the file that says it, and CAIRN_LEAF(T) only a descriptor cairn_type_of_T. The array's
 * contents are read from the file; the struct's members from its debug information. A member that
 * is a cairn_ref, a cairn_word or a cairn_weak, in a nested struct too, must be among the fields; a
 * plain pointer to a type that has a descriptor is told of.
 */
#include "tools.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cairn/object.h>

enum { FIELDS_MAX = 512, DEPTH_MAX = 16 };

struct checked_type {
    const char *name, *file;
    bool is_leaf;
    size_t field_count;
    struct cairn_field fields[FIELDS_MAX];
};

struct checking {
    Dwarf *debug;
    Elf *elf;
    Dwarf_Die unit;
    const struct checked_type *type;
    unsigned found;
};

/* ---- Debug information --------------------------------------------------------------------------
 */

/* Without typedef, const, volatile and the like. */
static bool peel(Dwarf_Die *die) {
    for (;;) {
        switch (dwarf_tag(die)) {
        case DW_TAG_typedef:
        case DW_TAG_const_type:
        case DW_TAG_volatile_type:
        case DW_TAG_atomic_type:
            break;
        default:
            return true;
        }
        Dwarf_Attribute attribute;
        if (!dwarf_attr_integrate(die, DW_AT_type, &attribute)) return false;
        if (!dwarf_formref_die(&attribute, die)) return false;
    }
}

static bool type_of(Dwarf_Die *die, Dwarf_Die *type) {
    Dwarf_Attribute attribute;
    return dwarf_attr_integrate(die, DW_AT_type, &attribute) &&
           dwarf_formref_die(&attribute, type) != NULL;
}

static bool is_struct(Dwarf_Die *die) {
    int tag = dwarf_tag(die);
    return tag == DW_TAG_structure_type || tag == DW_TAG_class_type;
}

static size_t offset_of(Dwarf_Die *member) {
    Dwarf_Attribute attribute;
    Dwarf_Word offset = 0;
    if (dwarf_attr_integrate(member, DW_AT_data_member_location, &attribute)) {
        dwarf_formudata(&attribute, &offset);
    }
    return (size_t)offset;
}

static const char *name_of(Dwarf_Die *die) {
    const char *name = dwarf_diename(die);
    return name ? name : "";
}

/* The only member of a struct of one; its name must be `name`. */
static bool sole_member(Dwarf_Die *type, const char *name, Dwarf_Die *member) {
    if (!is_struct(type) || dwarf_child(type, member) != 0) return false;
    Dwarf_Die next;
    return dwarf_tag(member) == DW_TAG_member && strcmp(name_of(member), name) == 0 &&
           dwarf_siblingof(member, &next) != 0;
}

/* What a member's type is: a constant pointer `p` alone, a cairn_word, a cairn_weak. */
static int reference_kind(Dwarf_Die *type) {
    Dwarf_Die member, pointer;
    if (sole_member(type, "p", &member) && type_of(&member, &pointer) &&
        dwarf_tag(&pointer) == DW_TAG_const_type && peel(&pointer) &&
        dwarf_tag(&pointer) == DW_TAG_pointer_type) {
        return CAIRN_FIELD_REF;
    }
    if (strcmp(name_of(type), "cairn_word") == 0 && sole_member(type, "w", &member)) {
        return CAIRN_FIELD_WORD;
    }
    if (strcmp(name_of(type), "cairn_weak") == 0 || (sole_member(type, "cell", &member))) {
        return CAIRN_FIELD_WEAK;
    }
    return 0;
}

/* The elements of an array in all, 0 of a flexible one, 1 of what is none; `element` is set. */
static size_t element_of(Dwarf_Die *type, Dwarf_Die *element) {
    size_t count = 1;
    *element = *type;
    while (dwarf_tag(element) == DW_TAG_array_type) {
        Dwarf_Die range;
        Dwarf_Attribute attribute;
        Dwarf_Word bound = 0;
        size_t length = 0;
        if (dwarf_child(element, &range) == 0) {
            do {
                if (dwarf_attr_integrate(&range, DW_AT_count, &attribute) &&
                    dwarf_formudata(&attribute, &bound) == 0) {
                    length = (size_t)bound;
                } else if (dwarf_attr_integrate(&range, DW_AT_upper_bound, &attribute) &&
                           dwarf_formudata(&attribute, &bound) == 0) {
                    length = (size_t)bound + 1;
                } else {
                    length = 0;
                }
                count *= length;
            } while (dwarf_siblingof(&range, &range) == 0);
        }
        Dwarf_Die below;
        if (!type_of(element, &below) || !peel(&below)) return count;
        *element = below;
    }
    return count;
}

/* Of a unit's own children, the one with a name; types by their typedef or their tag. */
static bool find_type(Dwarf_Die *unit, const char *name, Dwarf_Die *found) {
    Dwarf_Die die;
    if (dwarf_child(unit, &die) != 0) return false;
    do {
        bool is_type = dwarf_tag(&die) == DW_TAG_typedef || is_struct(&die);
        if (!is_type || strcmp(name_of(&die), name) != 0) continue;
        *found = die;
        if (peel(found) && is_struct(found) && dwarf_haschildren(found)) return true;
    } while (dwarf_siblingof(&die, &die) == 0);
    return false;
}

static bool has_descriptor(Dwarf_Die *unit, const char *name) {
    Dwarf_Die die;
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "cairn_type_of_%s", name);
    if (!*name || dwarf_child(unit, &die) != 0) return false;
    do {
        if (dwarf_tag(&die) == DW_TAG_variable && strcmp(name_of(&die), wanted) == 0) return true;
    } while (dwarf_siblingof(&die, &die) == 0);
    return false;
}

/* ---- A type's members ---------------------------------------------------------------------------
 */

static bool is_declared(const struct checked_type *type, size_t offset, int kind) {
    for (size_t i = 0; i < type->field_count; i++) {
        const struct cairn_field *field = &type->fields[i];
        bool is_flex = field->kind == CAIRN_FIELD_FLEX && offset >= field->offset;
        bool is_inside = offset >= field->offset && offset < field->offset + field->size;
        bool fits = (int)field->kind == kind || field->kind == CAIRN_FIELD_NESTED;
        if ((is_flex && kind == CAIRN_FIELD_REF) || (is_inside && fits)) return true;
    }
    return false;
}

static void tell(struct checking *checking, const char *path, size_t offset, const char *what) {
    const struct checked_type *type = checking->type;
    printf("%s: %s.%s at offset %zu: %s\n", type->file, type->name, path, offset, what);
    checking->found++;
}

static const char *undeclared_text(int kind, bool is_leaf) {
    if (is_leaf) return "a reference in a type that CAIRN_LEAF says has none";
    return kind == CAIRN_FIELD_REF ? "a cairn_ref that its CAIRN_TYPE does not name"
           : kind == CAIRN_FIELD_WORD
               ? "a cairn_word that its CAIRN_TYPE does not name with CAIRN_WORD"
               : "a cairn_weak that its CAIRN_TYPE does not name with CAIRN_WEAK";
}

static void check_plain_pointer(struct checking *checking, Dwarf_Die *pointer, const char *path,
                                size_t offset) {
    Dwarf_Die target;
    if (!type_of(pointer, &target)) return; /* void * */
    Dwarf_Die named = target;
    while (dwarf_tag(&named) == DW_TAG_const_type || dwarf_tag(&named) == DW_TAG_volatile_type) {
        if (!type_of(&named, &named)) return;
    }
    if (has_descriptor(&checking->unit, name_of(&named))) {
        tell(checking, path, offset, "a plain pointer to a Cairn type: counted nowhere");
    }
}

/* Depth is that of structs within structs. */
static void check_members(struct checking *checking, Dwarf_Die *owner, const char *prefix,
                          size_t base, unsigned depth) {
    Dwarf_Die member, type, element;
    if (depth > DEPTH_MAX || dwarf_child(owner, &member) != 0) return;
    do {
        char path[512];
        if (dwarf_tag(&member) != DW_TAG_member || !type_of(&member, &type) || !peel(&type))
            continue;
        size_t offset = base + offset_of(&member), count = element_of(&type, &element);
        snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix && *name_of(&member) ? "." : "",
                 name_of(&member));
        int kind = reference_kind(&element), tag = dwarf_tag(&element);
        if (kind && !is_declared(checking->type, offset, kind)) {
            tell(checking, path, offset, undeclared_text(kind, checking->type->is_leaf));
        } else if (!kind && (is_struct(&element) || tag == DW_TAG_union_type)) {
            check_members(checking, &element, path, offset, depth + 1);
        } else if (tag == DW_TAG_pointer_type && count > 0) {
            check_plain_pointer(checking, &element, path, offset);
        }
    } while (dwarf_siblingof(&member, &member) == 0);
}

/* ---- Descriptors --------------------------------------------------------------------------------
 */

/* The contents of a variable, from the section that its address lies in. */
static bool read_contents(Elf *elf, Dwarf_Addr address, void *to, size_t bytes) {
    for (Elf_Scn *section = NULL; (section = elf_nextscn(elf, section)) != NULL;) {
        GElf_Shdr header;
        if (!gelf_getshdr(section, &header) || header.sh_type == SHT_NOBITS) continue;
        if (!(header.sh_flags & SHF_ALLOC) || address < header.sh_addr) continue;
        if (address - header.sh_addr > header.sh_size ||
            bytes > header.sh_size - (address - header.sh_addr)) {
            continue;
        }
        Elf_Data *data = elf_rawdata(section, NULL);
        if (!data || !data->d_buf || data->d_size < header.sh_size) return false;
        memcpy(to, (const char *)data->d_buf + (address - header.sh_addr), bytes);
        return true;
    }
    return false;
}

static bool address_of(Dwarf_Die *variable, Dwarf_Addr *address) {
    Dwarf_Attribute attribute;
    Dwarf_Op *operations;
    size_t count;
    if (!dwarf_attr_integrate(variable, DW_AT_location, &attribute)) return false;
    if (dwarf_getlocation(&attribute, &operations, &count) != 0 || count != 1) return false;
    if (operations[0].atom == DW_OP_addr) {
        *address = operations[0].number;
        return true;
    }
    Dwarf_Attribute indirect;
    return (operations[0].atom == DW_OP_addrx || operations[0].atom == DW_OP_GNU_addr_index) &&
           dwarf_getlocation_attr(&attribute, operations, &indirect) == 0 &&
           dwarf_formaddr(&indirect, address) == 0;
}

/* False if there is no such array here, or nothing of it was kept. */
static bool read_fields(struct checking *checking, struct checked_type *type) {
    Dwarf_Die die, array, element;
    char wanted[256];
    Dwarf_Addr address;
    snprintf(wanted, sizeof(wanted), "cairn_fields_of_%s", type->name);
    if (dwarf_child(&checking->unit, &die) != 0) return false;
    do {
        if (dwarf_tag(&die) != DW_TAG_variable || strcmp(name_of(&die), wanted) != 0) continue;
        if (!address_of(&die, &address) || !type_of(&die, &array) || !peel(&array)) return false;
        type->field_count = element_of(&array, &element);
        if (type->field_count > FIELDS_MAX) return false;
        return read_contents(checking->elf, address, type->fields,
                             type->field_count * sizeof(struct cairn_field));
    } while (dwarf_siblingof(&die, &die) == 0);
    return false;
}

static bool declares_fields(Dwarf_Die *unit, const char *name) {
    Dwarf_Die die;
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "cairn_fields_of_%s", name);
    if (dwarf_child(unit, &die) != 0) return false;
    do {
        if (strcmp(name_of(&die), wanted) == 0) return true;
    } while (dwarf_siblingof(&die, &die) == 0);
    return false;
}

/* One that the compiler left out, since the file makes no such objects, is checked where it does.
 */
static unsigned check_unit(struct checking *checking) {
    static struct checked_type type;
    static const char prefix[] = "cairn_type_of_";
    unsigned checked = 0;
    Dwarf_Die die, owner;
    if (dwarf_child(&checking->unit, &die) != 0) return 0;
    do {
        const char *name = name_of(&die);
        if (dwarf_tag(&die) != DW_TAG_variable) continue;
        if (strncmp(name, prefix, sizeof(prefix) - 1) != 0) continue;
        type.name = name + sizeof(prefix) - 1;
        type.file = name_of(&checking->unit);
        type.field_count = 0;
        type.is_leaf = !declares_fields(&checking->unit, type.name);
        if (!type.is_leaf && !read_fields(checking, &type)) continue;
        if (!find_type(&checking->unit, type.name, &owner)) continue;
        checking->type = &type;
        check_members(checking, &owner, "", 0, 0);
        checked++;
    } while (dwarf_siblingof(&die, &die) == 0);
    return checked;
}

static int check_file(const char *path) {
    struct checking checking = {.found = 0};
    unsigned checked = 0, units = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        perror(path);
        return 2;
    }
    checking.debug = dwarf_begin(file, DWARF_C_READ);
    if (!checking.debug) {
        fprintf(stderr, "%s: %s; build it with -g\n", path, dwarf_errmsg(-1));
        close(file);
        return 2;
    }
    checking.elf = dwarf_getelf(checking.debug);
    Dwarf_CU *unit = NULL;
    uint8_t kind;
    while (dwarf_get_units(checking.debug, unit, &unit, NULL, &kind, &checking.unit, NULL) == 0) {
        units++;
        checked += check_unit(&checking);
    }
    dwarf_end(checking.debug);
    close(file);
    if (!units) {
        fprintf(stderr, "%s: no debug information; build it with -g\n", path);
        return 2;
    }
    printf("%s: %u types checked, %u fields forgotten\n", path, checked, checking.found);
    return checking.found ? 1 : 0;
}

int tool_check_types(int count, char **paths) {
    int status = count ? 0 : 2;
    for (int i = 0; i < count; i++) {
        int result = check_file(paths[i]);
        if (result > status) status = result;
    }
    return status;
}
