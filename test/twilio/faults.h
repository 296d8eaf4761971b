/*
 * faults.h
 *		Things that go wrong on purpose.
 *
 * The caller holds the world lock.
 */
#ifndef TWILIO_FAULTS_H
#define TWILIO_FAULTS_H

#include "text.h"

typedef enum fault_kind
{
	FAULT_NONE,
	/* create requests, not accepted */
	FAULT_429,
	FAULT_503,
	FAULT_500_BEFORE,
	FAULT_DROP_BEFORE,
	FAULT_NEVER_BEFORE,
	FAULT_CODE,
	/* create requests, accepted */
	FAULT_500_AFTER,
	FAULT_DROP_AFTER,
	FAULT_NEVER_AFTER,
	FAULT_SLOW,
	FAULT_TRUNCATED,
	FAULT_GARBAGE,
	FAULT_NO_SID,
	FAULT_HUGE,
	/* create requests, drawn whether accepted */
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

extern void	  faults_seed(double seed);
extern double fault_chance(void);
extern fault  fault_for_create(text to);
extern fault  fault_for_read(void);

extern bool fault_set(text name_and_percent);
extern bool fault_set_percent(text name, text percent);
extern bool fault_set_for_recipient(text number_and_name);
extern void faults_reset_hits(void);
extern void faults_json(buf *out);

#endif
