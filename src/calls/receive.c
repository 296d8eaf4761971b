/*-------------------------------------------------------------------------
 *
 * receive.c
 *	  receive(): takes what Twilio posts to a web server.
 *
 * Anybody can post anything to a web server, so nothing that a request says is
 * believed before its signature has been verified: with the auth token of a
 * group, for which it is then a proof, and for no other group.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "calls/caller.h"
#include "calls/verify.h"
#include "campaign/phone.h"
#include "campaign/replies.h"
#include "database/scopes.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "twilio/events.h"
#include "twilio/receipt.h"
#include "twilio/request.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/announce.h"

PG_FUNCTION_INFO_V1(sendcampaign_receive);

/* What receive() returns; of several events, that of the last one in this order. */
typedef enum Taken
{
	IGNORED,
	KNOWN,
	RECEIPT,
	REPLY
} Taken;

static const char *const results[] = {"ignored", "known", "receipt", "reply"};

#define MAX_CODE 999999

/*
 * Anybody can post many events.  One of the first must be of a group that has
 * signed them, so that others cost little more than a form does.
 */
#define MAX_UNPROVEN 10

/* The request, and what it says of one message; NULL for what it does not say. */
typedef struct Webhook
{
	SignedRequest request;
	const char	 *account;
	const char	 *sid;
	const char	 *status; /* Twilio's */
	const char	 *error_code;
	const char	 *from;
	const char	 *to;
	const char	 *service;
	const char	 *body; /* of a message */
	TimestampTz	  at;
	bool		  may_be_reply;
	bool		  signed_by_twilio; /* as far as we know */
} Webhook;

pg_noreturn static void fail_malformed(const char *detail);

static void
fail_malformed(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the body is not that of a request of Twilio's"),
			 errdetail("%s", detail),
			 errhint("Pass the body of the request as the web server received it.")));
}

/* The same for whatever is wrong, so that nobody learns which accounts there are. */
static void
check_signature(const Webhook *webhook)
{
	if (!webhook->signed_by_twilio)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the request was not signed by Twilio"),
				 errdetail("The signature is not that of any group's \"twilioAuthToken\", for its"
						   " \"twilioStatusCallback\" or \"twilioInboundUrl\" and this body."),
				 errhint("If it is a request of Twilio's, compare the URL in the group's"
						 " configuration with the one in Twilio's, and make sure that the web"
						 " server passes the header X-Twilio-Signature and the unchanged body.")));
}

/* What is used must not be said twice: others might read the other value. */
static void
check_parameters(const Form *form)
{
	static const char *const used[] = {
		"AccountSid", "MessageSid", "SmsSid",	"MessageStatus",
		"SmsStatus",  "ErrorCode",	"NumMedia", "MessagingServiceSid",
		"From",		  "To",			"Body"};
	const char *value;

	for (int i = 0; i < lengthof(used); i++)
	{
		if (form_find(form, used[i], &value) > 1)
			fail_malformed(psprintf("It has the parameter %s more than once.", used[i]));
	}
}

static const char *
sid_in_form(const Form *form, const char *name)
{
	const char *sid = form_value(form, name);

	if (sid && !sid_is_valid(sid))
		fail_malformed(psprintf("Its parameter %s is no SID.", name));
	return sid;
}

/* Whether it has a text, even an empty one, or media. */
static bool
has_content(const Form *form)
{
	const char *body;

	return form_find(form, "Body", &body) > 0 || form_value(form, "NumMedia") != NULL;
}

static const char *
first_value(const Form *form, const char *name, const char *other_name)
{
	const char *value = form_value(form, name);

	return value ? value : form_value(form, other_name);
}

