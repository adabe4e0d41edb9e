package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

func main() {
	counts := map[string]int{}
	words := strings.Fields("b a b")
	for _, word := range words {
		counts[word]++
	}
	sort.Strings(words)
	text, err := json.Marshal(counts)
	if err != nil {
		panic(err)
	}
	fmt.Println(words[0], string(text))
}
