// Command price prices an order: a WASI command, which is any program that reads its standard input
// and writes its standard output. It needs no SDK, and is started anew for each event.
//
//	GOOS=wasip1 GOARCH=wasm go build -o price.wasm .
//
// or `make guests` builds it, `sallyport apply` deploys it. The same function with an SDK is in the
// folders beside this one.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// event is what of an event this program needs; all of it comes on stdin, in the JSON format of
// CloudEvents.
type event struct {
	Data struct {
		ID    string `json:"id"`
		Lines []struct {
			SKU      string `json:"sku"`
			Quantity int64  `json:"quantity"`
			Cents    *int64 `json:"cents"`
		} `json:"lines"`
	} `json:"data"`
}

// result is what goes to stdout.
type result struct {
	Reply  int64     `json:"reply"`
	Events []emitted `json:"events,omitempty"`
	Error  *failure  `json:"error,omitempty"`
}

type emitted struct {
	Type    string `json:"type"`
	Subject string `json:"subject"`
	Data    priced `json:"data"`
}

type priced struct {
	ID    string `json:"id"`
	Total int64  `json:"total"`
}

type failure struct {
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func main() {
	if err := json.NewEncoder(os.Stdout).Encode(price()); err != nil {
		fmt.Fprintln(os.Stderr, "write the result:", err) // the last line is the failure's message
		os.Exit(1)
	}
}

func price() result {
	var e event
	if err := json.NewDecoder(os.Stdin).Decode(&e); err != nil {
		return fail("read the event: %v", err)
	}
	order := e.Data
	if order.ID == "" {
		return fail("the order has no id")
	}
	if len(order.Lines) == 0 {
		return fail("order %s has no lines", order.ID)
	}
	var total int64
	for i, line := range order.Lines {
		if line.Quantity < 1 || line.Quantity > 1000 || line.Cents == nil || *line.Cents < 0 || *line.Cents > 1e9 {
			return fail("line %d of order %s has no quantity or price", i+1, order.ID)
		}
		total += line.Quantity * *line.Cents
	}
	fmt.Fprintf(os.Stderr, "order %s costs %d\n", order.ID, total) // each line on stderr is one of the log
	return result{Reply: total, Events: []emitted{{Type: "order.priced", Subject: order.ID, Data: priced{order.ID, total}}}}
}

// fail returns a failure that rules out another attempt. A program that ends with another code than 0
// is tried again instead.
func fail(format string, args ...any) result {
	return result{Error: &failure{Message: fmt.Sprintf(format, args...)}}
}
