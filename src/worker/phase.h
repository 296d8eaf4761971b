/*-------------------------------------------------------------------------
 *
 * phase.h
 *	  The phases of a run in a worker's memory, as tables.
 *
 * A run is in one phase at a time.  phase_rules says what the worker does for a
 * run in each of them; phase_after() says which phase follows when somebody has
 * changed its state in sendcampaign.run.  docs/design.md has the same tables;
 * the test 197_states compares them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SENDCAMPAIGN_PHASE_H
#define SENDCAMPAIGN_PHASE_H

typedef enum RunPhase
{
	RUN_NO_PHASE,	/* none: see run->written */
	RUN_SENDING,	/* its messages are claimed, sent and recorded */
	RUN_HALTED,		/* it is about to pause itself: too many messages have failed */
	RUN_PAUSED,		/* it waits for a person */
	RUN_FAILING,	/* its stop_reason is still to be written to the tables */
	RUN_FAILED,		/* its stop_reason is in the tables */
	RUN_CANCELLED,	/* recipients without a message are skipped, until it ends */
	RUN_ASLEEP,		/* all remaining recipients have quiet hours now */
	RUN_ENDED,		/* the tables have its end, or a pause that only a person can end */
	RUN_ABANDONED,	/* it has failed, and its outcomes cannot be recorded */
	RUN_SUPERSEDED, /* it was started again in the tables, and must be adopted anew */
	RUN_FORGOTTEN	/* its row is gone */
} RunPhase;

#define NUM_RUN_PHASES (RUN_FORGOTTEN + 1)

/* When a run leaves memory, once none of its requests is under way. */
typedef enum RunLeaving
{
	STAYS,
	LEAVES_IF_OFF,		/* if sending is disabled and no message is in memory */
	LEAVES_IF_PUT_AWAY, /* if all unsent messages are back in a batch */
	LEAVES_IF_SETTLED,	/* if no message is left whose doubt can be settled */
	LEAVES_IF_RECORDED, /* if all known outcomes are recorded */
	LEAVES
} RunLeaving;

/* What a worker does for a run in a phase. */
typedef struct PhaseRules
{
	bool	   sends;	 /* claims and sends messages; if not, unsent ones are put back */
	bool	   looks_up; /* looks up messages in doubt */
	bool	   records;	 /* records outcomes */
	bool	   ticks;	 /* needs a tick once all recipients have an outcome: to end or leave */
	bool	   tells;	 /* shows in the tables what it is waiting for */
	RunLeaving leaving;
} PhaseRules;

extern const PhaseRules phase_rules[NUM_RUN_PHASES];

/* A run's state in sendcampaign.run. */
typedef enum RunState
{
	RUN_STATE_GONE, /* there is no row */
	RUN_STATE_QUEUED,
	RUN_STATE_RUNNING,
	RUN_STATE_PAUSED,
	RUN_STATE_CANCELLED,
	RUN_STATE_FAILED
} RunState;

#define NUM_RUN_STATES (RUN_STATE_FAILED + 1)

/*
 * Returns the state with that name, or RUN_STATE_GONE for NULL.  If a run is
 * completed although a worker has it, its row was restored from a dump: it
 * continues as if it were running.
 */
extern RunState run_state(const char *name);

/* Returns the phase that follows this one when the tables are found to have this state. */
extern RunPhase phase_after(RunPhase phase, RunState state);

#endif /* SENDCAMPAIGN_PHASE_H */
