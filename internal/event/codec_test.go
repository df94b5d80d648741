package event_test

import (
	"bytes"
	"encoding/hex"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"sallyport/internal/event"
)

// full is a record with every field set but Behind, which came later.
func full() event.Record {
	return event.Record{
		Event: event.Event{
			ID: "1", Source: "/s", Subject: "sub", Type: "a.b", Time: time.Date(2026, 1, 31, 12, 0, 0, 5, time.UTC),
			DataContentType: "application/json", DataSchema: "/schema",
			Extensions: []event.Attribute{{Name: "a", Value: "x"}, {Name: "flag", Value: "true", Kind: event.AttrBoolean}, {Name: "n", Value: "-3", Kind: event.AttrInteger}},
			Data:       []byte(`{"a":1}`), DataKind: event.DataJSON,
		},
		AcceptedAt: time.Date(2026, 2, 1, 0, 0, 0, 7, time.UTC), Principal: "token:x", Target: "fn", OnlySubscription: "sub",
		Cause: 1 << 40, CauseID: "0", Hops: 3,
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	minimal := event.Record{Event: event.Event{ID: "1", Source: "/s", Type: "t"}, AcceptedAt: time.Unix(1, 0).UTC()}
	binary := full()
	binary.Data, binary.DataKind, binary.Extensions = []byte{0, 255}, event.DataBinary, nil
	caused, kept := full(), minimal
	caused.Behind = event.Behind{Principal: "user:x", Authority: "00ff", Functions: "a@1 b@22"}
	kept.Behind.Authority = "00ff"
	for name, r := range map[string]event.Record{"full": full(), "minimal": minimal, "binary": binary, "caused": caused, "kept": kept} {
		stored := event.AppendRecord([]byte("before"), &r)
		got, err := event.ParseRecord(stored[len("before"):])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(r, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		// The data ends the record without a length of its own; everything before it is framed.
		for i := range len(stored) - len("before") - len(r.Data) {
			if r, err := event.ParseRecord(stored[len("before") : len("before")+i]); err == nil {
				t.Errorf("%s: cut to %d bytes it is read as %+v", name, i, r)
			}
		}
	}
}

// TestJSONRoundTrip: what a function receives is what a producer could have sent.
func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	want := full().Event
	text := event.AppendJSON(nil, &want)
	h := http.Header{"Content-Type": {"application/cloudevents+json"}}
	got, mode, err := event.ParseHTTP(h, text, event.DefaultLimits())
	if err != nil || mode != event.ModeStructured || len(got) != 1 {
		t.Fatalf("ParseHTTP(%s) = %v, %v, %v", text, got, mode, err)
	}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestAppendsDoNotAllocate: both run for every event, into buffers that are used again.
func TestAppendsDoNotAllocate(t *testing.T) {
	r := full()
	room := make([]byte, 0, 4<<10)
	if n := testing.AllocsPerRun(100, func() { room = event.AppendRecord(room[:0], &r) }); n != 0 {
		t.Errorf("AppendRecord allocates %v times; want 0", n)
	}
	if n := testing.AllocsPerRun(100, func() { room = event.AppendJSON(room[:0], &r.Event) }); n != 0 {
		t.Errorf("AppendJSON allocates %v times; want 0", n)
	}
	check := sample()
	if n := testing.AllocsPerRun(100, func() { _ = event.CheckJSON(check, event.DefaultLimits()) }); n != 0 {
		t.Errorf("CheckJSON allocates %v times; want 0", n)
	}
}

// TestRecordForm fixes the stored form: what is on disks must stay readable.
func TestRecordForm(t *testing.T) {
	t.Parallel()
	r := full()
	golden(t, "testdata/record-v1.golden", event.AppendRecord(nil, &r))
	r.Behind = event.Behind{Principal: "user:x", Authority: "00ff", Functions: "a@1 b@22"}
	golden(t, "testdata/record-v1-behind.golden", event.AppendRecord(nil, &r))
}

func TestParseRecordRefuses(t *testing.T) {
	t.Parallel()
	r := full()
	good := event.AppendRecord(nil, &r)
	change := func(i int, c byte) []byte {
		b := bytes.Clone(good)
		b[i] = c
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"other version":   change(0, 2),
		"unknown flag":    change(1, 0xff),
		"unknown kind":    change(2, 9),
		"too large":       make([]byte, 17<<20),
		"endless number":  append([]byte{1, 0, 0}, bytes.Repeat([]byte{0xff}, 40)...),
		"large length":    {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0},
		"nanosecond":      {1, 1, 0, 0, 0, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0, 0, 0, 0, 0, 0},
		"many extensions": {1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f},
		"attribute kind":  {1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0},
	} {
		if r, err := event.ParseRecord(b); err == nil {
			t.Errorf("%s: read as %+v; want an error", name, r)
		}
	}
}

// golden compares got with a file, in hexadecimal.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text := hex.EncodeToString(got); text != strings.TrimSpace(string(want)) {
		t.Errorf("%s: got %s; want %s", path, text, want)
	}
}

