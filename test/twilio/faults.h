/*
 * faults.h
 *		Things that go wrong on purpose.
 *
 * The caller must hold the world lock.
 */
#ifndef TWILIO_FAULTS_H
#define TWILIO_FAULTS_H

#include "text.h"

typedef enum fault_kind
{
	FAULT_NONE,
	/* create requests that are not accepted */
	FAULT_429,
	FAULT_503,
	FAULT_500_BEFORE,
	FAULT_DROP_BEFORE,
	FAULT_NEVER_BEFORE,
	FAULT_CODE,
	/* create requests that are accepted */
	FAULT_500_AFTER,
	FAULT_DROP_AFTER,
	FAULT_NEVER_AFTER,
	FAULT_SLOW,
	FAULT_TRUNCATED,
	FAULT_GARBAGE,
	FAULT_NO_SID,
	FAULT_HUGE,
	/* create requests that are accepted or not, at random */
	FAULT_5XX_PLAIN,
	/* requests that read */
	FAULT_LIST_500,
	FAULT_LIST_403,
	FAULT_LIST_429,
	FAULT_LIST_GARBAGE,
	FAULT_LIST_DROP,
	FAULT_LIST_NEVER,
	FAULT_LIST_ENDLESS,
	FAULT_KINDS
} fault_kind;

typedef struct fault
{
	fault_kind kind;
	int		   code; /* of FAULT_CODE */
} fault;

/*
 * Returns a random number from 0 up to, but not including, 1; faults_seed()
 * makes the sequence repeatable.
 */
extern void	  faults_seed(double seed);
extern double fault_chance(void);

/* Draw the fault of a request, and count it; FAULT_NONE if it has none. */
extern fault fault_for_create(text to);
extern fault fault_for_read(void);

/* These return false if there is no such fault, or the text has the wrong form. */
extern bool fault_set(text name_and_percent);
extern bool fault_set_percent(text name, text percent);
extern bool fault_set_for_recipient(text number_and_name);
extern void faults_reset_hits(void);
extern void faults_json(buf *out);

#endif
