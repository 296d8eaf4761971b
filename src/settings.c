/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings sendcampaign.*
 *
 * Only a superuser may set those that decide where credentials go, or whether
 * anything is sent at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "settings.h"
#include "twilio/http.h"
#include "utils/guc.h"

/*
 * The default of lookup_timeout depends on how far the list usually lags: this
 * many times lookup_delay, and at least this many seconds.
 */
#define LOOKUP_DELAYS	   60
#define MIN_LOOKUP_TIMEOUT 10.0

/* The longest time that a worker may stay without work, in ms: an hour. */
#define MAX_IDLE_TIMEOUT 3600000

bool   sendcampaign_enabled;
char  *sendcampaign_api_url;
char  *sendcampaign_ca_file;
char  *sendcampaign_schema;
int	   sendcampaign_max_concurrency;
double sendcampaign_node_share;
double sendcampaign_segments_per_second;
double sendcampaign_request_timeout;
double sendcampaign_connect_timeout;
double sendcampaign_lookup_delay;
double sendcampaign_lookup_timeout;
bool   sendcampaign_resend_lost;
bool   sendcampaign_receipts;
int	   sendcampaign_max_attempts;
double sendcampaign_retry_undelivered_after;
bool   sendcampaign_skip_unreachable;
double sendcampaign_query_timeout;
bool   sendcampaign_list_queries;
int	   sendcampaign_launcher_interval;
int	   sendcampaign_worker_idle_timeout;
int	   sendcampaign_failure_threshold;
double sendcampaign_failure_scale_factor;

int
max_concurrency_here(void)
{
	return Max(1, (int) (sendcampaign_max_concurrency * sendcampaign_node_share + 1e-6));
}

double
rate_here(double rate)
{
	return rate > 0 ? Max(MIN_RATE, rate * sendcampaign_node_share) : rate;
}

double
lookup_timeout(void)
{
	if (sendcampaign_lookup_timeout >= 0)
		return sendcampaign_lookup_timeout;
	return Max(LOOKUP_DELAYS * sendcampaign_lookup_delay, MIN_LOOKUP_TIMEOUT);
}

static bool
check_api_url(char **newval, void **extra, GucSource source)
{
	if (http_url_is_safe(*newval))
		return true;
	GUC_check_errdetail(
		"Credentials are sent to it, so it must be an https: URL, or an http: URL of the loopback"
		" interface, without a user name.");
	return false;
}

