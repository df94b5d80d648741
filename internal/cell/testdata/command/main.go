// Command command is a function in the form of a WASI command, which the tests of package cell build
// for WebAssembly. The data of the event says what it does.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	var event struct {
		ID   string
		Data struct{ What, Text string }
	}
	if err := json.Unmarshal(text, &event); err != nil {
		panic(err)
	}
	switch event.Data.What {
	case "reply":
		fmt.Fprintln(os.Stderr, "handling", event.ID)
		fmt.Printf(`{"reply":{"id":%q,"text":%q},"events":[{"type":"test.made","data":1}]}`, event.ID, event.Data.Text)
	case "fail":
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprintln(os.Stderr, event.Data.Text)
		os.Exit(1)
	case "flood":
		for line := strings.Repeat("x", 1000); ; {
			fmt.Println(line)
		}
	case "shout":
		for range 10_000 {
			fmt.Fprintln(os.Stderr, strings.Repeat("y", 1000))
		}
	case "nothing":
	default:
		fmt.Print(event.Data.Text)
	}
}
