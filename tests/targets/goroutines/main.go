// A Go program that uses what makes its stacks hard to walk, for ever: goroutines whose stacks grow and move, the allocator and the collector, which
// run on the thread's stack, deferred calls, panics of the runtime's own making, signals, the vDSO, and, where cgo is there, C that calls Go again.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sort"
	"syscall"
	"time"
)

type node struct {
	left, right *node
	text        string
}

//go:noinline
func outer(n int) int { return middle(n) + 1 }

//go:noinline
func middle(n int) int { return inner(n) + 1 }

// In the map, the allocator and the sort.
//
//go:noinline
func inner(n int) int {
	m := map[int]string{}
	for i := 0; i < n; i++ {
		m[i*7919%n] = fmt.Sprint(i, time.Now().UnixNano())
	}
	texts := make([]string, 0, n)
	for _, text := range m {
		texts = append(texts, text)
	}
	sort.Strings(texts)
	return len(texts)
}

//go:noinline
func tree(depth int) *node {
	if depth == 0 {
		return &node{text: "leaf"}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

// Deep enough for the stack to be copied to a larger place several times.
//
//go:noinline
func deep(n int) int {
	var used [64]byte
	used[n%64] = 1
	if n == 0 {
		return inner(20)
	}
	return deep(n-1) + int(used[n%64])
}

//go:noinline
func deferred(n int) (r int) {
	defer func() {
		if recover() != nil {
			r = inner(10)
		}
	}()
	if n == 0 {
		var nothing *node
		return len(nothing.text)
	}
	return deferred(n-1) + 1
}

func work() {
	done := make(chan int)
	for {
		outer(300)
		tree(8)
		deferred(4)
		go func() { done <- deep(200) }()
		<-done
		callC()
	}
}

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
		}
	}()
	go func() {
		for {
			syscall.Kill(os.Getpid(), syscall.SIGUSR1)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	go work()
	go work()
	work()
}
