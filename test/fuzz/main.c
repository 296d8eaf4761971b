/*
 * main.c
 *		Tests the inputs of a corpus, for compilers without libFuzzer: each
 *		argument is a file.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_file(const char *name)
{
	static uint8_t data[1024 * 1024];
	FILE		  *file = fopen(name, "rb");
	size_t		   size;

	if (file == NULL)
	{
		perror(name);
		exit(1);
	}
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	fprintf(stderr, "%s\n", name); /* if the process ends, the last one is the cause */
	(void) LLVMFuzzerTestOneInput(data, size);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		try_file(argv[i]);
	printf("%d inputs\n", argc - 1);
	return 0;
}
