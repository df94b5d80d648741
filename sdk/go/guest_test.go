package guest_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	guest "sallyport/sdk/go"
)

const event = `{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","subject":"o-1","time":"2026-01-02T03:04:05Z","hops":2,"data":{"total":7}}`

func TestEvent(t *testing.T) {
	t.Parallel()
	out := guest.Test(func(ctx *guest.Context, e *guest.Event) (any, error) {
		want := &guest.Event{
			ID: "e-1", Source: "/shop", Type: "order.created", Subject: "o-1", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Data: []byte(`{"total":7}`), Extensions: map[string]json.RawMessage{"hops": []byte("2")},
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Errorf("event differs:\n%s", diff)
		}
		var order struct{ Total int }
		if err := e.Decode(&order); err != nil {
			return nil, err
		}
		ctx.Warnf("total %d, attempt %d", order.Total, ctx.Attempt())
		if !ctx.Deadline().After(time.Now()) {
			t.Error("the deadline is over")
		}
		return order, ctx.Publish("order.priced", order.Total)
	}, []byte(event))
	want := guest.Outcome{
		Reply:  []byte(`{"Total":7}`),
		Events: []guest.Emitted{{Type: "order.priced", Data: []byte("7")}},
		Log:    []string{"warn total 7, attempt 1"},
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("outcome differs:\n%s", diff)
	}
}

func TestBinaryData(t *testing.T) {
	t.Parallel()
	out := guest.Test(func(_ *guest.Context, e *guest.Event) (any, error) {
		if !e.Binary || string(e.Data) != "\x01\x02" {
			t.Errorf("data = %q, binary %t; want two bytes", e.Data, e.Binary)
		}
		return nil, e.Decode(new(int))
	}, []byte(`{"id":"e-1","data_base64":"AQI="}`))
	if out.Err == nil {
		t.Error("Decode of binary data = nil; want an error")
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	cause := errors.New("no stock")
	for _, tt := range []struct {
		name    string
		handler guest.Handler
		want    string
		final   bool
	}{
		{"error", func(*guest.Context, *guest.Event) (any, error) { return nil, cause }, "no stock", false},
		{"final", func(*guest.Context, *guest.Event) (any, error) { return nil, guest.Final(cause) }, "no stock", true},
		{"later", func(*guest.Context, *guest.Event) (any, error) { return nil, guest.RetryAfter(cause, time.Minute) }, "no stock", false},
		{"panic", func(*guest.Context, *guest.Event) (any, error) { panic("oh") }, "panic: oh", false},
		{"reply", func(*guest.Context, *guest.Event) (any, error) { return make(chan int), nil }, "encode the reply: json: unsupported type: chan int", false},
		{"no handler", nil, "the program has no handler: call guest.Handle in init", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out := guest.Test(tt.handler, []byte(event))
			if out.Err == nil || out.Err.Error() != tt.want || out.Final != tt.final {
				t.Errorf("Test = %v, final %t; want %s, final %t", out.Err, out.Final, tt.want, tt.final)
			}
		})
	}
	if !errors.Is(guest.Final(cause), cause) {
		t.Error("Final hides its cause")
	}
}

func TestBadEvents(t *testing.T) {
	t.Parallel()
	done := func(*guest.Context, *guest.Event) (any, error) { return nil, nil }
	for _, text := range []string{
		``, `[]`, `1`, `{`, `{"id"`, `{"id":`, `{"id":}`, `{"id":"1"`, `{"id":"1}`, `{"id":1}`, `{"id":"1" "type":"t"}`, `{"id":"1"}}`, `{id:"1"}`,
		`{"data":True}`, `{"data":[}`, `{"time":"today"}`, `{"data_base64":"!"}`, `{"hops":}`, "{\"id\":\"\\",
	} {
		if out := guest.Test(done, []byte(text)); out.Err == nil {
			t.Errorf("Test(%s) = nil; want an error", text)
		}
	}
}