static void
read_message(Webhook *webhook, const Form *form)
{
	webhook->account = sid_in_form(form, "AccountSid");
	if (webhook->account == NULL)
		fail_malformed("It has no parameter AccountSid.");
	webhook->sid = sid_in_form(form, "MessageSid");
	if (webhook->sid == NULL)
		webhook->sid = sid_in_form(form, "SmsSid");
	webhook->status = first_value(form, "MessageStatus", "SmsStatus");
	webhook->error_code = form_value(form, "ErrorCode");
	webhook->from = form_value(form, "From");
	webhook->to = form_value(form, "To");
	webhook->service = form_value(form, "MessagingServiceSid");
	webhook->body = form_value(form, "Body");
	webhook->at = GetCurrentTimestamp();
	webhook->may_be_reply = has_content(form);
}

static void
read_form(Webhook *webhook, const char *body, int length)
{
	Form		form;
	const char *wrong = form_parse(body, length, &form);

	if (wrong)
		fail_malformed(wrong);
	check_parameters(&form);
	read_message(webhook, &form);
	webhook->request.parameters = signed_parameters(&form, false);
	webhook->request.by_value = signed_parameters(&form, true);
	if (strcmp(webhook->request.parameters, webhook->request.by_value) == 0)
		webhook->request.by_value = NULL;
}

/* Returns those of the scopes (ReceiptScope *) whose group has signed it, as ReplyGroup *. */
static List *
groups_that_signed(Webhook *webhook, List *scopes)
{
	List	 *found = NIL;
	ListCell *cell;

	foreach (cell, scopes)
	{
		ReplyGroup *to = palloc0(sizeof(ReplyGroup));

		to->scope = *(ReceiptScope *) lfirst(cell);
		to->group = group_that_signed(&to->scope, &webhook->request);
		if (to->group)
			found = lappend(found, to);
	}
	webhook->signed_by_twilio |= found != NIL;
	return found;
}

static int
error_code(const Webhook *webhook)
{
	long code = webhook->error_code ? strtol(webhook->error_code, NULL, 10) : 0;

	return code > 0 && code <= MAX_CODE ? (int) code : 0;
}

/* Stores what became of messages that are recorded; returns whether it is new. */
static bool
store_receipt(Webhook *webhook, const Receipt *receipt, List *messages)
{
	bool	  is_new = false;
	ListCell *cell;

	foreach (cell, messages)
	{
		KnownMessage  *message = lfirst(cell);
		StoredReceipts stored;

		if (group_that_signed(&message->scope, &webhook->request) == NULL)
			continue;
		webhook->signed_by_twilio = true;
		stored = receipts_store_one(message, receipt);
		announce_all_at_commit(stored.announcements);
		is_new |= stored.num_new > 0;
	}
	return is_new;
}

/* Keeps it for a message that a worker is about to record; returns false if there is none. */
static bool
store_early(Webhook *webhook, const Receipt *receipt)
{
	int		  num_kept = 0;
	ListCell *cell;

	foreach (cell, groups_that_signed(webhook, scopes_of_account(webhook->account)))
	{
		ReplyGroup *of = lfirst(cell);

		num_kept += receipts_store_early(&of->scope, receipt, 1);
	}
	return num_kept > 0;
}

/* Takes the status of a message, which is one of receipt_data's. */
static Taken
take_receipt(Webhook *webhook, const char *status)
{
	List   *messages = messages_with_sid(webhook->account, webhook->sid);
	Receipt receipt = {.sid = webhook->sid,
					   .status = status,
					   .error_code = error_code(webhook),
					   .whatsapp = is_through_whatsapp(webhook->from, webhook->to)};

	if (messages == NIL)
	{
		if (store_early(webhook, &receipt))
			return RECEIPT;
		/* a worker may have recorded the message meanwhile */
		messages = messages_with_sid(webhook->account, webhook->sid);
		if (messages == NIL)
			return IGNORED;
	}
	return store_receipt(webhook, &receipt, messages) ? RECEIPT : KNOWN;
}

static bool
is_reply(const Webhook *webhook)
{
	return webhook->sid && webhook->from && webhook->to && webhook->may_be_reply &&
		   (webhook->status == NULL || strcmp(webhook->status, "received") == 0);
}

