/*-------------------------------------------------------------------------
 *
 * phase.c
 *	  The phases of a run in a worker's memory, as tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker/phase.h"

/* clang-format off */
const PhaseRules phase_rules[NUM_RUN_PHASES] = {
	/*                  sends  looks_up  records  ticks  tells  leaving */
	[RUN_SENDING]    = {true,  true,     true,    true,  true,  LEAVES_IF_OFF},
	[RUN_HALTED]     = {false, true,     true,    true,  true,  LEAVES_IF_OFF},
	[RUN_PAUSED]     = {false, false,    true,    true,  false, LEAVES_IF_PUT_AWAY},
	[RUN_FAILING]    = {false, true,     true,    false, true,  STAYS},
	[RUN_FAILED]     = {false, true,     true,    false, false, LEAVES_IF_SETTLED},
	[RUN_CANCELLED]  = {false, true,     true,    true,  false, LEAVES_IF_OFF},
	[RUN_ASLEEP]     = {false, false,    true,    false, true,  LEAVES},
	[RUN_ENDED]      = {false, false,    true,    false, false, LEAVES},
	[RUN_ABANDONED]  = {false, false,    false,   false, false, LEAVES},
	[RUN_SUPERSEDED] = {false, false,    true,    false, false, LEAVES_IF_RECORDED},
	[RUN_FORGOTTEN]  = {false, false,    false,   false, false, LEAVES},
};

/*
 * A run that has failed, or is about to, stays in that phase whatever its state
 * becomes, with two exceptions: it may be cancelled, and once the tables have
 * the failure, it may be queued again.  Phases that are not listed do not
 * depend on the state.
 */
static const RunPhase phases_after[NUM_RUN_PHASES][NUM_RUN_STATES] = {
	/*                  gone           queued          running         paused          cancelled       failed */
	[RUN_SENDING]    = {RUN_FORGOTTEN, RUN_SENDING,    RUN_SENDING,    RUN_PAUSED,     RUN_CANCELLED,  RUN_FAILED},
	[RUN_HALTED]     = {RUN_FORGOTTEN, RUN_HALTED,     RUN_HALTED,     RUN_PAUSED,     RUN_CANCELLED,  RUN_FAILED},
	[RUN_PAUSED]     = {RUN_FORGOTTEN, RUN_SENDING,    RUN_SENDING,    RUN_PAUSED,     RUN_CANCELLED,  RUN_FAILED},
	[RUN_FAILING]    = {RUN_FORGOTTEN, RUN_FAILING,    RUN_FAILING,    RUN_FAILING,    RUN_CANCELLED,  RUN_FAILING},
	[RUN_FAILED]     = {RUN_FORGOTTEN, RUN_SUPERSEDED, RUN_FAILED,     RUN_FAILED,     RUN_SUPERSEDED, RUN_FAILED},
	[RUN_CANCELLED]  = {RUN_FORGOTTEN, RUN_SENDING,    RUN_SENDING,    RUN_PAUSED,     RUN_CANCELLED,  RUN_FAILED},
	[RUN_SUPERSEDED] = {RUN_FORGOTTEN, RUN_SUPERSEDED, RUN_SUPERSEDED, RUN_SUPERSEDED, RUN_SUPERSEDED, RUN_SUPERSEDED},
};
/* clang-format on */

RunState
run_state(const char *name)
{
	static const char *const names[NUM_RUN_STATES] = {[RUN_STATE_QUEUED] = "queued",
													  [RUN_STATE_RUNNING] = "running",
													  [RUN_STATE_PAUSED] = "paused",
													  [RUN_STATE_CANCELLED] = "cancelled",
													  [RUN_STATE_FAILED] = "failed"};

	if (name == NULL)
		return RUN_STATE_GONE;
	for (int i = RUN_STATE_QUEUED; i < NUM_RUN_STATES; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return i;
	}
	return RUN_STATE_RUNNING;
}

RunPhase
phase_after(RunPhase phase, RunState state)
{
	RunPhase next;

	Assert(phase != RUN_NO_PHASE);
	next = phases_after[phase][state];
	return next == RUN_NO_PHASE ? phase : next;
}
