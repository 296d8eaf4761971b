# A group's countryCode: which numbers get it, and which are not clear; the same
# everywhere, and for a run as it was when the run started.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../perl";
use Campaign;
use LocalTwilio;
use PostgreSQL::Test::Utils;
use Test::More;

my $twilio = LocalTwilio->start;
my $node = new_cluster('country', $twilio);

# Country, number, and what it is, or undef if it is not clear
my @cases = (
	[ '+354', '612 3456' => '+3546123456' ],
	[ '+354', '612-3456' => '+3546123456' ],
	[ '+354', '+354 612 3456' => '+3546123456' ],
	[ '+354', '00354 612 3456' => '+3546123456' ],
	[ '+354', '+47 412 34 567' => '+4741234567' ],
	[ '+354', '0612 3456' => undef ],       # there is no prefix
	[ '+354', '354 612 3456' => undef ],    # a plus may be missing, or not
	[ '+354', '512 3456' => undef ],        # no mobile phone
	[ '+354', '61 3456' => undef ],
	[ '+354', '6123456 ext 5' => undef ],
	[ '+44', '07700 900123' => '+447700900123' ],
	[ '+44', '(0)7700 900123' => '+447700900123' ],
	[ '+44', '7700 900123' => '+447700900123' ],
	[ '+44', '447700 900123' => undef ],
	[ '+44', '020 7946 0000' => undef ],
	[ '+49', '0151 23456789' => '+4915123456789' ],
	[ '+49', '49 151 23456789' => undef ],
	[ '+39', '333 1234567' => '+393331234567' ],
	[ '+39', '0333 1234567' => undef ],              # 0 would be part of the number
	[ '+225', '0712345678' => '+2250712345678' ],    # and is here
	[ '+225', '712345678' => undef ],
	[ '+36', '06 30 123 4567' => '+36301234567' ],
	[ '+36', '30 123 4567' => '+36301234567' ],
	[ '+36', '0 30 123 4567' => undef ],
	[ '+7', '8 912 345-67-89' => '+79123456789' ],
	[ '+7', '912 345-67-89' => '+79123456789' ],
	[ '+7', '7 912 345-67-89' => undef ],
	[ '+370', '8 612 34567' => '+37061234567' ],
	[ '+370', '0 612 34567' => '+37061234567' ],
	[ '+375', '8 029 123 45 67' => '+375291234567' ],
	[ '+1', '(555) 000-0001' => '+15550000001' ],
	[ '+1', '1 555 000 0001' => '+15550000001' ],
	[ '+1', '555 0001' => undef ],
	[ '+1', '155 000 0001' => undef ],
	[ '+45', '20 12 34 56' => '+4520123456' ],
	[ '354', '612 3456' => '+3546123456' ],    # written without the plus
);
my $campaign = create_campaign($node, users => 0);
for my $case (@cases)
{
	my ($country, $number, $e164) = @$case;
	configure($node, $campaign, "configuration || jsonb_build_object('countryCode', '$country')");
	my ($code) = $country =~ /(\d+)/;
	my $expected =
	  defined $e164
	  ? "$e164|"
	  : "$number|phone number is neither in E.164 form nor clearly one of +$code";
	is(sql($node, <<~SQL, role => 'app'), $expected, "$number in $country");
		DELETE FROM ac_list_users;
		INSERT INTO ac_list_users (ac_list_id, data)
		SELECT ac_list_id, jsonb_build_object('sms', '$number') FROM ac_campaigns WHERE id = $campaign;
		SELECT phone, skipped FROM sendcampaign.preview($campaign);
		SQL
}

# Sent, in a small run: a number is compared whichever way it is written
configure($node, $campaign, "configuration || '{\"countryCode\": \"+354\"}'");
sql($node, <<~SQL, role => 'app');
	DELETE FROM ac_list_users;
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT ac_list_id, jsonb_build_object('sms', s)
	FROM ac_campaigns, unnest('{612 3456,+3546123456,699 8877,512 3456}'::text[]) s
	WHERE id = $campaign
	SQL
is( sql($node,
		"SELECT messages, duplicates, invalid_phone FROM sendcampaign.estimate($campaign)",
		role => 'app'),
	'2|1|1',
	'estimate() counts as the run does');
