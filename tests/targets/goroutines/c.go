package main

// #include <stdlib.h>
// extern int goFromC(int);
// static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
// static int __attribute__((noinline)) sort_in_c(int n)
// {
//     int *numbers = malloc(n * sizeof(numbers[0])), next = 1;
//     for (int i = 0; i < n; i++)
//         numbers[i] = next = next * 7919 % 10007;
//     qsort(numbers, n, sizeof(numbers[0]), compare);
//     int r = numbers[0];
//     free(numbers);
//     return r;
// }
// static int __attribute__((noinline)) from_go(int depth) { return sort_in_c(300) + goFromC(depth) + 1; }
import "C"

//export goFromC
func goFromC(depth C.int) C.int {
	if depth > 0 {
		return C.from_go(depth - 1)
	}
	return C.int(outer(20))
}

func callC() { C.from_go(2) }