static bool
is_to_one_of(const Inbound *message, List *groups)
{
	ListCell *cell;

	foreach (cell, groups)
	{
		if (is_to_group(message, ((ReplyGroup *) lfirst(cell))->group))
			return true;
	}
	return false;
}

static bool
has_scope(List *groups, const ReceiptScope *scope)
{
	ListCell *cell;

	foreach (cell, groups)
	{
		const ReceiptScope *other = &((ReplyGroup *) lfirst(cell))->scope;

		if (other->role == scope->role && other->group_id == scope->group_id &&
			strcmp(other->schema, scope->schema) == 0)
			return true;
	}
	return false;
}

/* Adds those of these scopes that are of the same role as a group that has signed, with its token. */
static List *
add_with_token(List *groups, const ReplyGroup *has_signed, List *scopes)
{
	ListCell *cell;

	foreach (cell, scopes)
	{
		const ReceiptScope *scope = lfirst(cell);
		ReplyGroup		   *to;

		if (scope->role != has_signed->scope.role || has_scope(groups, scope))
			continue;
		to = palloc0(sizeof(ReplyGroup));
		to->scope = *scope;
		to->group = group_with_token(scope, has_signed->group->auth_token);
		if (to->group)
			groups = lappend(groups, to);
	}
	return groups;
}

static bool
has_role(List *scopes, Oid role)
{
	ListCell *cell;

	foreach (cell, scopes)
	{
		if (((ReceiptScope *) lfirst(cell))->role == role)
			return true;
	}
	return false;
}

static bool
is_word(const Inbound *message, const GroupConfig *group)
{
	return message->body && stop_word(&group->stop_words, message->body);
}

/*
 * Adds the groups that share the sender with one that has signed: those that
 * have sent something to the phone number; or all of the role if none has or,
 * as a STOP concerns the others, too, if it may be one.
 */
static List *
add_sharing(const Webhook *webhook, const Inbound *message, List *signers, List *of_phone)
{
	List	 *groups = list_copy(signers);
	ListCell *cell;

	foreach (cell, signers)
	{
		const ReplyGroup *to = lfirst(cell);

		if (!is_to_group(message, to->group))
			continue;
		groups = add_with_token(groups, to, of_phone);
		if (is_word(message, to->group) || !has_role(of_phone, to->scope.role))
			groups = add_with_token(groups, to, scopes_of_role(to->scope.role, webhook->account));
	}
	return groups;
}

/*
 * Returns the groups that an inbound message may be to: those that have sent
 * something to the phone number, if it came to one of their senders; else those
 * that have that sender; else the one that has sent something last, whose
 * sender may have been another one then, so that no STOP is lost.
 */
static List *
groups_of_reply(Webhook *webhook, const Inbound *message)
{
	char *phone = phone_of_number(message->from);
	List *of_phone = phone ? scopes_of_phone(webhook->account, phone) : NIL;
	List *asked = groups_that_signed(webhook, of_phone);
	List *others;

	if (is_to_one_of(message, asked))
		return add_sharing(webhook, message, asked, of_phone);
	others = groups_that_signed(webhook, scopes_of_account(webhook->account));
	if (is_to_one_of(message, others))
		return phone ? add_sharing(webhook, message, others, of_phone) : NIL;
	if (asked == NIL)
		return NIL;
	((ReplyGroup *) linitial(asked))->any_sender = true;
	return list_make1(linitial(asked));
}

static Taken
take_reply(Webhook *webhook)
{
	Inbound message = {.sid = webhook->sid,
					   .from = webhook->from,
					   .to = webhook->to,
					   .service = webhook->service,
					   .body = webhook->body,
					   .at = webhook->at};
	List   *groups = groups_of_reply(webhook, &message);
	List   *lines = replies_take(groups, &message, 1);

	announce_all_at_commit(lines);
	return lines != NIL ? REPLY : groups != NIL ? KNOWN : IGNORED;
}

