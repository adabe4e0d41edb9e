package main

import (
	"fmt"
	"os"
)

func main() {
	text, err := os.ReadFile("données.txt")
	if err != nil {
		panic(err)
	}
	if err := os.Mkdir("out", 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile("out/copy.txt", append(text, "more\n"...), 0o644); err != nil {
		panic(err)
	}
	fmt.Println("written")
}
