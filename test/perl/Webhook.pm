# What a web server does that passes Twilio's requests to receive(): forms, their
# signatures, and calls by a role that may do nothing else.
package Webhook;

use strict;
use warnings;

use Campaign;
use Digest::SHA qw(sha256_hex);
use Exporter 'import';
use JSON::PP ();
use LocalTwilio;
use POSIX qw(strftime);
use Time::HiRes qw(time);

our @EXPORT = qw($URL create_webhook_role form signed_form receive receive_error
  inbound_form signed_json event_time receipt_event reply_event delivery_of);

# Where the groups of these tests want Twilio to post to.
our $URL = 'https://example.org/twilio?source=sms';

# The role "webhook", which may call receive(): as nobody else may, and nothing
# else, if it is alone.  Options: alone, db.
sub create_webhook_role
{
	my ($node, %arg) = @_;
	sql($node, <<~'SQL', %arg) if delete $arg{alone};
		REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign FROM PUBLIC;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA sendcampaign TO app;
		SQL
	sql($node, <<~'SQL', %arg);
		CREATE ROLE webhook LOGIN;
		GRANT USAGE ON SCHEMA sendcampaign TO webhook;
		GRANT EXECUTE ON FUNCTION sendcampaign.receive(text, text, text) TO webhook;
		SQL
}

# A form with these parameters, [ name, value ], in their order.
sub form
{
	my @pairs = @_;
	return join '&', map { escaped($_->[0]) . '=' . escaped($_->[1]) } @pairs;
}

sub escaped
{
	my $text = shift;
	utf8::encode($text) if utf8::is_utf8($text);
	$text =~ s/([^A-Za-z0-9 _.-])/sprintf '%%%02X', ord $1/ge;
	return $text =~ tr/ /+/r;
}

# A request that Twilio could have made: { url, body, signature }.  Arguments:
# parameters, and options url, token.
sub signed_form
{
	my ($params, %arg) = @_;
	my $url = $arg{url} // $URL;
	my $body = form(
		map {
			my $name = $_;
			map { [ $name, $_ ] } ref $params->{$name} ? @{ $params->{$name} } : $params->{$name}
		} sort keys %$params);
	my %bytes = %{ LocalTwilio::form_params($body) };
	return {
		url => $url,
		body => $body,
		signature => LocalTwilio::sign($url, \%bytes, $arg{token} // $LocalTwilio::TOKEN)
	};
}

# An inbound message.  Arguments: sid, from, body; parameters with other names,
# and options as for signed_form().
sub inbound_form
{
	my ($sid, $from, $body, $more, %arg) = @_;
	return signed_form(
		{
			ToCountry => 'US',
			MessageSid => $sid,
			SmsSid => $sid,
			SmsMessageSid => $sid,
			SmsStatus => 'received',
			AccountSid => $LocalTwilio::ACCOUNT,
			From => $from,
			To => $LocalTwilio::SENDER,
			Body => $body,
			NumMedia => 0,
			NumSegments => 1,
			ApiVersion => '2010-04-01',
			%{ $more || {} }
		},
		%arg);
}

# What Twilio's Event Streams could have posted: { url, body, signature }.
# Arguments: an event or an array of them, or a body in JSON; options url, which
# gets the hash of the body, requested (the whole URL), token.
sub signed_json
{
	my ($events, %arg) = @_;
	my $body = ref $events ? JSON::PP->new->canonical->utf8->encode($events) : $events;
	my $url = $arg{url} // $URL;
	$url .= ($url =~ /\?/ ? '&' : '?') . 'bodySHA256=' . sha256_hex($body);
	$url = $arg{requested} if defined $arg{requested};
	return {
		url => $url,
		body => $body,
		signature => LocalTwilio::sign($url, {}, $arg{token} // $LocalTwilio::TOKEN)
	};
}

# The time as Twilio writes it, so many seconds from now
sub event_time
{
	my $time = time() + (shift // 0);
	return strftime('%Y-%m-%dT%H:%M:%S', gmtime $time)
	  . sprintf('.%06dZ', 1_000_000 * ($time - int $time));
}

sub event
{
	my ($type, $data) = @_;
	return {
		specversion => '1.0',
		type => "com.twilio.messaging.$type",
		source => "/2010-04-01/Accounts/$LocalTwilio::ACCOUNT/Messages/$data->{messageSid}.json",
		id => 'EZ00000000000000000000000000000001',
		dataschema => 'https://events-schemas.twilio.com/Messaging.MessageStatus/7',
		datacontenttype => 'application/json',
		time => '2026-01-01T00:00:00.000Z',
		data => {
			accountSid => $LocalTwilio::ACCOUNT,
			eventName => "com.twilio.messaging.$type",
			timestamp => event_time(),
			%$data
		}
	};
}

# Events: of what became of a message, and of an inbound one.  More members of
# the data may follow.
sub receipt_event
{
	my ($sid, $status, %data) = @_;
	return event(
		"message.$status",
		{
			messageSid => $sid,
			messageStatus => uc $status,
			from => $LocalTwilio::SENDER,
			to => '+15550000001',
			apiVersion => '2010-04-01',
			numberOfSegments => 1,
			%data
		});
}

sub reply_event
{
	my ($sid, $from, $body, %data) = @_;
	return event(
		'inbound-message.received',
		{
			messageSid => $sid,
			from => $from,
			to => $LocalTwilio::SENDER,
			body => $body,
			numMedia => 0,
			numSegments => 1,
			recipients => [],
			%data
		});
}

sub call_of
{
	my $request = shift;
	my ($url, $signature, $body) =
	  map { defined $_ ? '$text$' . $_ . '$text$' : 'NULL' } @$request{qw(url signature body)};
	return "SELECT sendcampaign.receive($url, $signature, $body)";
}

# What receive() returns for a request.  Options: db, role ("webhook").
sub receive
{
	my ($node, $request, %arg) = @_;
	return sql($node, call_of($request), role => 'webhook', %arg);
}

# The error of receive(), as by sql_error().
sub receive_error
{
	my ($node, $request, %arg) = @_;
	return sql_error($node, call_of($request), role => 'webhook', %arg);
}

# What is stored of what became of a job's messages, in the order of its list
# users; "-": nothing.
sub delivery_of
{
	my ($node, $job) = @_;
	return sql($node, <<~"SQL");
		SELECT string_agg(coalesce(d.status, '-') || coalesce(' ' || d.error_code, ''), ', '
			ORDER BY m.list_user_id)
		FROM sendcampaign.message m
		LEFT JOIN sendcampaign.receipt_data d USING (run_id, list_user_id)
		WHERE m.job_id = $job
		SQL
}

1;
