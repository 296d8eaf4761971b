/*
 * main.c
 *		The local Twilio: a stand-in for the message API, to which tests and
 *		benchmarks send, and which knows for certain what it has accepted.
 *
 * It listens on 127.0.0.1 only.  See usage() for the command line, and
 * control.c for the control port.
 */
#include "accounts.h"
#include "control.h"
#include "listener.h"
#include "messages.h"
#include "server.h"
#include "settings.h"
#include "waits.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* options that are not settings */
enum
{
	OPTION_SETTING = 1,
	OPTION_PORT,
	OPTION_CONTROL_PORT,
	OPTION_READY_FILE,
	OPTION_LEDGER,
	OPTION_TLS_CERT,
	OPTION_TLS_KEY,
	OPTION_THREADS,
	OPTION_DIE_WITH_STDIN,
	OPTION_HELP
};

static const struct option long_options[] = {
	{"port", required_argument, NULL, OPTION_PORT},
	{"control-port", required_argument, NULL, OPTION_CONTROL_PORT},
	{"ready-file", required_argument, NULL, OPTION_READY_FILE},
	{"ledger", required_argument, NULL, OPTION_LEDGER},
	{"tls-cert", required_argument, NULL, OPTION_TLS_CERT},
	{"tls-key", required_argument, NULL, OPTION_TLS_KEY},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"die-with-stdin", no_argument, NULL, OPTION_DIE_WITH_STDIN},
	{"help", no_argument, NULL, OPTION_HELP},
	{"account", required_argument, NULL, OPTION_SETTING},
	{"key", required_argument, NULL, OPTION_SETTING},
	{"sender", required_argument, NULL, OPTION_SETTING},
	{"content", required_argument, NULL, OPTION_SETTING},
	{"latency", required_argument, NULL, OPTION_SETTING},
	{"latency-spread", required_argument, NULL, OPTION_SETTING},
	{"slow", required_argument, NULL, OPTION_SETTING},
	{"concurrency", required_argument, NULL, OPTION_SETTING},
	{"retry-after", required_argument, NULL, OPTION_SETTING},
	{"seed", required_argument, NULL, OPTION_SETTING},
	{"fault", required_argument, NULL, OPTION_SETTING},
	{"to-fault", required_argument, NULL, OPTION_SETTING},
	{"list-lag", required_argument, NULL, OPTION_SETTING},
	{"sent-after", required_argument, NULL, OPTION_SETTING},
	{"deliver-after", required_argument, NULL, OPTION_SETTING},
	{"delivery", required_argument, NULL, OPTION_SETTING},
	{"to-delivery", required_argument, NULL, OPTION_SETTING},
	{"price-after", required_argument, NULL, OPTION_SETTING},
	{"price-unit", required_argument, NULL, OPTION_SETTING},
	{"inbound-url", required_argument, NULL, OPTION_SETTING},
	{"null-dates", required_argument, NULL, OPTION_SETTING},
	{"list-order", required_argument, NULL, OPTION_SETTING},
	{"list-nulls", required_argument, NULL, OPTION_SETTING},
	{"list-insert", required_argument, NULL, OPTION_SETTING},
	{"list-shift", required_argument, NULL, OPTION_SETTING},
	{"redact", required_argument, NULL, OPTION_SETTING},
	{"shorten-links", required_argument, NULL, OPTION_SETTING},
	{"next-page", required_argument, NULL, OPTION_SETTING},
	{"clock-skew", required_argument, NULL, OPTION_SETTING},
	{"hold", required_argument, NULL, OPTION_SETTING},
	{"hold-after", required_argument, NULL, OPTION_SETTING},
	{NULL, 0, NULL, 0}};

typedef struct command_line
{
	int			port;
	int			control_port;
	int			threads;
	const char *ready_file;
	const char *ledger;
	const char *tls_cert;
	const char *tls_key;
	bool		die_with_stdin;
} command_line;

