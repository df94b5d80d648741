// Command reserve is the webshop's warehouse, a function in Go: it reserves the lines of an order.
package main

import (
	"errors"
	"fmt"

	guest "sallyport/sdk/go"
)

type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Lines    []struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	} `json:"lines"`
}

func init() {
	guest.Handle(reserve)
	// Every event begins with what this one has prepared.
	guest.Rehearse(`{"specversion":"1.0","id":"1","source":"/","type":"order.priced",
		"data":{"id":"o-1","customer":"c-1","lines":[{"sku":"book","quantity":1}]}}`)
}

func main() {}

// reserve stands in for a warehouse: "flaky" is busy the first time, "poison" can never be had.
func reserve(ctx *guest.Context, event *guest.Event) (any, error) {
	var o order
	if err := event.Decode(&o); err != nil {
		return nil, guest.Final(err)
	}
	for _, line := range o.Lines {
		switch {
		case line.SKU == "flaky" && ctx.Attempt() == 1:
			return nil, errors.New("the warehouse is busy")
		case line.SKU == "poison":
			return nil, guest.Final(fmt.Errorf("cannot reserve %q, ever", line.SKU))
		}
	}
	ctx.Infof("order %s is reserved", o.ID)
	return nil, ctx.Publish("order.reserved", map[string]string{"id": o.ID, "customer": o.Customer})
}
