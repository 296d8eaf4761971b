/*
 * faults.c
 *		The faults, and how they are drawn.
 *
 * One random number is drawn per request; the percentages of the faults follow
 * each other on the scale from 0 to 100.  "#N" instead of a percentage hits
 * the next N requests.
 */
#include "faults.h"

#include <stdlib.h>
#include <string.h>

typedef struct fault_entry
{
	fault  what;
	char  *name;
	double percent;
	long   next; /* this many requests get it for certain */
	long   hits;
} fault_entry;

typedef struct recipient_fault
{
	char *number;
	int	  entry; /* in faults; -1: no longer any; -2: not even the faults for everybody */
} recipient_fault;

#define SPARED (-2)

static const char *const kind_names[FAULT_KINDS] = {
	[FAULT_NONE] = "none",
	[FAULT_429] = "429",
	[FAULT_503] = "503",
	[FAULT_500_BEFORE] = "500-before",
	[FAULT_DROP_BEFORE] = "drop-before",
	[FAULT_NEVER_BEFORE] = "never-before",
	[FAULT_CODE] = "code",
	[FAULT_500_AFTER] = "500-after",
	[FAULT_DROP_AFTER] = "drop-after",
	[FAULT_NEVER_AFTER] = "never-after",
	[FAULT_SLOW] = "slow",
	[FAULT_TRUNCATED] = "truncated",
	[FAULT_GARBAGE] = "garbage",
	[FAULT_NO_SID] = "no-sid",
	[FAULT_HUGE] = "huge",
	[FAULT_5XX_PLAIN] = "5xx-plain",
	[FAULT_LIST_500] = "list-500",
	[FAULT_LIST_403] = "list-403",
	[FAULT_LIST_429] = "list-429",
	[FAULT_LIST_GARBAGE] = "list-garbage",
	[FAULT_LIST_DROP] = "list-drop",
	[FAULT_LIST_NEVER] = "list-never",
	[FAULT_LIST_ENDLESS] = "list-endless",
};

static fault_entry	   *faults;
static int				fault_count;
static recipient_fault *recipients;
static int				recipient_count;
static uint64_t			random_state = 1;

void
faults_seed(double seed)
{
	random_state = (uint64_t) (int64_t) seed;
}

/* splitmix64: returns a random number from 0 up to, but not including, 1 */
double
fault_chance(void)
{
	uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return ((z ^ z >> 31) >> 11) * 0x1.0p-53;
}

static bool
fault_read(text name, fault *what)
{
	*what = (fault){FAULT_NONE, 0};
	if (text_starts(name, "code:"))
	{
		char *digits = text_copy((text){name.data + 5, name.len - 5});

		what->kind = FAULT_CODE;
		what->code = atoi(digits);
		free(digits);
		return what->code > 0;
	}
	for (int i = 0; i < FAULT_KINDS; i++)
	{
		if (text_is(name, kind_names[i]))
			what->kind = i;
	}
	return what->kind != FAULT_NONE && what->kind != FAULT_CODE;
}

/* Returns the number of the named fault's entry, which is created if necessary; -1: unknown. */
static int
fault_entry_of(text name)
{
	fault what;

	for (int i = 0; i < fault_count; i++)
	{
		if (text_is(name, faults[i].name))
			return i;
	}
	if (!fault_read(name, &what))
		return -1;
	faults = need(realloc(faults, (fault_count + 1) * sizeof(fault_entry)));
	faults[fault_count] = (fault_entry){what, text_copy(name), 0, 0, 0};
	return fault_count++;
}

static bool
faults_clear(void)
{
	for (int i = 0; i < fault_count; i++)
	{
		faults[i].percent = 0;
		faults[i].next = 0;
	}
	for (int i = 0; i < recipient_count; i++)
		recipients[i].entry = -1;
	return true;
}

/* Sets the fault NAME to PERCENT or #N. */
bool
fault_set_percent(text name, text percent)
{
	char  *number;
	char  *end;
	int	   entry;
	bool   counted = text_starts(percent, "#");
	double value;

	entry = fault_entry_of(name);
	if (entry < 0 || percent.len == 0)
		return false;
	number = text_copy(percent);
	value = strtod(number + (counted ? 1 : 0), &end);
	if (*end == '\0')
	{
		faults[entry].percent = counted ? 0 : value;
		faults[entry].next = counted ? (long) value : 0;
	}
	counted = *end == '\0';
	free(number);
	return counted;
}

/* Takes NAME=PERCENT, or "none" to end all faults. */
bool
fault_set(text value)
{
	text name;
	text percent;

	if (text_is(value, "none"))
		return faults_clear();
	if (value.len == 0 || !text_split(value, memrchr(value.data, '=', value.len), &name, &percent))
		return false;
	return fault_set_percent(name, percent);
}

static recipient_fault *
recipient_find(text number)
{
	for (int i = 0; i < recipient_count; i++)
	{
		if (text_is(number, recipients[i].number))
			return &recipients[i];
	}
	return NULL;
}

/* Takes +NUMBER=NAME, with the name "none" to end it, or "spared". */
bool
fault_set_for_recipient(text value)
{
	text			 number;
	text			 name;
	int				 entry = -1;
	recipient_fault *recipient;

	if (value.len == 0 || !text_split(value, memchr(value.data, '=', value.len), &number, &name))
		return false;
	if (text_is(name, "spared"))
		entry = SPARED;
	else if (!text_is(name, "none") && (entry = fault_entry_of(name)) < 0)
		return false;
	recipient = recipient_find(number);
	if (recipient == NULL)
	{
		recipients = need(realloc(recipients, (recipient_count + 1) * sizeof(recipient_fault)));
		recipient = &recipients[recipient_count++];
		recipient->number = text_copy(number);
	}
	recipient->entry = entry;
	return true;
}

static bool
is_for_reading(fault what)
{
	return what.kind >= FAULT_LIST_500;
}

static fault
fault_hit(fault_entry *entry)
{
	entry->hits++;
	return entry->what;
}

static fault
fault_draw(bool reading)
{
	double place;

	if (fault_count == 0)
		return (fault){FAULT_NONE, 0};
	place = fault_chance() * 100;
	for (int i = 0; i < fault_count; i++)
	{
		fault_entry *entry = &faults[i];

		if (is_for_reading(entry->what) != reading)
			continue;
		if (entry->next > 0)
		{
			entry->next--;
			return fault_hit(entry);
		}
		if (place < entry->percent)
			return fault_hit(entry);
		place -= entry->percent;
	}
	return (fault){FAULT_NONE, 0};
}

fault
fault_for_create(text to)
{
	recipient_fault *recipient = recipient_find(to);

	if (recipient != NULL && recipient->entry >= 0 &&
		!is_for_reading(faults[recipient->entry].what))
		return fault_hit(&faults[recipient->entry]);
	if (recipient != NULL && recipient->entry == SPARED)
		return (fault){FAULT_NONE, 0};
	return fault_draw(false);
}

fault
fault_for_read(void)
{
	return fault_draw(true);
}

void
faults_reset_hits(void)
{
	for (int i = 0; i < fault_count; i++)
		faults[i].hits = 0;
}

/* Appends {"name": hits, ...}. */
void
faults_json(buf *out)
{
	buf_char(out, '{');
	for (int i = 0; i < fault_count; i++)
	{
		buf_string(out, i > 0 ? ", " : "");
		buf_json(out, text_of(faults[i].name));
		buf_string(out, ": ");
		buf_int(out, faults[i].hits);
	}
	buf_char(out, '}');
}