static void
define_addresses(void)
{
	DefineCustomBoolVariable(
		"sendcampaign.enabled", "Whether messages are sent.",
		"When off, nothing is sent.  Runs continue after it is turned on, at sendcampaign.wake(),"
		" or by themselves if the library is preloaded.",
		&sendcampaign_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("sendcampaign.api_url", "Base URL of Twilio's API.",
							   "https:, or http: to the loopback interface.", &sendcampaign_api_url,
							   "https://api.twilio.com", PGC_SUSET, 0, check_api_url, NULL, NULL);
	DefineCustomStringVariable(
		"sendcampaign.ca_file", "File with the certificates of the authorities to trust.",
		"Empty: the system's.", &sendcampaign_ca_file, "", PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("sendcampaign.schema", "Schema of the application's tables.", NULL,
							   &sendcampaign_schema, "public", PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_failures(void)
{
	DefineCustomIntVariable(
		"sendcampaign.failure_threshold",
		"Minimum number of failed messages before a run pauses itself.",
		"Only failures because of the recipient or text count.  -1: a run never pauses itself.",
		&sendcampaign_failure_threshold, 100, -1, INT_MAX, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.failure_scale_factor",
		"Fraction of the messages answered by Twilio that must fail before a run pauses itself.",
		"A run pauses itself when more than this fraction have failed, and at least sendcampaign.failure_threshold.",
		&sendcampaign_failure_scale_factor, 0.3, 0.0, 1.0, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sendcampaign.max_attempts",
							"Times a message is tried while Twilio asks to try again later.", NULL,
							&sendcampaign_max_attempts, 10, 1, 1000, PGC_USERSET, 0, NULL, NULL,
							NULL);
}

static void
define_deliveries(void)
{
	DefineCustomRealVariable(
		"sendcampaign.retry_undelivered_after",
		"Time after which sendcampaign.retry_failed() sends a message again that did not reach the phone.",
		"Since Twilio reported error 30003: the phone was switched off or out of reach.",
		&sendcampaign_retry_undelivered_after, 14400.0, 0.0, 604800.0, PGC_USERSET, GUC_UNIT_S,
		NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"sendcampaign.skip_unreachable",
		"Whether phone numbers in sendcampaign.unreachable are skipped.",
		"They are unknown or landlines, as the last message to them has shown.",
		&sendcampaign_skip_unreachable, false, PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_lookups(void)
{
	DefineCustomRealVariable(
		"sendcampaign.lookup_delay",
		"Time from the end of request_timeout until a message in doubt is looked up.",
		"By then its request has reached Twilio, or never will.", &sendcampaign_lookup_delay, 5.0,
		0.0, 3600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.lookup_timeout",
		"Time for which a message in doubt is looked for in Twilio's list of messages.",
		"It stays in doubt when the list has not shown it by then, nor a message that was sent after it."
		"  -1: sixty times sendcampaign.lookup_delay.",
		&sendcampaign_lookup_timeout, -1.0, -1.0, 86400.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL,
		NULL);
	DefineCustomBoolVariable(
		"sendcampaign.resend_lost",
		"Whether a message is sent again when Twilio's list of messages shows that it was not taken.",
		"When off, such a message stays in doubt, for a person to settle.",
		&sendcampaign_resend_lost, true, PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_receipts(void)
{
	DefineCustomBoolVariable(
		"sendcampaign.receipts",
		"Whether Twilio is asked what became of the messages that it took.",
		"When off, its list of messages is not read for that after they have been sent.",
		&sendcampaign_receipts, true, PGC_USERSET, 0, NULL, NULL, NULL);
}

static bool
check_rate(double *newval, void **extra, GucSource source)
{
	if (rate_is_valid(*newval))
		return true;

	/*
	 * PostgreSQL accepts any value for a setting whose library is not loaded
	 * yet.  If the value is rejected later, the default would apply: no limit.
	 */
	if (source < PGC_S_INTERACTIVE)
	{
		*newval = MIN_RATE;
		return true;
	}
	GUC_check_errdetail("It must be 0, for no limit, or a number from %s to %s.",
						CppAsString2(MIN_RATE), CppAsString2(MAX_RATE));
	GUC_check_errhint("To send nothing, set \"sendcampaign.enabled\" to off, or pause the run.");
	return false;
}

static void
define_limits(void)
{
	DefineCustomIntVariable(
		"sendcampaign.max_concurrency", "Requests in flight for one Twilio account.", NULL,
		&sendcampaign_max_concurrency, 100, 1, 1000, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.segments_per_second", "Segments a second that one sender may send.",
		"0: as fast as the account takes them.  A group's \"twilioSegmentsPerSecond\" takes precedence.",
		&sendcampaign_segments_per_second, 0.0, 0.0, MAX_RATE, PGC_USERSET, 0, check_rate, NULL,
		NULL);
	DefineCustomRealVariable("sendcampaign.node_share",
							 "Share of the limits of accounts and senders that this node has.",
							 "For accounts with which several nodes or servers send.  It applies to"
							 " sendcampaign.max_concurrency and to the rates of senders.",
							 &sendcampaign_node_share, 1.0, 0.01, 1.0, PGC_SUSET, 0, NULL, NULL,
							 NULL);
	DefineCustomRealVariable("sendcampaign.request_timeout",
							 "Time after which a request without an answer is given up.",
							 "Twilio's own limit is about 30 s.", &sendcampaign_request_timeout,
							 35.0, 0.1, 600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.connect_timeout", "Time after which an attempt to connect is given up.", NULL,
		&sendcampaign_connect_timeout, 10.0, 0.1, 600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"sendcampaign.launcher_interval", "Time between the launcher's rounds over all databases.",
		"Effective with shared_preload_libraries only.", &sendcampaign_launcher_interval, 60, 1,
		INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

static void
define_workers(void)
{
	DefineCustomIntVariable(
		"sendcampaign.worker_idle_timeout",
		"Time for which a worker stays after its last run, with its connections.",
		"It leaves earlier if it is in the way.  0: it leaves at once.",
		&sendcampaign_worker_idle_timeout, 5000, 0, MAX_IDLE_TIMEOUT, PGC_USERSET, GUC_UNIT_MS,
		NULL, NULL, NULL);
}

/*
 * Whoever may write lists could run SQL with the rights of those who send to
 * them, so a superuser decides that.
 */
static void
define_queries(void)
{
	DefineCustomRealVariable("sendcampaign.query_timeout",
							 "Time after which a query that selects recipients is cancelled.",
							 "0: no limit.", &sendcampaign_query_timeout, 600.0, 0.0, 86400.0,
							 PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"sendcampaign.list_queries",
		"Whether a list's data may have a query that selects its users.",
		"When on, whoever may write lists can run queries with the rights of those who send.",
		&sendcampaign_list_queries, false, PGC_SUSET, 0, NULL, NULL, NULL);
}

void
define_settings(void)
{
	define_addresses();
	define_limits();
	define_lookups();
	define_receipts();
	define_failures();
	define_deliveries();
	define_workers();
	define_queries();
	MarkGUCPrefixReserved("sendcampaign");
}

bool
schema_is_of_callers_choice(void)
{
	return GetUserId() != GetOuterUserId() && compat_who_set("sendcampaign.schema") != GetUserId();
}
