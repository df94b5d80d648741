// Command price prices an order: a function in Go with the SDK.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o price.wasm .
//
// or `make guests` builds it, `sallyport apply` deploys it. The same function in other languages is in
// the folders beside this one.
package main

import (
	"errors"
	"fmt"
	"time"

	guest "sallyport/sdk/go"
)

type order struct {
	ID    string `json:"id"`
	Lines []struct {
		SKU      string `json:"sku"`
		Quantity int64  `json:"quantity"`
		Cents    *int64 `json:"cents"`
	} `json:"lines"`
}

type priced struct {
	ID    string `json:"id"`
	Total int64  `json:"total"`
}

func init() {
	guest.Handle(price)
	guest.Rehearse(`{"specversion":"1.0","id":"1","source":"/","type":"order.created","subject":"o-1","time":"2026-01-01T00:00:00Z",
		"data":{"id":"o-1","lines":[{"sku":"book","quantity":1,"cents":1}]}}`)
}

func main() {}

func price(ctx *guest.Context, event *guest.Event) (any, error) {
	var o order
	if err := event.Decode(&o); err != nil {
		return nil, guest.Final(err)
	}
	if o.ID == "" {
		return nil, guest.Final(errors.New("the order has no id"))
	}
	if len(o.Lines) == 0 {
		return nil, guest.Final(fmt.Errorf("order %s has no lines", o.ID))
	}
	var total int64
	for i, line := range o.Lines {
		if line.SKU == "new" && ctx.Attempt() == 1 { // for an example of a retry
			return nil, guest.RetryAfter(errors.New("the price list is being updated"), time.Second)
		}
		if line.Quantity < 1 || line.Quantity > 1000 || line.Cents == nil || *line.Cents < 0 || *line.Cents > 1e9 {
			return nil, guest.Final(fmt.Errorf("line %d of order %s has no quantity or price", i+1, o.ID))
		}
		total += line.Quantity * *line.Cents
	}
	ctx.Infof("order %s costs %d", o.ID, total)
	ctx.PublishEvent(guest.Emitted{Type: "order.priced", Subject: o.ID, Value: priced{o.ID, total}})
	return total, nil
}