static const char help[] =
	"usage: twilio [OPTION]...\n"
	"  --port N, --control-port N  ports on 127.0.0.1; 0: any\n"
	"  --ready-file F              written once listening: port=, control=\n"
	"  --ledger F                  file to append accepted messages to\n"
	"  --tls-cert F, --tls-key F   the API port speaks TLS\n"
	"  --threads N                 that serve the API port\n"
	"  --die-with-stdin            ends when stdin does\n"
	"Also settings for /set on the control port:\n"
	"  --account SID:TOKEN         repeatable; default ACtest:token\n"
	"  --key SK:SECRET:ACSID       repeatable\n"
	"  --sender NUMBER_OR_MG       repeatable; default: all\n"
	"  --content SID=TEXT          repeatable; a content template\n"
	"  --latency MS, --latency-spread MS (plus or minus)\n"
	"  --slow PERCENT:MS           that share of answers takes that long\n"
	"  --concurrency N             more creates in flight get a 429\n"
	"  --retry-after S             header of 429 answers\n"
	"  --seed N                    of all that is drawn by lot\n"
	"  --fault NAME=PERCENT        repeatable; NAME=#N: the next N\n"
	"  --to-fault +NUMBER=NAME     repeatable; NAME spared: no fault at all\n"
	"  --list-lag MS               until a message shows in lists; what has\n"
	"                              shown keeps showing where it is changed\n"
	"  --list-order created|sent|none  of lists, newest first; none: at random\n"
	"  --list-nulls first|last     by date sent: what is not sent yet\n"
	"  --list-insert 0|1           a new message comes between two pages\n"
	"  --list-shift 0|1            that shifts what is on the next pages\n"
	"  --redact 0|1|hide           messages lose text and number when they\n"
	"                              are sent; hide: and To= does not find them\n"
	"  --shorten-links 0|1         links in texts are rewritten\n"
	"  --next-page path|absolute|ORIGIN  what next_page_uri begins with\n"
	"  --sent-after MS             until date_sent is set; -1: never\n"
	"  --deliver-after MS          until they are delivered; -1: never\n"
	"  --delivery NAME=PERCENT     repeatable; what becomes of them instead:\n"
	"                              undelivered:CODE, failed:CODE, never, read,\n"
	"                              canceled\n"
	"  --to-delivery +NUMBER=NAME  repeatable; of messages to that number\n"
	"  --price-after MS            until they have a price; -1: never\n"
	"  --price-unit CURRENCY       of prices; default USD\n"
	"  --inbound-url URL           callback for inbound messages; none\n"
	"  --null-dates 0|1            date filters match unsent messages\n"
	"  --clock-skew S              added to all dates\n"
	"  --hold 0|1                  creates wait\n"
	"  --hold-after 0|1            ... after being accepted";

static void
usage(void)
{
	puts(help);
	exit(0);
}

static void
take_setting(const char *name, const char *value)
{
	if (!settings_change(text_of(name), text_of(value)))
		fatal("bad value for --%s: %s", name, value);
}

static void
take_option(command_line *line, int option)
{
	if (option == OPTION_PORT)
		line->port = atoi(optarg);
	else if (option == OPTION_CONTROL_PORT)
		line->control_port = atoi(optarg);
	else if (option == OPTION_THREADS)
		line->threads = atoi(optarg);
	else if (option == OPTION_READY_FILE)
		line->ready_file = optarg;
	else if (option == OPTION_LEDGER)
		line->ledger = optarg;
	else if (option == OPTION_TLS_CERT)
		line->tls_cert = optarg;
	else if (option == OPTION_TLS_KEY)
		line->tls_key = optarg;
	else if (option == OPTION_DIE_WITH_STDIN)
		line->die_with_stdin = true;
	else
		usage();
}

static void
read_command_line(int argc, char **argv, command_line *line)
{
	int index;
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1)
	{
		if (option == OPTION_SETTING)
			take_setting(long_options[index].name, optarg);
		else if (option == '?')
			exit(2);
		else
			take_option(line, option);
	}
	if (optind < argc)
		fatal("unexpected argument: %s", argv[optind]);
	if ((line->tls_cert == NULL) != (line->tls_key == NULL))
		fatal("--tls-cert and --tls-key belong together");
}

/* Writes a temporary file and renames it, so that nobody reads half of it. */
static void
write_ready_file(const char *path, int port, int control_port)
{
	buf	  aside = {NULL, 0, 0};
	FILE *file;

	buf_string(&aside, path);
	buf_add(&aside, ".new", 5);
	file = fopen(aside.data, "w");
	if (file == NULL || fprintf(file, "port=%d\ncontrol=%d\n", port, control_port) < 0 ||
		fclose(file) != 0 || rename(aside.data, path) != 0)
		fatal("cannot write %s", path);
	buf_free(&aside);
}

/* Returns a descriptor from which the signals that end the program are read. */
static int
signal_descriptor(void)
{
	sigset_t signals;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static void
raise_file_limit(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int
main(int argc, char **argv)
{
	command_line line = {.threads = 1};
	int			 signals;
	int			 port;
	int			 control_port;

	read_command_line(argc, argv, &line);
	accounts_default();
	raise_file_limit();
	signals = signal_descriptor();
	messages_init();
	if (line.ledger != NULL)
		messages_open_ledger(line.ledger);
	waits_start();
	server_start(line.threads, line.tls_cert, line.tls_key);
	port = listener_open(line.port);
	control_port = control_start(line.control_port);
	if (line.ready_file != NULL)
		write_ready_file(line.ready_file, port, control_port);
	listener_run(line.die_with_stdin, signals);
	control_stop();
	waits_stop();
	server_stop();
	return 0;
}
