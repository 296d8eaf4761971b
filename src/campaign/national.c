/*-------------------------------------------------------------------------
 *
 * national.c
 *	  Phone numbers as they are written within a country.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "campaign/national.h"

/*
 * A country's numbers as they follow its code in E.164.  Alternatives are
 * separated by a blank.
 */
typedef struct NumberingPlan
{
	const char *code;
	const char *prefixes; /* dialled before them within the country, and never part of them */
	const char *begin;	  /* what they begin with */
	int			min;	  /* how many digits they have */
	int			max;
} NumberingPlan;

/* clang-format off */
static const NumberingPlan plans[] = {
	{"+1", "1", "2 3 4 5 6 7 8 9", 10, 10}, /* United States, Canada, Caribbean */
	{"+7", "8", "9 70 74 76 77 78", 10, 10}, /* Russia, Kazakhstan */
	{"+20", "0", "10 11 12 15", 10, 10}, /* Egypt */
	{"+27", "0", "6 7 81 82 83 84", 9, 9}, /* South Africa */
	{"+30", "", "69", 10, 10}, /* Greece */
	{"+31", "0", "6", 9, 9}, /* Netherlands */
	{"+32", "0", "45 46 47 48 49", 9, 9}, /* Belgium */
	{"+33", "0", "6 7", 9, 9}, /* France */
	{"+34", "", "6 7", 9, 9}, /* Spain */
	{"+36", "06", "20 30 31 50 70", 9, 9}, /* Hungary */
	{"+39", "", "3", 9, 10}, /* Italy; a 0 would be part of the number */
	{"+40", "0", "7", 9, 9}, /* Romania */
	{"+41", "0", "75 76 77 78 79", 9, 9}, /* Switzerland */
	{"+43", "0", "65 66 67 68 69", 9, 13}, /* Austria */
	{"+44", "0", "71 72 73 74 75 77 78 79", 10, 10}, /* United Kingdom */
	{"+45", "", "2 3 4 5 6 7 8 9", 8, 8}, /* Denmark */
	{"+46", "0", "70 72 73 76 79", 9, 9}, /* Sweden */
	{"+47", "", "4 9", 8, 8}, /* Norway */
	{"+48", "", "45 50 51 53 57 60 66 69 72 73 78 79 88", 9, 9}, /* Poland */
	{"+49", "0", "15 16 17", 10, 11}, /* Germany */
	{"+51", "", "9", 9, 9}, /* Peru */
	{"+52", "", "2 3 4 5 6 7 8 9", 10, 10}, /* Mexico */
	{"+55", "0", "1 2 3 4 5 6 7 8 9", 11, 11}, /* Brazil */
	{"+56", "", "9", 9, 9}, /* Chile */
	{"+57", "", "3", 10, 10}, /* Colombia */
	{"+58", "0", "4", 10, 10}, /* Venezuela */
	{"+60", "0", "1", 9, 10}, /* Malaysia */
	{"+61", "0", "4", 9, 9}, /* Australia */
	{"+62", "0", "8", 9, 12}, /* Indonesia */
	{"+63", "0", "9", 10, 10}, /* Philippines */
	{"+64", "0", "2", 8, 10}, /* New Zealand */
	{"+65", "", "8 9", 8, 8}, /* Singapore */
	{"+66", "0", "6 8 9", 9, 9}, /* Thailand */
	{"+81", "0", "70 80 90", 10, 10}, /* Japan */
	{"+82", "0", "10", 10, 10}, /* South Korea */
	{"+84", "0", "3 5 7 8 9", 9, 9}, /* Vietnam */
	{"+86", "", "13 14 15 16 17 18 19", 11, 11}, /* China */
	{"+90", "0", "5", 10, 10}, /* Turkey */
	{"+91", "0", "6 7 8 9", 10, 10}, /* India */
	{"+92", "0", "3", 10, 10}, /* Pakistan */
	{"+94", "0", "7", 9, 9}, /* Sri Lanka */
	{"+98", "0", "9", 10, 10}, /* Iran */
	{"+212", "0", "6 7", 9, 9}, /* Morocco */
	{"+213", "0", "5 6 7", 9, 9}, /* Algeria */
	{"+216", "", "2 4 5 9", 8, 8}, /* Tunisia */
	{"+221", "", "7", 9, 9}, /* Senegal */
	{"+225", "", "01 05 07", 10, 10}, /* Ivory Coast; the 0 is part of the number */
	{"+233", "0", "2 5", 9, 9}, /* Ghana */
	{"+234", "0", "70 80 81 90 91", 10, 10}, /* Nigeria */
	{"+237", "", "6", 9, 9}, /* Cameroon */
	{"+250", "0", "7", 9, 9}, /* Rwanda */
	{"+251", "0", "7 9", 9, 9}, /* Ethiopia */
	{"+254", "0", "1 7", 9, 9}, /* Kenya */
	{"+255", "0", "6 7", 9, 9}, /* Tanzania */
	{"+256", "0", "7", 9, 9}, /* Uganda */
	{"+260", "0", "7 9", 9, 9}, /* Zambia */
	{"+351", "", "9", 9, 9}, /* Portugal */
	{"+352", "", "6", 9, 9}, /* Luxembourg */
	{"+353", "0", "83 85 86 87 89", 9, 9}, /* Ireland */
	{"+354", "", "6 7 8", 7, 7}, /* Iceland */
	{"+355", "0", "6", 9, 9}, /* Albania */
	{"+356", "", "77 79 99", 8, 8}, /* Malta */
	{"+357", "", "9", 8, 8}, /* Cyprus */
	{"+358", "0", "4 50", 7, 10}, /* Finland */
	{"+359", "0", "87 88 89 98 99", 9, 9}, /* Bulgaria */
	{"+370", "8 0", "6", 8, 8}, /* Lithuania */
	{"+371", "", "2", 8, 8}, /* Latvia */
	{"+372", "", "5", 7, 8}, /* Estonia */
	{"+373", "0", "6 7", 8, 8}, /* Moldova */
	{"+374", "0", "4 5 7 9", 8, 8}, /* Armenia */
	{"+375", "80 0", "25 29 33 44", 9, 9}, /* Belarus */
	{"+380", "0", "39 50 63 66 67 68 73 9", 9, 9}, /* Ukraine */
	{"+381", "0", "6", 8, 9}, /* Serbia */
	{"+382", "0", "6", 8, 8}, /* Montenegro */
	{"+383", "0", "4", 8, 8}, /* Kosovo */
	{"+385", "0", "9", 8, 9}, /* Croatia */
	{"+386", "0", "3 4 5 6 7", 8, 8}, /* Slovenia */
	{"+387", "0", "6", 8, 9}, /* Bosnia and Herzegovina */
	{"+389", "0", "7", 8, 8}, /* North Macedonia */
	{"+420", "", "6 7", 9, 9}, /* Czechia */
	{"+421", "0", "9", 9, 9}, /* Slovakia */
	{"+502", "", "3 4 5", 8, 8}, /* Guatemala */
	{"+503", "", "6 7", 8, 8}, /* El Salvador */
	{"+506", "", "5 6 7 8", 8, 8}, /* Costa Rica */
	{"+591", "", "6 7", 8, 8}, /* Bolivia */
	{"+593", "0", "9", 9, 9}, /* Ecuador */
	{"+595", "0", "9", 9, 9}, /* Paraguay */
	{"+598", "0", "9", 8, 8}, /* Uruguay */
	{"+852", "", "5 6 9", 8, 8}, /* Hong Kong */
	{"+855", "0", "1 6 7 8 9", 8, 9}, /* Cambodia */
	{"+880", "0", "1", 10, 10}, /* Bangladesh */
	{"+886", "0", "9", 9, 9}, /* Taiwan */
	{"+962", "0", "7", 9, 9}, /* Jordan */
	{"+964", "0", "7", 10, 10}, /* Iraq */
	{"+965", "", "5 6 9", 8, 8}, /* Kuwait */
	{"+966", "0", "5", 9, 9}, /* Saudi Arabia */
	{"+968", "", "7 9", 8, 8}, /* Oman */
	{"+970", "0", "5", 9, 9}, /* Palestine */
	{"+971", "0", "5", 9, 9}, /* United Arab Emirates */
	{"+972", "0", "5", 9, 9}, /* Israel */
	{"+973", "", "3 6", 8, 8}, /* Bahrain */
	{"+974", "", "3 5 6 7", 8, 8}, /* Qatar */
	{"+977", "0", "9", 10, 10}, /* Nepal */
	{"+994", "0", "10 50 51 55 60 70 77 99", 9, 9}, /* Azerbaijan */
	{"+995", "0", "5", 9, 9}, /* Georgia */
};
/* clang-format on */