// TestResult holds the JSON that the host gets.
func TestResult(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		handler guest.Handler
		want    string
	}{
		{"nothing", func(*guest.Context, *guest.Event) (any, error) { return nil, nil }, `{}`},
		{"reply", func(*guest.Context, *guest.Event) (any, error) { return "a\"b", nil }, `{"reply":"a\"b"}`},
		{"events", func(ctx *guest.Context, _ *guest.Event) (any, error) {
			ctx.PublishEvent(guest.Emitted{Type: "a.b", ID: "1", Subject: "\"ü\n\xff", DataContentType: "image/png", DataBase64: []byte{1}})
			return nil, ctx.Publish("c.d", nil)
		}, `{"events":[{"type":"a.b","id":"1","subject":"\"ü\n\ufffd","datacontenttype":"image/png","data_base64":"AQ=="},{"type":"c.d","data":null}]}`},
		{"both", func(ctx *guest.Context, _ *guest.Event) (any, error) { return 1, ctx.Publish("c.d", 2) }, `{"reply":1,"events":[{"type":"c.d","data":2}]}`},
		{"event that is not JSON", func(ctx *guest.Context, _ *guest.Event) (any, error) {
			ctx.PublishEvent(guest.Emitted{Type: "a.b", Data: []byte(`1],"reply":2`)})
			return nil, nil
		}, `{"error":{"message":"encode the data of a.b: it is not JSON"}}`},
		{"event of a value", func(ctx *guest.Context, _ *guest.Event) (any, error) {
			ctx.PublishEvent(guest.Emitted{Type: "a.b", Value: "x"})
			return nil, nil
		}, `{"events":[{"type":"a.b","data":"x"}]}`},
		{"event of a value that has no JSON", func(ctx *guest.Context, _ *guest.Event) (any, error) {
			ctx.PublishEvent(guest.Emitted{Type: "a.b", Value: func() {}})
			return nil, nil
		}, `{"error":{"message":"encode the data of a.b: json: unsupported type: func()"}}`},
		{"failure", func(*guest.Context, *guest.Event) (any, error) { return 1, guest.Final(errors.New("no")) }, `{"error":{"message":"no","retry":false}}`},
		{"later", func(*guest.Context, *guest.Event) (any, error) {
			return nil, guest.RetryAfter(errors.New("no"), time.Second)
		}, `{"error":{"message":"no","retry_after_seconds":1}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(guest.Run(tt.handler, []byte(event))); got != tt.want {
				t.Errorf("result = %s; want %s", got, tt.want)
			}
		})
	}
}

// FuzzEvent: what encoding/json understands, the scanner understands in the same way.
func FuzzEvent(f *testing.F) {
	for _, seed := range []string{event, `{}`, `{"id":"\u00e4\"","data":{"a":[1,"]}",{}]}, "x" : null }`, `{"data":"\\"}`, `{"subject":null,"data":-1e5}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want map[string]json.RawMessage
		sound := json.Unmarshal(text, &want) == nil && want != nil && utf8.Valid(text)
		out := guest.Test(func(_ *guest.Context, e *guest.Event) (any, error) {
			if !sound {
				return nil, nil
			}
			for name, value := range e.Extensions {
				if string(value) != string(want[name]) {
					t.Errorf("%s = %s; want %s", name, value, want[name])
				}
			}
			var id string
			if json.Unmarshal(want["id"], &id) == nil && id != e.ID {
				t.Errorf("id = %q; want %q", e.ID, id)
			}
			if !e.Binary && string(e.Data) != string(want["data"]) {
				t.Errorf("data = %s; want %s", e.Data, want["data"])
			}
			return nil, nil
		}, text)
		var attributes struct {
			ID, Source, Type, Subject, DataContentType, DataSchema string
			Time, Data_Base64                                      *refused
		}
		if out.Err != nil && sound && json.Unmarshal(text, &attributes) == nil {
			t.Errorf("Test = %v; want the event %s accepted", out.Err, text)
		}
	})
}

// refused is a member that no fuzzed event may have but as null.
type refused struct{}

func (*refused) UnmarshalJSON([]byte) error { return errors.New("refused") }

func BenchmarkHandle(b *testing.B) {
	type line struct {
		SKU      string `json:"sku"`
		Quantity int    `json:"quantity"`
	}
	type order struct {
		ID    string `json:"id"`
		Lines []line `json:"lines"`
	}
	handler := func(ctx *guest.Context, e *guest.Event) (any, error) {
		var o order
		if err := e.Decode(&o); err != nil {
			return nil, err
		}
		return o, ctx.Publish("order.priced", o)
	}
	text := []byte(`{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","subject":"o-1","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json",` +
		`"data":{"id":"o-1","lines":[{"sku":"book","quantity":1},{"sku":"pen","quantity":2},{"sku":"lamp","quantity":3}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		guest.Run(handler, text)
	}
}
