package main

import (
	"fmt"
	"strings"
	"testing"

	guest "sallyport/sdk/go"
)

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		sku   string
		fails string // "" is done
		final bool
	}{
		{sku: "book"},
		{sku: "flaky", fails: "the warehouse is busy"},
		{sku: "poison", fails: `cannot reserve "poison", ever`, final: true},
	} {
		t.Run(tt.sku, func(t *testing.T) {
			got := guest.Test(reserve, fmt.Appendf(nil, `{"specversion":"1.0","id":"1","source":"/test","type":"order.priced",
				"data":{"id":"o-1","customer":"ada","total":1,"lines":[{"sku":"book","quantity":1},{"sku":%q,"quantity":2}]}}`, tt.sku))
			if tt.fails != "" {
				if got.Err == nil || got.Err.Error() != tt.fails || got.Final != tt.final || len(got.Events) != 0 {
					t.Errorf("reserve = %v (final %v, %d events), want %s (final %v)", got.Err, got.Final, len(got.Events), tt.fails, tt.final)
				}
				return
			}
			if got.Err != nil || len(got.Events) != 1 || got.Events[0].Type != "order.reserved" ||
				string(got.Events[0].Data) != `{"customer":"ada","id":"o-1"}` || !strings.Contains(strings.Join(got.Log, "\n"), "o-1") {
				t.Errorf("reserve = %+v", got)
			}
		})
	}
}

func TestReserveRefusesOtherData(t *testing.T) {
	got := guest.Test(reserve, []byte(`{"specversion":"1.0","id":"1","source":"/test","type":"order.priced","data":[1]}`))
	if got.Err == nil || !got.Final {
		t.Errorf("reserve = %v (final %v), want a failure for good", got.Err, got.Final)
	}
}