my $job = start_campaign($node, $campaign);
sent_once($node, $twilio, $campaign, $job, 'with a country code', skipped => 2);
is_deeply(
	[ sort map { $_->{to} } $twilio->ledger ],
	[ '+3546123456', '+3546998877' ],
	'each phone gets one message');

# In a longer run whose group gets another code meanwhile: the code stays the
# run's, so that nobody gets two messages
$twilio->set(reset => 1);
my $long = create_campaign($node, users => 0, base_url => undef);
configure($node, $long, "configuration || '{\"countryCode\": \"+354\"}'");
sql($node, <<~SQL, role => 'app');
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT ac_list_id, jsonb_build_object('sms', (6000000 + i)::text)
	FROM ac_campaigns, generate_series(1, 600) i WHERE id = $long;
	INSERT INTO ac_list_users (ac_list_id, data)
	SELECT ac_list_id, jsonb_build_object('sms', '+354' || (6000000 + i))
	FROM ac_campaigns, generate_series(1, 600) i WHERE id = $long
	SQL
$twilio->set(hold => 1);
my $held = start_campaign($node, $long);
wait_for_flight($twilio, 10);
configure($node, $long, "configuration || '{\"countryCode\": \"+45\"}'");
$node->restart;
change_conf($node, <<~'CONF');
	sendcampaign.request_timeout = '2s'
	sendcampaign.lookup_delay = '500ms'
	CONF
$twilio->set(hold => 0);
wake($node);
my $run = wait_for_run($node, $held);
is($run->{skipped}, 600, 'half of them are duplicates, whatever code the group has now');
is( sql($node,
		"SELECT count(DISTINCT phone), count(*) FROM sendcampaign.message"
		  . " WHERE job_id = $held AND status <> 'skipped'"),
	'600|600',
	'each phone gets one message');
is(scalar(grep { $_->{to} !~ /^\+354/ } $twilio->ledger), 0, '... and nobody elsewhere does');

# A code that is not known
configure($node, $campaign, "configuration || '{\"countryCode\": \"+999\"}'");
my $error = call_error($node, "preview($campaign)");
is( "$error->{sqlstate}: $error->{message}",
	'22023: invalid value for "countryCode" in the group\'s configuration: "+999"',
	'an unknown code');
is( $error->{hint},
	'Write a country code whose national numbers are known, such as "+354"; or remove'
	  . ' it, and write phone numbers with a plus sign and their country code.',
	'... with a hint');
my $list = sql($node, "SELECT ac_list_id FROM ac_campaigns WHERE id = $campaign");
is(call_error($node, "add_list_users($list, '{612 3456}'::text[])")->{message},
	$error->{message}, '... for add_list_users(), too');
my $wrong = start_campaign($node, $campaign);
is(wait_for_run($node, $wrong, state => 'failed')->{sent}, 0, '... and nothing is sent');

# add_list_users() writes numbers as they are sent to
configure($node, $campaign, "configuration || '{\"countryCode\": \"+354\"}'");
is( sql($node,
		"SELECT position, refused FROM sendcampaign.add_list_users($list,"
		  . " '{623 4567,+354 6234567,512 3456,+354 699 8877}'::text[])",
		role => 'app'),
	<<~'ROWS' =~ s/\n\z//r, 'add_list_users() compares with the code');
	2|duplicate: position 1 has the same phone number
	3|phone number is neither in E.164 form nor clearly one of +354
	4|already in the list
	ROWS
is(sql($node, 'SELECT data->>$$sms$$ FROM ac_list_users ORDER BY id DESC LIMIT 1'),
	'+3546234567', '... and writes it');

# The countries that the documentation names
my $root = "$FindBin::RealBin/../..";
my @known = slurp_file("$root/src/campaign/national.c") =~ /^\t\{"(\+\d+)"/mg;
my ($section) = slurp_file("$root/docs/campaigns.md") =~ /^## National numbers$(.*?)(?=^## |\z)/ms;
my @named = map { /\(\+(\d+)/ ? "+$1" : () } split /[,;]\s/,
  $section =~ s/.*?(?=^United States)//msr;
is(join(' ', sort @named), join(' ', sort @known), 'docs/campaigns.md names the same countries');
$node->stop;
done_testing();