func FuzzParseRecord(f *testing.F) {
	r := full()
	f.Add(event.AppendRecord(nil, &r))
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := event.ParseRecord(b)
		if err != nil {
			return
		}
		again, err := event.ParseRecord(event.AppendRecord(nil, &r))
		if err != nil {
			t.Fatalf("a record that was read cannot be read again: %v", err)
		}
		if d := cmp.Diff(r, again); d != "" {
			t.Errorf("(-first +again):\n%s", d)
		}
	})
}

// FuzzParseHTTP: whatever is accepted is within the limits, and stays the same when it goes through
// the JSON format and the stored form.
func FuzzParseHTTP(f *testing.F) {
	f.Add("application/cloudevents+json", "", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,2]},"x":true}`))
	f.Add("application/cloudevents-batch+json", "", []byte(`[{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AA=="}]`))
	f.Add("application/json", "%E2%82%AC", []byte(`[1]`))
	f.Add("text/plain; charset=latin1", "x", []byte("\xff"))
	lim := event.DefaultLimits()
	lim.EventBytes, lim.BatchBytes, lim.BatchEvents = 4<<10, 8<<10, 8
	f.Fuzz(func(t *testing.T, contentType, subject string, body []byte) {
		h := http.Header{
			"Content-Type": {contentType}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Ce-Subject": {subject},
		}
		evs, mode, err := event.ParseHTTP(h, body, lim)
		if err != nil {
			return
		}
		if len(evs) == 0 || len(evs) > lim.BatchEvents || mode != event.ModeBatch && len(evs) != 1 {
			t.Fatalf("%d events in mode %d", len(evs), mode)
		}
		for i := range evs {
			e := &evs[i]
			if e.ID == "" || e.Source == "" || e.Type == "" || len(e.Data) > lim.EventBytes {
				t.Fatalf("accepted %+v", e)
			}
			text := event.AppendJSON(nil, e)
			if !jsontext.Value(text).IsValid() {
				t.Fatalf("AppendJSON made %q", text)
			}
			rec := event.Record{Event: *e, AcceptedAt: time.Unix(1, 0).UTC()}
			got, err := event.ParseRecord(event.AppendRecord(nil, &rec))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(rec, got); d != "" {
				t.Errorf("stored and read again (-want +got):\n%s", d)
			}
			// The JSON form may be longer than what was sent, so only its own limits are wide.
			wide := lim
			wide.EventBytes, wide.StringBytes = 1<<20, 1<<20
			again, _, err := event.ParseHTTP(http.Header{"Content-Type": {structuredType}}, text, wide)
			if err != nil {
				t.Fatalf("what a function receives is refused: %v\n%s", err, text)
			}
			want := *e
			if want.DataKind == event.DataJSON { // the space around it is no part of it
				want.Data = bytes.Trim(want.Data, " \t\r\n")
			}
			if d := cmp.Diff(want, again[0]); d != "" {
				t.Errorf("as JSON and read again (-want +got):\n%s", d)
			}
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	r := full()
	r.Data = sample()
	var room []byte
	b.ReportAllocs()
	for b.Loop() {
		room = event.AppendRecord(room[:0], &r)
	}
}

func BenchmarkParseRecord(b *testing.B) {
	r := full()
	r.Data = sample()
	stored := event.AppendRecord(nil, &r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.ParseRecord(stored); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	r := full()
	r.Data = sample()
	var room []byte
	b.ReportAllocs()
	for b.Loop() {
		room = event.AppendJSON(room[:0], &r.Event)
	}
}