static Taken
take(Webhook *webhook)
{
	const char *status = receipt_status(webhook->status);

	if (webhook->sid && status)
		return take_receipt(webhook, status);
	if (is_reply(webhook))
		return take_reply(webhook);
	(void) groups_that_signed(webhook, scopes_of_account(webhook->account));
	return IGNORED;
}

static Taken
take_event(Webhook *webhook, const Event *event)
{
	TimestampTz now = GetCurrentTimestamp();

	webhook->sid = event->sid;
	webhook->status = event->status;
	webhook->error_code = event->error_code;
	webhook->from = event->from;
	webhook->to = event->to;
	webhook->service = event->service;
	webhook->body = event->body;
	webhook->at = event->at > 0 && event->at < now ? event->at : now;
	webhook->may_be_reply = event->status == NULL;
	return take(webhook);
}

/* Those of one phone number in the order of time; events at the same time in that of the body. */
static int
compare_replies(const Event *x, const Event *y)
{
	int numbers = strcmp(x->from ? x->from : "", y->from ? y->from : "");

	if (numbers != 0)
		return numbers;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x < y ? -1 : 1;
}

/*
 * Receipts, and then replies: in an order that is the same for all bodies, so
 * that two at once do not wait for each other.
 */
static int
compare_events(const void *a, const void *b)
{
	const Event *x = *(const Event *const *) a;
	const Event *y = *(const Event *const *) b;

	if ((x->status == NULL) != (y->status == NULL))
		return x->status == NULL ? 1 : -1;
	return x->status == NULL ? compare_replies(x, y) : strcmp(x->sid, y->sid);
}

static Taken
take_events(Webhook *webhook, const Events *events)
{
	const Event **sorted = palloc((events->count + 1) * sizeof(Event *));
	Taken		  taken = IGNORED;

	for (int i = 0; i < events->count; i++)
		sorted[i] = &events->events[i];
	qsort(sorted, events->count, sizeof(Event *), compare_events);
	webhook->account = events->account;
	for (int i = 0; i < events->count; i++)
	{
		Taken one;

		CHECK_FOR_INTERRUPTS();
		one = take_event(webhook, sorted[i]);
		taken = Max(taken, one);
		if (i + 1 >= MAX_UNPROVEN)
			check_signature(webhook);
	}
	if (!webhook->signed_by_twilio)
		(void) groups_that_signed(webhook, scopes_of_account(webhook->account));
	return taken;
}

/* Twilio has signed the body in UTF-8. */
static Taken
take_json(Webhook *webhook, const char *body)
{
	char	   *json = pg_server_to_any(body, strlen(body), PG_UTF8);
	Events		events;
	const char *wrong = events_parse(json, strlen(json), &events);

	if (wrong)
		fail_malformed(wrong);
	webhook->request.parameters = "";
	webhook->request.body_hash = hash_of_body(json, strlen(json));
	return take_events(webhook, &events);
}

static Taken
take_form(Webhook *webhook, const char *body)
{
	read_form(webhook, body, strlen(body));
	return take(webhook);
}

/* Returns an argument, or "" if it is null. */
static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? pstrdup("") : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* sendcampaign.receive(url text, signature text, body text) returns text */
Datum
sendcampaign_receive(PG_FUNCTION_ARGS)
{
	Webhook webhook = {0};
	Taken	taken;
	char   *body;

	check_writable("sendcampaign.receive()");
	if (!PG_ARGISNULL(2) && toast_raw_datum_size(PG_GETARG_DATUM(2)) > MAX_EVENTS_LENGTH + VARHDRSZ)
		fail_malformed("It is longer than " CppAsString2(MAX_EVENTS_LENGTH) " bytes.");
	spi_connect();
	webhook.request.url = text_argument(fcinfo, 0);
	webhook.request.signature = text_argument(fcinfo, 1);
	body = text_argument(fcinfo, 2);
	taken = is_json(body) ? take_json(&webhook, body) : take_form(&webhook, body);
	check_signature(&webhook);
	spi_finish();
	PG_RETURN_TEXT_P(cstring_to_text(results[taken]));
}
