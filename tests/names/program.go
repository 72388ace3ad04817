package main

import (
	"fmt"
	"sort"
)

type item struct {
	Number int
	Text   string
}

func main() {
	items := []item{{2, "b"}, {1, "a"}}
	sort.Slice(items, func(i, j int) bool { return items[i].Number < items[j].Number })
	fmt.Println(items)
}
