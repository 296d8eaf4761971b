/*-------------------------------------------------------------------------
 *
 * authorities.c
 *	  Which authorities' certificates a request trusts.
 *
 * Debian, and others, have the system's twice: in one file, and in a directory
 * where each can be found by a hash of its name.  libcurl uses both.  To parse
 * the file takes many times as long as the rest of a handshake; and libcurl,
 * which could keep it for the next connection, does not if there is a directory
 * as well.  So only the directory is used, until a certificate cannot
 * be verified by that: perhaps its authority has been added to the file only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>

#include "twilio/authorities.h"

/* libcurl keeps what it has parsed for so long, in s; a file may be replaced. */
#define KEEP_PARSED 60L

static bool directory_failed = false;

/* Tells whether a file is named as OpenSSL looks for it: "5ed36f99.0". */
static bool
is_hashed(const char *name)
{
	return strlen(name) == 10 && strspn(name, "0123456789abcdef") == 8 && name[8] == '.' &&
		   name[9] >= '0' && name[9] <= '9';
}

/* Tells whether the system has such a directory; looks once. */
static bool
has_directory(void)
{
	static int	has = -1;
	const char *path = curl_version_info(CURLVERSION_NOW)->capath;
	DIR		   *directory;

	if (has >= 0)
		return has;
	has = false;
	directory = path ? opendir(path) : NULL;
	if (directory == NULL)
		return false;
	for (struct dirent *entry = readdir(directory); entry && !has; entry = readdir(directory))
		has = is_hashed(entry->d_name);
	closedir(directory);
	return has;
}

bool
set_authorities(CURL *easy, const char *ca_file)
{
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, KEEP_PARSED);
#endif
	if (ca_file && ca_file[0])
		return curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file) == CURLE_OK &&
			   curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK;
	if (!has_directory())
		return true;
	/* the handle may have been used before, with other certificates */
	return curl_easy_setopt(easy, CURLOPT_CAPATH, curl_version_info(CURLVERSION_NOW)->capath) ==
			   CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_CAINFO,
							directory_failed ? curl_version_info(CURLVERSION_NOW)->cainfo : NULL) ==
			   CURLE_OK;
}

void
notice_verification(CURLcode result)
{
	directory_failed |= result == CURLE_PEER_FAILED_VERIFICATION;
}
