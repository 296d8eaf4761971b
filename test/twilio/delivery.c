/*
 * delivery.c
 *		What becomes of messages in the end, and how that is drawn.
 *
 * Nothing is stored with the message: each has a place on the scale from 0 to
 * 100, which depends on its number and the seed, and the percentages of the
 * deliveries follow each other on that scale.  What is left is delivered.
 */
#include "delivery.h"

#include <stdlib.h>
#include <string.h>

typedef struct share
{
	delivery what;
	double	 percent;
} share;

typedef struct recipient_delivery
{
	char	*number;
	delivery what;
	bool	 ended;
} recipient_delivery;

static const char *const delivery_names[DELIVERY_KINDS] = {
	[DELIVERY_DELIVERED] = "delivered", [DELIVERY_UNDELIVERED] = "undelivered",
	[DELIVERY_FAILED] = "failed",		[DELIVERY_NEVER] = "never",
	[DELIVERY_READ] = "read",			[DELIVERY_CANCELED] = "canceled",
};

static share			  *shares;
static int				   share_count;
static recipient_delivery *recipients;
static int				   recipient_count;
static uint64_t			   seed = 1;

void
deliveries_seed(double number)
{
	seed = (uint64_t) (int64_t) number;
}

/* Returns the message's place on the scale from 0 to 100 (splitmix64). */
static double
place_of(const message *m)
{
	uint64_t z = seed * UINT64_C(0xD1B54A32D192ED03) + m->index + UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return ((z ^ z >> 31) >> 11) * 0x1.0p-53 * 100;
}

static recipient_delivery *
recipient_find(text number)
{
	for (int i = 0; i < recipient_count; i++)
	{
		if (text_is(number, recipients[i].number))
			return &recipients[i];
	}
	return NULL;
}

delivery
delivery_of(const message *m)
{
	recipient_delivery *recipient = recipient_find(message_to(m));
	double				place;

	if (recipient != NULL && !recipient->ended)
		return recipient->what;
	if (share_count == 0)
		return (delivery){DELIVERY_DELIVERED, 0};
	place = place_of(m);
	for (int i = 0; i < share_count; i++)
	{
		if (place < shares[i].percent)
			return shares[i].what;
		place -= shares[i].percent;
	}
	return (delivery){DELIVERY_DELIVERED, 0};
}

/* Reads a name, with a code if it is one of a message that is not delivered. */
static bool
delivery_read(text name, delivery *what)
{
	text   digits;
	double code = 0;

	*what = (delivery){DELIVERY_KINDS, 0};
	if (name.len > 0 && text_split(name, memchr(name.data, ':', name.len), &name, &digits) &&
		(!text_number(digits, &code) || code < 1))
		return false;
	for (int i = 0; i < DELIVERY_KINDS; i++)
	{
		if (text_is(name, delivery_names[i]))
			what->kind = i;
	}
	what->code = code;
	if (code > 0)
		return what->kind == DELIVERY_UNDELIVERED || what->kind == DELIVERY_FAILED;
	return what->kind != DELIVERY_KINDS;
}

static share *
share_of(delivery what)
{
	for (int i = 0; i < share_count; i++)
	{
		if (shares[i].what.kind == what.kind && shares[i].what.code == what.code)
			return &shares[i];
	}
	shares = need(realloc(shares, (share_count + 1) * sizeof(share)));
	shares[share_count] = (share){what, 0};
	return &shares[share_count++];
}

bool
delivery_set_percent(text name, text percent)
{
	delivery what;
	double	 value;

	if (!delivery_read(name, &what) || !text_number(percent, &value))
		return false;
	share_of(what)->percent = value;
	return true;
}

static bool
deliveries_clear(void)
{
	share_count = 0;
	for (int i = 0; i < recipient_count; i++)
		recipients[i].ended = true;
	return true;
}

/* Takes NAME=PERCENT, or "none" to end all of them. */
bool
delivery_set(text value)
{
	text name;
	text percent;

	if (text_is(value, "none"))
		return deliveries_clear();
	if (value.len == 0 || !text_split(value, memchr(value.data, '=', value.len), &name, &percent))
		return false;
	return delivery_set_percent(name, percent);
}

/* Takes +NUMBER=NAME, with the name "none" to end it. */
bool
delivery_set_for_recipient(text value)
{
	text				number;
	text				name;
	delivery			what = {DELIVERY_DELIVERED, 0};
	bool				ended;
	recipient_delivery *recipient;

	if (value.len == 0 || !text_split(value, memchr(value.data, '=', value.len), &number, &name))
		return false;
	ended = text_is(name, "none");
	if (!ended && !delivery_read(name, &what))
		return false;
	recipient = recipient_find(number);
	if (recipient == NULL)
	{
		recipients = need(realloc(recipients, (recipient_count + 1) * sizeof(recipient_delivery)));
		recipient = &recipients[recipient_count++];
		recipient->number = text_copy(number);
	}
	recipient->what = what;
	recipient->ended = ended;
	return true;
}
