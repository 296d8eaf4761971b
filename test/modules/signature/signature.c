/*
 * signature.c
 *		The extension only asks whether a request for a group's URL was signed
 *		with its token.  This lets a test ask for any URL, token and form.
 */
#include "../../../src/twilio/form.c"
#include "../../../src/twilio/signature.c"

#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(is_signed);

static void
sign_form(const char *body, SignedRequest *request)
{
	Form form;

	if (form_parse(body, strlen(body), &form) != NULL)
		elog(ERROR, "not a form: %s", body);
	request->parameters = signed_parameters(&form, false);
	request->by_value = signed_parameters(&form, true);
}

/* Arguments: configured URL, requested URL, token, signature, form or JSON. */
Datum
is_signed(PG_FUNCTION_ARGS)
{
	char		 *body = text_to_cstring(PG_GETARG_TEXT_PP(4));
	SignedRequest request = {.signature = text_to_cstring(PG_GETARG_TEXT_PP(3)),
							 .url = text_to_cstring(PG_GETARG_TEXT_PP(1))};

	if (body[0] == '{' || body[0] == '[')
	{
		request.parameters = "";
		request.body_hash = hash_of_body(body, strlen(body));
	}
	else
		sign_form(body, &request);
	PG_RETURN_BOOL(signature_is_valid(&request, text_to_cstring(PG_GETARG_TEXT_PP(0)),
									  text_to_cstring(PG_GETARG_TEXT_PP(2))));
}
