package event_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/internal/event"
	"sallyport/internal/problem"
)

const (
	structuredType = "application/cloudevents+json"
	batchType      = "application/cloudevents-batch+json"
)

// headers returns the headers of the smallest event in binary mode, changed by pairs of name and value;
// the value "-" takes a header away.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"} {
		h.Set(name, value)
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			h.Del(pairs[i])
		} else {
			h.Add(pairs[i], pairs[i+1])
		}
	}
	return h
}

func parseOne(t *testing.T, h http.Header, body string) (event.Event, error) {
	t.Helper()
	evs, _, err := event.ParseHTTP(h, []byte(body), event.DefaultLimits())
	if err != nil {
		if evs != nil {
			t.Errorf("ParseHTTP returns events with the error %v", err)
		}
		return event.Event{}, err
	}
	if len(evs) != 1 {
		t.Fatalf("ParseHTTP = %d events; want 1", len(evs))
	}
	return evs[0], nil
}

func TestParseBinary(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 11, 0, 0, 5e8, time.UTC)
	tests := []struct {
		name string
		h    http.Header
		body string
		want event.Event
	}{
		{"least", headers(), "", event.Event{ID: "1", Source: "/s", Type: "t"}},
		{
			"all", headers("Content-Type", "application/json", "ce-subject", "o-1", "ce-time", "2026-01-31T12:00:00.5+01:00",
				"ce-dataschema", "https://example.org/s", "ce-zone", "eu", "ce-alpha", "7", "Accept", "*/*"), `{"a":1}`,
			event.Event{
				ID: "1", Source: "/s", Type: "t", Subject: "o-1", Time: at, DataContentType: "application/json", DataSchema: "https://example.org/s",
				Extensions: []event.Attribute{{Name: "alpha", Value: "7"}, {Name: "zone", Value: "eu"}}, Data: []byte(`{"a":1}`), DataKind: event.DataJSON,
			},
		},
		{"other JSON type", headers("Content-Type", "Application/Problem+JSON; charset=UTF-8"), ` [1] `, event.Event{
			ID: "1", Source: "/s", Type: "t", DataContentType: "Application/Problem+JSON; charset=UTF-8", Data: []byte(" [1] "), DataKind: event.DataJSON,
		}},
		{"bytes", headers("Content-Type", "image/png"), "\x89\xff", event.Event{
			ID: "1", Source: "/s", Type: "t", DataContentType: "image/png", Data: []byte("\x89\xff"), DataKind: event.DataBinary,
		}},
		{"no type is no JSON", headers(), "{", event.Event{ID: "1", Source: "/s", Type: "t", Data: []byte("{"), DataKind: event.DataBinary}},
		{"percent", headers("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80%25"), "", event.Event{ID: "1", Source: "/s", Type: "t", Subject: "Euro € 😀%"}},
		{"quotes", headers("ce-subject", `"a \"b\" \\%20"`), "", event.Event{ID: "1", Source: "/s", Type: "t", Subject: `a "b" \ `}},
		{"traceparent", headers("ce-traceparent", "00-x"), "", event.Event{
			ID: "1", Source: "/s", Type: "t", Extensions: []event.Attribute{{Name: "traceparent", Value: "00-x"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseOne(t, tt.h, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseHTTP (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBinaryRefuses(t *testing.T) {
	t.Parallel()
	const (
		bad         = "event.invalid"
		unsupported = "event.unsupported_format"
		reserved    = "event.reserved_extension"
	)
	tests := []struct {
		name string
		h    http.Header
		body string
		code string
		say  string // part of the sentence
	}{
		{"no event", http.Header{"Content-Type": {"application/json"}}, "{}", unsupported, ""},
		{"no id", headers("ce-id", "-"), "", bad, "ce-id"},
		{"empty id", headers("ce-id", "-", "ce-id", ""), "", bad, "ce-id"},
		{"no source", headers("ce-source", "-"), "", bad, "ce-source"},
		{"no type", headers("ce-type", "-"), "", bad, "ce-type"},
		{"other version", headers("ce-specversion", "-", "ce-specversion", "0.3"), "", bad, "ce-specversion"},
		{"id twice", headers("ce-id", "2"), "", bad, "more than once"},
		{"extension twice", headers("ce-x", "1", "ce-x", "2"), "", bad, "ce-x"},
		{"two content types", headers("Content-Type", "text/plain", "Content-Type", "application/json"), "", unsupported, ""},
		{"star in type", headers("ce-type", "-", "ce-type", "a.*"), "", bad, "ce-type"},
		{"space in source", headers("ce-source", "-", "ce-source", "/a b"), "", bad, "ce-source"},
		{"bad percent in source", headers("ce-source", "-", "ce-source", "/a%25zz"), "", bad, "ce-source"},
		{"bad schema", headers("ce-dataschema", "<x>"), "", bad, "ce-dataschema"},
		{"time without zone", headers("ce-time", "2026-01-31T12:00:00"), "", bad, "ce-time"},
		{"time with comma", headers("ce-time", "2026-01-31T12:00:00,5Z"), "", bad, "ce-time"},
		{"time with short hour", headers("ce-time", "2026-01-31T2:00:00Z"), "", bad, "ce-time"},
		{"time with wide zone", headers("ce-time", "2026-01-31T12:00:00+24:00"), "", bad, "ce-time"},
		{"time in small letters", headers("ce-time", "2026-01-31t12:00:00z"), "", bad, "ce-time"},
		{"time is a date", headers("ce-time", "2026-01-31"), "", bad, "ce-time"},
		{"time out of years", headers("ce-time", "9999-12-31T23:59:59-01:00"), "", bad, "ce-time"},
		{"year 0", headers("ce-time", "0000-12-31T23:59:59Z"), "", bad, "ce-time"},
		{"bad percent", headers("ce-subject", "a%2"), "", bad, "ce-subject"},
		{"percent to invalid UTF-8", headers("ce-subject", "%FF"), "", bad, "UTF-8"},
		{"raw invalid UTF-8", headers("ce-subject", "\xff"), "", bad, "UTF-8"},
		{"open quote", headers("ce-subject", `"a`), "", bad, "ce-subject"},
		{"open escape", headers("ce-subject", `"a\`), "", bad, "ce-subject"},
		{"control character", headers("ce-subject", "a%0Ab"), "", bad, "ce-subject"},
		{"control character in extension", headers("ce-x", "a%00"), "", bad, "ce-x"},
		{"noncharacter", headers("ce-subject", "%EF%BF%BF"), "", bad, "ce-subject"},
		{"long value", headers("ce-subject", strings.Repeat("a", 2049)), "", bad, "2048"},
		{"long content type", headers("Content-Type", "text/"+strings.Repeat("a", 2049)), "", bad, "Content-Type"},
		{"datacontenttype", headers("ce-datacontenttype", "text/plain"), "", bad, "Content-Type"},
		{"data as attribute", headers("ce-data", "1"), "", bad, "name"},
		{"underscore in name", headers("ce-a_b", "1"), "", bad, "name"},
		{"hyphen in name", headers("ce-a-b", "1"), "", bad, "name"},
		{"empty name", headers("ce-", "1"), "", bad, "name"},
		{"long name", headers("ce-"+strings.Repeat("a", 65), "1"), "", bad, "name"},
		{"reserved", headers("ce-authid", "me"), "", reserved, "authid"},
		{"reserved in capitals", headers("CE-HOPS", "0"), "", reserved, "hops"},
		{"other format", headers("Content-Type", "application/cloudevents+avro"), "", unsupported, "avro"},
		{"bad content type", headers("Content-Type", "application"+"/;"), "", unsupported, ""},
		{"other charset", headers("Content-Type", "application/json; charset=utf-16"), "1", unsupported, "utf-16"},
		{"bad JSON", headers("Content-Type", "application/json"), "{", malformed, ""},
		{"duplicate key", headers("Content-Type", "application/vnd.x+json"), `{"a":1,"a":1}`, duplicate, ""},
		{"large", headers(), strings.Repeat("x", 1<<20+1), "event.too_large", "1048576"},
		{"large with attributes", headers(), strings.Repeat("x", 1<<20), "event.too_large", "1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseOne(t, tt.h, tt.body)
			p, ok := errors.AsType[*problem.Error](err)
			if !ok || p.Code != tt.code || !strings.Contains(p.Public, tt.say) {
				t.Errorf("ParseHTTP = %v; want %s with %q", err, tt.code, tt.say)
			}
		})
	}
}

func TestParseBinaryManyExtensions(t *testing.T) {
	t.Parallel()
	h := headers()
	for i := range 33 {
		h.Set("ce-x"+strings.Repeat("y", i), "1")
	}
	if _, err := parseOne(t, h, ""); faultOf(t, err).Code != "event.invalid" {
		t.Errorf("ParseHTTP with 33 extensions = %v; want event.invalid", err)
	}
}

const least = `"specversion":"1.0","id":"1","source":"/s","type":"t"`

func TestParseStructured(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, body string
		want       event.Event
	}{
		{"JSON data, as it stands", `{` + least + `,"data" : {"b" : 1.50} }`, event.Event{Data: []byte(`{"b" : 1.50}`), DataKind: event.DataJSON}},
		{"null data", `{` + least + `,"data":null}`, event.Event{Data: []byte(`null`), DataKind: event.DataJSON}},
		{"null attributes", `{` + least + `,"subject":null,"data_base64":null,"x":null}`, event.Event{}},
		{"escaped", `{` + least + `,"sub\u006aect":"\u20ac\/"}`, event.Event{Subject: "€/"}},
		{"text", `{` + least + `,"datacontenttype":"text/plain","data":"a\n"}`, event.Event{DataContentType: "text/plain", Data: []byte("a\n"), DataKind: event.DataBinary}},
		{"no text", `{` + least + `,"datacontenttype":"text/plain","data":""}`, event.Event{DataContentType: "text/plain"}},
		{"base64", `{` + least + `,"data_base64":"AP8="}`, event.Event{Data: []byte{0, 255}, DataKind: event.DataBinary}},
		{"no base64", `{` + least + `,"data_base64":""}`, event.Event{}},
		{"base64 of JSON", `{` + least + `,"datacontenttype":"application/json","data_base64":"WzFd"}`, event.Event{DataContentType: "application/json", Data: []byte("[1]"), DataKind: event.DataJSON}},
		{"kinds", `{"b":true,"i":-12,"s":"",` + least + `}`, event.Event{Extensions: []event.Attribute{
			{Name: "b", Value: "true", Kind: event.AttrBoolean}, {Name: "i", Value: "-12", Kind: event.AttrInteger}, {Name: "s"},
		}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.ID, tt.want.Source, tt.want.Type = "1", "/s", "t"
			got, err := parseOne(t, http.Header{"Content-Type": {structuredType + "; charset=utf-8"}}, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseHTTP(%s) (-want +got):\n%s", tt.body, diff)
			}
		})
	}
}

func TestParseStructuredRefuses(t *testing.T) {
	t.Parallel()
	const bad = "event.invalid"
	tests := []struct {
		name, body string
		want       fault
	}{
		{"nothing", ` `, fault{malformed, ""}},
		{"array", `[]`, fault{bad, ""}},
		{"empty", `{}`, fault{bad, "/specversion"}},
		{"trailing", `{` + least + `} x`, fault{malformed, ""}},
		{"duplicate", `{` + least + `,"id":"2"}`, fault{duplicate, "/id"}},
		{"duplicate, escaped", `{` + least + `,"\u0069d":"2"}`, fault{duplicate, "/id"}},
		{"duplicate in data", `{` + least + `,"data":{"a":{"b":1,"b":2}}}`, fault{duplicate, "/data/a/b"}},
		{"number as id", `{"specversion":"1.0","id":1,"source":"/s","type":"t"}`, fault{bad, "/id"}},
		{"null id", `{"specversion":"1.0","id":null,"source":"/s","type":"t"}`, fault{bad, "/id"}},
		{"empty subject", `{` + least + `,"subject":""}`, fault{bad, "/subject"}},
		{"control character", `{` + least + `,"x":"\u0000"}`, fault{bad, "/x"}},
		{"long attribute", `{` + least + `,"x":"` + strings.Repeat("a", 2049) + `"}`, fault{bad, "/x"}},
		{"object attribute", `{` + least + `,"x":{}}`, fault{bad, "/x"}},
		{"fraction attribute", `{` + least + `,"x":1.5}`, fault{bad, "/x"}},
		{"long integer attribute", `{` + least + `,"x":2147483648}`, fault{bad, "/x"}},
		{"minus zero", `{` + least + `,"x":-0}`, fault{bad, "/x"}},
		{"capital in name", `{` + least + `,"X":1}`, fault{bad, "/X"}},
		{"empty name", `{` + least + `,"":1}`, fault{bad, "/"}},
		{"reserved", `{` + least + `,"recordedtime":"x"}`, fault{"event.reserved_extension", "/recordedtime"}},
		{"data twice", `{` + least + `,"data":1,"data_base64":"AA=="}`, fault{bad, "/data_base64"}},
		{"base64 of number", `{` + least + `,"data_base64":1}`, fault{bad, "/data_base64"}},
		{"bad base64", `{` + least + `,"data_base64":"A"}`, fault{bad, "/data_base64"}},
		{"loose base64", `{` + least + `,"data_base64":"AB=="}`, fault{bad, "/data_base64"}},
		{"base64 with lines", `{` + least + `,"data_base64":"AP\n8="}`, fault{bad, "/data_base64"}},
		{"base64 of bad JSON", `{` + least + `,"datacontenttype":"application/json","data_base64":"eyJhIjoxLCJhIjoxfQ=="}`, fault{duplicate, "/data_base64"}},
		{"object as text", `{` + least + `,"datacontenttype":"text/plain","data":{}}`, fault{bad, "/data"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseOne(t, http.Header{"Content-Type": {structuredType}}, tt.body)
			if diff := cmp.Diff(tt.want, faultOf(t, err)); diff != "" {
				t.Errorf("ParseHTTP(%s) = %v (-want +got):\n%s", tt.body, err, diff)
			}
		})
	}
}

func TestParseBatch(t *testing.T) {
	t.Parallel()
	ev := func(more string) string { return `{` + least + more + `}` }
	tests := []struct {
		name, body string
		n          int
		want       fault
	}{
		{"one", `[` + ev("") + `]`, 1, fault{}},
		{"three", ` [ ` + ev("") + ` , ` + ev(`,"data":[[[1]]]`) + `,` + ev(`,"x":1`) + ` ] `, 3, fault{}},
		{"nothing", ``, 0, fault{Code: malformed}},
		{"empty", `[]`, 0, fault{Code: "event.invalid"}},
		{"object", ev(""), 0, fault{Code: "event.invalid"}},
		{"number", `[1]`, 0, fault{"event.invalid", "/0"}},
		{"four", `[` + strings.Repeat(ev("")+",", 3) + ev("") + `]`, 0, fault{Code: "event.too_many"}},
		{"second without id", `[` + ev("") + `,{"specversion":"1.0"}]`, 0, fault{"event.invalid", "/1/id"}},
		{"second has a reserved attribute", `[` + ev("") + `,` + ev(`,"hops":0`) + `]`, 0, fault{"event.reserved_extension", "/1/hops"}},
		{"second has a bad attribute", `[` + ev("") + `,` + ev(`,"X":0`) + `]`, 0, fault{"event.invalid", "/1/X"}},
		{"second has data too deep", `[` + ev("") + `,` + ev(`,"data":[[[[1]]]]`) + `]`, 0, fault{limit, "/1/data/0/0/0"}},
		{"second is large", `[` + ev("") + `,` + ev(`,"data":[`+strings.Repeat(`"1234567",`, 20)+`1]`) + `]`, 0, fault{"event.too_large", "/1"}},
		{"cut", `[` + ev("") + `,`, 0, fault{malformed, "/1"}},
		{"trailing", `[` + ev("") + `]]`, 0, fault{Code: malformed}},
		{"large", `[` + strings.Repeat(" ", 2000) + ev("") + `]`, 0, fault{Code: "event.too_large"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lim := event.DefaultLimits()
			lim.EventBytes, lim.BatchBytes, lim.BatchEvents, lim.Depth = 200, 1000, 3, 3
			evs, mode, err := event.ParseHTTP(http.Header{"Content-Type": {batchType}}, []byte(tt.body), lim)
			if diff := cmp.Diff(tt.want, faultOf(t, err)); diff != "" || len(evs) != tt.n || err == nil && mode != event.ModeBatch {
				t.Errorf("ParseHTTP(%s) = %d events, mode %d, %v (-want +got):\n%s", tt.body, len(evs), mode, err, diff)
			}
		})
	}
}

// TestBatchRepeats: attributes that repeat those of the event before are the same, those that do not are
// the event's own, and nothing passes because it, or nothing, stood in the event before.
func TestBatchRepeats(t *testing.T) {
	t.Parallel()
	const start = `"specversion":"1.0","id":"1","source":"/s","type":"t"`
	full := `{` + start + `,"subject":"a","datacontenttype":"text/plain","dataschema":"/x"}`
	for _, tt := range []struct {
		name, second string
		want         fault
	}{
		{"the same", full, fault{}},
		{"less", `{` + start + `}`, fault{}},
		{"other", `{"specversion":"1.0","id":"2","source":"/s2","type":"t2","subject":"b","datacontenttype":"text/html","dataschema":"/y"}`, fault{}},
		{"escaped", `{"specversion":"1.0","id":"1","source":"\/s","type":"\u0074","subject":"\u0061"}`, fault{}},
		{"longer", `{"specversion":"1.0","id":"1","source":"/s/s","type":"tt","subject":"aa"}`, fault{}},
		{"empty subject", `{` + start + `,"subject":""}`, fault{"event.invalid", "/1/subject"}},
		{"no type", `{"specversion":"1.0","id":"1","source":"/s"}`, fault{"event.invalid", "/1/type"}},
		{"type for source", `{"specversion":"1.0","id":"1","source":"t t","type":"t"}`, fault{"event.invalid", "/1/source"}},
		{"source for type", `{"specversion":"1.0","id":"1","source":"/s","type":"t t"}`, fault{"event.invalid", "/1/type"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			evs, _, err := event.ParseHTTP(http.Header{"Content-Type": {batchType}}, []byte(`[`+full+`,`+tt.second+`]`), event.DefaultLimits())
			alone, _, aloneErr := event.ParseHTTP(http.Header{"Content-Type": {structuredType}}, []byte(tt.second), event.DefaultLimits())
			if diff := cmp.Diff(tt.want, faultOf(t, err)); diff != "" || (err == nil) != (aloneErr == nil) {
				t.Fatalf("second event: %v in a batch, %v alone (-want +got):\n%s", err, aloneErr, diff)
			}
			if err == nil {
				if diff := cmp.Diff(alone[0], evs[1]); diff != "" {
					t.Errorf("the event differs from itself alone (-alone +in a batch):\n%s", diff)
				}
			}
		})
	}
}

// TestDepthIsTheSameInEveryMode: an event must not be accepted in one mode and refused in another.
func TestDepthIsTheSameInEveryMode(t *testing.T) {
	t.Parallel()
	lim := event.DefaultLimits()
	for depth, ok := range map[int]bool{lim.Depth: true, lim.Depth + 1: false} {
		data := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		for name, request := range map[string]struct {
			h    http.Header
			body string
		}{
			"binary":     {headers("Content-Type", "application/json"), data},
			"structured": {http.Header{"Content-Type": {structuredType}}, `{` + least + `,"data":` + data + `}`},
			"batch":      {http.Header{"Content-Type": {batchType}}, `[{` + least + `,"data":` + data + `}]`},
		} {
			if _, _, err := event.ParseHTTP(request.h, []byte(request.body), lim); (err == nil) != ok {
				t.Errorf("%s: data of depth %d: %v; want accepted %v", name, depth, err, ok)
			}
		}
	}
}

// TestModesAgree sends one event in each mode.
func TestModesAgree(t *testing.T) {
	t.Parallel()
	binary, err := parseOne(t, headers("Content-Type", "application/json", "ce-subject", "%E2%82%AC", "ce-region", "eu"), `{"a":[1,2]}`)
	if err != nil {
		t.Fatal(err)
	}
	text := string(event.AppendJSON(nil, &binary))
	for contentType, body := range map[string]string{structuredType: text, batchType: "[" + text + "]"} {
		got, err := parseOne(t, http.Header{"Content-Type": {contentType}}, body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(binary, got); diff != "" {
			t.Errorf("%s (-binary +got):\n%s", contentType, diff)
		}
	}
}

func TestSetExtension(t *testing.T) {
	t.Parallel()
	shared := []event.Attribute{{Name: "b", Value: "1"}, {Name: "d", Value: "2", Kind: event.AttrInteger}}
	for name, want := range map[string]string{"a": "a b d", "b": "b d", "c": "b c d", "d": "b d", "e": "b d e"} {
		e := event.Event{Extensions: shared}
		e.SetExtension(name, "new")
		var got []string
		for _, a := range e.Extensions {
			got = append(got, a.Name)
		}
		if v, ok := e.Extension(name); !ok || v != "new" || strings.Join(got, " ") != want {
			t.Errorf("SetExtension(%s): %v; want %s", name, e.Extensions, want)
		}
	}
	if shared[0].Value != "1" || shared[1].Value != "2" {
		t.Errorf("SetExtension changed a slice that another event may share: %v", shared)
	}
}

func BenchmarkParseHTTP(b *testing.B) {
	data := string(sample())
	ev := `{` + least + `,"datacontenttype":"application/json","time":"2026-01-31T12:00:00Z","data":` + data + `}`
	for _, bb := range []struct {
		name string
		h    http.Header
		body string
	}{
		{"binary", headers("Content-Type", "application/json", "Accept", "*/*", "User-Agent", "bench", "ce-time", "2026-01-31T12:00:00Z"), data},
		{"structured", http.Header{"Content-Type": {structuredType}}, ev},
		{"batch100", http.Header{"Content-Type": {batchType}}, "[" + strings.Repeat(ev+",", 99) + ev + "]"},
	} {
		body := []byte(bb.body)
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := event.ParseHTTP(bb.h, body, event.DefaultLimits()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
