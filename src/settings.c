/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings sendcampaign.*
 *
 * What decides where credentials go, or whether anything is sent at all, is
 * a superuser's to set.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "failures.h"
#include "http.h"
#include "settings.h"
#include "utils/guc.h"

bool   sendcampaign_enabled;
char  *sendcampaign_api_url;
char  *sendcampaign_ca_file;
char  *sendcampaign_schema;
int	   sendcampaign_max_concurrency;
double sendcampaign_messages_per_second;
double sendcampaign_request_timeout;
double sendcampaign_connect_timeout;
double sendcampaign_lookup_delay;
int	   sendcampaign_max_attempts;
int	   sendcampaign_launcher_interval;
char  *sendcampaign_max_failures;

static bool
check_api_url(char **newval, void **extra, GucSource source)
{
	if (http_url_is_safe(*newval))
		return true;
	GUC_check_errdetail(
		"Credentials are sent there: it must be an https: URL, or an http: one to the loopback interface, and name no user.");
	return false;
}

static void
define_addresses(void)
{
	DefineCustomBoolVariable("sendcampaign.enabled", "Whether messages are sent.",
							 "When off, running campaigns stop and go on when it is on again.",
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

static bool
check_max_failures(char **newval, void **extra, GucSource source)
{
	if (max_failures_is_valid(*newval))
		return true;
	GUC_check_errdetail(
		"It is a share, a number of messages, or both: \"30%%\", \"100\" or \"30%%, 100\".");
	GUC_check_errhint("Empty, a run never pauses itself for that.");
	return false;
}

static void
define_trouble(void)
{
	DefineCustomStringVariable(
		"sendcampaign.max_failures",
		"Messages that may fail for their recipient or text, before the run pauses itself.",
		"More than a share of those that Twilio has answered, and at least so many; empty: no limit.",
		&sendcampaign_max_failures, "30%, 100", PGC_USERSET, 0, check_max_failures, NULL, NULL);
	DefineCustomIntVariable("sendcampaign.max_attempts",
							"Times a message is tried while Twilio asks to try again later.", NULL,
							&sendcampaign_max_attempts, 10, 1, 1000, PGC_USERSET, 0, NULL, NULL,
							NULL);
}

static void
define_limits(void)
{
	DefineCustomIntVariable(
		"sendcampaign.max_concurrency", "Requests in flight for one Twilio account.", NULL,
		&sendcampaign_max_concurrency, 100, 1, 1000, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.messages_per_second", "Segments a second that one sender may send.",
		"0: as fast as the account takes them.  A group's \"twilioMessagesPerSecond\" goes first.",
		&sendcampaign_messages_per_second, 0.0, 0.0, 100000.0, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("sendcampaign.request_timeout",
							 "Time after which a request without an answer is given up.",
							 "Twilio's own limit is about 30 s.", &sendcampaign_request_timeout,
							 35.0, 0.1, 600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.connect_timeout", "Time after which an attempt to connect is given up.", NULL,
		&sendcampaign_connect_timeout, 10.0, 0.1, 600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"sendcampaign.lookup_delay",
		"How far Twilio's message list may lag behind an accepted request.",
		"A message in doubt is looked up that long after its request can no longer be under way.",
		&sendcampaign_lookup_delay, 5.0, 0.0, 3600.0, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"sendcampaign.launcher_interval", "Time between the launcher's rounds over all databases.",
		"Effective with shared_preload_libraries only.", &sendcampaign_launcher_interval, 60, 1,
		INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

void
define_settings(void)
{
	define_addresses();
	define_limits();
	define_trouble();
	MarkGUCPrefixReserved("sendcampaign");
}

bool
schema_is_of_callers_choice(void)
{
	return GetUserId() != GetOuterUserId() && compat_who_set("sendcampaign.schema") != GetUserId();
}
