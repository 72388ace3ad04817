/* A short program for the oracle that steps through it (test_cfi_steps): calls of every shape that compilers and libraries make. Its functions
 * of the C library are bound when first called, so the dynamic linker's resolver is stepped through as well. */
#include <alloca.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile int sink;

__attribute__((noinline)) static int many_registers(int a, int b, int c, int d, int e, int f)
{
	int x = a, y = b, z = c;
	for (int i = 0; i < 2; i++) {
		x += rand() % 7 + d;
		y ^= rand() % 5 + e;
		z -= rand() % 3 + f;
	}
	return x * y + z + a + b + c + d + e + f;
}

__attribute__((noinline)) static int unknown_size(size_t n)
{
	char *room = alloca(n);
	memset(room, 1, n);
	return room[n - 1] + sink;
}

__attribute__((noinline)) static int realigned(int n)
{
	_Alignas(64) char aligned[64];
	char *room = alloca((size_t)n);
	memset(aligned, n, sizeof(aligned));
	room[0] = aligned[5];
	sink = room[0];
	return many_registers(n, 2, 3, 4, 5, 6) + room[0];
}

__attribute__((noinline)) static int variadic(int n, ...)
{
	va_list list;
	int sum = 0;
	va_start(list, n);
	for (int i = 0; i < n; i++)
		sum += va_arg(list, int);
	va_end(list);
	return sum;
}

__attribute__((noinline)) static int recursive(int n)
{
	return n ? recursive(n - 1) + sink : realigned(3);
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Large enough for stack probes. */
__attribute__((noinline)) static int large(void)
{
	char room[20000];
	memset(room, 7, sizeof(room));
	sink = room[sink & 1023];
	return room[77];
}

static void on_signal(int number)
{
	int numbers[] = {3, 1, 2, number};
	qsort(numbers, 4, sizeof(numbers[0]), compare);
	sink = numbers[0];
}

int main(void)
{
	char text[128];
	sink = 0;
	sink += many_registers(1, 2, 3, 4, 5, 6) + unknown_size(100) + unknown_size(1) + realigned(9);
	sink += variadic(3, 1, 2, 3) + recursive(4) + large();
	signal(SIGUSR1, on_signal);
	raise(SIGUSR1);
	snprintf(text, sizeof(text), "%d %s %.3f", sink, "text", 1.5);
	sink += (int)strlen(text);
	return sink == -1;
}
