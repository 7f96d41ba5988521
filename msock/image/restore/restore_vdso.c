/* SPDX-License-Identifier: MIT */
/*
 * A member whose vdso is another kernel's.
 *
 * Its C library has kept the addresses of the vdso's functions, so the old
 * image stays where it was, as ordinary memory, and each of its functions
 * becomes a jump to the one of this kernel, which lies where there is room.
 * What this kernel's vdso does not have becomes the system call.
 */
#include <elf.h>

#include "image/mem.h"
#include "image/restore/restore.h"

enum { JUMP_BYTES = 13, CALL_BYTES = 8 };

/* The symbols of an image in memory; nothing of it is trusted. */
struct vdso {
	const uint8_t *base;
	uint64_t size, shift; /* shift: from its own addresses to offsets */
	const Elf64_Sym *symbol;
	uint64_t symbols;
	const char *names;
	uint64_t names_size;
};

static bool inside(const struct vdso *v, uint64_t at, uint64_t bytes)
{
	return at <= v->size && bytes <= v->size - at;
}

static const Elf64_Dyn *dynamic_of(struct vdso *v, uint64_t *count)
{
	const Elf64_Ehdr *head = (const Elf64_Ehdr *)v->base;
	const Elf64_Phdr *part;
	const Elf64_Dyn *found = NULL;

	if (!inside(v, 0, sizeof(*head)) || memcmp(head->e_ident, ELFMAG, SELFMAG) ||
	    !inside(v, head->e_phoff, head->e_phnum * sizeof(*part)))
		return NULL;
	part = (const Elf64_Phdr *)(v->base + head->e_phoff);
	for (int i = 0; i < head->e_phnum; i++) {
		if (part[i].p_type == PT_LOAD)
			v->shift = part[i].p_vaddr - part[i].p_offset;
		if (part[i].p_type == PT_DYNAMIC && inside(v, part[i].p_offset, part[i].p_memsz)) {
			found = (const Elf64_Dyn *)(v->base + part[i].p_offset);
			*count = part[i].p_memsz / sizeof(*found);
		}
	}
	return found;
}

/* The section headers count the symbols; the dynamic section tells only where they are. */
static int vdso_open(struct vdso *v, const void *base, uint64_t size)
{
	const Elf64_Ehdr *head = base;
	const Elf64_Dyn *dynamic;
	const Elf64_Shdr *section;
	uint64_t count = 0;

	*v = (struct vdso){ .base = base, .size = size };
	dynamic = dynamic_of(v, &count);
	if (!dynamic)
		return -1;
	for (uint64_t i = 0; i < count && dynamic[i].d_tag != DT_NULL; i++) {
		uint64_t at = dynamic[i].d_un.d_ptr - v->shift;

		if (dynamic[i].d_tag == DT_STRTAB && inside(v, at, 1))
			v->names = (const char *)v->base + at;
		else if (dynamic[i].d_tag == DT_SYMTAB && inside(v, at, sizeof(*v->symbol)))
			v->symbol = (const Elf64_Sym *)(v->base + at);
		else if (dynamic[i].d_tag == DT_STRSZ)
			v->names_size = dynamic[i].d_un.d_val;
	}
	if (!inside(v, head->e_shoff, head->e_shnum * sizeof(*section)))
		return -1;
	section = (const Elf64_Shdr *)(v->base + head->e_shoff);
	for (int i = 0; i < head->e_shnum; i++)
		if (section[i].sh_type == SHT_DYNSYM)
			v->symbols = section[i].sh_size / sizeof(*v->symbol);
	if (!v->names || !v->symbol || !v->symbols)
		return -1;
	if (!inside(v, (uint64_t)((const uint8_t *)v->names - v->base), v->names_size) ||
	    !inside(v, (uint64_t)((const uint8_t *)v->symbol - v->base), v->symbols * sizeof(*v->symbol)))
		return -1;
	return v->names_size && !v->names[v->names_size - 1] ? 0 : -1;
}

/* Name and offset of a function; NULL if the symbol is none. */
static const char *function_of(const struct vdso *v, uint64_t i, uint64_t *offset)
{
	const Elf64_Sym *s = &v->symbol[i];

	if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || s->st_shndx == SHN_UNDEF || s->st_name >= v->names_size)
		return NULL;
	*offset = s->st_value - v->shift;
	return inside(v, *offset, JUMP_BYTES) ? v->names + s->st_name : NULL;
}

