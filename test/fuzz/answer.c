/*
 * answer.c
 *		Twilio's answer to a request: one byte for the status, then the body.
 */
#include "fuzz.h"

#include "../../src/twilio/classify.h"
#include "mb/pg_wchar.h"

static const int statuses[] = {200, 201, 204, 301, 400, 401, 404, 408, 409, 429, 500, 503, 0, 999};

static void
classify_body(const char *body, int length, unsigned char how, Verdict *verdict)
{
	HttpResponse response = {
		.result = how < 240	  ? HTTP_ANSWERED
				  : how < 248 ? HTTP_UNKNOWN
							  : HTTP_NOT_SENT,
		.status = statuses[how % lengthof(statuses)],
		.body = body,
		.body_length = length,
		.truncated = how >= 224 && how < 240,
		.retry_after = -1,
		.error = "",
	};

	classify(&response, verdict);
}

static bool
same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* It can be stored, in any encoding that contains ASCII, and read in one line. */
static void
check_message(const char *message)
{
	promise(pg_encoding_verifymbstr(PG_UTF8, message, strlen(message)) == strlen(message));
	promise(strlen(message) <= 500);
	for (; *message; message++)
		promise((unsigned char) *message >= ' ' &&
				(fuzz_encoding == PG_UTF8 || !IS_HIGHBIT_SET(*message)));
}

static void
check(const Verdict *verdict, unsigned char how)
{
	int status = statuses[how % lengthof(statuses)];

	promise(verdict->kind >= VERDICT_SENT && verdict->kind <= VERDICT_STOP);
	if (verdict->kind == VERDICT_SENT)
		promise(how < 224 && status >= 200 && status < 300 && verdict->sid[0] != '\0');
	else
		promise(verdict->error_message != NULL);
	if (verdict->kind == VERDICT_FAILED || verdict->kind == VERDICT_TEXT_FAILED)
		promise(status < 200 || status >= 300);
	if (verdict->error_message)
		check_message(verdict->error_message);
	promise(verdict->segments >= 0);
}

void
fuzz_one(const char *data, size_t size)
{
	Verdict		  verdict;
	Verdict		  of_pretty;
	char		 *pretty;
	int			  length;
	unsigned char how = (unsigned char) data[0];

	if (size == 0)
		return;
	if (how & 16)
		fuzz_encoding = PG_LATIN1;
	classify_body(data + 1, size - 1, how, &verdict);
	check(&verdict, how);
	pretty = fuzz_pretty(data + 1, size - 1, &length);
	classify_body(pretty, length, how, &of_pretty);
	promise(verdict.kind == of_pretty.kind && verdict.error_code == of_pretty.error_code);
	promise(same(verdict.sid, of_pretty.sid) && verdict.segments == of_pretty.segments);
	promise(same(verdict.error_message, of_pretty.error_message));
}