static const NumberingPlan *
find_plan(const char *country)
{
	for (int i = 0; i < lengthof(plans); i++)
	{
		if (strcmp(plans[i].code, country) == 0)
			return &plans[i];
	}
	return NULL;
}

const char *
find_country(const char *code)
{
	char				 with_plus[8];
	const NumberingPlan *plan;

	snprintf(with_plus, sizeof(with_plus), "%s%s", code[0] == '+' ? "" : "+", code);
	plan = find_plan(with_plus);
	return plan ? plan->code : NULL;
}

/* Returns the length of the alternative with which the digits begin; 0 if there is none. */
static int
length_of_beginning(const char *digits, const char *alternatives)
{
	while (*alternatives)
	{
		int length = strcspn(alternatives, " ");

		if (strncmp(digits, alternatives, length) == 0)
			return length;
		alternatives += length;
		alternatives += strspn(alternatives, " ");
	}
	return 0;
}

static bool
fits(const NumberingPlan *plan, const char *digits)
{
	int length = strlen(digits);

	return length >= plan->min && length <= plan->max &&
		   length_of_beginning(digits, plan->begin) > 0;
}

/*
 * Somebody else could have a number that may be read in another way: with or
 * without the prefix, or with the country code, but without its plus sign.
 */
char *
national_number(const char *digits, const char *country)
{
	const NumberingPlan *plan = find_plan(country);
	int					 prefix = plan ? length_of_beginning(digits, plan->prefixes) : 0;
	const char			*without_plus = country + 1;
	int					 code = strlen(without_plus);
	bool				 whole = plan && fits(plan, digits);
	bool				 rest = prefix > 0 && fits(plan, digits + prefix);

	if (whole == rest)
		return NULL;
	if (strncmp(digits, without_plus, code) == 0 && fits(plan, digits + code) &&
		!(rest && prefix == code))
		return NULL;
	return psprintf("%s%s", country, rest ? digits + prefix : digits);
}