static uint64_t function_find(const struct vdso *v, const char *name)
{
	uint64_t offset;

	for (uint64_t i = 0; i < v->symbols; i++) {
		const char *s = function_of(v, i, &offset);

		if (s && ms_streq(s, name))
			return offset;
	}
	return 0;
}

/* movabs $to, %r11; jmp *%r11: no argument of a function is there. */
static void put_jump(uint8_t *at, uint64_t to)
{
	at[0] = 0x49;
	at[1] = 0xbb;
	memcpy(at + 2, &to, 8);
	at[10] = 0x41;
	at[11] = 0xff;
	at[12] = 0xe3;
}

/* mov $number, %eax; syscall; ret */
static void put_call(uint8_t *at, uint32_t number)
{
	at[0] = 0xb8;
	memcpy(at + 1, &number, 4);
	at[5] = 0x0f;
	at[6] = 0x05;
	at[7] = 0xc3;
}

static const struct {
	const char name[24];
	int number;
} calls[] = {
	{ "clock_gettime", SYS_clock_gettime },
	{ "gettimeofday", SYS_gettimeofday },
	{ "time", SYS_time },
	{ "clock_getres", SYS_clock_getres },
	{ "getcpu", SYS_getcpu },
	{ "getrandom", SYS_getrandom },
};

static int call_of(const char *name)
{
	static const char prefix[] = "__vdso_";

	if (memcmp(name, prefix, sizeof(prefix) - 1) == 0)
		name += sizeof(prefix) - 1;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (ms_streq(name, calls[i].name))
			return calls[i].number;
	return -1;
}

int vdso_redirect(uint8_t *old, uint64_t size, const void *new_image, uint64_t new_size, uint64_t new_at)
{
	struct vdso from, to;

	if (vdso_open(&from, old, size) || vdso_open(&to, new_image, new_size))
		return image_say(restore.why, "this host runs another kernel, and a vdso that cannot be understood");
	for (uint64_t i = 0; i < from.symbols; i++) {
		uint64_t offset, there;
		const char *name = function_of(&from, i, &offset);
		int number = name ? call_of(name) : -1;

		if (!name)
			continue;
		there = function_find(&to, name);
		/* The state that getrandom keeps in the member's memory is each kernel's own affair. */
		if (number == SYS_getrandom || (!there && number >= 0))
			put_call(old + offset, (uint32_t)number);
		else if (there)
			put_jump(old + offset, new_at + there);
		else
			return image_say(restore.why, "this host runs another kernel, whose vdso has no %s", name);
	}
	return 0;
}

/* Where all of this kernel's own mappings fit in one row, as they lay: they refer to each other by distance. */
static uint64_t row_place(uint64_t bytes)
{
	void *p = ms_mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ms_is_error(p))
		return 0;
	ms_munmap(p, bytes);
	return (uint64_t)p;
}

int vdso_replace(uint64_t old_at)
{
	const struct restore_span *first = &restore.span[0], *last = &restore.span[restore.spans - 1];
	uint64_t bytes = last->start + last->size - first->start;
	uint64_t size = (restore.old_vdso_bytes + IMAGE_PAGE - 1) / IMAGE_PAGE * IMAGE_PAGE;
	uint64_t row, at = 0, text = 0;
	uint8_t *old;
	int e;

	/* First, so that nothing else gets its place. */
	old = ms_mmap((void *)old_at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		      -1, 0);
	row = row_place(bytes);
	if (ms_is_error(old) || !row)
		return image_say(restore.why, "there is no room for two vdsos");
	memcpy(old, restore.old_vdso, restore.old_vdso_bytes);
	for (int i = 0; i < restore.spans; i++) {
		const struct restore_span *s = &restore.span[i];

		at = row + (s->start - first->start);
		if (ms_is_error(
			    ms_mremap((void *)s->parked, s->size, s->size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at)))
			return image_say(restore.why, "the vdso cannot be put at %x", at);
		if (s->vdso)
			text = at;
	}
	if (vdso_redirect(old, restore.old_vdso_bytes, (void *)text, restore.vdso_bytes, text))
		return -1;
	e = ms_mprotect(old, size, PROT_READ | PROT_EXEC);
	return e ? image_say(restore.why, "the old vdso cannot be made executable: %e", e) : 0;
}
