// Command guest is the function that bench runs: it parses an order, adds it up and builds a reply. At an
// event of type "bench.endless" it loops for ever.
package main

import guest "sallyport/sdk/go"

func init() {
	guest.Handle(total)
	guest.Rehearse(`{"specversion":"1.0","id":"1","source":"/","type":"bench.event","datacontenttype":"application/json",
		"data":{"id":"o","customer":"c","currency":"EUR","items":[{"sku":"s","quantity":1,"price":1}],"note":"n"}}`)
}

func main() {}

type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Currency string `json:"currency"`
	Items    []struct {
		SKU      string `json:"sku"`
		Quantity int64  `json:"quantity"`
		Price    int64  `json:"price"`
	} `json:"items"`
	Note string `json:"note"`
}

type bill struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Currency string `json:"currency"`
	Total    int64  `json:"total"`
	Lines    int    `json:"lines"`
}

// variant is overwritten in the compiled module, so that there can be many different ones of this program.
var variant = "bench-variant-00000000"

// spins keeps the loop from being nothing.
var spins uint32

func total(_ *guest.Context, event *guest.Event) (any, error) {
	for event.Type == "bench.endless" {
		spins++
	}
	var o order
	if err := event.Decode(&o); err != nil {
		return nil, guest.Final(err)
	}
	if o.Note == variant {
		return nil, nil
	}
	b := bill{ID: o.ID, Customer: o.Customer, Currency: o.Currency, Lines: len(o.Items)}
	for _, i := range o.Items {
		b.Total += i.Quantity * i.Price
	}
	return b, nil
}
