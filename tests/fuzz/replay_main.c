/* Feeds a fuzzer the files it is given, and those in the folders it is given, so that a corpus is run without libFuzzer as well.
 * Exit 1 when there is none, or one cannot be read: a test that fed nothing has tested nothing. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

/* How many files were fed: 1 or -errno. */
static int replay_file(const char *path)
{
	_cleanup_fclose_ FILE *file = fopen(path, "rbe");
	if (!file)
		return -errno;
	struct stat st;
	if (fstat(fileno(file), &st) < 0)
		return -errno;
	/* A block of the very size, so that AddressSanitizer sees a read beyond it. */
	size_t bytes = (size_t)st.st_size;
	_cleanup_free_ uint8_t *data = malloc(bytes);
	if (!data && bytes)
		return -ENOMEM;
	if (bytes && fread(data, 1, bytes, file) != bytes)
		return -EIO;
	LLVMFuzzerTestOneInput(data, bytes);
	return 1;
}

static int replay_folder(const char *path)
{
	_cleanup_closedir_ DIR *folder = opendir(path);
	if (!folder)
		return errno == ENOTDIR ? replay_file(path) : -errno;
	int n = 0;
	for (struct dirent *entry; (entry = readdir(folder));) {
		if (entry->d_name[0] == '.')
			continue;
		_cleanup_free_ char *name = NULL;
		if (asprintf(&name, "%s/%s", path, entry->d_name) < 0)
			return -ENOMEM;
		int r = replay_file(name);
		if (r < 0) {
			fprintf(stderr, "%s: %s\n", name, strerror(-r));
			return r;
		}
		n += r;
	}
	return n;
}

int main(int argc, char **argv)
{
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) {
		int n = replay_folder(argv[i]);
		if (n <= 0) {
			fprintf(stderr, "%s: %s\n", argv[i], n < 0 ? strerror(-n) : "no corpus here");
			return 1;
		}
		printf("%s: %d inputs\n", argv[i], n);
	}
	return argc > 1 ? 0 : 1;
}
