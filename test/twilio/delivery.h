/*
 * delivery.h
 *		What becomes of messages in the end: shares of them, or all to a
 *		number, are not delivered.
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_DELIVERY_H
#define TWILIO_DELIVERY_H

#include "messages.h"

typedef enum delivery_kind
{
	DELIVERY_DELIVERED,
	DELIVERY_UNDELIVERED,
	DELIVERY_FAILED, /* before it was sent */
	DELIVERY_NEVER,	 /* the carrier does not report: it stays as sent */
	DELIVERY_READ,
	DELIVERY_CANCELED, /* before it was sent */
	DELIVERY_KINDS
} delivery_kind;

typedef struct delivery
{
	delivery_kind kind;
	int			  code; /* of what was not delivered; 0: none */
} delivery;

/* The same message gets the same with the same seed and settings. */
extern delivery delivery_of(const message *m);
extern void		deliveries_seed(double seed);

/* These return false if there is no such delivery, or the text has the wrong form. */
extern bool delivery_set(text name_and_percent);
extern bool delivery_set_percent(text name, text percent);
extern bool delivery_set_for_recipient(text number_and_name);

#endif
