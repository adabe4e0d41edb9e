package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("before the end")
	os.Exit(7)
}
